"""Fields of posted JSON: read with their types and bounds, refused by name."""

from __future__ import annotations

import re
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from paygent.core.bounds import (
    EVENT_TOKENS_MAX,
    ID_LENGTH_MAX,
    ID_STORED_MAX,
    stored_length,
)
from paygent.core.windows import to_us

NAME_LENGTH_MAX = 512
MOMENT_MAX_US = 7_258_118_400_000_000  # the year 2200: what lies beyond is no call
_NUMBER_MAX = 1e18

T = TypeVar("T")
_fraction = re.compile(r"\.([0-9]+)")
_is_period = re.compile(r"p-?[0-9]{1,17}").fullmatch
_is_session = re.compile(rf"s[0-9]{{1,17}}:.{{1,{ID_LENGTH_MAX}}}", re.DOTALL).fullmatch
_is_uuid = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch


class WireError(ValueError):
    """A value that cannot be what its field says; ``field`` is its path, ``detail`` one sentence."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail


def required_text(said: Mapping[str, Any], name: str) -> str:
    """
    A text of 1 to 512 characters.

    Raises:
        WireError: It is none.
    """
    text = text_of(said, name, NAME_LENGTH_MAX)
    if not text:
        raise WireError(name, "is required")
    return text


def required_id(said: Mapping[str, Any], name: str) -> str:
    """
    The name of a user or a session, of 1 to 512 characters.

    Raises:
        WireError: It is none, or no database can hold it.
    """
    return _checked_id(required_text(said, name), name)


def id_of(said: Mapping[str, Any], name: str) -> str | None:
    """
    The same where it may be missing or empty.

    Raises:
        WireError: As :func:`required_id`.
    """
    text = text_of(said, name, ID_LENGTH_MAX)
    return _checked_id(text, name) if text else text


def _checked_id(text: str, name: str) -> str:
    if len(text) > ID_STORED_MAX // 2 and stored_length(text) > ID_STORED_MAX:
        raise WireError(name, "holds more NULs than a database can store")
    return text


def uuid_of(said: Mapping[str, Any]) -> str:
    """
    The field ``id``, in the one form in which ids are compared.

    Raises:
        WireError: It is no UUID.
    """
    value = said.get("id")
    if type(value) is str:
        if _is_uuid(value):
            return value
        try:
            return str(uuid.UUID(value))
        except ValueError:
            pass
    raise WireError("id", "must be a UUID")


def moment_us(said: Mapping[str, Any], name: str) -> int:
    """
    A moment in microseconds since the epoch; one without an offset is UTC.

    Raises:
        WireError: It is no ISO 8601 date and time.
    """
    value = said.get(name)
    try:
        found_us = to_us(_iso(value))  # type: ignore[arg-type]  # what is no text is caught
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise WireError(name, "must be an ISO 8601 date and time") from None
    if not 0 <= found_us < MOMENT_MAX_US:
        raise WireError(name, "must lie between the years 1970 and 2200")
    return found_us


def _iso(text: str) -> datetime:
    """Python 3.10 reads neither a Z nor a fraction of other than three or six digits."""
    if sys.version_info < (3, 11):
        text = _fraction.sub(lambda hit: f".{hit[1]:0<6.6}", text.replace("Z", "+00:00"))
    return datetime.fromisoformat(text)


def metadata_of(said: Mapping[str, Any]) -> dict[str, Any] | None:
    """
    The field ``metadata``; an empty object is none.

    Raises:
        WireError: It is no object.
    """
    metadata = said.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise WireError("metadata", "must be an object")
    feature = metadata.get("feature") if metadata else None
    if type(feature) is str and not feature.isascii():  # usage is added up by it, and it is only a tag
        return {**metadata, "feature": feature.encode("utf-8", "replace").decode()}  # type: ignore[dict-item]
    return metadata or None


def period_of(said: Mapping[str, Any]) -> str:
    """The key of a billing period, as :mod:`paygent.core.windows` writes it; empty where it is unknown."""
    return _key(said, "period", _is_period)


def session_of(said: Mapping[str, Any]) -> str:
    """The key of a session's window, which ends with the session's name; empty where it is unknown."""
    key = _key(said, "session", _is_session)
    _checked_id(key.partition(":")[2], "session")  # columns have room for what stands before it
    return key


def _key(said: Mapping[str, Any], name: str, fits: Callable[[str], object]) -> str:
    key = text_of(said, name, 2 * NAME_LENGTH_MAX) or ""
    if key and not fits(key):
        raise WireError(name, "is not the key of a window")
    return key


def flag(said: Mapping[str, Any], name: str) -> bool:
    """
    A boolean, false where it is missing.

    Raises:
        WireError: It is none.
    """
    value = said.get(name)
    if value is None:
        return False
    if type(value) is not bool:
        raise WireError(name, "must be true or false")
    return value


def text_of(said: Mapping[str, Any], name: str, length_max: int) -> str | None:
    """
    A text, if it is there.

    Raises:
        WireError: It is none, too long, or nothing can store it.
    """
    value = said.get(name)
    if value is None:
        return None
    if type(value) is not str:
        raise WireError(name, "must be text")
    if len(value) > length_max:
        raise WireError(name, f"must have at most {length_max} characters")
    return storable(value, name)


def storable(text: str, name: str) -> str:
    """
    *text*, if it can be stored anywhere.

    Raises:
        WireError: It holds half of a surrogate pair.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise WireError(name, "holds a lone surrogate, which no encoding can store") from None
    return text


def count_of(said: Mapping[str, Any], name: str, lowest: int = 0, highest: int = EVENT_TOKENS_MAX) -> int:
    """
    A whole number, 0 where it is missing.

    Raises:
        WireError: It is none, or out of bounds.
    """
    value = said.get(name)
    if value is None:
        return 0
    if type(value) is not int or not lowest <= value <= highest:
        raise WireError(name, f"must be a whole number from 0 to {highest}")
    return value


def number_of(said: Mapping[str, Any], name: str) -> float:
    """
    A finite number, 0 where it is missing.

    Raises:
        WireError: It is none.
    """
    value = said.get(name)
    if value is None:
        return 0.0
    if type(value) not in (int, float) or not abs(value) < _NUMBER_MAX:  # nor NaN, nor infinity
        raise WireError(name, "must be a finite number")
    return float(value)


def each(items: Sequence[object], read: Callable[[object], T]) -> tuple[list[T], list[dict[str, Any]]]:
    """What *read* takes of *items*, and for each of the others its id, field and what is wrong with it."""
    taken: list[T] = []
    rejected: list[dict[str, Any]] = []
    for item in items:
        try:
            taken.append(read(item))
        except WireError as error:
            name = item.get("id") if isinstance(item, dict) else None
            told = name if isinstance(name, str) else None
            rejected.append({"id": told, "field": error.field, "detail": error.detail})
    return taken, rejected
