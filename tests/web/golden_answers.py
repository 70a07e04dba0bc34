"""The golden answers, made anew: ``python tests/web/golden_answers.py``."""

import json
from datetime import datetime, timezone
from pathlib import Path

from refusals_seen import EACH

from paygent.web.limit_response import LimitResponder, Offer

GOLDEN = Path(__file__).parent / "golden"

FORMATS = ("problem", "openai", "anthropic")
NOW = datetime(2026, 4, 30, 23, 30, tzinfo=timezone.utc)


def responder(error_format, **options):
    offers = {"free": Offer("pro", "Pro", price="49.00")}
    url = "https://app.example.com/upgrade?from={plan}"
    return LimitResponder(upgrade_url=url, offers=offers, error_format=error_format, **options)


def answers(error_format):
    return {code: _told(responder(error_format), error) for code, error in EACH.items()}


def _told(given, error):
    answer = given.response(error, {}, now=NOW)
    headers = {name: value for name, value in answer.headers if name != "content-length"}
    return {
        "status": answer.status,
        "headers": headers,
        "body": json.loads(answer.body),
        "event": given.event(error).decode(),
    }


if __name__ == "__main__":
    for name in FORMATS:
        text = json.dumps(answers(name), indent=2) + "\n"
        (GOLDEN / f"{name}.json").write_text(text, encoding="utf-8")
