"""
``python commanded.py FILE CALLS EXACT SCALE``: a process that makes calls when it is told to.

Reads lines and answers each with one: ``call N`` tries N calls, ``until REASON`` calls until it is refused
for that reason or all is spent, ``open`` begins a call that only ``close`` ends, ``flush`` settles. SCALE
shortens the lives of grants and leases, so that a test need not wait a minute.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter

from fleet import ANSWER, OUTPUT_TOKENS, ask_surely, client, plan, settle, surely, tell

from paygent import Paygent
from paygent.ledgers import _rows as rows
from paygent.meter import wallet


class Commanded:
    def __init__(self, path, calls, exact):
        self.pg = Paygent.init(db_path=path, flush_interval=0.2, busy_timeout=0.5, fail_open=False)
        self.pg.configure_plan("default", plan(calls, pre_call_estimate=exact))
        self.sdk = client()
        self.leave = threading.Event()

    def call(self, times):
        return Counter(ask_surely(self.sdk) for _ in range(int(times)))

    def until(self, reason):
        seen = Counter()
        while not seen[reason] and not seen["spent"]:  # past that there is no other answer
            seen[ask_surely(self.sdk)] += 1
        return seen

    def flush(self):
        settle(self.pg)
        return {"flushed": 1}

    def open(self):
        inside = threading.Event()

        def slow():
            inside.set()
            self.leave.wait(120)
            return ANSWER

        self.thread = threading.Thread(target=self.wrap, args=(slow,), daemon=True)
        self.thread.start()
        return {"opened": int(inside.wait(30))}

    def wrap(self, call):
        given = {"estimated_input_tokens": 10, "estimated_max_tokens": OUTPUT_TOKENS}
        surely(lambda: self.pg.wrap(call, user_id="ada", model="m", **given))

    def close(self):
        self.leave.set()
        self.thread.join(30)
        return {"closed": 1}


def main():
    path, calls, exact, scale = sys.argv[1:]
    wallet.GRANT_TTL_S *= float(scale)
    rows.LEASE_TTL_US = int(rows.LEASE_TTL_US * float(scale))
    process = Commanded(path, int(calls), exact == "True")
    for line in sys.stdin:
        name, *arguments = line.split()
        tell(getattr(process, name)(*arguments))
    process.pg.shutdown()


if __name__ == "__main__":
    main()
