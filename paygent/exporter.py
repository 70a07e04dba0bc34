"""The ledger thread: the one place of a process that talks to its ledger."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, TypeVar

from paygent._turns import short_turns
from paygent.delivery import Delivery
from paygent.journal import EVENTS_PER_BATCH, Journal
from paygent.ledger import LeaseReply, LeaseRequest, Ledger, LedgerError

T = TypeVar("T")
REQUESTS_PER_STEP = 100
_DUE_PER_TURN = 64
_ROUNDS_PER_STEP = 8


class Member(Protocol):
    """What takes part in a step: a wallet."""

    poll_at_s: float

    def prepare(self, seq: int, boot_s: float) -> LeaseRequest | None:
        """The next operation, or ``None`` where one is under way."""

    def failed(self) -> None:
        """The operation did not come through; its events go with the next one."""


class Desk(Protocol):
    """Who owns the members and hears what came of a step: the meter."""

    def due(self, boot_s: float) -> Iterable[Any]:
        """The members that the ledger should hear of."""

    def answered(self, member: Any, request: LeaseRequest, reply: LeaseReply) -> bool:
        """Take a reply; true asks for another operation at once."""

    def next_poll_s(self) -> float | None:
        """When the next waiting member wants to ask again."""

    def everyone(self, *, give_back: bool) -> list[Any]:
        """All members, for a flush; with *give_back* they return what is idle."""

    def reachable(self) -> None:
        """The ledger answered."""

    def unreachable(self, error: LedgerError) -> None:
        """The ledger could not be asked."""

    def faulted(self, member: Any, error: Exception) -> None:
        """The operation of this one member cannot be handled; the ledger is fine."""

    def after_tick(self, ledger: Ledger, boot_s: float) -> None:
        """Once a tick in which the ledger did not fail: the audit trail and whatever else waits."""


class Asking(NamedTuple):
    """The request that the ledger is at: since when, and how far the store's own clock stood then."""

    since_s: float
    pulse: int


