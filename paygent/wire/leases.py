"""The JSON of lease operations, as two of our own ends exchange them; see :mod:`paygent.wire.events`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from paygent.core.bounds import stored_length
from paygent.core.plan import MODEL_LIMIT
from paygent.core.windows import Window, from_us
from paygent.ledger import Account, Bucket, LeaseReply, LeaseRequest, PlanRow, Session
from paygent.wire.events import event_as_json, posted_event_from_json
from paygent.wire.fields import (
    NAME_LENGTH_MAX,
    WireError,
    each,
    flag,
    required_id,
    required_text,
    storable,
)

AMOUNT_MAX = 1 << 61
SCOPES_MAX = 1000
LEASE_ID_LENGTH_MAX = 100
WINDOW_LENGTH_MAX = 700


def request_as_json(request: LeaseRequest, plan_version: str | None = None) -> dict[str, Any]:
    """An operation; *plan_version* is the plan that is known already, so that it need not be sent again."""
    return {
        "user_id": request.user_id,
        "lease_id": request.lease_id,
        "seq": request.seq,
        "session_id": request.session_id,
        "begin_session": request.begin_session,
        "plan": request.plan,
        "plan_version": plan_version,
        "held": _buckets_as_json(request.held),
        "keep": _buckets_as_json(request.keep),
        "need": request.need,
        "want": request.want,
        "events": [event_as_json(event) for event in request.events],
    }


def request_from_json(said: object) -> LeaseRequest:
    """
    Read an operation; its events are all good or the whole of it is refused.

    Raises:
        WireError: A field is missing or cannot be right.
    """
    if not isinstance(said, dict):
        raise WireError("", "must be an object")
    user_id = required_id(said, "user_id")
    events, rejected = each(_list(said, "events"), posted_event_from_json)
    if rejected:
        raise WireError(f"events.{rejected[0]['field']}", rejected[0]["detail"])
    if any(event.user_id != user_id for event in events):
        raise WireError("events.user_id", "must be that of the operation")
    return LeaseRequest(
        user_id,
        _lease_id(said),
        _whole(said, "seq"),
        session_id=required_id(said, "session_id") if said.get("session_id") is not None else None,
        begin_session=flag(said, "begin_session"),
        plan=required_text(said, "plan") if said.get("plan") is not None else None,
        held=_buckets_from_json(said, "held"),
        keep=_buckets_from_json(said, "keep"),
        need=_amounts(said, "need"),
        want=_amounts(said, "want"),
        events=events,
    )


def _lease_id(said: Mapping[str, Any]) -> str:
    lease_id = required_text(said, "lease_id")
    if stored_length(lease_id) > LEASE_ID_LENGTH_MAX:
        raise WireError("lease_id", f"must have at most {LEASE_ID_LENGTH_MAX} characters")
    return lease_id


def reply_as_json(reply: LeaseReply, known_version: str | None = None) -> dict[str, Any]:
    """The answer to one operation; the plan's content only where the caller knows another version."""
    account, plan, session = reply.account, reply.plan, reply.session
    config = None if plan.config is None or plan.key == known_version else json.loads(plan.config)
    return {
        "user_id": account.user_id,
        "account": {
            "plan": account.plan,
            "has_own_plan": account.own_config is not None,
            "period": list(account.period) if account.period is not None else None,
            "sdk_enabled": account.sdk_enabled,
            "paygent_user_id": account.paygent_user_id,
        },
        "plan": plan.name,
        "plan_version": plan.key,
        "plan_config": config,
        "has_plan": plan.config is not None,
        "period": _window_as_json(reply.period),
        "session": (
            {"session_id": session.session_id, **_window_as_json(session.window)}
            if session is not None
            else None
        ),
        "granted": _buckets_as_json(reply.lease),
        "posted": _buckets_as_json(reply.posted),
        "others": _buckets_as_json(reply.others),
        "sharers": reply.sharers,
        "contended": reply.contended,
        "refusal": (
            {"scope": reply.denied, "kind": "busy" if reply.busy else "spent"}
            if reply.denied is not None
            else None
        ),
        "server_time": from_us(reply.now_us).isoformat(),
        "now_us": reply.now_us,
    }


