"""The form of a plan: what it reads, saves, refuses and tries out."""

import re

import pytest
from admin_data import USD, event_of
from django.utils.html import escape

from paygent import ModelCostRate, PlanConfig
from paygent_django import services
from paygent_django.admin.plan_forms import RATES, PlanForms
from paygent_django.models import Plan, PlanVersion
from paygent_django.models.moments import now_us

ADMIN = "/admin/paygent_django/plan/"
FULL = PlanConfig(
    max_spend_per_period=12.5, max_spend_per_session=0.1, soft_gate_at=0.75, hard_gate_at=0.95,
    model_limits={"gpt-4o": {"max_tokens_per_period": 1000}, "claude \u201cx\u201d": {}},
    cost_rates={"gpt-4o": {"input": 0.0025, "output": 0.01, "cache_read": 0.00125, "per_image": 0.04}},
    default_cost_rate=ModelCostRate(input=0.1, output=0.2, per_second=0.0001), tool_costs={"search": 0.01},
    default_tool_cost=0.0, session_timeout_minutes=12.5, pre_call_estimate=True, pre_call_buffer_tokens=77,
    reservation_safety_factor=1.05,
)  # fmt: skip


@pytest.fixture
def plan(project):
    return services.save_plan(project, "pro", FULL, label="Pro", price_nano=24_990_000_000, rank=3).plan


def url_of(plan):
    return f"{ADMIN}{plan.pk}/change/"


def sent_of(plan=None, **changes):
    """What a browser sends of an untouched form, with *changes*; ``None`` leaves a field out."""
    forms, data = PlanForms(plan), {}
    for part in (forms.main, forms.default_rate):
        data |= {field.html_name: field.value() for field in part}
    for rows in (forms.limits, forms.rates, forms.tools):
        data |= {field.html_name: field.value() for field in rows.management_form}
        data |= {field.html_name: field.value() for row in rows for field in row}
    data = {
        name: "on" if value is True else value
        for name, value in data.items()
        if value is not None and value is not False
    }
    return {name: value for name, value in {**data, **changes}.items() if value is not None}


def versions(plan):
    return PlanVersion.objects.using(plan._state.db).filter(plan=plan).count()


def current(plan):
    return Plan.objects.using(plan._state.db).select_related("current", "project").get(pk=plan.pk)


def wrong(html):
    """The names of the fields that are marked."""
    marked = re.findall(r'class="(?:pg-field )?pg-wrong".*?name="([\w-]+)"', html, re.DOTALL)
    return set(marked)


def test_an_untouched_form_saves_nothing_new(boss, plan):
    """Everything that a plan says survives the form unchanged: saving it makes no version."""
    answer = boss.post(url_of(plan), sent_of(plan), follow=True).content.decode()
    assert "Saved." in answer
    assert current(plan).config == FULL
    assert versions(plan) == 1


def test_every_field_of_a_plan_is_in_the_form(plan):
    """No field of the configuration and no kind of rate is missing, so that saving loses none."""
    forms = PlanForms(plan, sent_of(plan))
    assert forms.is_valid()
    assert set(forms.config) == set(PlanConfig.model_fields)
    assert set(RATES) == set(ModelCostRate.model_fields)
    assert PlanConfig.model_validate(forms.config) == FULL


def test_what_is_edited_is_a_new_version(boss, plan):
    """Amounts in dollars and shares in per cent become a new version, with who saved it and what changed."""
    sent = sent_of(plan, max_spend_per_period="20.05", soft_gate_at="50", price="29", label="Professional")
    shown = boss.post(url_of(plan), sent, follow=True).content.decode()
    saved = current(plan)
    assert (saved.config.max_spend_per_period, saved.config.soft_gate_at) == (20.05, 0.5)
    assert (saved.current.price_nano, saved.label, saved.current.created_by) == (
        29 * USD,
        "Professional",
        "maya",
    )
    assert "Saved as version 2" in shown
    assert "spend per period: $12.50 \u2192 $20.05" in shown
    assert "price: $24.99 / month \u2192 $29.00 / month" in shown


def test_an_empty_cap_is_unlimited_and_zero_is_zero(boss, plan):
    """An empty cap means no limit; zero stays zero."""
    boss.post(url_of(plan), sent_of(plan, max_spend_per_period="", max_spend_per_session="0"))
    config = current(plan).config
    assert (config.max_spend_per_period, config.max_spend_per_session) == (float("inf"), 0.0)


def test_rows_are_added_and_removed(boss, plan):
    """A new row is a new limit, a row marked for removal is gone, and an empty row is nothing."""
    sent = sent_of(
        plan,
        **{
            "limits-TOTAL_FORMS": "4", "limits-0-DELETE": "on", "limits-2-model": "new-model",
            "limits-2-max_tokens_per_period": "5", "limits-3-model": "", "tools-0-DELETE": "on",
        },
    )  # fmt: skip
    boss.post(url_of(plan), sent)
    config = current(plan).config
    assert {model: limit.max_tokens_per_period for model, limit in config.model_limits.items()} == {
        "claude \u201cx\u201d": None, "new-model": 5,
    }  # fmt: skip
    assert config.tool_costs == {}


