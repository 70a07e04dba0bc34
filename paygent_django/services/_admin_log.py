"""What Django's admin keeps of a user in its own log: the name of each row that somebody has worked at."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from django.apps import apps
from django.db import connections, router
from django.db.models import Model

from paygent_django.database import APPS
from paygent_django.models import EndUser
from paygent_django.services._base import rows

_ROWS_PER_STEP = 500


def forget(user: EndUser) -> None:
    """
    Rewrite the entries about a user who has been renamed, and about whatever is his.

    Who did what kind of thing to which row, and when, stays. The log may be in another database.
    """
    if not apps.is_installed("django.contrib.admin"):
        return
    from django.contrib.admin.models import LogEntry

    alias = router.db_for_write(LogEntry)
    if LogEntry._meta.db_table not in connections[alias].introspection.table_names():
        return
    log = LogEntry.objects.using(alias)
    about: dict[str, Any] = {"object_repr": str(user)[:200], "change_message": ""}
    _of(log, EndUser).filter(object_id=str(user.pk)).update(**about)
    ours = [one for one in EndUser._meta.related_objects if one.related_model._meta.app_label in APPS]
    for relation in ours:
        entries = _of(log, relation.related_model)
        for pks in _his(entries, relation, user):
            entries.filter(object_id__in=pks).update(**about)


def _of(log: Any, model: type[Model]) -> Any:
    meta = model._meta
    return log.filter(content_type__app_label=meta.app_label, content_type__model=meta.model_name)


def _his(entries: Any, relation: Any, user: EndUser) -> Iterator[list[str]]:
    """Of the rows that the log knows, those that are the user's: there are fewer of them than he has."""
    known = iter(entries.order_by().values_list("object_id", flat=True).distinct())
    key = relation.related_model._meta.pk
    while step := list(islice(known, _ROWS_PER_STEP)):
        found = rows(relation.related_model).filter(
            pk__in=[key.to_python(pk) for pk in step], **{relation.field.name: user}
        )
        yield [str(pk) for pk in found.values_list("pk", flat=True)]