def reply_from_json(said: Any, known_config: str | None = None) -> LeaseReply:
    """
    Read an answer; *known_config* is the plan that was named as known in the operation.

    Raises:
        WireError: It is no such answer.
    """
    try:
        return _reply(said, known_config)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WireError("", f"is no answer to a lease operation ({type(error).__name__}: {error})") from None


def _reply(said: Mapping[str, Any], known_config: str | None) -> LeaseReply:
    config = json.dumps(said["plan_config"]) if said["plan_config"] is not None else known_config
    if said["has_plan"] and config is None:  # unknown must never be unlimited
        raise ValueError("a plan without its limits")
    if not said["has_plan"]:
        config = None
    elif config is None:  # unknown must never become unlimited
        raise ValueError("it names a plan without its content")
    known, session, refusal = said["account"], said["session"], said["refusal"]
    period = known["period"]
    account = Account(
        said["user_id"],
        known["plan"],
        config if known["has_own_plan"] else None,
        (int(period[0]), int(period[1])) if period is not None else None,
        bool(known["sdk_enabled"]),
        paygent_user_id=known.get("paygent_user_id"),  # not said by earlier backends
    )
    return LeaseReply(
        account=account,
        plan=PlanRow(said["plan"], said["plan_version"], config),
        period=_window(said["period"]),
        session=Session(session["session_id"], _window(session)) if session is not None else None,
        posted=_buckets_from_json(said, "posted"),
        lease=_buckets_from_json(said, "granted"),
        others=_buckets_from_json(said, "others"),
        sharers=int(said["sharers"]),
        denied=refusal["scope"] if refusal is not None else None,
        busy=refusal is not None and refusal["kind"] == "busy",
        contended=bool(said["contended"]),
        now_us=int(said["now_us"]),
    )


# --- fields -----------------------------------------------------------------------------------------------


def _window_as_json(window: Window) -> dict[str, Any]:
    return {"key": window.key, "start_us": window.start_us, "end_us": window.end_us}


def _window(said: Mapping[str, Any]) -> Window:
    return Window(str(said["key"]), int(said["start_us"]), int(said["end_us"]))


def _buckets_as_json(amounts: Mapping[Bucket, int]) -> list[list[Any]]:
    return [[scope, window, amount] for (scope, window), amount in amounts.items()]


def _buckets_from_json(said: Mapping[str, Any], name: str) -> dict[Bucket, int]:
    amounts: dict[Bucket, int] = {}
    for row in _list(said, name):
        if not isinstance(row, list) or len(row) != 3 or not all(type(text) is str for text in row[:2]):
            raise WireError(name, "must be a list of [scope, window, amount]")
        amounts[_scope(row[0], name), _window_key(row[1], name)] = _amount(row[2], name)
    return amounts


def _amounts(said: Mapping[str, Any], name: str) -> dict[str, int]:
    amounts = said.get(name) or {}
    if not isinstance(amounts, dict) or len(amounts) > SCOPES_MAX:
        raise WireError(name, "must be an object of amounts by scope")
    return {_scope(scope, name): _amount(amount, name) for scope, amount in amounts.items()}


def _scope(scope: str, name: str) -> str:
    if len(scope) > len(MODEL_LIMIT) + NAME_LENGTH_MAX:
        raise WireError(name, "holds a scope that is too long")
    return storable(scope, name)


def _window_key(key: str, name: str) -> str:
    if len(key) > WINDOW_LENGTH_MAX:
        raise WireError(name, "holds the key of a window that is too long")
    return storable(key, name)


def _amount(amount: object, name: str) -> int:
    if type(amount) is not int or not -AMOUNT_MAX <= amount <= AMOUNT_MAX:
        raise WireError(name, "holds an amount that is no whole number")
    return amount


def _list(said: Mapping[str, Any], name: str) -> list[Any]:
    value = said.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > SCOPES_MAX:
        raise WireError(name, f"must be a list of at most {SCOPES_MAX} items")
    return value


def _whole(said: Mapping[str, Any], name: str) -> int:
    value = said.get(name)
    if type(value) is not int or not 0 <= value < AMOUNT_MAX:
        raise WireError(name, "must be a whole number")
    return value
