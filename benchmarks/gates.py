"""What the answers of the gate cost where no call is made: a refusal, and a check ahead of a call."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks._measure import US_PER_NS, each
from benchmarks._setup import ANSWER, MODEL, REQUEST, USER, Clients, paygent
from benchmarks._suite import Row, Sizes, Spread, benchmark
from paygent import PaygentLimitExceeded, paygent_context


class NotRefusedError(Exception):
    """A benchmark of refusals saw a call admitted."""


@benchmark("refusal")
def refusal(sizes: Sizes) -> Iterator[Row]:
    """A user who has spent his plan calls again and again."""
    clients = Clients(ANSWER)
    response = clients.bare(**REQUEST)

    def refused_by_the_engine() -> None:
        try:
            pg.wrap(lambda: response, user_id=USER, model=MODEL)
        except PaygentLimitExceeded:
            return
        raise NotRefusedError

    def refused_through_the_sdk() -> None:
        try:
            clients.ours(**REQUEST)
        except PaygentLimitExceeded:
            return
        raise NotRefusedError

    with paygent(max_spend_usd=1.0) as pg, paygent_context(USER):
        pg.record_event(USER, cost=2.0)
        pg.flush()
        engine = Spread.of(each(refused_by_the_engine, sizes.calls), US_PER_NS)
        sdk = Spread.of(each(refused_through_the_sdk, sizes.calls), US_PER_NS)
    yield Row("refusal", "a refusal by the engine", engine.p50, "µs", "≤ 10 µs", None, engine)
    note = "with what the SDK does before it sends"
    yield Row("refusal", "a refusal through the SDK", sdk.p50, "µs", None, None, sdk, note)


@benchmark("guard")
def guard(sizes: Sizes) -> Iterator[Row]:
    """``check_guard`` of a user who is known in the process."""
    with paygent() as pg:
        pg.wrap(dict, user_id=USER, model=MODEL)
        named = Spread.of(each(lambda: pg.check_guard(USER, MODEL), sizes.calls), US_PER_NS)
        plain = Spread.of(each(lambda: pg.check_guard(USER), sizes.calls), US_PER_NS)
    yield Row("guard", "check_guard(user)", plain.p50, "µs", "≤ 3 µs", None, plain)
    yield Row("guard", "check_guard(user, model)", named.p50, "µs", "≤ 3 µs", None, named)
