"""Plans as a file, in TOML or YAML: read, applied and written."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from django.db import transaction
from pydantic import ValidationError

from paygent.core.models import PlanConfig
from paygent_django.database import database_alias
from paygent_django.ledger._plans import SAID, UNSAID
from paygent_django.models import Plan, Project
from paygent_django.services import yaml_files
from paygent_django.services._base import ServiceError
from paygent_django.services.plans import check_said, configured, find_plan, price_of, save_plan

_TOML = "tomllib" if sys.version_info >= (3, 11) else "tomli"
_SHOWN = ("label", "price", "currency", "interval", "rank")


class PlanSpec(NamedTuple):
    """A plan as a file says it; ``said`` is what it says besides its limits."""

    name: str
    config: PlanConfig
    said: dict[str, Any]


class PlanChange(NamedTuple):
    """What applying a file does to a plan: ``new``, ``changed`` or ``same``; ``fields`` are what changes."""

    name: str
    action: str
    fields: tuple[str, ...]


def read_plan_file(path: str | os.PathLike[str]) -> list[PlanSpec]:
    """
    Read a file with one table per plan: ``[plans.free]``, the fields of ``PlanConfig``, and optionally
    ``label``, ``price`` (in ``currency``, 49 or "49.00"), ``currency``, ``interval`` and ``rank``.

    The same in YAML, where the file's name ends in ``.yaml`` or ``.yml``; that needs PyYAML.

    Raises:
        ServiceError: The file cannot be read, is neither, or a plan is not valid; the path of the field is
            named.
    """
    where = os.fspath(path)
    try:
        document = _document(where, Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ServiceError(where, str(error)) from error
    plans = document.pop("plans", None) if isinstance(document, dict) else None
    if not isinstance(plans, dict) or document:
        raise ServiceError(where, "the file holds tables named [plans.<name>] and nothing else")
    return [_spec(name, fields) for name, fields in plans.items()]


def _document(name: str, text: str) -> Any:
    if yaml_files.is_named_so(name):
        return yaml_files.read(text)
    return import_module(_TOML).loads(text, parse_float=Decimal)


def apply_plans(
    project: Project, specs: Sequence[PlanSpec], *, dry_run: bool = False, by: str = ""
) -> list[PlanChange]:
    """Save the plans, all of them or none; a dry run says what would change."""
    changes = [_change(project, spec) for spec in specs]
    if not dry_run:
        with transaction.atomic(using=database_alias()):
            for spec in specs:
                save_plan(project, spec.name, spec.config, **spec.said, by=by)
    return changes


def export_plans(project: Project, name: str = "plans.toml") -> str:
    """
    The offered plans as a file that :func:`read_plan_file` reads; what is as by default is left out.

    Raises:
        ServiceError: *name* ends as that of a YAML file, and PyYAML is not installed.
    """
    plans = list(configured(project))
    if not yaml_files.is_named_so(name):
        return "\n".join(text for plan in plans for text in _table(f"plans.{_key(plan.name)}", _fields(plan)))
    try:
        return yaml_files.written({"plans": {plan.name: _fields(plan) for plan in plans}})
    except ValueError as error:
        raise ServiceError(name, str(error)) from error


def _spec(name: object, fields: object) -> PlanSpec:
    if not isinstance(name, str) or not isinstance(fields, Mapping):
        raise ServiceError(f"plans.{name}", "must be a table" if isinstance(name, str) else "must be a text")
    said = {field: fields[field] for field in _SHOWN if field in fields}
    if "price" in said:
        said["price_nano"] = _nano(f"plans.{name}.price", said.pop("price"))
    try:
        check_said(said)
        config = PlanConfig.model_validate(
            {field: _plain(value) for field, value in fields.items() if field not in _SHOWN}
        )
    except ServiceError as error:
        raise ServiceError(f"plans.{name}.{error.field}", error.message) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ServiceError(".".join(["plans", name, *map(str, first["loc"])]), str(first["msg"])) from error
    return PlanSpec(name, config, said)


def _nano(where: str, price: object) -> int:
    try:
        nano = Decimal(str(price)) * 10**9
        whole = int(nano)
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise ServiceError(where, "must be a number, such as 49 or 49.50") from error
    if nano != whole or isinstance(price, bool):
        raise ServiceError(where, "must be a number with at most nine decimals")
    return whole


def _plain(value: Any) -> Any:
    """Numbers as floats, at any depth: they were read as decimals for the sake of prices."""
    if isinstance(value, Decimal):
        return float(value)
    return {key: _plain(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def _change(project: Project, spec: PlanSpec) -> PlanChange:
    plan = find_plan(project, spec.name)
    if plan is None or plan.current is None:
        return PlanChange(spec.name, "new", ())
    before, after = plan.current.plan_config, spec.config
    fields = [name for name in PlanConfig.model_fields if getattr(before, name) != getattr(after, name)]
    fields += [name for name, value in spec.said.items() if getattr(plan.current, name) != value]
    return PlanChange(spec.name, "changed" if fields else "same", tuple(fields))


# -- writing ----------------------------------------------------------------------------------------------


def _fields(plan: Plan) -> dict[str, Any]:
    version = plan.current
    assert version is not None
    fields: dict[str, Any] = {
        name: getattr(version, name) for name in SAID if getattr(version, name) != UNSAID[name]
    }
    if "price_nano" in fields:
        fields["price"] = format(price_of(fields.pop("price_nano")), "f")
    said = version.plan_config.model_dump(mode="json", exclude_defaults=True)
    return fields | {name: value for name, value in said.items() if value is not None}


def _table(name: str, fields: Mapping[str, Any]) -> Iterator[str]:
    tables = {key: value for key, value in fields.items() if isinstance(value, dict)}
    lines = [f"[{name}]"]
    lines += [
        f"{_key(key)} = {_value(value)}"
        for key, value in fields.items()
        if key not in tables and value is not None
    ]
    yield "\n".join(lines) + "\n"
    for key, inner in tables.items():
        yield from _table(f"{name}.{_key(key)}", inner)


def _key(name: str) -> str:
    bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if bare else _value(name)


def _value(value: Any) -> str:
    """A TOML value: JSON's spelling, but for DEL, which TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
