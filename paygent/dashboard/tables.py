"""Tables that more than one page shows."""

from __future__ import annotations

from collections.abc import Sequence

from paygent.charts import dollars, meter, number
from paygent.charts.markup import tag, text
from paygent.core.events import Event
from paygent.core.plan import MODEL_LIMIT, NUSD_PER_USD
from paygent.dashboard import markup
from paygent.dashboard.shell import Frame
from paygent.dashboard.standing import LimitLine
from paygent.dashboard.wording import NONE, amount, scope_label, unit, used_of
from paygent.ledger import GateRow


def limit_meter(line: LimitLine, *, is_metered: bool = True) -> str:
    """How much of a limit is used, as a bar."""
    return meter(
        line.used,
        line.cap,
        title=f"{scope_label(line.scope)}: {used_of(line)}",
        soft_at=line.soft_at,
        state=line.state if is_metered else "off",
    )


def gate_table(rows: Sequence[GateRow], *, frame: Frame | None = None) -> str:
    """Decisions of the gate, the newest first; with *frame* they name their users. Empty without any."""
    if not rows:
        return ""
    users = ["User"] if frame is not None else []
    return markup.grid(
        "Decisions of the gate, the newest first",
        ["When", *users, "Decision", "Limit", "Used at that moment", "Model", "Calls"],
        [_gate_cells(row, frame) for row in rows],
        numbers=[5 + len(users)],
    )


def _gate_cells(row: GateRow, frame: Frame | None) -> list[str]:
    scale = 1 if (row.gate_reason or "").startswith(MODEL_LIMIT) else NUSD_PER_USD
    used, limit = (amount(row.gate_reason, value * scale) for value in (row.current_value, row.limit_value))
    who = [] if frame is None else [markup.link(frame.to_user(row.user_id), markup.name(row.user_id))]
    return [
        markup.moment(row.timestamp_us),
        *who,
        _decision(row),
        text(scope_label(row.gate_reason)),
        text(f"{used} of {limit}{unit(row.gate_reason or '')}"),
        text(row.model or NONE),
        text(number(row.count)),
    ]


def _decision(row: GateRow) -> str:
    if row.blocked:
        return tag("span", "Refused", class_="badge badge-blocked")
    if row.status == "hard_gate":  # init(raise_on_hard_gate=False), report_only
        return tag("span", "Over, let through", class_="badge badge-soft")
    return tag("span", "Warned", class_="badge badge-soft")


def event_table(events: Sequence[Event]) -> str:
    """Metered calls, the newest first."""
    return markup.grid(
        "Metered calls, the newest first",
        ["When", "Model", "Input", "Output", "Cost", "Noted"],
        [_event_cells(event) for event in events],
        numbers=[2, 3, 4],
    )


def _event_cells(event: Event) -> list[str]:
    estimated = (
        tag("abbr", "≈", title="estimated: the provider has not reported it") if event.estimated else ""
    )
    return [
        markup.moment(event.timestamp_us),
        text(event.model or event.description or NONE),
        text(number(event.input_tokens)),
        text(number(event.output_tokens)),
        estimated + text(dollars(event.cost_nusd)),
        _noted(event),
    ]


def _noted(event: Event) -> str:
    noted = {str(key): str(value) for key, value in (event.metadata or {}).items()}
    pairs = (tag("span", text(f"{key}: {value}"), class_="note") for key, value in sorted(noted.items())[:4])
    return " ".join(pairs) or NONE
