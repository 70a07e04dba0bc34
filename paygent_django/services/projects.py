"""Tenants."""

from __future__ import annotations

from django.db import IntegrityError, transaction

from paygent.core.bounds import stored_length
from paygent_django.database import database_alias, project_name
from paygent_django.models import Project
from paygent_django.services._base import ServiceError, rows


def project(name: str | None = None) -> Project:
    """The project of that name, or the app's own, made if need be."""
    wanted = project_name() if name is None else checked_name("name", name, 200)
    made: Project = rows(Project).get_or_create(name=wanted)[0]
    return made


def create_project(name: str) -> Project:
    """
    Make a project.

    Raises:
        ServiceError: The name is empty or too long, or there is one (code ``exists``).
    """
    name = checked_name("name", name, 200)
    try:
        with transaction.atomic(using=database_alias()):
            made: Project = rows(Project).create(name=name)
    except IntegrityError as error:
        raise ServiceError("name", f"there is a project {name!r} already", "exists") from error
    return made


def find_project(name: str) -> Project | None:
    """The project of that name."""
    found: Project | None = rows(Project).filter(name=name).first()
    return found


def checked_name(field: str, value: object, length_max: int) -> str:
    """
    A name as every database can store it.

    Raises:
        ServiceError: Not a text, empty, too long, or not encodable.
    """
    if not isinstance(value, str) or not value:
        raise ServiceError(field, "must be a text that is not empty")
    if stored_length(value) > length_max:
        raise ServiceError(field, f"must have at most {length_max} characters")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ServiceError(field, "holds a lone surrogate, which no encoding can store") from error
    return value
