"""The management commands, as they are typed."""

import io
import json
import sys

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from paygent.testing._contract_values import Process, event
from paygent_django import services
from paygent_django.ledger import DjangoLedger
from paygent_django.models import Plan, Project, Total, UsageEvent

STRANGE = "org/42?x=#é 💥"
PLANS = """
[plans.free]
max_spend_per_period = 5.0
label = "Free"

[plans."pro, ü"]
price = 49.95
currency = "EUR"
rank = 2
max_spend_per_session = 2.5

[plans."pro, ü".model_limits."gpt-4o"]
max_tokens_per_period = 50000

[plans."pro, ü".cost_rates."gpt-4o"]
input = 0.0025
output = 0.01
"""


@pytest.fixture(autouse=True)
def _on(sqlite_alias):
    with override_settings(PAYGENT={"DATABASE": sqlite_alias}):
        yield sqlite_alias


@pytest.fixture
def plans_toml(tmp_path):
    path = tmp_path / "plans.toml"
    path.write_text(PLANS, "utf-8")
    return path


def typed(*words):
    """What a command prints on standard output."""
    out = io.StringIO()
    call_command(*map(str, words), stdout=out, stderr=io.StringIO())
    return out.getvalue()


def answered(*words):
    return json.loads(typed(*words, "--format", "json"))


def spend(user_id, cost_nusd, **more):
    ledger = DjangoLedger()
    row = event(Process(ledger, user_id).ask(), cost_nusd, **more)
    ledger.settle([row])
    ledger.close()
    return row


def test_plans_are_applied_from_a_file(plans_toml):
    """A file's plans are saved, and applied again nothing changes."""
    assert [plan["action"] for plan in answered("paygent_plans", "apply", plans_toml)] == ["new", "new"]
    assert [plan["action"] for plan in answered("paygent_plans", "apply", plans_toml)] == ["same", "same"]
    listed = {plan["name"]: plan for plan in answered("paygent_plans", "list")}
    assert (listed["pro, ü"]["price"], listed["pro, ü"]["currency"], listed["free"]["label"]) == (
        "49.95",
        "EUR",
        "Free",
    )


def test_a_dry_run_applies_nothing(plans_toml):
    """A dry run names what would change, by field, and saves nothing."""
    typed("paygent_plans", "apply", plans_toml)
    plans_toml.write_text(PLANS.replace("5.0", "6.0").replace("rank = 2", "rank = 3"), "utf-8")
    changes = answered("paygent_plans", "apply", plans_toml, "--dry-run")
    assert [change["fields"] for change in changes] == [["max_spend_per_period"], ["rank"]]
    assert {plan["version"] for plan in answered("paygent_plans", "list")} == {1}


def test_an_export_is_a_file_to_apply(plans_toml, tmp_path):
    """What is exported says the same plans when it is applied."""
    typed("paygent_plans", "apply", plans_toml)
    typed("paygent_plans", "export", tmp_path / "out.toml")
    again = answered("paygent_plans", "apply", tmp_path / "out.toml", "--dry-run")
    assert [plan["action"] for plan in again] == ["same", "same"]
    assert typed("paygent_plans", "export") == (tmp_path / "out.toml").read_text("utf-8")


@pytest.mark.parametrize(
    "text, field",
    [
        ("[plans.free]\nmax_spend = 1", "plans.free.max_spend"),
        ("[plans.free]\nprice = 'much'", "plans.free.price"),
        ("[plans.free]\nprice = nan", "plans.free.price"),
        ("[plans.free]\nrank = 1.5", "plans.free.rank"),
        ("[plans]\nfree = 1", "plans.free"),
        ("plans = 1", "plans.toml"),
        ("[plans.free", "plans.toml"),
    ],
)
def test_a_bad_file_is_refused_by_its_field(plans_toml, text, field):
    """A plan that cannot be is refused with the path of its field, and no plan of the file is saved."""
    plans_toml.write_text("[plans.good]\n\n" + text if text.startswith("[plans.f") else text, "utf-8")
    with pytest.raises(CommandError, match=field):
        typed("paygent_plans", "apply", plans_toml)
    assert not Plan.objects.using(services._base.database_alias()).exists()


