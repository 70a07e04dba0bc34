"""The server of a fleet, its database as the test sees it, and crowds of clients."""

import itertools
import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

import fleet_databases
import httpx
from django.core.management import call_command
from django.db import connections
from django.test import override_settings
from listening import Listening

from paygent import PlanConfig
from paygent_django import services
from paygent_django.ledger import DjangoLedger
from paygent_django.models import Lease, UsageEvent

HERE = Path(__file__).resolve().parent
WORKERS = 4
CALL_NUSD = 20_000_000  # ten tokens each way at a dollar per thousand
STOP_S_MAX = 25.0  # after which gunicorn would soon end its workers by force
WAIT_S_MAX = 60.0
_numbers = itertools.count()


def plan(calls):
    """A plan that covers *calls* calls and half of one more, so that no rounding decides."""
    return PlanConfig(
        max_spend_per_period=(calls + 0.5) * CALL_NUSD / 1e9 if calls else 0.0,
        cost_rates={"m": {"input": 1.0, "output": 1.0}},
        pre_call_estimate=True,
        reservation_safety_factor=1.0,
    )


class Answer(NamedTuple):
    """What became of a request: ``status`` is 0 where no answer came."""

    start_s: float
    status: int
    pid: int
    ids: tuple


class Served:
    """A project with four workers; the test has its database as ``PAYGENT["DATABASE"]``."""

    gunicorn = ("fleet_site:application",)
    hello = "/hello"

    def __init__(self, url, folder, llm_url):
        self.folder = folder
        self.alias = f"fleet{next(_numbers)}"
        given = fleet_databases.settings(url)
        connections.settings[self.alias] = connections.configure_settings({"default": {}, "a": given})["a"]
        self._database = override_settings(PAYGENT={"DATABASE": self.alias})
        path = [str(HERE), str(HERE.parent), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
        self._environment = os.environ | {
            "FLEET_DATABASE": url,
            "DJANGO_SETTINGS_MODULE": "fleet_settings",
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "OPENAI_BASE_URL": llm_url,
            "OPENAI_API_KEY": "any",
            "HOME": str(folder),
        }

    def __enter__(self):
        call_command("migrate", database=self.alias, verbosity=0)
        self._database.enable()
        self.project = services.project()
        for name, calls in {"default": 0, "none": 0, "hundred": 100, "many": 1_000_000}.items():
            services.save_plan(self.project, name, plan(calls))
        command = ["-m", "gunicorn", *self.gunicorn, "--workers", str(WORKERS), "--preload"]
        self._server = Listening(
            lambda port: [*command, "-b", f"127.0.0.1:{port}", "--log-level", "error"],
            self.folder / "log",
            env=self._environment,
            cwd=HERE,
        )
        try:
            self.url = self._server.until_up(self.hello).url
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self._server.kill()
        self._database.disable()
        connections[self.alias].close()
        del connections[self.alias]
        del connections.settings[self.alias]

    def get(self, path, user):
        """One request on a connection of its own, so that any worker may take it."""
        start_s = time.monotonic()
        headers = {"x-user": user, "connection": "close", "accept": "application/json"}
        try:
            answer = httpx.get(
                f"{self.url}{path}", headers=headers, trust_env=False, timeout=WAIT_S_MAX, verify=False
            )
        except httpx.TransportError:
            return Answer(start_s, 0, 0, ())
        ids = answer.json()["ids"] if answer.status_code == 200 else ()
        return Answer(start_s, answer.status_code, int(answer.headers.get("x-pid", 0)), tuple(ids))

    def post(self, path, body, headers):
        return httpx.post(
            f"{self.url}{path}", content=body, headers=headers, trust_env=False, timeout=WAIT_S_MAX
        )

    def user(self, name, plan_name=None):
        """A user, on a plan."""
        user = services.ensure_user(self.project, name)
        if plan_name is not None:
            services.change_plan(user, services.find_plan(self.project, plan_name))
        return user

    def recorded(self, name):
        """The ids of the user's events."""
        rows = UsageEvent.objects.using(self.alias).filter(user__external_user_id=name)
        return list(rows.values_list("event_id", flat=True))

    def stop(self):
        """End it in good order."""
        self._server.end(STOP_S_MAX)

    @property
    def left(self):
        """The leases and journals that nobody should leave behind."""
        leases = [row for row in Lease.objects.using(self.alias) if row.amounts]
        ledger = DjangoLedger(self.alias)
        folder = Path(str(ledger.journal_dir).replace(os.environ["HOME"], str(self.folder)))
        return leases, sorted(folder.glob("*.journal"))


class Crowd:
    """Clients that ask for one user over and over, until they are told to leave."""

    def __init__(self, served, user, clients=6):
        self.answers = []
        self._served, self._user = served, user
        self._leaves = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._leaves.set()
        for thread in self._threads:
            thread.join(WAIT_S_MAX)

    def _ask(self):
        while not self._leaves.is_set():
            self.answers.append(self._served.get("/ask", self._user))

    def until_all_workers(self, status, since_s):
        """Wait until each of the workers has answered with *status* a request that began after *since_s*."""

        def seen():
            pids = {a.pid for a in tuple(self.answers) if a.status == status and a.start_s > since_s}
            return len(pids) >= WORKERS

        until(seen)

    def latest(self, status, since_s):
        """How long after *since_s* the last request began that was still answered with *status*."""
        return max((a.start_s - since_s for a in self.answers if a.status == status), default=0.0)

    def from_now_on(self, answers=40):
        """The statuses of so many answers to requests that begin from now on."""
        now_s = time.monotonic()

        def seen():
            return [a.status for a in tuple(self.answers) if a.start_s > now_s]

        until(lambda: len(seen()) >= answers)
        return set(seen())


def until(condition, limit_s=WAIT_S_MAX):
    """Wait for *condition*; what takes a second or never comes takes some on a busy machine."""
    ends_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > ends_s:
            raise AssertionError(f"not within {limit_s} s")
        time.sleep(0.02)
