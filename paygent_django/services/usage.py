"""What users have used, from the exact sums, and what a plan would say to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from django.db.models import Q

from paygent.core.balance import UNLIMITED, Balance, Denied, reserve
from paygent.core.models import PlanConfig
from paygent.core.names import match
from paygent.core.plan import MODEL_COST, MODEL_LIMIT, TOTAL_SPEND, CompiledPlan, compile_plan
from paygent.core.windows import Window, billing_period
from paygent.ledger import DEFAULT_PLAN, Account
from paygent.ledgers._rows import compiled, plan_of
from paygent_django.ledger._accounts import Accounts
from paygent_django.ledger._rows import DjangoRows
from paygent_django.models import EndUser, Plan, Total
from paygent_django.services._base import reading, rows
from paygent_django.services.plans import configured

_USERS_PER_PAGE = 400


@dataclass(frozen=True, slots=True)
class Usage:
    """
    What one user has used in one billing period, and the limits that bind him now.

    ``tokens_by_model`` and ``cost_nusd_by_model`` are by the model's name. ``terms`` are the compiled limits,
    grants and limits of his own included; ``plan`` is the plan's name.
    """

    user: EndUser
    plan: str
    window: Window
    terms: CompiledPlan
    cost_nusd: int = 0
    tokens_by_model: dict[str, int] = field(default_factory=dict)
    cost_nusd_by_model: dict[str, int] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Input and output tokens of all models."""
        return sum(self.tokens_by_model.values())

    def used(self, scope: str) -> int:
        """What counts against the limit of *scope*."""
        return (
            self.cost_nusd if scope == TOTAL_SPEND else self.tokens_by_model.get(scope[len(MODEL_LIMIT) :], 0)
        )

    @property
    def spent_scope(self) -> str | None:
        """The first limit that is used up, if one is."""
        return spent_scope(self.terms, {scope: self.used(scope) for scope in scopes_of(self.terms)})


class Blocked(NamedTuple):
    """A user whom a plan would refuse, by which limit; ``was_blocked``: his present plan does so too."""

    user_id: str
    scope: str
    used: int
    limit: int
    was_blocked: bool


def usage_of(user: EndUser, window: Window | None = None) -> Usage:
    """What the user has used in his running period, or in *window*."""
    return usage_of_many([user], window)[0]


def usage_of_many(users: Sequence[EndUser], window: Window | None = None) -> list[Usage]:
    """The same for many users of one project, in their order: four queries for each four hundred."""
    found: list[Usage] = []
    for start in range(0, len(users), _USERS_PER_PAGE):
        page = users[start : start + _USERS_PER_PAGE]
        with reading(page[0].project_id) as accounts:
            found += _page(accounts, page, window)
    return found


def would_block(plan: Plan, config: PlanConfig) -> Iterator[Blocked]:
    """
    Whom the plan would refuse if it said *config*: a dry run, nothing is saved.

    Judged by the larger usage of the running and the last period, users on the default plan included where
    that is the plan.
    """
    terms = compile_plan(plan.name, config)
    users = _candidates(plan, terms).order_by("pk")
    last_pk = 0
    while page := list(users.filter(pk__gt=last_pk)[:_USERS_PER_PAGE]):
        last_pk = page[-1].pk
        with reading(plan.project_id) as accounts:
            now = _page(accounts, page, None)
            bound = [usage for usage in now if usage.plan == plan.name]
            before = _last_periods(accounts, bound)
            yield from _refused(terms, bound, before)


def _candidates(plan: Plan, terms: CompiledPlan) -> Any:
    """Users of whom one total reaches a limit, as only they can be refused; all where a limit is nothing."""
    users = rows(EndUser).filter(project_id=plan.project_id)
    limits = {scope: terms.limit_of(scope).hard for scope in scopes_of(terms)}
    finite = {scope: limit for scope, limit in limits.items() if limit < UNLIMITED}
    if not finite:
        return users.none()
    if min(finite.values()) <= 0:
        return users
    reached = Q()
    for scope, limit in finite.items():
        reached |= Q(scope=scope, amount__gte=limit)
    return users.filter(pk__in=rows(Total).filter(reached).values("user_id"))


def suggested_plan(
    user: EndUser, *, model: str | None = None, need: Mapping[str, int] | None = None
) -> Plan | None:
    """
    The cheapest higher-ranked plan that would admit the call that was refused.

    Args:
        model: The model that was asked for; a plan that lists models must list it.
        need: What the call needs by scope, as far as it is known.
    """
    usage = usage_of(user)
    offered = list(configured(user.project))
    rank = next((plan.current.rank for plan in offered if plan.name == usage.plan), None)
    fitting = [
        plan
        for plan in offered
        if plan.name != usage.plan
        and (rank is None or plan.current.rank > rank)
        and _admits(plan, usage, model, need or {})
    ]
    return min(fitting, key=_price, default=None)