PLANS_YAML = """
plans:
  free: {max_spend_per_period: 5.0, label: Free}
  pro, ü:
    price: 49.95
    currency: EUR
    rank: 2
    max_spend_per_session: 2.5
    model_limits: {gpt-4o: {max_tokens_per_period: 50000}}
    cost_rates: {gpt-4o: {input: 0.0025, output: 0.01}}
"""


@pytest.mark.parametrize("ending", ["yaml", "YML"])
def test_plans_may_be_written_in_yaml(plans_toml, tmp_path, ending):
    """A YAML file says the same as the TOML file, and so does one that is exported."""
    path = tmp_path / f"plans.{ending}"
    path.write_text(PLANS_YAML, "utf-8")
    typed("paygent_plans", "apply", path)
    assert {plan["action"] for plan in answered("paygent_plans", "apply", plans_toml)} == {"same"}
    typed("paygent_plans", "export", tmp_path / f"out.{ending}")
    again = answered("paygent_plans", "apply", tmp_path / f"out.{ending}", "--dry-run")
    assert [plan["action"] for plan in again] == ["same", "same"]


@pytest.mark.parametrize(
    "text, field",
    [
        ("plans: {free: {max_spend: 1}}", "plans.free.max_spend"),
        ("plans: {free: {price: .nan}}", "plans.free.price"),
        ("plans: {on: {}}", "plans.True"),
        ("plans: {free: {rank: 1}, free: {rank: 2}}", "'free' is there twice"),
        ("plans: [free]", "bad.yaml"),
        ("[plans.free]\nrank = 1", "bad.yaml"),
        ("plans: {free: !!python/object/apply:os.system [ls]}", "bad.yaml"),
        ("", "bad.yaml"),
    ],
)
def test_bad_yaml_is_refused_by_its_field(tmp_path, text, field):
    """What is no plan in YAML is refused with the path of its field, what is there twice as well."""
    (tmp_path / "bad.yaml").write_text(text, "utf-8")
    with pytest.raises(CommandError, match=field):
        typed("paygent_plans", "apply", tmp_path / "bad.yaml")
    assert not Plan.objects.using(services._base.database_alias()).exists()


