"""The API in this process: requests through Django's own client, with a key."""

import itertools
import json
import uuid
from datetime import datetime, timedelta, timezone
from urllib.parse import quote

from django.test import Client

from paygent_django import services

ROOT = "/paygent/api/v1"
MODEL = "gpt-4o-mini"
PRO = {
    "name": "pro",
    "max_spend_per_period": 49.0,
    "max_spend_per_session": 5.0,
    "model_limits": {MODEL: {"max_tokens_per_period": 200000}},
    "cost_rates": {MODEL: {"input": 0.00015, "output": 0.0006}},
}
_numbers = itertools.count()


class Api:
    """Requests with one key; answers are Django's responses, with ``json()``."""

    def __init__(self, project, key):
        self.project, self.key = project, key
        self._client = Client(raise_request_exception=False)

    @classmethod
    def of_new_project(cls, scopes=("read", "ingest", "admin")):
        project = services.create_project(f"project {next(_numbers)}")
        return cls(project, services.create_key(project, scopes=scopes).secret)

    def with_key(self, key):
        """The same project, another key."""
        return Api(self.project, key)

    def limited_to(self, *scopes):
        """The same project, a key that may do less."""
        return self.with_key(services.create_key(self.project, scopes=scopes).secret)

    def request(self, method, path, said=None, *, body=None, **headers):
        data = body if body is not None else b"" if said is None else json.dumps(said).encode()
        given = {"Authorization": f"Bearer {self.key}"} if self.key is not None else {}
        return self._client.generic(
            method, ROOT + path, data, content_type="application/json", headers={**given, **headers}
        )

    def get(self, path):
        return self.request("GET", path)

    def post(self, path, said=None, **options):
        return self.request("POST", path, said, **options)

    def patch(self, path, said):
        return self.request("PATCH", path, said)

    def delete(self, path):
        return self.request("DELETE", path)

    # -- what most tests begin with --------------------------------------------------------------------

    def plan(self, **changes):
        """A plan, by its id."""
        answer = self.post("/config/plans", {"plans": [{**PRO, **changes}]})
        assert answer.status_code == 200, answer.content
        return answer.json()["plans"][0]["id"]

    def user(self, user_id="ada", plan_id=None, **period):
        """A user on a plan, whose period began a day ago."""
        answer = self.post("/users", {"external_user_id": user_id})
        assert answer.status_code == 201, answer.content
        answer = self.subscribe(user_id, plan_id or self.plan(), **period)
        assert answer.status_code == 200, answer.content
        return answer.json()

    def subscribe(self, user_id, plan_id, start=None, end=None):
        start = start or now() - timedelta(days=1)
        end = end or start + timedelta(days=30)
        said = {"plan_id": plan_id, "period_start": start.isoformat(), "period_end": end.isoformat()}
        return self.post(f"/users/{quote(user_id, safe='')}/subscription", said)

    def used(self, user_id="ada", query=""):
        answer = self.get(f"/users/{quote(user_id, safe='')}/usage{query}")
        assert answer.status_code == 200, answer.content
        return answer.json()


def now():
    return datetime.now(timezone.utc)


def event(user_id="ada", **changes):
    """A usage event as clients in the field send it."""
    return {
        "id": str(uuid.uuid4()),
        "user_id": user_id,
        "session_id": "s-1",
        "timestamp": now().isoformat(),
        "model": MODEL,
        "input_tokens": 20,
        "output_tokens": 8,
        "total_tokens": 28,
        "tool_calls": [],
        "cost_tokens": 0.000008,
        "cost_tools": 0.0,
        "cost_total": 0.000008,
        "metadata": {},
        "source": "auto",
        "description": None,
        "cost_explicit": False,
        **changes,
    }


def gate(user_id="ada", **changes):
    """A gate event as clients in the field send it."""
    return {
        "id": str(uuid.uuid4()),
        "user_id": user_id,
        "paygent_user_id": None,
        "session_id": "s-1",
        "timestamp": now().isoformat(),
        "status": "hard_gate",
        "gate_reason": "total_spend",
        "usage_pct": 1.0,
        "current_value": 49.0,
        "limit_value": 49.0,
        "model": MODEL,
        "blocked": True,
        "message": "You have used all of your plan.",
        "metadata": {},
        **changes,
    }


def lease(user_id="ada", lease_id="process-1", seq=1, **changes):
    """A lease operation that asks for a cent."""
    return {
        "user_id": user_id,
        "lease_id": lease_id,
        "seq": seq,
        "begin_session": True,
        "need": {"total_spend": 10_000_000},
        "want": {"total_spend": 640_000_000},
        **changes,
    }
