"""Stripe as a project sees it: golden events, changed where a test says so, signed and posted."""

import copy
import itertools
import json
import time
from datetime import datetime, timezone
from pathlib import Path

from django.test import Client
from stripe import WebhookSignature

from paygent import PlanConfig
from paygent_django import services

GOLDEN = Path(__file__).parent / "golden"
SECRET = "whsec_test_1"
PLANS = {
    "default": PlanConfig(max_spend_per_period=0.0),
    "pro": PlanConfig(max_spend_per_period=10.0),
    "team": PlanConfig(max_spend_per_period=100.0),
}
DAY_S = 86_400
NOW_S = int(time.time())
START_S = NOW_S - 3 * DAY_S
PERIOD = (START_S, START_S + 30 * DAY_S)
NEXT = (PERIOD[1], PERIOD[1] + 30 * DAY_S)
_numbers = itertools.count()


def golden(name):
    """An event as it is documented."""
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def moment(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc)


class Deliveries:
    """Makes events and delivers them; each has its own id, and is a second younger than the one before."""

    def __init__(self, project):
        self.project = project
        self.client = Client()
        self.clock_s = NOW_S - 3600

    def subscription(self, kind="updated", **changes):
        """An event about the subscription; ``price``, ``period`` and ``at`` are set where they stand."""
        event = self._event(golden("customer.subscription.updated.endive"), changes)
        event["type"] = f"customer.subscription.{kind}"
        about = event["data"]["object"]
        item = about["items"]["data"][0]
        item["price"]["id"] = changes.pop("price", "price_pro")
        item["current_period_start"], item["current_period_end"] = changes.pop("period", PERIOD)
        about.update(changes)
        return event

    def invoice(self, **changes):
        """An event about a paid invoice; ``proration`` makes its line one for a change in mid-period."""
        event = self._event(golden("invoice.paid.endive"), changes)
        line = event["data"]["object"]["lines"]["data"][0]
        line["pricing"]["price_details"]["price"] = changes.pop("price", "price_pro")
        line["period"]["start"], line["period"]["end"] = changes.pop("period", PERIOD)
        line["parent"]["subscription_item_details"]["proration"] = changes.pop("proration", False)
        event["data"]["object"].update(changes)
        return event

    def checkout(self, **changes):
        """An event about a completed checkout."""
        event = self._event(golden("checkout.session.completed"), changes)
        event["data"]["object"].update(changes)
        return event

    def deliver(self, *events):
        """Post each; returns what became of the last."""
        for event in events:
            answer = self.post(json.dumps(event))
            assert answer.status_code == 200, answer.content
        return answer.content.decode()

    def post(self, body, secret=SECRET, age_s=0, header=None):
        """Post a body with its signature."""
        if header is None:
            header = WebhookSignature.generate_signature_header(body, secret, int(time.time()) - age_s)
        return self.client.post(
            "/stripe/webhook", body, content_type="application/json", headers={"stripe-signature": header}
        )

    def user(self, name="ada"):
        return services.find_user(self.project, name)

    def bound(self, name="ada"):
        """The plan that binds a user now, and his billing period; ``None`` for no subscription."""
        user = self.user(name)
        row = services.running(user) if user is not None else None
        if row is None:
            return None
        window = services.period_of(user)
        return row.plan.name, (window.start_us // 10**6, window.end_us // 10**6)

    def _event(self, event, changes):
        self.clock_s += 1
        event = copy.deepcopy(event)
        event["id"] = f"evt_{next(_numbers)}"
        event["created"] = changes.pop("at", self.clock_s)
        return event
