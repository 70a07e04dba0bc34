"""A simulated process: a real engine driven by hand, and callers that run until they would wait."""

import greenlet
from sim_wire import Wire

from paygent import PaygentLimitExceeded
from paygent.context import Payer
from paygent.core.usage import Usage
from paygent.exceptions import PaygentUnavailable
from paygent.meter.accounts import Recorder
from paygent.meter.call import State
from paygent.meter.meter import Meter
from paygent.meter.options import Options

TOKEN_NUSD = 1_000_000


class Caller:
    """One thread of a process: it makes its call, and within it others."""

    def __init__(self, worker, order):
        self.worker = worker
        self.order = order
        self.ask = None
        self.streams = []
        self.thread = greenlet.greenlet(self._run)

    def _run(self):
        if self.order.end == "record":
            self._record(self.order)
        else:
            self._call(self.order)

    def _payer(self, order):
        payer = Payer(order.user, order.session, order.plan)
        payer.reports_only = order.reports_only
        return payer

    def _call(self, order):
        fleet, meter = self.worker.fleet, self.worker.meter
        call = meter.call(self._payer(order), "openai", "chat", order.model, 0, order.most)
        try:
            call.__enter__()
        except PaygentLimitExceeded as error:
            fleet.refused(self.worker, call, error.refusal.code)
            return
        except PaygentUnavailable:
            fleet.books.seen["unavailable"] += 1
            return
        except KeyboardInterrupt:
            fleet.books.seen["gave up"] += 1
            if call.is_open:
                fleet.books.say(f"a caller for {order.user} gave up at the gate, and holds something")
            return
        if call.state is not State.HELD:
            fleet.books.say(f"a call of {order.user} passes unmetered ({call.state.name})")
            return
        if order.streams:
            call.defer()
            self.streams.append(call)
        for _ in range(order.patience):
            fleet.wait()
        for inner in order.inner:
            fleet.books.seen["nested"] += 1
            self._call(inner)
        if order.inner:
            fleet.wait()
        self._end(order, call)

    def _end(self, order, call):
        fleet = self.worker.fleet
        if order.streams:
            self.streams.remove(call)
        fleet.books.seen[order.end] += 1
        if order.end == "finish":
            call.finish(Usage(input_tokens=order.used))
            fleet.answered(
                call, order.used or 2
            )  # a report of nothing is none: a token each way is estimated
        elif order.end == "fail":
            call.fail(RuntimeError("the provider refused"))
        elif order.end == "cancel":
            call.fail(KeyboardInterrupt())
            fleet.answered(call, 1)
        elif order.end == "estimate":
            call.finish_estimated(None, order.used * 4)
            fleet.answered(call, 1 + max(1, order.used))
        else:
            self.worker.meter.later(call, None, order.used * 4)  # as the finalizer of a stream does
        call.__exit__(None, None, None)

    def _record(self, order):
        fleet = self.worker.fleet
        payer = self._payer(order)
        payer.reports_only = False
        try:
            event = self.worker.recorder.record(
                payer,
                cost=order.used * TOKEN_NUSD / 1e9,
                model=None,
                usage=Usage(),
                description=None,
                key=order.key,
            )
        except PaygentUnavailable:
            return
        fleet.books.seen["recorded"] += 1
        if event is not None:
            fleet.expected[event.id] = (order.user, order.used * TOKEN_NUSD)


class Worker:
    """One process. ``job`` is its ledger thread, which does one thing at a time."""

    def __init__(self, fleet, number, rng):
        self.fleet = fleet
        self.number = number
        self.callers = []
        self.job = None
        self.paused = False
        self.alive = True
        self._boot_off_us = rng.randrange(10**9, 10**12)
        self.wall_off_us = rng.choice([0, 0, rng.randrange(-120_000_000, 120_000_000)])
        self.wire = Wire(fleet, self)
        options = Options(
            boot=self.boot,
            busy_timeout_s=rng.choice([0.0, 0.4, 2.0]),
            fail_open=rng.random() < 0.8,
            max_queue_size=rng.choice([10_000, 10_000, 3]),
            max_batch_size=rng.choice([100, 2]),
            flush_interval_s=rng.choice([5.0, 0.2]),
        )
        self.meter = Meter(self.wire, options)
        self.meter.exporter.threaded = False
        self.meter.now_us = self._wall_us
        self.meter.gate._wait = self._wait
        self.recorder = Recorder(self.meter)
        self.lease_id = self.meter.lease_id

    def boot(self):
        """Seconds since this machine was started."""
        return (self.fleet.now_us + self._boot_off_us) / 1e6

    def _wall_us(self):
        return self.fleet.now_us + self.wall_off_us

    def _wait(self, ask):
        """In place of ``Gate._wait``: let everybody else go on, then look."""
        caller = self.fleet.current
        caller.ask = ask
        try:
            self.fleet.wait()
        finally:
            caller.ask = None
        return ask.future.done()

    @property
    def runs(self):
        """Whether its threads get any time."""
        return self.alive and not self.paused

    def drive(self):
        """Let the ledger thread run until it waits, for its answer or for work."""
        self.wire.busy = {}
        if self.job is None or self.job.dead:
            self.do(self.meter.exporter.run_step)
        else:
            self.job.switch()
        if self.wire.busy:
            self._check_nested()

    def _check_nested(self):
        """Nobody is left waiting for his own streams: no answer of anybody else could let him in."""
        for caller in self.callers:
            if caller.ask is None or caller.ask.future.done() or not caller.streams:
                continue
            call = caller.ask.call
            reply = self.wire.busy.get(call.user_id)
            need = call.need_by_scope().get(reply.denied) if reply is not None else None
            if need is not None:
                self.fleet.books.check_nested(call, caller.streams, reply, need)

    @property
    def is_free(self):
        """Whether the ledger thread is not in the middle of something."""
        return self.job is None or self.job.dead

    def do(self, function, *args):
        """Have the ledger thread, which is free, do *function*."""
        self.job = greenlet.greenlet(lambda: function(*args))
        self.job.switch()

    def start(self, order):
        """A new caller; it runs until it waits or is done."""
        caller = Caller(self, order)
        self.callers.append(caller)
        self.resume(caller)

    def resume(self, caller, *, interrupt=False):
        """Let a caller go on, or have him give up."""
        self.fleet.current = caller
        if interrupt:
            caller.thread.throw(KeyboardInterrupt())
        else:
            caller.thread.switch()
        self.fleet.current = None
        if caller.thread.dead:
            self.callers.remove(caller)

    def die(self, torn):
        """As by a signal that nobody can catch: files are closed by the kernel, nothing else is done."""
        self.alive = False
        journal = self.meter.journal
        if torn and journal._current is not None:
            with journal._current.path.open("ab") as file:
                file.write(b'0badc0de ["half a li')
        self.meter.pid = -1  # its calls are of a process that is no more
        journal.forget_after_fork()
        journal.folder = None
        self.fleet.killing = True
        for thread in (self.job, *(caller.thread for caller in self.callers)):
            if thread is not None and not thread.dead:
                thread.throw()
        self.fleet.killing = False
        self.callers = []