class Exporter:
    """
    One thread, started with the first request of a process, merging what waits into one transaction.

    ``run_step`` does the work and may be called without the thread: a simulation sets ``threaded`` to false
    and drives it by hand.
    """

    def __init__(
        self,
        ledger: Ledger,
        journal: Journal,
        lease_id: str,
        desk: Desk,
        boot: Callable[[], float],
        tick_s: float,
    ) -> None:
        self.ledger = ledger
        self.journal = journal
        self.tick_s = tick_s
        self.asking: Asking | None = None
        self.threaded = True
        self.heard = False  # whether the ledger has ever answered this process
        self._delivery = Delivery(ledger, journal, lease_id)
        self._desk = desk
        self._boot = boot
        self._thread: threading.Thread | None = None
        self._seq = int(time.time() * 1000) << 10  # rises over restarts of one wallet within the process
        self._next_tick_s = 0.0
        self._stopping = self._ended = False
        self._away = False  # the ledger did not answer in this step, so the rest of it waits

    # Made with their first use: a worker of gevent patches these modules only after it was forked.

    @property
    def _queue(self) -> queue.SimpleQueue[Any]:
        made: queue.SimpleQueue[Any] | None = self.__dict__.get("_made_queue")
        return made or self.__dict__.setdefault("_made_queue", queue.SimpleQueue())

    @property
    def _lock(self) -> threading.Lock:
        """Guards starting and ending."""
        made: threading.Lock | None = self.__dict__.get("_made_lock")
        return made or self.__dict__.setdefault("_made_lock", threading.Lock())

    def pulse(self) -> int:
        """What the store tells of its own progress; see :meth:`paygent.ledger.Ledger.pulse`."""
        return self.ledger.pulse()

    @property
    def flushed(self) -> int:
        """Events that the ledger has from this process."""
        return self._delivery.flushed

    @property
    def rejected(self) -> int:
        """Events that no ledger can take."""
        return self._delivery.rejected

    # -- from any thread ------------------------------------------------------------------------------

    def submit(self, member: Member) -> None:
        """Have *member* talk to the ledger soon."""
        self._queue.put(member)
        self._start()

    def call(self, function: Callable[[Ledger], T]) -> Future[T]:
        """Run *function* on the ledger thread; after the end the future holds a :class:`LedgerError`."""
        future: Future[T] = Future()
        if self.is_current:
            self._run(function, future)
            return future
        with self._lock:
            ended = self._ended  # asked once: whoever ends the thread answers what is in the queue
            if not ended:
                self._queue.put((function, future))
        if ended:
            future.set_exception(LedgerError("the ledger thread has ended"))
        else:
            self._start()
        return future

    @property
    def has_begun(self) -> bool:
        """Whether this process has ever asked the ledger for anything."""
        return self._thread is not None

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on the ledger thread, which must not wait for itself."""
        return not self.threaded or threading.current_thread() is self._thread

    def refresh(self, member: Member) -> Future[None]:
        """Have one member talk to the ledger now; the future is done when it has heard back."""
        return self.call(lambda _: self._until_quiet([member]))

    def flush(self, *, give_back: bool = False) -> Future[None]:
        """Settle everything that is open, and write the audit trail."""

        def settle_all(ledger: Ledger) -> None:
            self._until_quiet(self._desk.everyone(give_back=give_back))
            self._desk.after_tick(ledger, self._boot())

        return self.call(settle_all)

    def stop(self, timeout_s: float) -> bool:
        """End the thread after what it is doing; false if that takes longer than *timeout_s*."""
        self._stopping = True
        with self._lock:
            thread = self._thread
        if thread is None:
            self._end()
            return True
        self._queue.put(None)
        if thread is not threading.current_thread():
            thread.join(timeout_s)
        return not thread.is_alive()

    def _start(self) -> None:
        if self._thread is not None or not self.threaded:
            return
        with self._lock:
            if self._thread is None and not self._stopping:
                thread = threading.Thread(target=self._loop, name="paygent-ledger", daemon=True)
                thread.start()
                self._thread = thread

    # -- on the ledger thread -------------------------------------------------------------------------

    def _loop(self) -> None:
        self._thread = threading.current_thread()  # its first step may come before _start() says so
        while not self._stopping:
            try:
                polls_s = self._desk.next_poll_s()
                wake_s = self._next_tick_s if polls_s is None else min(self._next_tick_s, polls_s)
                self.run_step(max(0.0, wake_s - self._boot()))
            except BaseException as error:  # noqa: BLE001  # a callback's, too: the thread must live
                self._delivery.say_fault("on the ledger thread", error)
                time.sleep(0.05)
        self._end()

    def _end(self) -> None:
        """Nobody waits for a thread that is no more."""
        with self._lock:
            self._ended = True
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return
            if isinstance(item, tuple) and item[1].set_running_or_notify_cancel():
                item[1].set_exception(LedgerError("the ledger thread has ended"))

    def run_step(self, wait_s: float = 0.0) -> None:
        """Wait at most *wait_s* for work, then do all that is there, and the tick if it is due."""
        self._away = False
        members = self._drain(wait_s)
        boot_s = self._boot()
        is_tick = boot_s >= self._next_tick_s
        if is_tick:
            self._next_tick_s = boot_s + self.tick_s
            self._guarded(self._delivery.recover)
        self._until_quiet(list(members))
        due = list(self._desk.due(boot_s))
        for start in range(0, len(due), _DUE_PER_TURN):
            # Between the many that are merely due, whoever waits comes first.
            self._until_quiet([*self._drain(0.0), *due[start : start + _DUE_PER_TURN]])
        if is_tick and not self._away:
            self._guarded(lambda: self._desk.after_tick(self.ledger, boot_s))

    def _until_quiet(self, members: list[Any]) -> None:
        """Ask until nobody wants more; who goes on for long takes turns with everybody else."""
        for _ in range(_ROUNDS_PER_STEP):
            members = self._ask(members)
            if not members or self._away:
                return
        for member in members:
            self._queue.put(member)

    def _drain(self, wait_s: float) -> dict[Any, None]:
        members: dict[Any, None] = {}
        try:
            item = self._queue.get(timeout=wait_s) if wait_s > 0 else self._queue.get_nowait()
            while True:
                if isinstance(item, tuple):
                    self._run(*item)
                elif item is not None:
                    members[item] = None
                item = self._queue.get_nowait()
        except queue.Empty:
            return members

    def _run(self, function: Callable[[Ledger], T], future: Future[T]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        self._away = False
        try:
            with self._at_the_ledger():
                result = function(self.ledger)
        except LedgerError as error:
            self._unreachable(error)
            future.set_exception(error)
        except BaseException as error:  # noqa: BLE001  # it belongs to whoever waits for the result
            future.set_exception(error)
        else:
            future.set_result(result)

    @contextlib.contextmanager
    def _at_the_ledger(self) -> Iterator[None]:
        """The ledger is asked; who waits for it does not wait for the other threads of this process."""
        self.asking = Asking(self._boot(), self.pulse())
        short_turns.begin()
        try:
            yield
        finally:
            short_turns.end()
            self.asking = None

    # -- lease operations -----------------------------------------------------------------------------

    def _ask(self, members: Iterable[Any]) -> list[Any]:
        """One round of lease operations in transactions of bounded size; returns who asks again at once."""
        again: list[Any] = []
        chunk: list[tuple[Any, LeaseRequest]] = []
        events = 0
        for member in members:
            request = self._prepared(member)
            if request is None:
                continue
            if chunk and (events + len(request.events) > EVENTS_PER_BATCH or len(chunk) >= REQUESTS_PER_STEP):
                again += self._send(chunk)
                chunk, events = [], 0
            chunk.append((member, request))
            events += len(request.events)
        return again + self._send(chunk) if chunk else again

    def _prepared(self, member: Any) -> LeaseRequest | None:
        if self._away:
            return None
        self._seq += 1
        try:
            request: LeaseRequest | None = member.prepare(self._seq, self._boot())
        except Exception as error:  # noqa: BLE001  # the fault of one member is not that of the others
            self._give_up(member, error)
            return None
        return request

    def _send(self, chunk: list[tuple[Any, LeaseRequest]]) -> list[Any]:
        if self._away:
            for member, _ in chunk:
                member.failed()
            return []
        try:
            self._delivery.account_for_the_past(grants=any(request.need for _, request in chunk))
            with self._at_the_ledger():
                replies = self.ledger.lease([self._delivery.shortened(request) for _, request in chunk])
        except LedgerError as error:
            for member, _ in chunk:
                member.failed()
            self._unreachable(error)
            return []
        except Exception as error:  # noqa: BLE001  # found out whose it is, and logged
            return self._isolated(chunk, error)
        self._desk.reachable()
        for _, request in chunk:
            self._delivery.settled(request.events)
        return [
            member
            for (member, request), reply in zip(chunk, replies, strict=True)
            if self._answered(member, request, reply)
        ]

    def _isolated(self, chunk: list[tuple[Any, LeaseRequest]], error: Exception) -> list[Any]:
        """Something in *chunk* cannot be handled: send each alone, so that only one member is held up."""
        if len(chunk) > 1:
            return [member for pair in chunk for member in self._send([pair])]
        ((member, request),) = chunk
        if not request.events:
            self._give_up(member, error)
            return []
        try:
            self._delivery.post(request.events)
        except LedgerError as away:
            member.failed()
            self._unreachable(away)
            return []
        self._delivery.settled(request.events)
        return self._send([(member, replace(request, events=[]))])

    def _answered(self, member: Any, request: LeaseRequest, reply: LeaseReply) -> bool:
        try:
            return self._desk.answered(member, request, reply)
        except Exception as error:  # noqa: BLE001  # the fault of one member is not that of the others
            self._give_up(member, error)
            return False

    def _give_up(self, member: Any, error: Exception) -> None:
        self._delivery.say_fault("talking to the ledger about one user", error)
        member.failed()
        self._desk.faulted(member, error)

    # -- faults ---------------------------------------------------------------------------------------

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except LedgerError as error:
            self._unreachable(error)
        except Exception as error:  # noqa: BLE001  # the thread must live; the fault is logged
            self._delivery.say_fault("on the ledger thread", error)

    def _unreachable(self, error: LedgerError) -> None:
        self._away = True
        self._desk.unreachable(error)
