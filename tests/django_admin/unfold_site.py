"""A project on django-unfold, for a process of its own: opens every page, prints a line for each."""

import os
import sys
from pathlib import Path

FOLDER = Path(sys.argv[1])
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
os.environ["PAYGENT_TEST_FOLDER"] = str(FOLDER)

from django_project import settings as base  # noqa: E402  # the folder is said first

base.INSTALLED_APPS = ["unfold", "paygent_django.contrib.unfold", *base.INSTALLED_APPS]
base.PAYGENT = {}


def main():
    os.environ["DJANGO_SETTINGS_MODULE"] = "django_project.settings"
    import django

    django.setup()
    from admin_data import believable
    from django.contrib import admin
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.test import Client
    from test_admin_queries import pages
    from unfold.admin import ModelAdmin

    from paygent_django.admin import ADMINS

    call_command("migrate", verbosity=0)
    call_command("check", tags=["admin", "templates"], fail_level="WARNING", stdout=sys.stderr)
    client = Client()
    client.force_login(User.objects.create_superuser("maya"))
    found = pages(believable(calls=40, days=5))
    lists = (f"/admin/paygent_django/{model._meta.model_name}/" for model in ADMINS)
    adds = (f"/admin/paygent_django/{name}/add/" for name in ("plan", "apikey", "webhookendpoint", "project"))
    for url in (*found.values(), *lists, *adds, "/admin/paygent_django/"):
        answer = client.get(url)
        html = answer.content.decode()
        sys.stdout.write(f"{answer.status_code} {'unfold/css/styles.css' in html} {'pg-' in html} {url}\n")
    is_ours = all(isinstance(admin.site._registry[model], ModelAdmin) for model in ADMINS)
    sys.stdout.write(f"classes {is_ours}\n")


if __name__ == "__main__":
    main()
