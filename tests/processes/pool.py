"""``python pool.py fork|spawn FILE``: a parent with calls of its own and three children spend one cap."""

from __future__ import annotations

import multiprocessing
import sys

import openai
from fleet import ask_surely, plan, tell

from paygent import Paygent

CALLS = 60


def work(results, path):
    if Paygent.get_instance() is None:  # spawned: nothing is inherited
        Paygent.init(db_path=path, fail_open=False)
    sdk = openai.OpenAI(max_retries=0)
    made = 0
    while (outcome := ask_surely(sdk)) != "spent":
        made += outcome == "answered"
    results.put(made)


def main():
    method, path = sys.argv[1:]
    pg = Paygent.init(db_path=path, fail_open=False)
    pg.configure_plan("default", plan(CALLS))
    made = int(ask_surely(openai.OpenAI(max_retries=0)) == "answered")
    context = multiprocessing.get_context(method)
    results = context.Queue()
    children = [context.Process(target=work, args=(results, path)) for _ in range(3)]
    for child in children:
        child.start()
    made += sum(results.get(timeout=90) for _ in children)
    for child in children:
        child.join(30)
    with_parent = len(list(pg._meter.ledger.journal_dir.glob("*.journal")))
    tell({"made": made, "journals": with_parent, "codes": [child.exitcode for child in children]})


if __name__ == "__main__":
    main()
