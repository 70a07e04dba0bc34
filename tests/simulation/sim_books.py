"""
The auditor of a simulated fleet: it sees every operation that reaches the ledger, and checks what must hold.

(a) a grant keeps to the rule of the gate, (b) what is posted and leased stays within the limit plus one call
plus debt, (c) debt is what its named causes add up to, (d) totals are the sums of the rows, (e) each event
counts once, (f) no lease is negative.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from paygent.core.balance import UNLIMITED
from paygent.core.plan import SESSION_SPEND, TOTAL_SPEND
from paygent.ledger import GRANT_TTL_S
from paygent.testing._ledger_model import LedgerModel, some, terms, told

ROUNDING_US = 1


class BrokenInvariantError(AssertionError):
    """Something that must always hold did not."""


@dataclass(eq=False)
class Hold:
    """An admitted call: what it holds, and where the ledger has that covered by a lease."""

    user: str
    call: object
    kind: str  # lease, degraded, forced
    amounts: dict  # bucket: amount held
    covered: set = field(default_factory=set)  # buckets
    event: object = None

    @property
    def open(self):
        return self.event is None and self.call.is_open


@dataclass(eq=False)
class Letter:
    """Requests on their way to the ledger, and the calls that were open when they were written."""

    worker: object
    requests: list
    holds: list  # per request
    late: bool = False  # its process has given it up


class Books:
    """A model of the ledger, fed with what is sent to the real one, and who owes what and why."""

    def __init__(self, ledger, say):
        self.ledger = ledger
        self.model = LedgerModel()
        self.say = say  # takes the text of a violation
        self.holds = defaultdict(list)  # by lease id and user
        self.by_event = {}
        self.deadlines = {}
        self.unaware = set()  # whose lease has expired, and who have not heard so
        self.debt = defaultdict(int)  # by user and bucket
        self.seen = Counter()  # what happened, for the tests of the simulator itself
        self.touched = set()

    # -- what the engine does -------------------------------------------------------------------------

    def admitted(self, worker, call):
        """A call has its hold: was there room for it?"""
        period, session, tokens = call.purses
        needs = [(period, call.need_nusd), (session, call.need_nusd)]
        if tokens is not None:
            needs.append((tokens, call.need_tokens))
        finite = [purse for purse, _ in needs if purse.hard < UNLIMITED]
        late = bool(finite) and worker.boot() >= self.deadlines.get((worker.lease_id, call.user_id), 0.0)
        within = not late and all(purse.held <= purse.lease for purse in finite)
        kind = "lease" if within else self._kind(worker, call, needs, late=late)
        self.seen[f"admitted {kind}"] += 1
        for window in (period.window, call.session.window):
            late_s = (call.started_us - window.end_us - ROUNDING_US) / 1e6
            if kind == "lease" and late_s > 0:
                self.say(
                    f"(a) worker {worker.number} admitted a call to {window.key} {late_s:g} s after its end"
                )
        if kind != "lease" and call.need_nusd:
            # Until the ledger has heard of it, what such a call leaves of its hold is spent as if leased.
            self.unaware.add((worker.lease_id, call.user_id))
        hold = Hold(call.user_id, call, kind, {p.bucket: need for p, need in needs})
        if kind == "lease" and (worker.lease_id, call.user_id) not in self.unaware:
            hold.covered = {purse.bucket for purse in finite}
        self.holds[worker.lease_id, call.user_id].append(hold)

    def _kind(self, worker, call, needs, *, late):
        if call.forced or call.payer.reports_only:
            return "forced"
        if not worker.meter.degraded:
            why = "past its deadline" if late else "beyond its lease"
            self.say(f"(a) {call.user_id}: worker {worker.number} admitted a call {why}")
        exact = call.tariff.plan.exact
        for purse, need in needs:
            used = purse.posted + purse.unsettled + purse.held - (0 if exact else need)
            if purse.hard < UNLIMITED and (used > purse.hard if exact else used >= purse.hard):
                self.say(f"(a) {call.user_id}: a call was admitted alone beyond the whole of {purse.scope}")
        return "degraded"

    def check_spent(self, call):
        """A call that was refused as spent does not fit what the limits leave, whoever holds anything."""
        user = call.user_id
        if call.tariff is None:
            return
        _, config = self.model.plan_of(self.model.account(user))
        plan = terms(config)
        if call.tariff.plan.config.model_dump_json() != config:
            return  # judged under a plan that has changed since
        for scope, need in call.need_by_scope().items():
            totals = self.model.totals[user]
            # Another window may have begun since: that one of them is spent is all that can be told.
            left = plan.limits[scope] - max((n for b, n in totals.items() if b[0] == scope), default=0)
            if left <= 0 or (plan.exact and need > left):
                return
        self.say(f"(a) {user}: a call was refused as spent, but {call.need_by_scope()} fits")

    def check_nested(self, call, streams, reply, need):
        """A call that waits would fit, were it not for the holds of others."""
        self.seen["nested and waiting"] += 1
        scope, wallet, window = reply.denied, call.wallet, reply.period
        if scope == SESSION_SPEND:
            session = wallet.session_of(call.session_id, call.meter.boot())
            if session is None:
                return
            window = session.window
        bucket = scope, window.key
        holds = self.holds[call.meter.lease_id, call.user_id]
        own = sum(hold.amounts.get(bucket, 0) for hold in holds if hold.open and hold.call in streams)
        left = terms(reply.plan.config).limits[scope] - reply.posted.get(bucket, 0) - own
        if not own:
            return  # others are before it in line; what is spent is said when its turn comes
        if left <= 0 or (call.tariff.plan.exact and need > left):
            self.say(f"{call.user_id}: a nested call waits for {need} of {scope}, for itself ({left} left)")

    def posted(self, worker, call, event):
        """A call is settled: its event is in the journal."""
        for hold in self.holds[worker.lease_id, call.user_id]:
            if hold.call is call:
                hold.event = event
                self.by_event.setdefault(event.id, hold)
                return
        self.say(f"(e) an event of {call.user_id} belongs to no call that was admitted")

    def letter(self, worker, requests):
        """Note what is open as a request leaves; what it says must be that."""
        letter = Letter(worker, list(requests), [])
        for request in requests:
            key = request.lease_id, request.user_id
            holds = [hold for hold in self.holds[key] if hold.event is not None or hold.call.is_open]
            self.holds[key] = holds
            held = defaultdict(int)
            for hold in holds:
                if hold.open:
                    for bucket, amount in hold.amounts.items():
                        held[bucket] += amount
            for bucket, amount in request.held.items():
                if held[bucket] != amount:
                    self.say(f"{request.user_id}: {amount} held on {bucket}, open calls hold {held[bucket]}")
            letter.holds.append([hold for hold in holds if hold.open])
        return letter

    # -- what reaches the ledger ----------------------------------------------------------------------

    def lease(self, letter, now_us):
        """Apply requests to the ledger and the model, and compare."""
        requests, model = letter.requests, self.model
        before = {}
        for request in requests:
            live = model.live(request.user_id, now_us)
            before[request.user_id] = self._state(request.user_id, live)
            self._settle_debt(request.user_id, before[request.user_id])
        own = [model.leases[request.user_id].get(request.lease_id) for request in requests]
        new = [[event for event in r.events if event.id not in model.events] for r in requests]
        replies = self.ledger.lease(requests)
        answers = model.lease(requests, replies)
        for i, (request, reply, answer) in enumerate(zip(requests, replies, answers, strict=True)):
            self.touched.add(request.user_id)
            if reply.now_us != now_us or told(reply) != answer:
                self.say(f"(a) {request.user_id}: replied {told(reply)}, but should {answer}")
            self._uncover(request, own[i], letter, letter.holds[i])
            self._audit(request, answer, own[i], before[request.user_id], new[i], letter.holds[i])
        return replies

    def _uncover(self, request, own, letter, snapshot):
        """What no lease covers: all of it once that has expired, and what is over when a letter is late."""
        if own is None:
            self.unaware.add((request.lease_id, request.user_id))
            for hold in self.holds[request.lease_id, request.user_id]:
                hold.covered.clear()
        if letter.late:
            for hold in snapshot:
                if self._is_past(hold):
                    hold.covered.clear()

    def _audit(self, request, answer, own, before, new, snapshot):
        key = request.lease_id, request.user_id
        repeats = own is not None and request.seq <= own.seq
        limits = terms(answer.config).limits
        causes = self._causes(new, () if repeats else snapshot, limits)
        if request.need and answer.denied is None and not repeats:
            self._one_call_over(request, answer, causes)
        self._grow(request.user_id, before, causes)
        if not repeats:
            for hold in snapshot:
                hold.covered = {bucket for bucket in hold.amounts if bucket in request.keep}
            self.seen[
                "spent" if answer.denied and not answer.busy else "busy" if answer.busy else "lease"
            ] += 1
        self.holds[key] = [hold for hold in self.holds[key] if not self._is_past(hold)]

    def _is_past(self, hold):
        return hold.event.id in self.model.events if hold.event is not None else not hold.call.is_open

    def _causes(self, new, snapshot, limits):
        """What may lawfully grow beyond what was leased, by bucket: each entry is one named cause."""
        causes = defaultdict(int)
        for event in new:
            hold = self.by_event.get(event.id)
            for bucket, amount in _amounts(event):
                covered = hold.amounts.get(bucket, 0) if hold is not None and bucket in hold.covered else 0
                if amount > covered and bucket[0] in limits:
                    name = "under-estimate" if covered else f"posted without a lease ({hold and hold.kind})"
                    self.seen[name] += 1
                    causes[bucket] += amount - covered
        for hold in snapshot:
            for bucket, amount in hold.amounts.items():
                if amount and bucket[0] in limits and bucket not in hold.covered:
                    self.seen[f"held without a lease ({hold.kind})"] += 1
                    causes[bucket] += amount
        return causes

    def _one_call_over(self, request, answer, causes):
        """Without pre_call_estimate, the one call that may pass the limit where there is any room."""
        plan = terms(answer.config)
        if plan.exact:
            return
        for scope, need in request.need.items():
            session = answer.session
            key = f"p{answer.period.start_us}"
            if scope == SESSION_SPEND:
                key = f"s{session[1].start_us}:{session[0]}"
            if scope in plan.limits:
                bucket = scope, key
                room = plan.limits[scope] - answer.posted.get(bucket, 0) - answer.others.get(bucket, 0)
                room -= request.held.get(bucket, 0)
                if room < need:
                    self.seen["one call over"] += 1
                    causes[bucket] += need - room

    def settle(self, events, close, now_us):
        """Post events and close leases; they come late, so that all of them may be above the limit."""
        users = {event.user_id for event in events}
        users.update(u for u, leases in self.model.leases.items() if any(i in leases for i in close))
        before = {}
        for user in sorted(users):
            before[user] = self._state(user, self.model.live(user, now_us))
            self._settle_debt(user, before[user])
        count = self.ledger.settle(events, close)
        new = self.model.settle(events, close)
        if count != len(new):
            self.say(f"(e) {count} of {len(events)} events were new, not {len(new)}")
        for user in sorted(users):
            causes = defaultdict(int)
            for event in new:
                for bucket, amount in _amounts(event) if event.user_id == user else ():
                    causes[bucket] += amount
            self._grow(user, before[user], causes)
            self.touched.add(user)
        self.seen["settled late"] += len(new)
        return count

    def put_plan(self, name, config):
        """A plan changes; what is then above a lowered limit is debt."""
        self.ledger.put_plan(name, config)
        self._relimited(sorted(self.model.totals), lambda: self.model.put_plan(name, config))

    def put_account(self, user_id, changes):
        """An account changes, and with it the limits."""
        self.ledger.put_account(user_id, changes)
        self._relimited([user_id], lambda: self.model.put_account(user_id, changes))

    def _relimited(self, users, change):
        change()
        for user in users:
            for bucket, over in self._over(user, self._state(user, self.model.leases[user])).items():
                if over > self.debt[user, bucket]:
                    self.seen["lowered limit"] += 1
                    self.debt[user, bucket] = over

    # -- limits and debt ------------------------------------------------------------------------------

    def _state(self, user, leases):
        """Posted and leased together, by bucket."""
        state = dict(self.model.totals[user])
        for lease in leases.values():
            for bucket, amount in lease.amounts.items():
                state[bucket] = state.get(bucket, 0) + amount
        return state

    def _over(self, user, state):
        """What is above the limits, by bucket."""
        _, config = self.model.plan_of(self.model.account(user))
        limits = terms(config).limits
        return {b: n - limits[b[0]] for b, n in state.items() if b[0] in limits and n > limits[b[0]]}

    def _settle_debt(self, user, state):
        """Debt that was worked off is gone."""
        over = self._over(user, state)
        for key in [key for key in self.debt if key[0] == user]:
            self.debt[key] = min(self.debt[key], over.get(key[1], 0))
            if not self.debt[key]:
                del self.debt[key]

    def _grow(self, user, before, causes):
        """After an operation nothing is above a limit but what was, and what has a named cause."""
        after = self._state(user, self.model.leases[user])
        was = self._over(user, before)  # under the plan of now: the operation may have moved the user
        for bucket, over in self._over(user, after).items():
            known = max(self.debt[user, bucket], was.get(bucket, 0))
            if over > known + causes[bucket]:
                self.say(
                    f"(b) {user}: {bucket} is {over} above its limit; causes are known for "
                    f"{known + causes[bucket]}"
                )
            self.debt[user, bucket] = over

    # -- after each step ------------------------------------------------------------------------------

    def check(self, now_us):
        """The rows of the ledger are those of the model, for the users that the step touched."""
        for user in sorted(self.touched):
            totals = some(self.ledger.totals(user))
            if totals != some(self.model.totals[user]):
                self.say(
                    f"(d) {user}: totals {totals}, but the rows add up to {dict(self.model.totals[user])}"
                )
            self._check_leases(user, now_us)
        self.touched.clear()

    def _check_leases(self, user, now_us):
        rows = leases_of(self.ledger, user, now_us)
        for lease_id, amounts in rows.items():
            if any(amount < 0 for amount in amounts.values()):
                self.say(f"(f) {user}: the lease {amounts} is negative")
            known = self.model.leases[user].get(lease_id)
            if known is None or known.amounts != amounts:
                self.say(f"(b) {user}: the lease {amounts} should be {known}")
        for lease_id, lease in self.model.leases[user].items():
            if lease.amounts and lease.expires_us > now_us and lease_id not in rows:
                self.say(f"(b) {user}: the lease {lease} is not there")

    def check_rows(self):
        """Every event that was posted is one row, and no other is there."""
        rows = self.ledger.events(limit=1_000_000)
        if sorted(row.id for row in rows) != sorted(self.model.events):
            self.say(f"(e) {len(rows)} rows, but {len(self.model.events)} events were posted")
        totals = defaultdict(int)
        for row in rows:
            for bucket, amount in _amounts(row):
                totals[row.user_id, bucket] += amount
        known = {(u, b): n for u, totals in self.model.totals.items() for b, n in totals.items()}
        counted = {key: known.get(key, 0) for key in totals}
        if counted != dict(totals):
            self.say("(d) totals are not the sum of the rows")

    def renewed(self, letter, boot_s):
        """A reply arrived for what was sent at *boot_s*: it is good for as long as a grant is."""
        for request in letter.requests:
            self.unaware.discard((request.lease_id, request.user_id))
            self.deadlines[request.lease_id, request.user_id] = boot_s + GRANT_TTL_S


def _amounts(event):
    cost = event.cost_tokens_nusd + event.cost_tools_nusd
    yield (TOTAL_SPEND, event.period), cost
    yield (SESSION_SPEND, event.session), cost
    if event.model is not None:
        yield ("model_limit:" + event.model, event.period), event.input_tokens + event.output_tokens


def leases_of(ledger, user, now_us):
    """The live leases of a user in the rows of *ledger*, without empty ones: amounts by lease id."""
    if hasattr(ledger, "_leases"):
        rows = ledger._leases.get(user, {}).values()
    else:
        with ledger._transaction() as transaction:
            rows = transaction.leases(user)
    return {row.lease_id: row.amounts for row in rows if row.amounts and row.expires_us > now_us}
