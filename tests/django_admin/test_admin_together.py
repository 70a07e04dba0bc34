"""Two people at one plan, on two connections of PostgreSQL."""

import threading

import pytest
from django.db import connections, transaction
from django.test import override_settings
from test_admin_plans import current, sent_of, url_of

from paygent_django import services
from paygent_django.models import PlanVersion

WAIT_S = 30.0


@pytest.fixture
def project(postgres_alias):
    with override_settings(PAYGENT={"DATABASE": postgres_alias}):
        yield services.project()


def posted(browser, url, sent, answers):
    """Post on a thread, which has connections of its own."""

    def post():
        try:
            answers.append(browser.post(url, sent))
        finally:
            connections.close_all()

    thread = threading.Thread(target=post)
    thread.start()
    return thread


def test_who_saves_at_the_same_moment_undoes_nothing(boss, project, postgres_server, postgres_alias):
    """Of two who save what they edited in one version, the second is told, and the first one's stays."""
    plan = services.save_plan(project, "pro", {"max_spend_per_period": 10.0}).plan
    mine = sent_of(plan, max_spend_per_period="30")
    answers = []
    with transaction.atomic(using=postgres_alias):
        services.save_plan(project, "pro", {"max_spend_per_period": 20.0}, based_on=1)
        thread = posted(boss, url_of(plan), mine, answers)
        postgres_server.until_somebody_waits(connections[postgres_alias].settings_dict["NAME"])
    thread.join(WAIT_S)
    assert "Somebody saved this plan meanwhile" in answers[0].content.decode()
    assert current(plan).config.max_spend_per_period == 20.0
    assert PlanVersion.objects.using(postgres_alias).filter(plan=plan).count() == 2


def test_who_adds_a_plan_of_one_name_at_the_same_moment_undoes_nothing(
    boss, project, postgres_server, postgres_alias
):
    """Of two who add a plan of one name, the second is told, and the first one's plan stays."""
    sent = sent_of(None, name="pro", max_spend_per_period="30")
    answers = []
    with transaction.atomic(using=postgres_alias):
        services.save_plan(project, "pro", {"max_spend_per_period": 20.0})
        thread = posted(boss, "/admin/paygent_django/plan/add/", sent, answers)
        postgres_server.until_somebody_waits(connections[postgres_alias].settings_dict["NAME"])
    thread.join(WAIT_S)
    assert answers[0].status_code == 200
    assert services.find_plan(project, "pro").config.max_spend_per_period == 20.0
