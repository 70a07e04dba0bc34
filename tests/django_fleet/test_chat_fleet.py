"""The example app as it would run in production: four workers of gunicorn on one database."""

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from django.contrib.auth.models import User
from fleet_server import Served, until
from real_servers import postgres

from paygent import PlanConfig
from paygent_django import services

QUESTION = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "How do I start?"}]}
CALLS = 100
ASKS_MAX = 1000  # each of which has waited for the ledger, or for somebody else to find it back
ASKERS = 8
USD = 10**9


class Chat(Served):
    """The example, served; ``ask`` is what its page does."""

    gunicorn = ("chat_site:app", "--worker-class", "uvicorn_worker.UvicornWorker")
    hello = "/"

    def __init__(self, url, folder, llm_url):
        super().__init__(url, folder, llm_url)
        self._environment.pop("DJANGO_SETTINGS_MODULE")
        self._cookies = {}

    def sign_in(self, name):
        """Sign in; returns the user's row."""
        with httpx.Client(base_url=self.url, trust_env=False, timeout=30) as browser:
            assert browser.post("/api/login", json={"name": name}).status_code == 204
            self._cookies[name] = dict(browser.cookies)
        key = User.objects.using(self.alias).get(username=name).pk
        return services.find_user(self.project, str(key))

    def ask(self, name):
        """Ask on a connection of its own, so that any worker may answer; again where the ledger was away."""
        answers = (self._ask_once(name) for _ in range(ASKS_MAX))
        return next(answer for answer in answers if answer.status_code != 503)

    def _ask_once(self, name):
        return httpx.post(
            f"{self.url}/api/chat", json=QUESTION, cookies=self._cookies[name], timeout=60, trust_env=False,
            headers={"connection": "close"},
        )  # fmt: skip


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def chat(request, llm, tmp_path_factory, django_unblocked):
    folder = tmp_path_factory.mktemp("chat")
    url = f"sqlite://{folder / 'chat.sqlite3'}"
    if request.param == "postgres":
        server = postgres()
        server.start()
        url = server.new_database()
    with Chat(url, folder, llm.openai_base_url) as served:
        yield served
    if request.param == "postgres":
        server.drop_database(url)


def cost_of_a_call(chat):
    """What the question costs by the price list of today."""
    user = chat.sign_in("cleo")
    assert chat.ask("cleo").text.endswith("event: done\ndata: {}\n\n")
    until(lambda: chat.recorded(user.external_user_id))
    return services.usage_of(user).cost_nusd  # of one call: nobody else asks as cleo


def test_a_cap_for_a_hundred_calls_admits_a_hundred(chat):
    """A plan for a hundred answers gives a hundred to eight tabs of a browser, and the books agree."""
    user, cost_nusd = chat.sign_in("ben"), cost_of_a_call(chat)
    cap = PlanConfig(max_spend_per_period=(CALLS - 0.5) * cost_nusd / USD)
    services.change_plan(user, services.save_plan(chat.project, "hundred", cap).plan)
    answers = []

    def ask_until_refused():
        while True:
            answers.append(chat.ask("ben"))
            if answers[-1].status_code == 429 and "retry-after" not in answers[-1].headers:
                return

    askers = [threading.Thread(target=ask_until_refused) for _ in range(ASKERS)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(120)
    assert {answer.status_code for answer in answers} == {200, 429}
    assert sum("event: done" in answer.text for answer in answers) == CALLS
    until(lambda: len(chat.recorded(user.external_user_id)) == CALLS)
    assert services.usage_of(user).cost_nusd == CALLS * cost_nusd
    assert list(services.reconcile(chat.project)) == []


def test_a_grant_lets_him_go_on(chat):
    """Whom a plan refuses goes on after a grant, in every worker."""
    user = chat.sign_in("ada")
    nothing = PlanConfig(max_spend_per_period=0.0)
    services.change_plan(user, services.save_plan(chat.project, "nothing", nothing).plan)
    until(lambda: statuses(chat) == {429})
    services.grant(user, 1000 * USD)
    until(lambda: statuses(chat) == {200})


def statuses(chat):
    """What ada is answered, by as many requests as reach every worker."""
    with ThreadPoolExecutor(ASKERS) as askers:
        return {answer.status_code for answer in askers.map(chat.ask, ["ada"] * ASKERS)}
