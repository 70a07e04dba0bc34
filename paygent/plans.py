"""Plans from a file."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

from pydantic import ValidationError

from paygent.core.models import PlanConfig

# Loaded with the first file: most apps have none.
_TOML = "tomllib" if sys.version_info >= (3, 11) else "tomli"


def read_plans(path: str | os.PathLike[str]) -> dict[str, PlanConfig]:
    """
    Read a TOML file with one table per plan: ``[plans.free]`` and the fields of :class:`PlanConfig`.

    Raises:
        ValueError: The file is not TOML, or a plan is not valid; the message names plan and field.
        OSError: The file cannot be read.
    """
    where = f"plans={os.fspath(path)!r}"
    try:
        document = import_module(_TOML).loads(Path(path).read_text("utf-8"))
    except ValueError as error:  # not UTF-8, or not TOML
        raise ValueError(f"{where}: {error}") from error
    plans = document.pop("plans", None)
    if not isinstance(plans, dict) or document:
        raise ValueError(f"{where}: the file holds tables named [plans.<name>] and nothing else")
    return {name: _plan(f"{where}, plan {name!r}", fields) for name, fields in plans.items()}


def _plan(where: str, fields: object) -> PlanConfig:
    try:
        return PlanConfig.model_validate(fields)
    except ValidationError as error:
        raise ValueError(f"{where}: {error}") from error
