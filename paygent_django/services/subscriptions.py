"""Which plan binds a user, from when to when, and in which billing period."""

from __future__ import annotations

from datetime import datetime

from django.db.models import F, Q

from paygent.core.windows import Window, billing_period, to_us
from paygent_django.ledger import subscriptions as line
from paygent_django.ledger import timeline
from paygent_django.ledger.subscriptions import Terms
from paygent_django.models import EndUser, Plan, Subscription
from paygent_django.services import _base
from paygent_django.services._base import ServiceError, locked, rows, same_project


def subscribe(
    user: EndUser,
    plan: Plan | None,
    *,
    period_start: datetime | None = None,
    period_end: datetime | None = None,
    reference: str = "",
    by: str = "",
) -> Subscription:
    """
    Begin a subscription: the running one ends where it starts, one that is scheduled for later stays.

    It binds from the start of its period, or from now where that has begun and something else was bound
    since. The same *period_start* keeps the usage. Without a period the calendar month in UTC applies, and
    without a *plan* the project's default plan.

    Raises:
        ServiceError: One end of the period without the other, an end that is not after the start, or a
            plan of another project.
    """
    same_project(user, plan=plan)
    period = _checked_period(period_start, period_end)
    terms = Terms(plan.pk if plan else None, period, reference[:200], by[:200])
    with locked(user) as (accounts, _):
        starts_us = line.begin(accounts.sql, user.pk, terms, accounts.now_us)
    return _at(user, starts_us)


def change_plan(user: EndUser, plan: Plan | None, *, by: str = "") -> Subscription:
    """Put the user on another plan from now on; period, usage and the provider's reference stay."""
    same_project(user, plan=plan)
    with locked(user) as (accounts, account):
        now_us = accounts.now_us
        before = timeline.binding(line.spans_of(accounts.sql, user.pk), now_us)
        terms = Terms(plan.pk if plan else None, account.period, before.reference if before else "", by[:200])
        starts_us = line.begin(accounts.sql, user.pk, terms, now_us, starts_us=now_us)
    return _at(user, starts_us)


def cancel(user: EndUser, at: datetime | None = None) -> bool:
    """
    End the running subscription, now or at a later moment; the default plan applies from then on.

    Returns:
        Whether there was one.

    Raises:
        ServiceError: The moment has passed.
    """
    with locked(user) as (accounts, _):
        at_us = accounts.now_us if at is None else to_us(at)
        if at_us < accounts.now_us:
            raise ServiceError("at", "must not lie in the past: nobody's past is rewritten")
        return line.end(accounts.sql, user.pk, at_us)


def reset_period(user: EndUser, *, by: str = "") -> Subscription:
    """
    Give the user a fresh account for the rest of his period; what he used stays in the books.

    The period is cut in two: the second part begins now, with nothing used. After it everything is as before.
    """
    with locked(user) as (accounts, account):
        now_us, sql = accounts.now_us, accounts.sql
        window = billing_period(account.period, now_us)
        spans = line.spans_of(sql, user.pk)
        before = timeline.binding(spans, now_us) or timeline.unbound(spans, now_us)
        after = timeline.rest_of(spans, before) or before
        ends_us = min(window.end_us, before.ends_us)
        fresh = Terms(before.plan_id, (now_us, window.end_us), before.reference, by[:200])
        starts_us = line.begin(sql, user.pk, fresh, now_us, starts_us=now_us, ends_us=ends_us)
        if after.ends_us > ends_us:
            rest = fresh._replace(period=after.period)
            line.begin(sql, user.pk, rest, now_us, starts_us=ends_us, ends_us=after.ends_us)
    return _at(user, starts_us)


def running(user: EndUser, at_us: int | None = None) -> Subscription | None:
    """The subscription that binds the user now, or did at a moment, if one does."""
    moment_us = _base.now_us() if at_us is None else at_us
    has_begun = Q(starts_us__lte=moment_us)
    if at_us is None:
        has_begun |= Q(starts_us__lte=F("created_us"))  # see timeline.Span
    spans = rows(Subscription).filter(has_begun, user=user, ends_us__gt=moment_us)
    found: Subscription | None = spans.select_related("plan__current").order_by("-starts_us").first()
    return found


def period_of(user: EndUser, at_us: int | None = None) -> Window:
    """The user's billing period, now or at a moment."""
    row = running(user, at_us)
    assigned = None
    if row is not None and row.period_start_us is not None and row.period_end_us is not None:
        assigned = (row.period_start_us, row.period_end_us)
    return billing_period(assigned, _base.now_us() if at_us is None else at_us)


def needs_period(plan: Plan) -> bool:
    """Whether a subscription through the API must say its dates: the plan caps the spend of a period."""
    config = plan.config
    return config is not None and config.max_spend_per_period != float("inf")


def _at(user: EndUser, starts_us: int) -> Subscription:
    found: Subscription = rows(Subscription).select_related("plan").get(user=user, starts_us=starts_us)
    return found


def _checked_period(start: datetime | None, end: datetime | None) -> tuple[int, int] | None:
    if start is None and end is None:
        return None
    if start is None or end is None:
        missing = "period_start" if start is None else "period_end"
        raise ServiceError(missing, "a period has both a start and an end")
    period = to_us(start), to_us(end)
    if period[1] <= period[0]:
        raise ServiceError("period_end", "must be after period_start")
    return period
