"""A fleet in one thread: one seed decides who runs next, what time it is, and what goes wrong."""

import itertools
import random

import greenlet
from sim_books import Books, BrokenInvariantError
from sim_orders import draw_order, draw_plan
from sim_wire import weather_of
from sim_worker import TOKEN_NUSD, Worker

from paygent.ledger import LeaseRequest
from paygent.meter import accounts

START_US = 1_773_144_000_000_000
SECOND = 1_000_000
OPEN_MAX = 8  # callers of one process


class Fleet:
    """Processes on one ledger; ``step`` lets one of them, or the world, do one thing."""

    def __init__(self, seed, make_ledger, folder, trace=None):
        self.rng = rng = random.Random(seed)
        self.trace = trace
        self.now_us = START_US
        self._ledger_off_us = rng.choice([0, 0, rng.randrange(-300 * SECOND, 300 * SECOND)])
        self.journals = folder
        self.ledger = make_ledger(self.ledger_us)
        self.violations = []
        self.books = Books(self.ledger, self.violations.append)
        self.weather = weather_of(rng)
        self.down_until_us = 0
        self.mail = []
        self.expected = {}  # event id: user and cost
        self.current = None
        self.killing = False
        self.steps = 0
        self.hub = greenlet.getcurrent()
        self.users = ["ada", "bob", "cy"][: rng.randint(1, 3)]
        self.is_fair = rng.random() < 0.3  # estimates are right, so that debt can only come from mishaps
        self.plans = [draw_plan(rng) for _ in range(3)]
        self.books.put_plan("default", self.plans[0].model_dump_json())
        self.books.put_plan("pro", self.plans[1].model_dump_json())
        self.worker_of = {}  # by meter, the dead included
        self._worker_numbers = itertools.count()
        self.workers = [self._worker() for _ in range(rng.randint(1, 4))]
        self._keys = itertools.count()
        self._actions = [
            (34, self._resume),
            (22, self._begin),
            (26, self._drive),
            (6, self._tick),
            (2, self._deliver),
            (0.6, self._give_up),
            (1.2, self._pause),
            (0.7, self._kill),
            (0.4, self._retire),
            (0.8, self._outage),
            (0.7, self._configure),
            (0.4, self._move),
            (0.4, self._roll_over),
            (0.5, self._sleep),
            (0.4, self._jump),
        ]
        self._weights = list(itertools.accumulate(weight for weight, _ in self._actions))

    # -- what the parts ask of the fleet --------------------------------------------------------------

    def ledger_us(self):
        """The ledger's clock."""
        return self.now_us + self._ledger_off_us

    def wait(self):
        """Called in a thread of a process: let others run."""
        self.hub.switch()

    def answered(self, call, tokens):
        """An answer was returned: from now on its event must never be lost."""
        if self.killing:
            return
        event = next(
            (h.event for h in self.books.holds[call.meter.lease_id, call.user_id] if h.call is call), None
        )
        if event is None:
            self.books.say(f"an answer of {call.user_id} was returned without an event")
            return
        if event.cost_nusd != tokens * TOKEN_NUSD or event.total_tokens != tokens:
            self.books.say(f"{tokens} tokens of {call.user_id} are posted as {event}")
        self.expected[event.id] = (event.user_id, event.cost_nusd)

    def refused(self, worker, call, code):
        """A call was refused; *spent* must be true also with all holds and leases void."""
        self.books.seen["refused " + code] += 1
        if code != "busy" and not worker.meter.degraded:
            self.books.check_spent(call)

    # -- one step -------------------------------------------------------------------------------------

    def step(self):
        """One thing happens; then everything that always holds is checked."""
        self.now_us += self.rng.randrange(0, 20_000)
        roll = self.rng.random() * self._weights[-1]
        for mark, (_, action) in zip(self._weights, self._actions, strict=True):
            if roll < mark:
                self._note(action.__name__, action())
                break
        self._check()

    def _check(self):
        self.steps += 1
        if self.books.touched:
            self.books.check(self.ledger_us())
        if self.violations:
            raise BrokenInvariantError(f"step {self.steps}: " + "; ".join(self.violations))

    def _note(self, name, what=""):
        if self.trace is not None:
            seen = sum(self.books.seen.values())
            self.trace(
                f"{self.steps:5} {(self.now_us - START_US) / SECOND:10.3f} s {name} {what or ''} [{seen}]"
            )

    def _running(self):
        return [worker for worker in self.workers if worker.runs]

    def _begin(self):
        workers = [worker for worker in self._running() if len(worker.callers) < OPEN_MAX]
        if workers:
            worker, order = self.rng.choice(workers), draw_order(self.rng, self.users, 2, fair=self.is_fair)
            worker.start(order)
            return self.trace and f"{worker.number} {order}"
        return None

    def _resume(self):
        callers = [caller for worker in self._running() for caller in worker.callers]
        served = [caller for caller in callers if caller.ask is not None and caller.ask.future.done()]
        callers = served if served and self.rng.random() < 0.7 else callers
        if callers:
            caller = self.rng.choice(callers)
            caller.worker.resume(caller)
            return f"{caller.worker.number} {caller.order.user} {caller.order.end}"
        return None

    def _give_up(self):
        """A caller who waits at the gate is cancelled."""
        callers = [
            c for worker in self._running() for c in worker.callers if c.ask and c.order.end != "record"
        ]
        if callers:
            caller = self.rng.choice(callers)
            caller.worker.resume(caller, interrupt=True)
            return f"{caller.worker.number} {caller.order.user}"
        return None

    def _drive(self):
        workers = self._running()
        if workers:
            worker = self.rng.choice(workers)
            worker.drive()
            return str(worker.number)
        return None

    def _tick(self):
        """Time goes on, and everybody who is awake does his work in it."""
        for _ in range(self.rng.choice([1, 1, 1, 2, 4, 12])):
            self.now_us += self.rng.choice([SECOND // 4, SECOND // 2, SECOND])
            for worker in self._running():
                worker.drive()
                self._check()

    def _deliver(self):
        """A request that its process has given up arrives after all."""
        if self.mail:
            letter = self.mail.pop(self.rng.randrange(len(self.mail)))
            letter.late = True
            self.books.lease(letter, self.ledger_us())
            return f"from {letter.worker.number}"
        return None

    def _pause(self):
        worker = self.rng.choice(self.workers)
        worker.paused = not worker.paused
        return f"{worker.number} {worker.paused}"

    def _kill(self):
        if len(self.workers) > 1 or self.rng.random() < 0.5:
            worker = self.rng.choice(self.workers)
            worker.die(torn=self.rng.random() < 0.3)
            self.books.seen["killed"] += 1
            self._replace(worker)
            return str(worker.number)
        return None

    def _retire(self):
        """A process ends in an orderly way, once nothing of it is open."""
        for worker in self._running():
            if not worker.callers and worker.is_free and not worker.wire.down_until_us > self.now_us:
                worker.do(worker.meter.close, 5.0)
                while not worker.is_free:
                    worker.drive()
                worker.die(torn=False)
                self.books.seen["retired"] += 1
                self._replace(worker)
                return str(worker.number)
        return None

    def _replace(self, worker):
        self.workers[self.workers.index(worker)] = self._worker()

    def _worker(self):
        worker = Worker(self, next(self._worker_numbers), self.rng)
        # As an app does at its start; what it configures then is what it knows without the ledger.
        self.worker_of[worker.meter] = worker
        worker.meter.plans.update(zip(("default", "pro"), self.plans, strict=False))
        return worker

    def _outage(self):
        until_us = self.now_us + self.rng.choice([SECOND // 5, SECOND, 10 * SECOND, 40 * SECOND])
        if self.rng.random() < 0.3:
            self.down_until_us = until_us
        else:
            self.rng.choice(self.workers).wire.down_until_us = until_us

    def _sleep(self):
        """Time goes on, and nobody does anything in it: a machine that sleeps, or a stall."""
        seconds = self.rng.choice([3, 11, 21, 31, 65])
        self.now_us += seconds * SECOND
        return f"{seconds} s"

    def _jump(self):
        """A wall clock is set, the ledger's or one process's."""
        seconds = self.rng.choice([-3600, -45, -2, 2, 25, 45, 3600])
        if self.rng.random() < 0.5:
            self.rng.choice(self.workers).wall_off_us += seconds * SECOND
            return f"process {seconds} s"
        for user in self.users:  # nothing that had expired comes to life again
            letter = self.books.letter(None, [LeaseRequest(user, "janitor", self.steps)])
            self.books.lease(letter, self.ledger_us())
        self._ledger_off_us += seconds * SECOND
        return f"ledger {seconds} s"

    def _configure(self):
        """A plan changes, through a process or elsewhere."""
        name, plan = self.rng.choice(["default", "default", "pro"]), self.rng.choice(self.plans)
        self._through_somebody(
            lambda meter: accounts.put_plan(meter, name, plan),
            lambda: self.books.put_plan(name, plan.model_dump_json()),
        )
        return name

    def _move(self):
        user, plan = self.rng.choice(self.users), self.rng.choice([None, "default", "pro"])
        self._account(user, {"plan": plan, "own_config": None})
        return f"{user} {plan}"

    def _roll_over(self):
        user = self.rng.choice(self.users)
        start_us = self.ledger_us() - self.rng.choice([0, 60 * SECOND])
        self._account(user, {"period": (start_us, start_us + self.rng.choice([90, 600, 3600]) * SECOND)})
        return user

    def _account(self, user, changes):
        self._through_somebody(
            lambda meter: accounts.put_account(meter, user, changes),
            lambda: self.books.put_account(user, changes),
        )

    def _through_somebody(self, change, directly):
        free = [worker for worker in self._running() if worker.is_free]
        if free and self.rng.random() < 0.6:
            worker = self.rng.choice(free)
            worker.do(change, worker.meter)
        else:
            directly()

    # -- the end --------------------------------------------------------------------------------------

    def finish(self):
        """Everything comes to rest, and everything is accounted for."""
        self.weather = type(self.weather)()
        self.down_until_us = 0
        while self.mail:
            self._deliver()
            self._check()
        for worker in self.workers:
            worker.paused, worker.wire.down_until_us = False, 0
        for turn in range(1000):
            for worker in self.workers:
                worker.drive()
                for caller in tuple(worker.callers):
                    worker.resume(caller)
                self._check()
            self.now_us += SECOND // 4
            if turn > 8 and not any(worker.callers or not worker.is_free for worker in self.workers):
                break
        else:
            raise BrokenInvariantError("callers are left that nobody serves")
        for worker in self.workers:
            worker.do(worker.meter.exporter.flush)
            worker.do(lambda worker=worker: worker.meter.exporter.flush(give_back=True))
            self._check()
        self._at_rest()

    def _at_rest(self):
        for worker in self.workers:
            if worker.meter.pending_events or worker.meter.dropped:
                self.violations.append(f"worker {worker.number} keeps events back")
            held = [p.bucket for w in worker.meter.wallets.values() for p in w.purses.values() if p.held]
            if held:
                self.violations.append(f"worker {worker.number} still holds {held}")
            for user in self.users:
                if self.books.model.leases[user].get(worker.lease_id, None) is not None:
                    amounts = self.books.model.leases[user][worker.lease_id].amounts
                    if amounts:
                        self.violations.append(f"worker {worker.number} still leases {amounts}")
        self.now_us += 31 * SECOND
        rows = {row.id: (row.user_id, row.cost_nusd) for row in self.ledger.events(limit=1_000_000)}
        lost = {key: value for key, value in self.expected.items() if rows.get(key) != value}
        if lost:
            self.violations.append(
                f"{len(lost)} answered calls are not in the ledger: {list(lost.items())[:3]}"
            )
        self.books.check_rows()
        left = [p.name for p in self.journals.glob("*.journal")] if self.journals.is_dir() else []
        alive = tuple(worker.lease_id for worker in self.workers)
        if any(not name.startswith(alive) for name in left):
            self.violations.append(f"journals of the dead are left: {left}")
        self._check()

    def close(self):
        """Let go of files."""
        for worker in self.workers:
            worker.die(torn=False)
        self.ledger.close()
