"""What a plugin needs of its framework, said in one sentence where that is missing or too old."""

from __future__ import annotations

import re
from importlib import import_module

LEAST = {"django": "5.2", "flask": "2.3.2", "starlette": "0.46"}  # as in the extras of these names


def require(framework: str) -> None:
    """
    Refuse to be imported without *framework*, or beside one that is older than ``LEAST`` says.

    Its own word counts, which also one has that was copied into a project. What says no version passes:
    Flask does not since 3.0.

    Raises:
        ImportError: The message says what to install.
    """
    try:
        found = vars(import_module(framework)).get("__version__")
    except ModuleNotFoundError as error:
        if error.name != framework:  # it is there; what is missing is a requirement of its own
            raise
        raise _refusal(framework, "there is none") from error
    numbers = _numbers(found) if isinstance(found, str) else ()
    if numbers and numbers < _numbers(LEAST[framework]):
        raise _refusal(framework, f"this is {found}")


def _refusal(framework: str, found: str) -> ImportError:
    return ImportError(
        f"paygent_{framework} needs {framework} {LEAST[framework]} or newer, and {found}: "
        f'pip install "paygent[{framework}]"'
    )


def _numbers(release: str) -> tuple[int, ...]:
    """The leading numbers of a release: ``(6, 0)`` of ``6.0rc1``."""
    start = re.match(r"\d+(\.\d+)*", release)
    return tuple(int(number) for number in start[0].split(".")) if start else ()
