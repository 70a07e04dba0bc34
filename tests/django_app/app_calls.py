"""Calls of exactly a cent, plans for so many of them, and what processes of a test do with both."""

import os
import threading
import time

from paygent import Paygent, PaygentLimitExceeded, PlanConfig
from paygent.meter import patience

EXACT = {"model": "m", "provider": "openai", "estimated_max_tokens": 9}  # and one token of input
ANSWER = {"object": "chat.completion", "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 0}}
CENT = 10_000_000


def plan(calls, **config):
    """A plan that covers exactly *calls* calls of a cent."""
    given = {
        "max_spend_per_period": calls / 100 + 1e-9,
        "cost_rates": {"m": {"input": 1.0, "output": 1.0}},
        "pre_call_estimate": True,
        "reservation_safety_factor": 1.0,
        **config,
    }
    return PlanConfig(**given)


def call(pg, user="ada", **changes):
    """One metered call of a cent, whose estimate is exact."""
    return pg.wrap(lambda: ANSWER, **{"user_id": user, **EXACT, **changes})


def passes(pg):
    """Whether a call is admitted."""
    try:
        call(pg)
    except PaygentLimitExceeded:
        return False
    return True


def until_refused(pg, user="ada", most=1000):
    """Call until the plan is spent; returns how many calls were made. Busy is no reason to stop."""
    made = 0
    while made < most:
        try:
            call(pg, user)
            made += 1
        except PaygentLimitExceeded as refused:
            if not refused.retryable:
                break
    return made


# -- processes: each is given its end of a pipe, and the database -------------------------------------------


def began(given):
    """Paygent in a fresh process, on a database; its home, where journals are kept, is the test's."""
    os.environ["HOME"], database = given
    if database["ENGINE"].endswith("mysql"):
        import pymysql

        pymysql.install_as_MySQLdb()
    import django
    from django.conf import settings

    settings.configure(
        DATABASES={"default": database},
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "paygent_django"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        SECRET_KEY="a test signs with this",
        LOGGING_CONFIG=None,
        PAYGENT_WEBHOOK_NETWORKS=["127.0.0.0/8"],
    )
    django.setup()
    pg = Paygent.init(ledger="django://", auto_instrument=False)
    # A busy machine makes a ledger look as if it were away; what then happens has tests of its own.
    patience.PATIENCE_S = 60.0
    from paygent_django.webhooks import embedded  # once Django is set up

    embedded.CLOSES_WITHIN_S = 60.0
    pg._meter.exporter.refresh(pg._meter.wallet("ada")).result(60)
    return pg


def spend_all(pipe, given):
    """Call until refused, from the moment that the test says so."""
    pg = began(given)
    pipe.send("ready")
    pipe.recv()
    pipe.send(until_refused(pg))
    pg.shutdown()


def watch(pipe, given):
    """Tell how long it takes until calls are refused, and until they pass again."""
    pg = began(given)
    passes(pg)
    for wanted in (False, True):
        pipe.send("ready")
        pipe.recv()
        since_s = time.monotonic()
        while passes(pg) is not wanted:
            time.sleep(0.01)
        pipe.send(time.monotonic() - since_s)


def spend_and_hold(pipe, given):
    """Hold one call of a user open for ever, and tell the id of each call of another one."""
    pg = began(given)
    ids = {}
    pg.on_usage(lambda event: ids.__setitem__(event.user_id, event.id))
    inside = threading.Event()

    def hold():
        inside.set()
        threading.Event().wait()

    threading.Thread(target=lambda: pg.wrap(hold, user_id="holder", **EXACT), daemon=True).start()
    inside.wait(60)
    while True:
        call(pg)
        pipe.send(ids["ada"])


def fork(pipe, given):
    """Call, fork, and call in both processes."""
    pg = began(given)
    for _ in range(5):
        call(pg)
    child = os.fork()
    for _ in range(7):
        call(pg)
    pg.shutdown()
    if child == 0:
        os._exit(0)
    pipe.send(os.waitpid(child, 0)[1])
