"""Events of all kinds by their number, in no order and one in ten twice, and what they add up to."""

import os
import random
import uuid
from collections import Counter, defaultdict

from paygent.core.events import Event, posts
from paygent.core.windows import billing_period, from_us
from paygent.ledger import GateRow
from paygent_django.ledger._events import CORRECTS, MEASURES
from paygent_django.models import UserUsage
from paygent_django.models.moments import now_us

EVENTS = int(os.environ.get("PAYGENT_TEST_EVENTS", "20000"))
USERS = max(50, EVENTS // 10)
BATCH = 500
PLANS = ("free", "pro", "team")
MODELS = ("gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "text-embedding-3-small", None)
FEATURES = ("chat", "search", "draft-email", None)
_NOW_US = now_us()
_PERIOD = billing_period(None, _NOW_US)
_LAST_PERIOD = billing_period(None, _PERIOD.start_us - 1)
_SPANS = ((_PERIOD.start_us, _NOW_US), (_LAST_PERIOD.start_us, _PERIOD.start_us))  # the two periods


def user_of(number):
    """The name of a user; any text is one."""
    return f"org/{number}?x=#é 💥"


def event_at(number):
    """One event; each fiftieth takes back the one before it."""
    return _correction(number) if number % 50 == 49 else _call(number)


def _call(number):
    rng = random.Random(number)
    start_us, end_us = _SPANS[rng.random() < 0.5]
    at_us = rng.randrange(start_us, max(end_us, start_us + 1))
    model, feature, tools = rng.choice(MODELS), rng.choice(FEATURES), rng.random() < 0.1
    tokens = rng.randrange(5000)
    return Event(
        _id(rng), user_of(int(USERS * rng.random() ** 3)), at_us, billing_period(None, at_us).key,
        f"s{at_us // 10**10}:{rng.randrange(2)}", None, "openai", "chat", model, model, model, tokens,
        tokens // 3, tokens // 5, 0, tokens // 9, rng.randrange(10**8), 10**6 * tools,
        ("web_search",) if tools else (), {"feature": feature} if feature else None, "auto",
        int(rng.random() < 0.04), 0, "plan", None,
    )  # fmt: skip


def _correction(number):
    taken_back = _call(number - 1)
    amounts = {
        name: -getattr(taken_back, name) for name in Event._fields if name.endswith(("_tokens", "_nusd"))
    }
    metadata = {CORRECTS: taken_back.id, **(taken_back.metadata or {})}
    return taken_back._replace(
        id=_id(random.Random(number)), source="correction", tool_calls=(), metadata=metadata, **amounts
    )


def gate_at(number):
    """One decision of the gate."""
    event, rng = _call(number), random.Random(-number)
    return GateRow(
        _id(rng), event.user_id, event.timestamp_us, None, "hard_gate", "total_spend", 1.0, 2.0, 2.0,
        event.model, int(rng.random() < 0.7), "the limit is reached", None, rng.randrange(1, 4),
    )  # fmt: skip


def _id(rng):
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def sent(count):
    """Batches of numbers below *count* in no order, one in ten of them twice."""
    rng = random.Random(7)
    numbers = [*range(count), *rng.sample(range(count), count // 10)]
    rng.shuffle(numbers)
    return [numbers[start : start + BATCH] for start in range(0, len(numbers), BATCH)]


class Sums:
    """What the distinct events add up to, worked out one by one."""

    def __init__(self):
        self.spent_nusd = 0
        self.totals = Counter()
        self.users = defaultdict(lambda: [0] * len(MEASURES))
        self.days = defaultdict(lambda: [0] * len(MEASURES))
        for number in range(EVENTS):
            self._add(event_at(number))
        self.decisions = Counter()
        for number in range(0, EVENTS, 20):
            gate = gate_at(number)
            self.decisions[from_us(gate.timestamp_us).date(), bool(gate.blocked)] += gate.count

    def _add(self, event):
        self.spent_nusd += event.cost_nusd
        for scope, window, amount in posts(event):
            self.totals[event.user_id, scope, window] += amount
        day = from_us(event.timestamp_us).date()
        tag = (event.metadata or {}).get("feature", "")
        measures = (
            int(event.source != "correction"), event.input_tokens, event.output_tokens, event.cost_nusd,
            event.cost_nusd * event.estimated,
        )  # fmt: skip
        for sums in (
            self.users[event.user_id, UserUsage.DAY, day],
            self.users[event.user_id, UserUsage.MONTH, day.replace(day=1)],
            self.days[day, event.model or "", tag],
        ):
            for index, amount in enumerate(measures):
                sums[index] += amount
