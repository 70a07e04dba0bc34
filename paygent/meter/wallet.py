"""The wallet: what one process may spend for one user, in memory, and how it talks to the ledger."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from paygent.core.events import Event
from paygent.core.plan import MODEL_COST, MODEL_LIMIT, NO_LIMIT, SESSION_SPEND, TOTAL_SPEND
from paygent.core.windows import Window, billing_period
from paygent.ledger import GRANT_TTL_S, Account, Bucket, LeaseReply, LeaseRequest, Session
from paygent.meter.purse import ModelPurse, Purse, model_scope

if TYPE_CHECKING:
    from paygent.meter.call import Call, Outcome
    from paygent.meter.habits import OutputSizes
    from paygent.meter.tariff import Tariff

IDLE_S = 5.0
FRESH_S = 1.0  # how old what is known of a plan may get before a call is judged by it
SESSIONS_MAX = 64
# Nobody adds to it: an empty list of its own would be 56 bytes of every idle wallet.
_NONE: Any = ()


class Ask:
    """
    A caller that waits for the ledger: it gets its hold, a refusal, or runs out of patience.

    ``outer`` are the open streams of its own context, which will not end while it waits.
    """

    __slots__ = ("call", "future", "is_waiting", "late_s", "outer", "rounds", "since_s")

    def __init__(self, call: Call, since_s: float, outer: tuple[Call, ...] = ()) -> None:
        self.call = call
        self.since_s = since_s
        self.outer = outer
        self.is_waiting = False  # its thread does nothing else: what is raised there is not ours
        self.rounds = 0  # how often it has asked at once
        self.late_s: float | None = None  # when its time was first seen to be over
        self.future: Future[Outcome] = Future()


class Wallet:
    """
    Everything this process knows of one user. All fields are guarded by ``lock``; nothing under it waits.

    Times are seconds of this machine's boot clock; ``offset_us`` leads from there to the ledger's clock.
    Past ``ready_until_s`` (a window's end, the grant's deadline) nothing is admitted before the ledger is
    asked again. ``override`` says that a user's live state was edited: this process alone then judges.

    There may be a hundred thousand of them, so what most users never need is made when it is needed. The
    purses of the running windows and of the last model have fields of their own; ``more`` holds all the rest.
    """

    __slots__ = (
        "account", "announce", "answered_s", "asking", "asks", "busy_on", "contended", "deadline_s",
        "events", "gone",
        "in_flight", "lease_id", "lock", "model_purse", "more", "moved_to", "offset_us", "override",
        "period", "period_purse", "poll_at_s", "poll_s", "ready_until_s", "refused",
        "refused_until_s", "sent_events", "sent_s", "session", "session_purse", "sessions",
        "sharers", "sizes", "stale", "thirsty", "state", "tariff", "touched_s", "unseen", "user_id", "want",
    )  # fmt: skip

    def __init__(self, user_id: str, lease_id: str) -> None:
        self.user_id = user_id
        self.lease_id = lease_id
        self.lock = threading.Lock()
        self.account: Account | None = None
        self.tariff: Tariff | None = None
        self.period: Window | None = None
        self.session: Session | None = None
        self.sessions: dict[str, Session] | None = None
        self.period_purse: Purse | None = None
        self.session_purse: Purse | None = None
        self.model_purse: ModelPurse | None = None  # of the model that was asked for last
        self.more: dict[Bucket, Purse] | None = None
        self.gone = False
        self.asks: deque[Ask] | None = None
        self.asking: Ask | None = None  # whose need the operation under way is for
        self.events: list[Event] = _NONE  # a list of its own once there is one
        self.sent_events: list[Event] | None = None
        self.override: Any = None
        self.in_flight = self.stale = self.contended = False
        self.announce = True
        self.moved_to: str | None = None
        self.state: Any = None
        self.ready_until_s = self.deadline_s = self.answered_s = self.sent_s = self.touched_s = 0.0
        self.poll_at_s = self.poll_s = self.refused_until_s = 0.0
        self.busy_on: str | None = None  # the scope that others were last in the way on
        self.refused: tuple[str, bool, int, str | None] | None = None
        self.sharers = 1
        self.unseen = 0  # open calls that hold nothing, as those only noted down
        self.offset_us = 0
        self.sizes: tuple[OutputSizes, ...] = ()  # of this user's answers, by model
        self.want: tuple[str | None, dict[str, int]] | None = None
        self.thirsty = False

    @property
    def live(self) -> Any:
        """The live state that somebody holds, if any."""
        return self.override or (self.state() if self.state is not None else None)

    # -- purses ---------------------------------------------------------------------------------------

    @property
    def purses(self) -> dict[Bucket, Purse]:
        """All purses, by what the ledger calls them."""
        return {purse.bucket: purse for purse in self._all()}

    def _all(self) -> list[Purse]:
        first = (self.period_purse, self.session_purse, self.model_purse)
        return [*[purse for purse in first if purse is not None], *(self.more or {}).values()]

    def _find(self, scope: str, window_key: str) -> Purse | None:
        for purse in (self.period_purse, self.session_purse, self.model_purse):
            if purse is not None and purse.scope == scope and purse.window.key == window_key:
                return purse
        return None if self.more is None else self.more.get((scope, window_key))

    def purse(self, scope: str, window: Window) -> Purse:
        """The purse of *scope* in *window*, made when it is first touched."""
        purse = self._find(scope, window.key)
        if purse is None:
            purse = self._new(scope, window)
            self._keep(purse)
        purse.window = window  # a plan may stretch a running session
        return purse

    def look(self, scope: str, window: Window) -> Purse:
        """The purse of *scope* in *window*, or one that nobody keeps: for those who only read it."""
        return self._find(scope, window.key) or self._new(scope, window)

    def _new(self, scope: str, window: Window) -> Purse:
        limit = self.tariff.plan.limit_of(scope) if self.tariff is not None else NO_LIMIT
        if scope.startswith(MODEL_LIMIT):
            return ModelPurse(scope, window, limit)
        return Purse(scope, window, limit)

    def _keep(self, purse: Purse) -> None:
        if self.more is None:
            self.more = {}
        self.more[purse.bucket] = purse

    def _exchanged(self, purse: Purse | None, scope: str, window: Window) -> Any:
        """The purse of *scope* in *window*, for a field of its own; *purse*, which had it, joins the rest."""
        if purse is not None and purse.scope == scope and purse.window.key == window.key:
            purse.window = window
            return purse
        if purse is not None:
            self._keep(purse)
        found = self._taken(scope, window.key) or self._new(scope, window)
        found.window = window
        return found

    def _taken(self, scope: str, window_key: str) -> Purse | None:
        """Take a purse out of the rest; an empty dictionary would be a tenth of an idle wallet."""
        if self.more is None:
            return None
        purse = self.more.pop((scope, window_key), None)
        self.more = self.more or None
        return purse

    def purse_of(self, scope: str) -> ModelPurse:
        """Tokens and cost of a model (see ``model_scope``) in the running period."""
        purse = self.model_purse
        if purse is None or purse.scope != scope:
            assert self.period is not None
            purse = self.model_purse = self._exchanged(purse, scope, self.period)
        return purse

    def session_of(self, own_id: str | None, boot_s: float) -> Session | None:
        """The running session of a call, or ``None`` if the ledger must name it first."""
        session = self.session if own_id is None else (self.sessions or {}).get(own_id)
        if session is None or self.now_us(boot_s) >= session.window.end_us:
            return None
        return session

    def now_us(self, boot_s: float) -> int:
        """The ledger's clock."""
        return int(boot_s * 1e6) + self.offset_us

    def wish(self, call: Call) -> None:
        """Ask for more in the background before calls like *call* run dry, once per grant."""
        self.want = (call.session_id, call.need_by_scope())
        self.thirsty = True
        for purse in call.purses:
            if purse is not None:
                purse.low = 0

    # -- talking to the ledger ------------------------------------------------------------------------

    def prepare(self, seq: int, boot_s: float) -> LeaseRequest | None:
        """
        Build the next operation, or ``None`` where one is in flight already.

        What is idle beyond the share of this process is given back here, at the moment of sending, so that
        it cannot be spent while the operation is under way.
        """
        with self.lock:
            if self.in_flight or self.gone:  # its successor has the same lease: this one must not set it
                return None
            self.in_flight, self.sent_s, self.stale = True, boot_s, False
            self.sent_events, self.events = self.events, _NONE
            request = LeaseRequest(self.user_id, self.lease_id, seq, events=list(self.sent_events))
            if self.asks:
                self.asking = self.asks[0]
                head = self.asking.call
                request.begin_session = True
                request.session_id = head.session_id
                request.plan = head.plan
                request.need = head.need_by_scope()
            elif self.want is not None and not self.contended:
                request.session_id, request.want = self.want
            self.want = None
            for purse in self._all():
                purse.send()
                if purse.finite:
                    purse.raised = max(0, purse.held - purse.lease)
                    purse.lease = purse.held + (0 if request.need else self._kept(purse, boot_s))
                    if purse.lease > 0:
                        request.held[purse.bucket] = purse.held
                        request.keep[purse.bucket] = purse.lease
            return request

    def _kept(self, purse: Purse, boot_s: float) -> int:
        """How much of a purse's idle amount stays; past its time, and once no calls come any more, none."""
        idle = purse.lease - purse.held
        over = self.now_us(boot_s) >= purse.window.end_us or boot_s >= self.deadline_s
        if idle <= 0 or over or self.contended or self.touched_s + IDLE_S < boot_s:
            return 0
        room = purse.hard - purse.used - purse.held - purse.others
        return max(0, min(idle, room // (2 * max(1, self.sharers))))

    def receive(self, request: LeaseRequest, reply: LeaseReply, tariff: Tariff, boot_s: float) -> None:
        """Take over what the ledger says; what was posted here meanwhile stays on top."""
        with self.lock:
            self.in_flight = False
            self.sent_events = None
            self.answered_s = boot_s
            self.sharers, self.contended = reply.sharers, reply.contended
            if request.plan is not None:
                self.moved_to = request.plan
            self.offset_us = reply.now_us - int(boot_s * 1e6)
            lowered = False
            told = {reply.period.key, reply.session.window.key if reply.session is not None else None}
            if self.override is None:
                lowered = tariff is not self.tariff and not request.need
                self.account = reply.account
                self.limited_by(tariff)
                self.windows(reply.period, request.session_id, reply.session)
                for bucket in reply.posted:
                    self._know(bucket)

            def said(bucket: Bucket) -> int | None:
                return reply.posted.get(bucket, 0 if bucket[1] in told else None)

            for bucket, purse in self.purses.items():
                purse.arrive()
                if self.override is None:
                    purse.hear(said)
                purse.others = reply.others.get(bucket, 0)
                if purse.finite:
                    purse.raised = 0
                    purse.lease += reply.lease.get(bucket, 0) - request.keep.get(bucket, 0)
                    purse.refill_below(request.need.get(purse.scope) or request.want.get(purse.scope))
                    if lowered:  # what was kept was worked out under the old plan
                        purse.stay_within()
                if self._is_over(purse) or self._is_in_vain(purse):
                    self._drop(purse)
            if not self.asks or self.asks[0] is not self.asking:
                self.stay_within()  # who asked has gone meanwhile
            self.deadline_s = self.sent_s + GRANT_TTL_S
            self._be_ready_until()

    def stay_within(self) -> None:
        """What a grant went past a limit was for the one call that asked: nobody else may have it."""
        for purse in self._all():
            purse.stay_within()

    def recall(self, known: LeaseReply, tariff: Tariff, now_us: int, boot_s: float) -> None:
        """Take over what was known of the user some time ago (the lock is held); nothing is granted by it."""
        self.account = known.account
        self.offset_us = now_us - int(boot_s * 1e6)
        self.limited_by(tariff)
        self.windows(billing_period(known.account.period, now_us), None, known.session)
        for bucket in known.posted:
            if self.period is not None and bucket[1] == self.period.key:
                self._know(bucket)
        for purse in self._all():
            purse.hear(known.posted.get)

    def failed(self) -> None:
        """The operation did not come through: its events wait for the next one."""
        with self.lock:
            self.in_flight = False
            self.events = [*(self.sent_events or ()), *self.events]
            self.sent_events = None
            for purse in self._all():
                purse.fail()

    def limited_by(self, tariff: Tariff) -> None:
        """Take on a plan; a new one is judged from the next call on, open holds keep their price."""
        if tariff is self.tariff:
            return
        self.tariff, self.refused = tariff, None
        for purse in self._all():
            purse.limited_by(tariff.plan.limit_of(purse.scope))

    def windows(self, period: Window, own_id: str | None, session: Session | None) -> None:
        """Enter the windows that the ledger named."""
        if period != self.period and self.model_purse is not None:
            self._keep(self.model_purse)
            self.model_purse = None
        self.period = period
        self.period_purse = self._exchanged(self.period_purse, TOTAL_SPEND, period)
        if session is not None:
            if own_id is None:
                if session == self.session:
                    session = self.session  # one object, and one copy of its key, for as long as it lasts
                self.session = session
                self.session_purse = self._exchanged(self.session_purse, SESSION_SPEND, session.window)
            else:
                if self.sessions is None:
                    self.sessions = {}
                elif len(self.sessions) >= SESSIONS_MAX and own_id not in self.sessions:
                    del self.sessions[next(iter(self.sessions))]
                self.sessions[own_id] = session
                self.purse(SESSION_SPEND, session.window)

    def _be_ready_until(self) -> None:
        assert self.period is not None
        assert self.tariff is not None
        ends_us = min(self.period.end_us, self.session.window.end_us if self.session else self.period.end_us)
        ends_s = (ends_us - self.offset_us) / 1e6
        # Without a lease nothing renews what is known here: after a second the plan may be another.
        leased = any(purse.finite and purse.lease > 0 for purse in self._all())
        known_until_s = self.deadline_s if leased else self.sent_s + FRESH_S
        self.ready_until_s = min(ends_s, known_until_s)

    def _know(self, bucket: Bucket) -> None:
        """Have a purse for *bucket*; what a model costs is in the purse of its tokens."""
        scope, key = bucket
        if scope.startswith(MODEL_COST):
            scope = model_scope(scope[len(MODEL_COST) :])
        elif scope.startswith(MODEL_LIMIT):
            scope = model_scope(scope[len(MODEL_LIMIT) :])
        if self._find(scope, key) is None:
            windows = [self.period, *(session.window for session in self._live_sessions())]
            found = [window for window in windows if window is not None and window.key == key]
            self.purse(scope, found[0] if found else Window(key, 0, 0))

    def _drop(self, purse: Purse) -> None:
        if purse is self.model_purse:
            self.model_purse = None
        else:
            self._taken(*purse.bucket)

    def _live_sessions(self) -> list[Session]:
        return [s for s in (self.session, *(self.sessions or {}).values()) if s is not None]

    def _is_over(self, purse: Purse) -> bool:
        """Whether a purse belongs to a window that is past, with nothing open in it any more."""
        if self.period is None or not purse.is_settled:
            return False
        if purse.scope == SESSION_SPEND:
            return all(purse.window.key != session.window.key for session in self._live_sessions())
        return purse.window.key != self.period.key

    def _is_in_vain(self, purse: Purse) -> bool:
        """
        Whether a model's purse says nothing: users choose the names, so such purses must not pile up.

        While a call is open that holds nothing, any of them may be the one that it will be posted to.
        """
        return purse.is_blank and not self.unseen and purse.scope not in (TOTAL_SPEND, SESSION_SPEND)

    def is_due(self, boot_s: float) -> bool:
        """Whether the ledger has something to hear from this wallet, or it something to hear back."""
        if self.asks:
            return boot_s >= self.poll_at_s
        if self.events or self.stale:
            return True
        leased = any(purse.finite and purse.lease > 0 for purse in self._all())
        return leased and boot_s >= self.sent_s + FRESH_S / 2

    @property
    def idle_lease(self) -> bool:
        """Whether something is leased that no call holds."""
        return any(purse.finite and purse.lease > purse.held for purse in self._all())

    @property
    def forgettable(self) -> bool:
        """Whether nothing is open or unsettled here, so that the wallet may be dropped from memory."""
        if self.events or self.asks or self.in_flight or self.unseen or self.live is not None:
            return False
        return not any(not p.is_settled or (p.finite and p.lease > 0) for p in self._all())
