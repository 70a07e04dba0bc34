"""
Who pays, as a note that a message carries to a worker: user, session, plan and metadata, as JSON text.

The worker believes of it what the producer's own ``paygent_context`` could have said, and nothing else: a
note never exempts a call, never leaves it to another bracket, and never turns the gate into a report.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from paygent._once import Once
from paygent.context import Payer, checked_session_id, checked_user_id, current_payer

log = logging.getLogger("paygent")

NOTE = "paygent"  # the header, option or meta field with the note
METADATA_BYTES_MAX = 4096
NOTE_BYTES_MAX = 24_576  # three ids at their longest, in escaped JSON, and the metadata
PLAN_LENGTH_MAX = 512

_told = Once()


def note() -> str | None:
    """
    Return a note of who pays here and now; ``None``: nobody, or the calls here are exempt.

    A user who is only found out when he is needed is found out now. A fault is logged and makes no note.
    """
    payer = current_payer()
    if payer is None or payer.exempt:
        return None
    try:
        return _written(payer)
    except Exception:
        log.exception("paygent could not note who pays for a task: its calls will belong to nobody")
        return None


def noted_payer(text: object) -> Payer | None:
    """Return who pays as *text* says; ``None`` for no note, and, with a warning, for one that is wrong."""
    if text is None:
        return None
    try:
        return _read(text)
    except (ValueError, TypeError, RecursionError) as error:
        _say_once(f"a task's note of who pays is left out: {error}")
        return None


def _written(payer: Payer) -> str | None:
    if payer.user_id is None and payer.resolve is not None:
        payer.user_id = checked_user_id(payer.resolve())
    if payer.user_id is None:
        return None
    said = {
        "user_id": payer.user_id,
        "session_id": payer.session_id,
        "plan": payer.plan,
        "metadata": _metadata(payer.metadata),
    }
    return json.dumps({name: value for name, value in said.items() if value is not None})


def _metadata(metadata: Mapping[str, Any] | None) -> Any:
    """The metadata as JSON has it; what is too long or cannot be written stays behind, with a warning."""
    if not metadata:
        return None
    try:
        text = json.dumps(dict(metadata), default=str, skipkeys=True)
    except (ValueError, TypeError, RecursionError) as error:
        _say_once(f"the metadata of a task stays behind: it is no JSON ({type(error).__name__})")
        return None
    if len(text) > METADATA_BYTES_MAX:
        _say_once(f"the metadata of a task stays behind: longer than {METADATA_BYTES_MAX} bytes")
        return None
    return json.loads(text)


def _read(text: object) -> Payer:
    if not isinstance(text, str):
        raise TypeError(f"it is {type(text).__name__}, not text")
    if len(text) > NOTE_BYTES_MAX:
        raise ValueError(f"it is longer than {NOTE_BYTES_MAX} bytes")
    said = _parsed(text)
    for name in ("user_id", "session_id", "plan"):
        if not isinstance(said.get(name), (str, type(None))):
            raise TypeError(f"its {name} is no text")
    user_id = checked_user_id(said.get("user_id"))
    if user_id is None:
        raise ValueError("it names no user")
    session_id = checked_session_id(said.get("session_id"))
    return Payer(user_id, session_id, _plan(said.get("plan")), _checked_metadata(said.get("metadata")))


def _parsed(text: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except ValueError:
        raise ValueError("it is no JSON") from None
    if not isinstance(said, dict):
        raise TypeError("it is no object")
    return said


def _plan(plan: str | None) -> str | None:
    if plan is None:
        return None
    if not plan or len(plan) > PLAN_LENGTH_MAX:
        raise ValueError(f"its plan must have 1 to {PLAN_LENGTH_MAX} characters")
    try:
        plan.encode()
    except UnicodeEncodeError:
        raise ValueError("its plan holds a lone surrogate") from None
    return plan


def _checked_metadata(metadata: object) -> dict[str, Any] | None:
    if metadata is None:
        return None
    if not isinstance(metadata, dict):
        raise TypeError("its metadata is no object")
    return metadata


def _say_once(message: str) -> None:
    """Warn once per process of each kind of fault; what a message held is not repeated in the log."""
    if _told.is_new(message):
        log.warning("%s", message)
