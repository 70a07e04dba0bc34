"""``flask paygent …``: what a developer looks up."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click
from flask.cli import AppGroup

from paygent.client import Paygent
from paygent.core.models import PlanConfig
from paygent.ledger import LedgerError
from paygent.web.usage import me

ANSWER_S_MAX = 5.0


def commands(running: Callable[[], Paygent]) -> AppGroup:
    """Return the group ``paygent``; *running* gives the process's Paygent."""
    group = AppGroup("paygent", help="Plans and usage of this app's users.")
    as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

    @group.command("usage")
    @click.argument("user_id")
    @as_json
    def usage(user_id: str, *, as_json: bool) -> None:
        """Show what USER_ID has used of his plan."""
        _show(_usage(running(), user_id), as_json=as_json)

    @group.command("plans")
    @as_json
    def plans(*, as_json: bool) -> None:
        """List the plans in the ledger."""
        _show(_plans(running()), as_json=as_json)

    @group.command("status")
    @as_json
    def status(*, as_json: bool) -> None:
        """Show whether Paygent runs, and what waits for delivery."""
        _show(_status(running()), as_json=as_json)

    return group


def _usage(pg: Paygent, user_id: str) -> dict[str, Any]:
    found = me(pg, user_id)
    if found is None:
        raise click.ClickException("no ledger has spoken of this user")
    rows = [row.model_dump(exclude_none=True) for row in pg.get_model_usage(user_id)]
    return {"user": user_id, **found, "plan": found["plan"]["name"], "models": rows}


def _plans(pg: Paygent) -> dict[str, Any]:
    try:
        stored = pg._meter.exporter.call(lambda ledger: ledger.plans()).result(ANSWER_S_MAX)  # noqa: SLF001
    except (LedgerError, TimeoutError) as error:
        raise click.ClickException(f"the ledger does not answer: {error}") from error
    return {name: _limits(PlanConfig.model_validate_json(text)) for name, text in sorted(stored.items())}


def _limits(plan: PlanConfig) -> dict[str, Any]:
    """What is set of a plan; what is not set has its default."""
    found: dict[str, Any] = plan.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    return found


def _status(pg: Paygent) -> dict[str, Any]:
    return {
        "mode": "local" if pg.is_local_mode else pg.base_url,
        "connected": pg.is_connected,
        "instrumented": pg.is_instrumented,
        **pg.queue_stats,
    }


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, default=str))
        return
    width = max(map(len, found), default=0)
    for name, value in found.items():
        for number, line in enumerate(_lines(value)):
            click.echo(f"{'' if number else name:<{width}}  {line}")


def _lines(value: Any) -> list[str]:
    """*value* in words, one line for each member of a list."""
    if isinstance(value, list):
        return [line for item in value for line in _lines(item)] or ["-"]
    if isinstance(value, dict):
        return [", ".join(f"{name} {_lines(inner)[0]}" for name, inner in value.items()) or "no limits"]
    return [
        "-"
        if value is None
        else {True: "yes", False: "no"}.get(value, str(value))
        if isinstance(value, bool)
        else str(value)
    ]