@pytest.mark.parametrize(
    ("changes", "marked"),
    [
        ({"max_spend_per_period": "-1"}, {"max_spend_per_period"}),
        ({"max_spend_per_period": "NaN"}, {"max_spend_per_period"}),
        ({"soft_gate_at": "96"}, {"soft_gate_at"}),
        ({"hard_gate_at": "101"}, {"hard_gate_at"}),
        ({"currency": "usd"}, {"currency"}),
        ({"interval": "decade"}, {"interval"}),
        ({"price": "1e30"}, {"price"}),
        ({"rank": "9" * 12}, {"rank"}),
        ({"rates-0-input": ""}, {"rates-0-input"}),
        ({"rates-0-per_image": "x"}, {"rates-0-per_image"}),
        ({"limits-1-model": "gpt-4o"}, {"limits-1-model"}),
        ({"limits-0-model": ""}, {"limits-0-model"}),
        ({"tools-0-cost": "-2"}, {"tools-0-cost"}),
        ({"default_rate-output": ""}, {"default_rate-output"}),
        ({"session_timeout_minutes": "0"}, {"session_timeout_minutes"}),
    ],
)
def test_what_cannot_be_is_marked_at_its_field(changes, marked, boss, plan):
    """A value that cannot be is refused at the field, which keeps what was typed; nothing is saved."""
    shown = boss.post(url_of(plan), sent_of(plan, **changes)).content.decode()
    assert wrong(shown) == marked
    assert versions(plan) == 1
    assert all(escape(value) in shown for value in changes.values())


def test_a_form_that_lost_a_race_is_not_saved(boss, plan):
    """Whoever opened the form before somebody else saved is told, and overwrites nothing."""
    sent = sent_of(plan, rank="9")
    services.save_plan(plan.project, "pro", FULL, label="Other")
    shown = boss.post(url_of(plan), sent).content.decode()
    assert "Somebody saved this plan meanwhile" in shown
    assert (current(plan).current.number, current(plan).label) == (2, "Other")


def test_a_form_that_lost_its_rows_is_refused(boss, plan):
    """A form whose rows were cut off on the way saves nothing: a limit must not vanish by accident."""
    sent = {name: value for name, value in sent_of(plan).items() if not name.startswith("limits-")}
    boss.post(url_of(plan), sent)
    assert versions(plan) == 1
    assert current(plan).config == FULL


def test_a_new_plan_is_added(boss, project):
    """The empty form makes a plan; the same name again is refused at the field."""
    sent = sent_of(name="org/42 \U0001f4a5", label="Best", max_spend_per_period="5", is_default="on")
    answer = boss.post(f"{ADMIN}add/", sent)
    made = services.find_plan(project, "org/42 \U0001f4a5")
    assert answer.url == url_of(made)
    assert made.config.max_spend_per_period == 5.0
    assert current(made).project.default_plan_id == made.pk
    assert wrong(boss.post(f"{ADMIN}add/", sent).content.decode()) == {"name"}


def test_default_and_archived_are_switches(boss, plan):
    """A plan becomes the default one and stops being it, and is archived, without a new version."""
    boss.post(url_of(plan), sent_of(plan, is_default="on", is_archived="on"))
    assert (current(plan).project.default_plan_id, current(plan).is_archived) == (plan.pk, True)
    boss.post(url_of(plan), sent_of(current(plan), is_default=None, is_archived=None))
    assert (current(plan).project.default_plan_id, current(plan).is_archived) == (None, False)
    assert versions(plan) == 1


def test_what_a_service_refuses_is_said_and_undone(boss, plan):
    """A default plan beside one named default is refused at the field, and the rest is not saved either."""
    services.save_plan(plan.project, "default", {})
    shown = boss.post(url_of(plan), sent_of(plan, is_default="on", rank="8")).content.decode()
    assert wrong(shown) == {"is_default"}
    assert versions(plan) == 1


def test_a_dry_run_names_who_would_be_blocked(boss, plan):
    """The dry run lists who would be refused, new ones first; it saves nothing, and keeps what was typed."""
    for name, usd in (("small", 0.5), ("big", 3.0), ("spent", 13.0)):
        user = services.create_user(plan.project, name)
        services.change_plan(user, plan)
        services.ledger_of(plan.project).settle(
            [event_of(name, now_us(), int(usd * USD), model="free-model")]
        )
    shown = boss.post(url_of(plan), sent_of(plan, max_spend_per_period="2", dry_run="1")).content.decode()
    result = re.search(r'id="dry-run".*?</section>', shown, re.DOTALL)[0]
    assert re.findall(r'class="name">\s*<a[^>]*><bdi>(\w+)<', result) == ["big", "spent"]
    assert "1 user" in result
    assert "blocked already" in result
    assert 'value="2"' in shown
    assert current(plan).config == FULL


def test_a_dry_run_needs_to_see_users(signed_in, plan):
    """Whoever may change plans but not see users is not told who would be blocked."""
    client = signed_in("change_plan")
    assert "dry_run" not in client.get(url_of(plan)).content.decode()
    assert client.post(url_of(plan), sent_of(plan, dry_run="1")).status_code == 403


def test_viewing_is_not_changing(signed_in, plan):
    """Whoever may only view plans gets the form without buttons, and cannot send it."""
    client = signed_in("view_plan")
    assert "Who would be blocked?" not in client.get(url_of(plan)).content.decode()
    assert client.post(url_of(plan), sent_of(plan, rank="9")).status_code == 403
    assert versions(plan) == 1
