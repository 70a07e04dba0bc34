"""The first page: what is spent, on which models, by whom, and who was refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date, timedelta
from operator import attrgetter

from paygent.charts import (
    Rank,
    Series,
    compact,
    day_label,
    dollars,
    number,
    percent,
    ranking,
    short_dollars,
    sparkline,
    stacked_bars,
)
from paygent.charts.markup import tag, text
from paygent.dashboard import markup
from paygent.dashboard.reading import Overview
from paygent.dashboard.shell import Frame
from paygent.dashboard.standing import Standing
from paygent.dashboard.tables import gate_table
from paygent.dashboard.wording import NO_MODEL, NONE, plan_label, scope_label
from paygent.insight import DaySum

RANGES = (7, 30, 90)
_EPOCH = date(1970, 1, 1)


def content(frame: Frame, seen: Overview) -> list[str]:
    """The page's content."""
    return [
        tag("div", tag("h1", "Overview"), _ranges(frame, len(seen.days)), class_="headline"),
        *_troubles(frame),
        _figures(seen),
        markup.card(_spend(seen)),
        tag("div", markup.card(_top(frame, seen)), markup.card(_refusals(seen)), class_="pair"),
        markup.card(
            markup.heading("Latest decisions of the gate"),
            gate_table(seen.newest_gates, frame=frame) or markup.nothing("No call was warned of or refused."),
        ),
    ]


def day_names(days: range) -> list[str]:
    """Days since the epoch as they stand below a chart."""
    return [day_label(_EPOCH + timedelta(days=day)) for day in days]


def by_day(days: range, rows: Iterable[DaySum], value: Callable[[DaySum], float]) -> tuple[float, ...]:
    """The sums of all models, one for each day."""
    sums = dict.fromkeys(days, 0.0)
    for row in rows:
        if row.day in sums:
            sums[row.day] += value(row)
    return tuple(sums.values())


def by_model(days: range, rows: Sequence[DaySum]) -> list[Series]:
    """The spend of each model by day."""
    models = sorted({row.model for row in rows}, key=lambda model: model or "")
    return [
        Series(
            NO_MODEL if model is None else model,
            by_day(days, (row for row in rows if row.model == model), attrgetter("cost_nusd")),
        )
        for model in models
    ]


def _ranges(frame: Frame, shown: int) -> str:
    items = (
        tag(
            "li",
            markup.link(
                frame.to("", days=str(days)), f"{days} days", aria_current="true" if days == shown else None
            ),
        )
        for days in RANGES
    )
    return tag("nav", tag("ul", *items), class_="ranges", aria_label="Days shown")


def _troubles(frame: Frame) -> Iterable[str]:
    """What whoever answers for the app should know at once."""
    health = frame.health
    if health.get("degraded"):
        yield markup.notice(
            text(
                "The ledger cannot be reached by this process. Calls go on within what was last known; "
                f"{number(health.get('pending', 0))} events wait to be delivered."
            ),
            kind="bad",
        )
    if health.get("dropped"):
        yield markup.notice(text(f"{number(health['dropped'])} events could not be kept by this process."))


def _figures(seen: Overview) -> str:
    costs = by_day(seen.days, seen.spent, attrgetter("cost_nusd"))
    calls = by_day(seen.days, seen.spent, attrgetter("calls"))
    estimated = sum(row.estimated_nusd for row in seen.spent)
    blocked = [sum(row.blocked for row in seen.gates if row.day == day) for day in seen.days]
    warned = sum(row.warned for row in seen.gates)
    total, span = sum(costs), f"{len(seen.days)} days"
    mean = sum(costs[:-1]) / max(1, len(costs) - 1)
    return markup.tiles(
        markup.tile("Spent today", dollars(costs[-1]), f"{dollars(round(mean, -7))} on an average day"),
        markup.tile(f"Spent in {span}", dollars(total), "", sparkline(costs, title="Spend by day")),
        markup.tile(
            f"Calls in {span}", compact(sum(calls)), f"{dollars(total / sum(calls))} each" if total else ""
        ),
        markup.tile(f"Refused in {span}", compact(sum(blocked)), f"{compact(warned)} more were warned of"),
        markup.tile(
            "Estimated spend", percent(estimated / total) if total else NONE, "not reported by a provider"
        ),
    )


def _spend(seen: Overview) -> str:
    return stacked_bars(
        day_names(seen.days), by_model(seen.days, seen.spent), title="Spend per day, by model", show=dollars,
        tick=short_dollars, height=260,
    )  # fmt: skip


def _top(frame: Frame, seen: Overview) -> str:
    ranks = [
        Rank(one.user_id, one.cost_nusd, frame.to_user(one.user_id), _rank_note(user))
        for one, user in zip(seen.top, seen.standing_of_top, strict=True)
    ]
    return ranking(ranks, title=f"Top users in {len(seen.days)} days", show=dollars)


def _rank_note(user: Standing) -> str:
    state = "" if user.state == "ok" else f" · {markup.STATE_WORDS[user.state].lower()}"
    return plan_label(user) + state


def _refusals(seen: Overview) -> str:
    reasons = sorted({row.gate_reason for row in seen.gates if row.blocked}, key=lambda reason: reason or "")
    series = [
        Series(
            scope_label(reason),
            tuple(
                float(sum(r.blocked for r in seen.gates if r.day == day and r.gate_reason == reason))
                for day in seen.days
            ),
        )
        for reason in reasons
    ]
    title = "Calls refused per day"
    height = max(220, 50 * len(seen.top) - 60)  # as tall as the list of users beside it
    return stacked_bars(day_names(seen.days), series, title=title, show=number, tick=compact, height=height)
