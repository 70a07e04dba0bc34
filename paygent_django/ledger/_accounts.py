"""The accounts of users within one transaction: locked, read, and changed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

from paygent.core.plan import NUSD_PER_USD
from paygent.core.windows import billing_period
from paygent.ledger import DEFAULT_PLAN, Account, PlanRow
from paygent_django.ledger import subscriptions
from paygent_django.ledger._clock import clock_us
from paygent_django.ledger._faults import OvertakenError
from paygent_django.ledger._sql import Sql, chunks
from paygent_django.models import EndUser, Plan, PlanVersion, Project, Subscription
from paygent_django.models.fields import escape, unescape

_USERS_PER_QUERY = 400
_TRIES_MAX = 4
_POSTGRES_NOW = "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint"
_NEW_USER = (
    "uuid", "project_id", "external_user_id", "name", "email", "metadata", "sdk_enabled", "grant_window",
    "grant_nusd", "contended_us", "created_us",
)  # fmt: skip


@dataclass(slots=True)
class Held:
    """
    A user's row, locked until the transaction ends.

    ``account`` is what the rule is told: with a grant, the raised limit stands in ``own_config``. ``plan_id``
    is the plan of his subscription.
    """

    pk: int
    account: Account
    plan_id: int | None


class Accounts:
    """Rows of :class:`EndUser` and what binds them, within one transaction of one project."""

    def __init__(self, sql: Sql, project_pk: int, clock: Callable[[], int] | None = None) -> None:
        self.sql = sql
        self.project_pk = project_pk
        self.now_us = 0
        self._clock = clock
        self._held: dict[str, Held] = {}
        self._plans: dict[str, PlanRow | None] = {}
        self._plan_ids: dict[str, int] = {}
        self.made: list[str] = []  # whose rows were not there, or not yet to be seen

    # -- users ----------------------------------------------------------------------------------------

    def hold(self, users: Collection[str], looking: Collection[str] = ()) -> None:
        """Lock and read the rows of *users*, made if need be, and of those of *looking* who are there."""
        self.look({*users, *looking})()
        self.create(users)

    def look(
        self, users: Collection[str], plans: Collection[str] = (), *, locks: bool = True
    ) -> Callable[[], None]:
        """
        Lock the rows of *users* that are there (unless not *locks*), and read them and *plans*.

        In a pipeline all that travels together, with whatever is asked until the function that is returned
        here is called, which takes what was found.
        """
        if not self.sql.is_pipelined or self._clock is not None:
            held = self.lock(users) if locks else list(users)
            self.tell_time()
            self.load(held)
            return lambda: None
        names = sorted(map(escape, users))
        locked = self.sql.ask(*self._locking(names)) if locks else lambda: [(name,) for name in names]
        found = self.sql.ask(*self._loading(names))
        known_plans = self.sql.ask(*self._planned([*plans, DEFAULT_PLAN]))

        def take() -> None:
            held = {name for (name,) in locked()}
            rows = found()
            self.now_us = rows[0][0]
            self._take_plans([*plans, DEFAULT_PLAN], known_plans())
            for row in rows:
                if row[2] in held:
                    self._take(row[1:])

        return take

    def tell_time(self) -> None:
        """Read the clock. After the locks are held: who waited must not judge by a moment that is past."""
        self.now_us = clock_us(self.sql) if self._clock is None else self._clock()

    def lock(self, users: Collection[str]) -> list[str]:
        """
        Lock the rows of *users* that are there, in one order for all, so that nobody waits crosswise.

        Returns:
            Whose row is locked. One that appears later was not there to be locked: see :meth:`create`.
        """
        if self.sql.vendor == "sqlite":
            # A first statement that writes takes the one lock of the file, before anything is read.
            self.sql.run(f"UPDATE {self._table} SET email = email WHERE id = 0")  # noqa: S608  # our own names
            return list(users)
        locked: list[str] = []
        for chunk in chunks(sorted(map(escape, users)), _USERS_PER_QUERY):
            locked += [unescape(row[0]) for row in self.sql.rows(*self._locking(chunk))]
        return locked

    def load(self, users: Collection[str]) -> None:
        """Read what binds *users* now; those who are not there stay unknown."""
        for chunk in chunks(sorted(map(escape, users)), _USERS_PER_QUERY):
            for row in self.sql.rows(*self._loading(chunk, self.now_us)):
                if row[1] is not None:
                    self._take(row[1:])

    def _locking(self, names: Sequence[str]) -> tuple[str, list[Any]]:
        named, values = self.sql.of_project(EndUser, "external_user_id", self.project_pk, names)
        ending = "FOR NO KEY UPDATE" if self.sql.vendor == "postgresql" else "FOR UPDATE"
        where = f"WHERE {named} ORDER BY id {ending}"
        return f"SELECT external_user_id FROM {self._table} {where}", values  # noqa: S608

    def _loading(self, names: Sequence[str], at_us: int | None = None) -> tuple[str, list[Any]]:
        """The moment, PostgreSQL's own by default, and who is bound by what then; at least one row."""
        named, values = self.sql.of_project(EndUser, "external_user_id", self.project_pk, names, "u")
        cast = "::bigint" if self.sql.vendor == "postgresql" else ""
        now, at = (_POSTGRES_NOW, []) if at_us is None else (f"%s{cast}", [at_us])
        query = (
            "SELECT t.now_us, u.id, u.external_user_id, u.sdk_enabled, u.own_config, u.contended_us, "  # noqa: S608
            "u.grant_window, u.grant_nusd, s.plan_id, p.name, s.period_start_us, s.period_end_us, u.uuid "
            f"FROM (SELECT {now} AS now_us) t "
            f"LEFT JOIN {self._table} u ON {named} "
            f"LEFT JOIN {self.sql.table(Subscription)} s "
            "ON s.user_id = u.id AND s.ends_us > t.now_us "
            "AND (s.starts_us <= t.now_us OR s.starts_us <= s.created_us) "  # see timeline.Span
            f"LEFT JOIN {self.sql.table(Plan)} p ON p.id = s.plan_id ORDER BY s.starts_us"
        )
        return query, [*at, *values]

    def create(self, users: Iterable[str]) -> None:
        """
        Make rows for those of *users* who are not there, and hold them.

        Raises:
            OvertakenError: Each time, before the row could be locked, another transaction took its name away.
        """
        for _ in range(_TRIES_MAX):
            missing = sorted(user for user in set(users) if user not in self._held)
            if not missing:
                return
            self._insert(missing)
            held = self.lock(missing)
            self.tell_time()
            self.load([user for user in held if user in missing])
        if any(user not in self._held for user in users):
            raise OvertakenError("users are renamed as fast as they are made")

    def _insert(self, missing: Sequence[str]) -> None:
        stored = self.sql.stored
        rows = [
            (
                stored(EndUser, "uuid", uuid.uuid4()), self.project_pk, escape(user), "", "", "{}",
                stored(EndUser, "sdk_enabled", True), "", 0, 0, self.now_us,
            )
            for user in missing
        ]  # fmt: skip
        self.sql.insert_new(EndUser, _NEW_USER, rows)
        self.made += missing

    def held(self, user_id: str) -> Held | None:
        """The row of a user, if he is there."""
        return self._held.get(user_id)

    def pk(self, user_id: str) -> int:
        """The key of a user's row, which is made if need be."""
        if user_id not in self._held:
            self.create([user_id])
        return self._held[user_id].pk

    def put(self, account: Account) -> None:
        """Store what differs from the row; another plan or period is a new subscription."""
        pk = self.pk(account.user_id)
        held = self._held[account.user_id]
        before, held.account = held.account, account
        if (account.plan, account.period) != (before.plan, before.period):
            held.plan_id = None if account.plan is None else self.plan_id(account.plan)
            terms = subscriptions.Terms(held.plan_id, account.period)
            subscriptions.begin(self.sql, pk, terms, self.now_us, starts_us=self.now_us)
        changes: dict[str, Any] = {
            name: value
            for name in ("own_config", "sdk_enabled", "contended_us")
            if (value := getattr(account, name)) != getattr(before, name)
        }
        if changes:
            parts = ", ".join(f"{name} = %s" for name in changes)
            self.sql.run(f"UPDATE {self._table} SET {parts} WHERE id = %s", (*changes.values(), pk))  # noqa: S608

    def _take(self, row: tuple[Any, ...]) -> None:
        (
            pk, name, sdk_enabled, own_config, contended_us, grant_window, grant_nusd, plan_id, plan,
            start_us, end_us, own_id,
        ) = row  # fmt: skip
        user_id = unescape(name)
        account = Account(
            user_id,
            None if plan is None else unescape(plan),
            own_config,
            None if start_us is None else (start_us, end_us),
            bool(sdk_enabled),
            contended_us,
            str(uuid.UUID(str(own_id))),
        )
        if grant_nusd and billing_period(account.period, self.now_us).key == grant_window:
            account = self._with_grant(account, grant_nusd)
        self._held[user_id] = Held(pk, account, plan_id)

    def _with_grant(self, account: Account, grant_nusd: int) -> Account:
        config = account.own_config
        if config is None:
            plan = self.plan(account.plan or DEFAULT_PLAN)
            config = None if plan is None else plan.config
        return account if config is None else account._replace(own_config=raised(config, grant_nusd))

    # -- plans ----------------------------------------------------------------------------------------

    def plan(self, name: str) -> PlanRow | None:
        """The plan of that name as configured; ``default`` is the project's default plan, if it has one."""
        if name not in self._plans:
            self._plans[name] = self._read_plan(name)
        return self._plans[name]

    def know_plans(self, names: Collection[str]) -> None:
        """Read the plans of those names, and the default one, at once."""
        unknown = sorted({*names, DEFAULT_PLAN} - self._plans.keys())
        for chunk in chunks(unknown, _USERS_PER_QUERY):
            self._take_plans(chunk, self.sql.rows(*self._planned(chunk)))

    def plan_id(self, name: str) -> int:
        """The key of a plan's row; one that nobody configured gets a row without a version."""
        if name not in self._plan_ids:
            query = f"SELECT id FROM {self.sql.table(Plan)} WHERE project_id = %s AND name = %s"  # noqa: S608
            row = self.sql.row(query, (self.project_pk, escape(name)))
            if row is None:
                self._insert_plan(name)
                row = self.sql.row(query, (self.project_pk, escape(name)))
            assert row is not None
            self._plan_ids[name] = row[0]
        return self._plan_ids[name]

    def bound_plan_id(self, held: Held) -> int | None:
        """The plan that binds a user, the default one included."""
        if held.plan_id is not None:
            return held.plan_id
        default = self.plan(DEFAULT_PLAN)
        return None if default is None else self.plan_id(default.name)

    def _read_plan(self, name: str) -> PlanRow | None:
        self._take_plans([name], self.sql.rows(*self._planned([name])))
        return self._plans[name]

    def _planned(self, names: Sequence[str]) -> tuple[str, list[Any]]:
        """The plans of those names, and the project's default plan if it is asked for."""
        sql = self.sql
        is_default = f"p.id = (SELECT default_plan_id FROM {sql.table(Project)} WHERE id = %s)"  # noqa: S608
        named, values = sql.among("p.name", [escape(name) for name in names])
        if DEFAULT_PLAN in names:
            named, values = f"({named} OR {is_default})", [*values, self.project_pk]
        query = (
            f"SELECT p.id, p.name, v.{sql.quoted('key')}, v.config, {is_default} FROM {sql.table(Plan)} p "  # noqa: S608
            f"JOIN {sql.table(PlanVersion)} v ON v.id = p.current_id WHERE {named} AND p.project_id = %s"
        )
        return query, [self.project_pk, *values, self.project_pk]

    def _take_plans(self, names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        plans = {unescape(row[1]): PlanRow(unescape(row[1]), row[2], row[3]) for row in rows}
        self._plan_ids.update((unescape(row[1]), row[0]) for row in rows)
        self._plans.update((name, plans.get(name)) for name in names)
        chosen = next((unescape(row[1]) for row in rows if row[4]), None)
        if chosen is not None and DEFAULT_PLAN in names:  # it wins over the one that is merely named so
            self._plans[DEFAULT_PLAN] = plans[chosen]

    def _insert_plan(self, name: str) -> None:
        stored = self.sql.stored
        row = (
            stored(Plan, "uuid", uuid.uuid4()), self.project_pk, escape(name),
            stored(Plan, "is_archived", False), self.now_us,
        )  # fmt: skip
        self.sql.insert_new(Plan, ("uuid", "project_id", "name", "is_archived", "created_us"), [row])

    @property
    def _table(self) -> str:
        return self.sql.table(EndUser)


@lru_cache(maxsize=1024)
def raised(config: str, grant_nusd: int) -> str:
    """The plan with *grant_nusd* more to spend in a period; an unlimited one stays so."""
    fields = json.loads(config)
    cap = fields.get("max_spend_per_period")
    if cap is None:
        return config
    fields["max_spend_per_period"] = float(Decimal(str(cap)) + Decimal(grant_nusd) / NUSD_PER_USD)
    return json.dumps(fields)
