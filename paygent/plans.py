"""Plans from a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pydantic import ValidationError

from paygent.core.models import PlanConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_plans(path: str | os.PathLike[str]) -> dict[str, PlanConfig]:
    """
    Read a TOML file with one table per plan: ``[plans.free]`` and the fields of :class:`PlanConfig`.

    Raises:
        ValueError: The file is not TOML, or a plan is not valid; the message names plan and field.
        OSError: The file cannot be read.
    """
    try:
        document = tomllib.loads(Path(path).read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"plans={os.fspath(path)!r}: {error}") from error
    plans = document.pop("plans", None)
    if not isinstance(plans, dict) or document:
        raise ValueError(
            f"plans={os.fspath(path)!r}: the file holds tables named [plans.<name>] and nothing else"
        )
    configs = {}
    for name, fields in plans.items():
        try:
            configs[name] = PlanConfig.model_validate(fields)
        except ValidationError as error:
            raise ValueError(f"plans={os.fspath(path)!r}, plan {name!r}: {error}") from error
    return configs
