"""The ledger thread: the one place of a process that talks to its ledger."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from paygent.core.events import Event
from paygent.journal import Journal, discard, recover, release
from paygent.ledger import Ledger, LedgerError, LeaseReply, LeaseRequest

log = logging.getLogger("paygent")

T = TypeVar("T")
EVENTS_PER_STEP = 500
PROBE_S = 1.0


class Member(Protocol):
    """What takes part in a step: a wallet."""

    poll_at_s: float

    def prepare(self, seq: int, boot_s: float) -> LeaseRequest | None: ...

    def failed(self) -> None: ...


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

    def reachable(self) -> None: ...

    def unreachable(self, error: LedgerError) -> None: ...

    def after_tick(self, ledger: Ledger, boot_s: float) -> None:
        """Once a tick, on the ledger thread: the audit trail and whatever else waits."""


class Exporter:
    """
    One thread, started with the first request of a process, merging what waits into one transaction.

    ``run_step`` does the work and may be called without the thread: a simulation drives it by hand.
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
        self.flushed = 0
        self.threaded = True
        self._lease_id = lease_id
        self._desk = desk
        self._boot = boot
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._start_lock = threading.Lock()
        self._seq = int(time.time() * 1000) << 10  # rises over restarts of one wallet within the process
        self._next_tick_s = 0.0
        self._recovered = False
        self._stopping = False

    # -- from any thread ------------------------------------------------------------------------------

    def submit(self, member: Member) -> None:
        """Have *member* talk to the ledger soon."""
        self._queue.put(member)
        self._start()

    def call(self, function: Callable[[Ledger], T]) -> Future[T]:
        """Run *function* on the ledger thread."""
        future: Future[T] = Future()
        if self.is_current:
            self._run(function, future)
        else:
            self._queue.put((function, future))
            self._start()
        return future

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on the ledger thread, which must not wait for itself."""
        return not self.threaded or threading.current_thread() is self._thread

    def refresh(self, member: Member) -> Future[None]:
        """Have one member talk to the ledger now; the future is done when it has heard back."""

        def talk(ledger: Ledger) -> None:
            self._until_quiet([member])

        return self.call(talk)

    def flush(self, *, give_back: bool = False) -> Future[None]:
        """Settle everything that is open, and write the audit trail."""

        def settle_all(ledger: Ledger) -> None:
            self._until_quiet(self._desk.everyone(give_back=give_back))
            self._desk.after_tick(ledger, self._boot())

        return self.call(settle_all)

    def stop(self, timeout_s: float) -> bool:
        """Settle what waits and end the thread; false if that took longer than *timeout_s*."""
        self._stopping = True
        thread = self._thread
        if thread is None or not thread.is_alive():
            return True
        self._queue.put(None)
        if thread is not threading.current_thread():
            thread.join(timeout_s)
        return not thread.is_alive()

    def _start(self) -> None:
        if self._thread is not None and self._thread.is_alive() or not self.threaded or self._stopping:
            return
        with self._start_lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._loop, name="paygent-ledger", daemon=True)
                self._thread.start()

    # -- on the ledger thread -------------------------------------------------------------------------

    def _loop(self) -> None:
        while not self._stopping:
            boot_s = self._boot()
            wake_s = min(self._next_tick_s, self._desk.next_poll_s() or self._next_tick_s)
            try:
                self.run_step(max(0.0, wake_s - boot_s))
            except Exception:
                log.exception("the ledger thread met a fault of its own and goes on")
                time.sleep(0.05)

    def run_step(self, wait_s: float = 0.0) -> None:
        """Wait at most *wait_s* for work, then do all that is there, and the tick if it is due."""
        members = self._drain(wait_s)
        boot_s = self._boot()
        tick = boot_s >= self._next_tick_s
        if tick:
            self._next_tick_s = boot_s + self.tick_s
            self._recover()
        members.update(dict.fromkeys(self._desk.due(boot_s)))
        self._until_quiet(list(members))
        if tick:
            self._guarded(lambda: self._desk.after_tick(self.ledger, boot_s))

    def _until_quiet(self, members: list[Any]) -> None:
        while members:
            members = self._ask(members)

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
        try:
            result = function(self.ledger)
        except LedgerError as error:
            self._desk.unreachable(error)
            future.set_exception(error)
        except BaseException as error:  # noqa: BLE001  # it belongs to whoever waits for the result
            future.set_exception(error)
        else:
            future.set_result(result)

    def _ask(self, members: list[Any]) -> list[Any]:
        """One round of lease operations in transactions of bounded size; returns who asks again at once."""
        again: list[Any] = []
        chunk: list[tuple[Any, LeaseRequest]] = []
        events = 0
        for index, member in enumerate(members):
            self._seq += 1
            request = member.prepare(self._seq, self._boot())
            if request is not None:
                chunk.append((member, request))
                events += len(request.events)
            if chunk and (events >= EVENTS_PER_STEP or index == len(members) - 1):
                again += self._send(chunk)
                chunk, events = [], 0
        if chunk:
            again += self._send(chunk)
        return again

    def _send(self, chunk: list[tuple[Any, LeaseRequest]]) -> list[Any]:
        try:
            self._recover_first()
            replies = self.ledger.lease([request for _, request in chunk])
        except LedgerError as error:
            for member, _ in chunk:
                member.failed()
            self._desk.unreachable(error)
            return []
        self._desk.reachable()
        count = sum(len(request.events) for _, request in chunk)
        self._settled(count)
        return [
            member
            for (member, request), reply in zip(chunk, replies, strict=True)
            if self._desk.answered(member, request, reply)
        ]

    def settle(self, events: Sequence[Event]) -> None:
        """Post events that belong to no wallet."""
        self.ledger.settle(events)
        self._settled(len(events))

    def _settled(self, count: int) -> None:
        if count:
            self.flushed += count
            self.journal.settled(count)

    def _recover_first(self) -> None:
        """A process takes no grant before the dead processes before it are accounted for."""
        if not self._recovered:
            self._recover()

    def _recover(self) -> None:
        for left in recover(self.ledger.journal_dir, self._lease_id):
            try:
                new = self.ledger.settle(left.events, close=[left.lease_id] if left.lease_id else [])
            except LedgerError as error:
                release(left)
                self._desk.unreachable(error)
                return
            discard(left)
            log.info("recovered %d event(s), %d of them new, from %s", len(left.events), new, left.path)
        self._recovered = True

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except LedgerError as error:
            self._desk.unreachable(error)