def scopes_of(terms: CompiledPlan) -> list[str]:
    """The limits per period of a plan, by scope."""
    return [TOTAL_SPEND, *(MODEL_LIMIT + model for model in terms.models)]


def spent_scope(terms: CompiledPlan, used: Mapping[str, int]) -> str | None:
    """The first limit of a plan that *used* leaves nothing of."""
    return next(
        (scope for scope in scopes_of(terms) if used.get(scope, 0) >= terms.limit_of(scope).hard), None
    )


def _price(plan: Plan) -> tuple[bool, int, int]:
    version = plan.current
    assert version is not None
    return version.price_nano is None, version.price_nano or 0, version.rank


def _admits(plan: Plan, usage: Usage, model: str | None, need: Mapping[str, int]) -> bool:
    config = plan.config
    assert config is not None
    terms = compile_plan(plan.name, config)
    listed = {*config.model_limits, *config.cost_rates}
    if (
        model is not None
        and terms.lists_models
        and config.default_cost_rate is None
        and match(model, listed) is None
    ):
        return False
    scopes = [TOTAL_SPEND]
    limited = None if model is None else match(model, terms.models)
    if limited is not None:
        scopes.append(MODEL_LIMIT + limited)
    balances = {scope: Balance(terms.limit_of(scope).hard, usage.used(scope)) for scope in scopes}
    wanted = {scope: need.get(scope, 0) for scope in scopes}
    return not isinstance(reserve(balances, wanted, exact=terms.exact), Denied)


def _page(accounts: Accounts, users: Sequence[EndUser], window: Window | None) -> list[Usage]:
    """Usage of users of one page, whose accounts are read at the ledger's time."""
    accounts.load([user.external_user_id for user in users])
    accounts.know_plans({name for user in users if (name := _assigned(accounts, user)) is not None})
    reader = DjangoRows(accounts, shard=0)
    windows = {}
    for user in users:
        account = reader.account(user.external_user_id) or Account(user.external_user_id)
        windows[user.pk] = window or billing_period(account.period, accounts.now_us)
    totals = _totals(windows)
    return [_usage(reader, user, windows[user.pk], totals[user.pk]) for user in users]


def _assigned(accounts: Accounts, user: EndUser) -> str | None:
    held = accounts.held(user.external_user_id)
    return None if held is None else held.account.plan


def _usage(reader: DjangoRows, user: EndUser, window: Window, totals: Mapping[str, int]) -> Usage:
    account = reader.account(user.external_user_id) or Account(user.external_user_id)
    plan = plan_of(reader, account)
    default = reader.plan(DEFAULT_PLAN) if account.plan is None else None
    return Usage(
        user, plan.name if default is None else default.name, window, compiled(plan),
        totals.get(TOTAL_SPEND, 0), _by_model(totals, MODEL_LIMIT), _by_model(totals, MODEL_COST),
    )  # fmt: skip


def _by_model(totals: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {scope[len(prefix) :]: amount for scope, amount in totals.items() if scope.startswith(prefix)}


def _totals(windows: Mapping[int, Window]) -> dict[int, dict[str, int]]:
    """Totals by scope of each user in his window."""
    totals: dict[int, dict[str, int]] = defaultdict(dict)
    keys = {window.key for window in windows.values()}
    found = rows(Total).filter(user_id__in=list(windows), window__in=keys)
    for user_pk, scope, key, amount in found.values_list("user_id", "scope", "window", "amount"):
        if windows[user_pk].key == key:
            totals[user_pk][scope] = amount
    return totals


def _last_periods(accounts: Accounts, usages: Sequence[Usage]) -> dict[int, dict[str, int]]:
    reader = DjangoRows(accounts, shard=0)
    windows = {}
    for usage in usages:
        account = reader.account(usage.user.external_user_id)
        period = account.period if account is not None else None
        windows[usage.user.pk] = billing_period(period, usage.window.start_us - 1)
    return _totals(windows)


def _refused(
    terms: CompiledPlan, usages: Sequence[Usage], before: Mapping[int, Mapping[str, int]]
) -> Iterator[Blocked]:
    for usage in usages:
        last = before.get(usage.user.pk, {})
        used = {scope: max(usage.used(scope), last.get(scope, 0)) for scope in scopes_of(terms)}
        scope = spent_scope(terms, used)
        if scope is not None:
            limit = terms.limit_of(scope).hard
            yield Blocked(
                usage.user.external_user_id, scope, used[scope], limit, usage.spent_scope is not None
            )
