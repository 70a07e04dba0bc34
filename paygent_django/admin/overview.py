"""The figures of the overview, from roll-ups alone: no query looks at an event."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, NamedTuple

from django.db.models import Case, Count, F, Q, Sum, Value, When
from django.db.models.functions import Greatest, Least

from paygent.charts import Series
from paygent.core.windows import EPOCH, from_us
from paygent_django.models import DailyGate, DailyUsage, Plan, Project, Subscription, UserUsage
from paygent_django.services._base import rows

DAY_US = 86_400_000_000
TOP_USERS = 10
# Seconds; a month is the mean one, so that twelve of them are a year.
_INTERVALS_S = {"day": 86_400, "week": 604_800, "month": 2_629_746, "year": 31_556_952}


class Sums(NamedTuple):
    """What roll-ups add up, of which ``estimated_nusd`` was not reported by a provider."""

    calls: int = 0
    tokens: int = 0
    cost_nusd: int = 0
    estimated_nusd: int = 0

    @property
    def estimated_share(self) -> float:
        """The share of the money that rests on estimates."""
        return self.estimated_nusd / self.cost_nusd if self.cost_nusd > 0 else 0.0


class Margin(NamedTuple):
    """What a plan brought in and what its users cost; ``revenue_nano=None``: no price is known."""

    plan: Plan | None
    subscriptions: int
    revenue_nano: int | None
    cost_nusd: int

    @property
    def is_comparable(self) -> bool:
        """Whether both amounts are in dollars."""
        version = self.plan.current if self.plan is not None else None
        return self.revenue_nano is not None and version is not None and version.currency == "USD"

    @property
    def margin_nusd(self) -> int:
        """What is left, in nano-dollars."""
        return (self.revenue_nano or 0) - self.cost_nusd


@dataclass(frozen=True, slots=True)
class Overview:
    """A stretch of days, oldest first; amounts are nano-dollars. ``before`` sums up the stretch before it."""

    days: list[date]
    total: Sums
    before: Sums
    models: list[Series]
    tags: list[tuple[str, int]]
    top: list[UserUsage]
    blocked: list[int]
    reasons: list[tuple[str, int]]
    margins: list[Margin]

    @property
    def spend(self) -> list[float]:
        """What was spent on each day."""
        return [sum(series.values[index] for series in self.models) for index in range(len(self.days))]

    @property
    def blocked_total(self) -> int:
        """How many calls were blocked in all."""
        return sum(self.blocked)


def overview(project: Project, now_us: int, days: int) -> Overview:
    """The last *days* days up to *now_us*, in UTC like all roll-ups: eight queries, however much there is."""
    today = from_us(now_us).date()
    span = [today - timedelta(days=back) for back in range(days - 1, -1, -1)]
    usage = rows(DailyUsage).filter(project=project, day__gte=span[0], day__lte=today)
    by_model, by_plan, total = _by_model(usage, span)
    blocked, reasons = _blocked(project, span)
    return Overview(
        span, total, _sums(_before(project, span)), by_model, _tags(usage), _top(project, today), blocked,
        reasons, _margins(project, by_plan, span, now_us),
    )  # fmt: skip


def _by_model(usage: Any, span: Sequence[date]) -> tuple[list[Series], dict[int | None, int], Sums]:
    """What was spent on each model per day, on each plan, and in all: one look at the sums for the three."""
    place = {day: index for index, day in enumerate(span)}
    found = usage.values("day", "model", "plan").annotate(
        n=Sum("calls"), spent=Sum("cost_nusd"), guessed=Sum("estimated_nusd"),
        tokens=Sum(F("input_tokens") + F("output_tokens")),
    )  # fmt: skip
    values: dict[str, list[int]] = defaultdict(lambda: [0] * len(span))
    plans: dict[int | None, int] = defaultdict(int)
    total = [0, 0, 0, 0]
    for row in found.order_by():
        values[row["model"]][place[row["day"]]] += int(row["spent"])
        plans[row["plan"]] += int(row["spent"])
        for index, name in enumerate(("n", "tokens", "spent", "guessed")):
            total[index] += int(row[name])
    # a day of refunds may be below zero: there is no bar for that
    series = [
        Series(model or "\u2013", tuple(max(0, amount) for amount in amounts))
        for model, amounts in sorted(values.items())
    ]
    return series, dict(plans), Sums(*total)


def _before(project: Project, span: Sequence[date]) -> Any:
    first = span[0] - timedelta(days=len(span))
    return rows(DailyUsage).filter(project=project, day__gte=first, day__lt=span[0])


def _sums(usage: Any) -> Sums:
    found = usage.aggregate(
        n=Sum("calls"), tokens=Sum(F("input_tokens") + F("output_tokens")), spent=Sum("cost_nusd"),
        guessed=Sum("estimated_nusd"),
    )  # fmt: skip
    return Sums(*(int(found[name] or 0) for name in ("n", "tokens", "spent", "guessed")))


def _tags(usage: Any) -> list[tuple[str, int]]:
    found = usage.values("tag").annotate(spent=Sum("cost_nusd")).order_by("-spent")[:TOP_USERS]
    return [(row["tag"], int(row["spent"])) for row in found]


def _top(project: Project, today: date) -> list[UserUsage]:
    month = rows(UserUsage).filter(project=project, grain=UserUsage.MONTH, starts=today.replace(day=1))
    # users are read after that: with a join PostgreSQL sorts whole rows of all of them
    return list(month.order_by("-cost_nusd", "-pk").prefetch_related("user")[:TOP_USERS])


def _blocked(project: Project, span: Sequence[date]) -> tuple[list[int], list[tuple[str, int]]]:
    found = rows(DailyGate).filter(project=project, day__gte=span[0], day__lte=span[-1], blocked=True)
    by_day: dict[date, int] = defaultdict(int)
    reasons: dict[str, int] = defaultdict(int)
    for row in found.values("day", "gate_reason").annotate(n=Sum("count")).order_by():
        by_day[row["day"]] += int(row["n"])
        reasons[row["gate_reason"]] += int(row["n"])
    ordered = sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    return [by_day[day] for day in span], ordered[:TOP_USERS]


def _margins(
    project: Project, spent: Mapping[int | None, int], span: Sequence[date], now_us: int
) -> list[Margin]:
    begin_us = (span[0] - EPOCH.date()).days * DAY_US
    plans = list(rows(Plan).filter(project=project).select_related("current"))
    held = {row["plan"]: row for row in _held([plan.pk for plan in plans], begin_us, now_us)}
    found = [_margin(plan, held.get(plan.pk), spent.get(plan.pk, 0)) for plan in plans]
    shown = [margin for margin in found if margin.subscriptions or margin.cost_nusd]
    others = sum(spent.values()) - sum(margin.cost_nusd for margin in found)
    if others:
        shown.append(Margin(None, 0, None, others))
    return sorted(shown, key=lambda margin: -margin.margin_nusd)


def _held(plans: Sequence[int], begin_us: int, now_us: int) -> Iterable[dict[str, Any]]:
    """For each plan: subscriptions that ran, for how many seconds in all, and how many of them began."""
    running = rows(Subscription).filter(plan__in=plans, starts_us__lt=now_us, ends_us__gt=begin_us)
    # in seconds: microseconds of a million subscriptions are beyond the integers of SQLite
    seconds = (Least(F("ends_us"), Value(now_us)) - Greatest(F("starts_us"), Value(begin_us))) / 1_000_000
    began = Case(When(Q(starts_us__gte=begin_us), then=1), default=0)
    found: Iterable[dict[str, Any]] = (
        running.values("plan").annotate(n=Count("pk"), seconds=Sum(seconds), began=Sum(began)).order_by()
    )
    return found


def _margin(plan: Plan, held: dict[str, Any] | None, cost_nusd: int) -> Margin:
    count = 0 if held is None else int(held["n"])
    return Margin(plan, count, _revenue(plan, held), cost_nusd)


def _revenue(plan: Plan, held: dict[str, Any] | None) -> int | None:
    """The price by the share of its interval that subscriptions ran; a single payment when it began."""
    version = plan.current
    if version is None or version.price_nano is None:
        return None
    if held is None:
        return 0
    price_nano, interval_s = int(version.price_nano), _INTERVALS_S.get(version.interval)
    if interval_s is None:
        return price_nano * int(held["began"])
    return price_nano * int(held["seconds"]) // interval_s
