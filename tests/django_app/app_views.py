"""A view that spends and then fails."""

from app_calls import call
from django.urls import path

from paygent import Paygent
from paygent_django.database import database_alias
from paygent_django.models import Project


def spend_and_fail(request):
    Project.objects.using(database_alias()).filter(name="nobody").exists()
    call(Paygent.get_instance(), "ada")
    raise ZeroDivisionError


def fail_and_write(request):
    call(Paygent.get_instance(), "ada")
    Project.objects.using(database_alias()).create(name="written by the view")
    raise ZeroDivisionError


urlpatterns = [path("spend", spend_and_fail), path("write", fail_and_write)]
