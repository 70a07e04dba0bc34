"""
``python victims.py``: forks processes that make calls, and kills them in mid-traffic.

Each line on its input is a round as JSON: the file, when each of the processes is killed, and whether that is
counted from their birth or from the first thing they tell. The answer is what they told before they died: the
id of the event of each call whose answer they had.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time

from fleet import ANSWER, ask_surely, client, plan, request, surely, tell

from paygent import Paygent, catalogue

sdk = client()
THREADS = 2
GATED_CALLS = 2


def live(path, name, say):
    """What a victim does until it dies: one call that never ends, one user who is spent, and traffic."""
    pg = Paygent.init(db_path=path, fail_open=False)
    pg.configure_plan("default", plan(1_000_000))
    pg.configure_plan("one", plan(1))
    ids = {}
    pg.on_usage(lambda event: ids.__setitem__(event.user_id, event.id))
    spend_gated(pg, say)
    for number in range(THREADS):
        threading.Thread(target=work, args=(f"{name}-{number}", ids, say)).start()
    hold(pg, name, say)


def spend_gated(pg, say):
    pg.start_session("gated", "small", plan(GATED_CALLS))
    while ask_surely(sdk, "gated") != "spent":
        pass
    say("gated")


def hold(pg, name, say):
    def slow():
        say(f"holder-{name}")
        time.sleep(60)
        return ANSWER

    user = f"holder-{name}"
    pg.assign_plan(user, "one")
    given = {"model": "m", "estimated_input_tokens": 10, "estimated_max_tokens": 10}
    surely(lambda: pg.wrap(slow, user_id=user, **given))


def work(user, ids, say):
    while True:
        if ask_surely(sdk, user) == "answered":
            say(ids[user])


def fork(path, name, fd):
    pid = os.fork()
    if pid == 0:
        try:
            live(path, name, lambda word: os.write(fd, word.encode() + b"\n"))
        finally:
            os._exit(1)
    return pid


def play(path, name, deaths_s, speaks):
    """One round; what the victims told."""
    reader, writer = os.pipe()
    victims = [fork(path, f"{name}-{number}", writer) for number in range(len(deaths_s))]
    os.close(writer)
    if speaks:
        select.select([reader], [], [], 60)
    told = []
    drain = threading.Thread(target=lambda: told.append(os.fdopen(reader).read()))
    start_s = time.monotonic()
    drain.start()
    for pid, death_s in sorted(zip(victims, deaths_s, strict=True), key=lambda pair: pair[1]):
        time.sleep(max(0.0, start_s + death_s - time.monotonic()))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    drain.join()
    return told[0].split()


def warm_up():
    """Load what a first call loads, so that victims have a life and do not spend it on imports."""
    sdk.chat.completions.create(**request())
    catalogue.lookup("m", "openai")


def main():
    warm_up()
    for line in sys.stdin:
        tell(play(**json.loads(line)))


if __name__ == "__main__":
    main()
