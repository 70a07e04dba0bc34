"""Tests of a project with Paygent, in Django's own ``TestCase``."""

import unittest

import pytest
from app_calls import call, plan, until_refused
from django.test import TestCase, override_settings

from paygent import Paygent
from paygent_django import services
from paygent_django.models import UsageEvent


@pytest.fixture
def run(alias):
    """Run a function as a test of a project; what it finds wrong is an error here."""

    def act(body):
        class ProjectsTest(TestCase):
            databases = frozenset({alias})

            def check(self):
                body()

        found = unittest.TestResult()
        with override_settings(PAYGENT={"DATABASE": alias}):
            unittest.TestSuite([ProjectsTest("check")]).run(found)
        assert found.errors + found.failures == []
        assert found.testsRun == 1

    return act


def test_a_testcase_sees_what_was_metered(run, alias):
    """In a TestCase plans, calls and refusals work with no setting, and are gone after it."""

    def body():
        services.save_plan(services.project(), "default", plan(3))
        pg = Paygent.init(ledger="django://", auto_instrument=False)
        try:
            assert until_refused(pg) == 3
            call(pg, "bob")
            pg.flush()
            assert UsageEvent.objects.using(alias).count() == 4
        finally:
            pg.shutdown()

    run(body)
    assert UsageEvent.objects.using(alias).count() == 0
