"""
The crowd that tries a cap: 400 attempts at a plan that covers exactly 100 calls of ten milliseconds.

``python attempts.py`` is one of several processes of it: each line on its input is a case as JSON; it says
``ready``, waits for a line, and tells what became of its share of the attempts.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from fleet import ANSWER, MODEL, ask_surely, client, tell

from paygent import ModelCostRate, Paygent, PlanConfig

CALLS, ATTEMPTS = 100, 400
LATENCY_S = 0.01
LONG_TOKENS = 1000  # so that the usual reserve for a call that names no maximum fits the cap a few times
LONG_NUSD = 1_010_000_000
LONG = {**ANSWER, "usage": {"prompt_tokens": 10, "completion_tokens": LONG_TOKENS, "total_tokens": 1010}}


def capped(*, exact):
    """A plan for exactly a hundred calls, and else as it comes."""
    return PlanConfig(
        max_spend_per_period=CALLS * LONG_NUSD / 1e9,
        cost_rates={MODEL: ModelCostRate(input=1.0, output=1.0)},
        pre_call_estimate=exact,
    )


def tokens(*, given):
    """What a call says of its longest answer: 1 000 tokens, or nothing."""
    return {"max_tokens": LONG_TOKENS if given else None}


def attempts(count, threads, *, given):
    """*count* attempts on so many threads; how often each outcome came."""
    sdk = client(LATENCY_S, LONG)
    with ThreadPoolExecutor(threads) as pool:
        return Counter(pool.map(lambda _: ask_surely(sdk, **tokens(given=given)), range(count)))


def main():
    for line in sys.stdin:
        case = json.loads(line)
        pg = Paygent.init(**case["init"])
        if "api_key" not in case["init"]:  # the plans of a backend are its own
            pg.configure_plan("default", capped(exact=case["exact"]))
        tell("ready")
        sys.stdin.readline()
        seen = attempts(case["count"], case["threads"], given=case["given"])
        pg.shutdown()
        tell(seen)


if __name__ == "__main__":
    main()