def test_yaml_needs_a_package(tmp_path, monkeypatch):
    """Without PyYAML a YAML file is refused with the words that install it, read or written."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    services.project()
    for action in ("apply", "export"):
        (tmp_path / "plans.yaml").write_text(PLANS_YAML, "utf-8")
        with pytest.raises(CommandError, match=r"paygent\[yaml\]"):
            typed("paygent_plans", action, tmp_path / "plans.yaml")


def test_a_dry_run_makes_no_project(plans_toml):
    """A dry run for a project that is not there names what would be new, and makes nothing."""
    changes = answered("paygent_plans", "apply", plans_toml, "--dry-run", "--project", "acme")
    assert {change["action"] for change in changes} == {"new"}
    assert not Project.objects.using(services._base.database_alias()).exists()


def test_a_key_is_printed_once():
    """Creating prints the key alone, which works; listing shows its beginning; revoking ends it."""
    secret = typed("paygent_apikey", "create", "--project", "acme", "--name", "ci").strip()
    assert services.authenticate(secret).project.name == "acme"
    (listed,) = answered("paygent_apikey", "list", "--project", "acme")
    assert secret.startswith(listed["key"])
    assert secret not in typed("paygent_apikey", "list", "--project", "acme")
    assert answered("paygent_apikey", "revoke", listed["key"], "--project", "acme")["revoked"]
    assert services.authenticate(secret) is None


def test_a_key_of_another_project_is_not_revoked():
    """A key is revoked in its own project only."""
    secret = answered("paygent_apikey", "create", "--project", "acme", "--scope", "admin")["secret"]
    services.project("other")
    with pytest.raises(CommandError, match="key"):
        typed("paygent_apikey", "revoke", secret[:20], "--project", "other")
    assert services.authenticate(secret).scopes == ("admin",)


def test_an_unknown_project_is_named():
    """A command on a project that is not there says so, and makes none."""
    with pytest.raises(CommandError, match="nowhere"):
        typed("paygent_usage", "--project", "nowhere")
    assert not Project.objects.using(services._base.database_alias()).exists()


def test_usage_names_users_limits_and_resets():
    """Usage lists users by what they spent, with plan, limit and reset, whatever their names."""
    services.save_plan(services.project(), "default", {"max_spend_per_period": 1e-6})
    spend("ada", 10)
    spend(STRANGE, 1000, tokens=5)
    first, second = answered("paygent_usage")
    assert (first["user"], first["cost_usd"], first["spent"], second["spent"]) == (
        STRANGE,
        1e-6,
        "total_spend",
        None,
    )
    assert STRANGE in typed("paygent_usage", STRANGE)
    with pytest.raises(CommandError, match="bob"):
        typed("paygent_usage", "bob")


def test_a_planted_difference_is_found_and_mended():
    """Reconciling says nothing where all is well, names a counter that was tampered with, and mends it."""
    spend(STRANGE, 10, tokens=3)
    assert answered("paygent_reconcile")["differences"] == 0
    total = Total.objects.using(services._base.database_alias()).filter(scope="total_spend")
    total.update(amount=11)
    with pytest.raises(CommandError, match="1 counter"):
        typed("paygent_reconcile")
    assert answered("paygent_reconcile", "--fix") == {"differences": 0, "mended": 1, "found": []}
    assert total.get().amount == 10


def test_roll_ups_are_built_anew():
    """A roll-up that was tampered with is found, and building it anew mends it."""
    from paygent_django.models import DailyUsage, UserUsage

    spend(STRANGE, 10, tokens=3, metadata={"feature": "chat"})
    for model in (DailyUsage, UserUsage):
        model.objects.using(services._base.database_alias()).update(cost_nusd=999)
    out = io.StringIO()
    with pytest.raises(CommandError):
        call_command("paygent_reconcile", "--format", "json", stdout=out)
    assert [row["kind"] for row in json.loads(out.getvalue())["found"]] == [
        "user_usage",
        "user_usage",
        "daily_usage",
    ]
    typed("paygent_rollup")
    assert answered("paygent_reconcile")["differences"] == 0


def test_pruning_keeps_totals_the_sum_of_the_rows():
    """Old periods go with their totals, the roll-ups stay, and everything still agrees; a dry run counts."""
    old_us = 1_700_000_000_000_000
    month = "p1698796800000000"
    ledger = DjangoLedger()
    reply = Process(ledger, STRANGE).ask()
    ledger.settle(
        [event(reply, 5, timestamp_us=old_us + n, period=month, session="s1:old") for n in range(3)]
    )
    ledger.settle([event(reply, 7)])
    ledger.close()
    assert answered("paygent_prune", "--dry-run")["events"] == 3
    assert answered("paygent_prune")["events"] == 3
    assert answered("paygent_prune")["events"] == 0
    alias = services._base.database_alias()
    assert UsageEvent.objects.using(alias).count() == 1
    assert set(Total.objects.using(alias).values_list("amount", flat=True)) == {7}
    assert answered("paygent_reconcile")["differences"] == 0
    with pytest.raises(CommandError, match="pruned"):
        typed("paygent_rollup", "--since", "2023-11-01", "--until", "2023-11-01")


def test_what_is_young_is_not_pruned():
    """An age below two months is refused."""
    services.project()
    with pytest.raises(CommandError, match="--days"):
        typed("paygent_prune", "--days", "30")


def test_a_name_moves_nobodys_cursor():
    """What is no letter in the name of a user is spelled out in the table: no colours, no made-up rows."""
    name = "a\x1b[31m\r\nbob é 💥"
    ledger = DjangoLedger(services.project()._state.db)
    ledger.settle([event(Process(ledger, name).ask(), 9)])
    ledger.close()
    out = io.StringIO()
    call_command("paygent_usage", stdout=out)
    (_, row) = out.getvalue().splitlines()
    assert r"a\x1b[31m\r\nbob é 💥" in row
