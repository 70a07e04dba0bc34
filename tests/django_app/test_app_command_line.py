"""What all management commands have in common: dry runs, JSON, bars that move, and users of any name."""

import io
import json
import sys

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from paygent.testing._contract_values import Process, event
from paygent_django import services, webhooks
from paygent_django.ledger import DjangoLedger
from paygent_django.models import ApiKey, DailyUsage, Plan, Total, UsageEvent, WebhookDelivery
from paygent_django.services._base import rows

STRANGE = "org/42?x=#é 💥"
OLD_US = 1_700_000_000_000_000
DRY = {
    "paygent_apikey create --project default": lambda: rows(ApiKey).count(),
    "paygent_apikey revoke {key}": lambda: rows(ApiKey).get().revoked_us,
    "paygent_plans apply {plans}": lambda: rows(Plan).count(),
    "paygent_prune": lambda: rows(UsageEvent).count(),
    "paygent_reconcile --fix": lambda: rows(Total).order_by("pk").first().amount,
    "paygent_rollup": lambda: rows(DailyUsage).first().cost_nusd,
    "paygent_webhooks": lambda: rows(WebhookDelivery).get().attempts,
    "paygent_stripe --retry": lambda: None,
}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _on(sqlite_alias):
    with override_settings(PAYGENT={"DATABASE": sqlite_alias}):
        yield


@pytest.fixture
def named(tmp_path):
    """A project with a strange user, old and new usage, a tampered counter and roll-up, and something due."""
    ledger = DjangoLedger()
    reply = Process(ledger, STRANGE).ask()
    ledger.settle([event(reply, 7, tokens=3)])
    ledger.settle([event(reply, 5, timestamp_us=OLD_US, period="p1698796800000000", session="s1:old")])
    ledger.close()
    rows(Total).update(amount=11)
    rows(DailyUsage).update(cost_nusd=999)
    webhooks.send_test(webhooks.create_endpoint(services.project(), "https://example.com/hook"))
    plans = tmp_path / "plans.toml"
    plans.write_text(f"[plans.{json.dumps(STRANGE, ensure_ascii=False)}]\nmax_spend_per_period = 1", "utf-8")
    return {"key": services.create_key(services.project()).row.lookup, "plans": str(plans)}


def typed(line, named, *more):
    """What a command prints, also where it ends with an error."""
    out = io.StringIO()
    try:
        call_command(
            *(word.format(**named) for word in line.split()), *more, stdout=out, stderr=io.StringIO()
        )
    except CommandError:
        assert out.getvalue()
    return out.getvalue()


@pytest.mark.parametrize("line", DRY)
def test_a_dry_run_changes_nothing(named, line):
    """With --dry-run a command says what it would do in JSON, and does not do it."""
    before = DRY[line]()
    assert json.loads(typed(line, named, "--dry-run", "--format", "json")) is not None
    assert DRY[line]() == before


@pytest.mark.parametrize(
    "line", ["paygent_usage", "paygent_reconcile", "paygent_plans list", "paygent_plans apply {plans}"]
)
@pytest.mark.parametrize("how", ["json", "text"])
def test_any_name_is_shown_as_it_is(named, line, how):
    """Users and plans with signs of addresses, accents and emoji in their names are shown as they are."""
    typed("paygent_plans apply {plans}", named)
    assert STRANGE in typed(line, named, "--format", how)


def test_any_name_can_be_asked_for(named):
    """A user of any name is found by it, and an unknown one is named."""
    out = io.StringIO()
    call_command("paygent_usage", STRANGE, "--format", "json", stdout=out)
    assert [row["user"] for row in json.loads(out.getvalue())] == [STRANGE]
    with pytest.raises(CommandError, match="nobody 💥"):
        call_command("paygent_usage", "nobody 💥")


def test_any_name_is_pruned_and_mended(named):
    """Old usage of a user of any name is removed, and what was tampered with is mended."""
    typed("paygent_reconcile --fix", named)
    assert json.loads(typed("paygent_prune", named, "--format", "json"))["events"] == 1
    typed("paygent_rollup", named)
    assert json.loads(typed("paygent_reconcile", named, "--format", "json"))["differences"] == 0


@pytest.mark.parametrize(
    "line, said",
    [
        ("paygent_usage", "reading"),
        ("paygent_prune", "removing"),
        ("paygent_reconcile", "comparing"),
        ("paygent_rollup", "building"),
    ],
)
def test_long_commands_show_how_far_they_are(named, line, said, monkeypatch):
    """On a terminal a bar moves on standard error; with JSON, or where nobody looks, there is none."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    typed(line, named, "--format", "json")
    assert sys.stderr.getvalue() == ""
    typed(line, named)
    assert said in sys.stderr.getvalue()


def test_a_key_is_in_no_log(caplog):
    """The key that a command makes is on its standard output, and in no line of any log."""
    with caplog.at_level("DEBUG"):
        out = io.StringIO()
        call_command("paygent_apikey", "create", stdout=out, stderr=io.StringIO())
        secret = out.getvalue().strip()
        services.authenticate(secret)
        call_command("paygent_apikey", "list", stdout=out)
    assert secret.startswith("pg_live_")
    assert secret not in caplog.text
    assert secret.removeprefix("pg_live_")[12:] not in caplog.text
