"""The project as files: where it is, what belongs to it, and the code blocks of its documents."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("paygent", "paygent_starlette", "paygent_flask", "paygent_django")

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<code>.*?)^(?P=indent)```\s*$", re.MULTILINE | re.DOTALL
)


def environment(**more: str) -> dict[str, str]:
    """That of a process of its own: without the settings that Django's tests of this run have named."""
    inherited = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    return {**inherited, **more}


def files() -> list[Path]:
    """Every file of the project: what git tracks, or would track if it were added."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True, text=True,
    )  # fmt: skip
    paths = (ROOT / name for name in listing.stdout.split("\0") if name)
    return sorted(path for path in paths if path.is_file())


def package_files() -> list[Path]:
    """The files of the four packages."""
    return [path for path in files() if path.relative_to(ROOT).parts[0] in PACKAGES]


class Block(NamedTuple):
    """One fenced block; ``line`` is that of its first line of code, ``above`` the text line before it."""

    info: str
    code: str
    line: int
    above: str


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a Markdown document, in order, without their indentation."""
    for match in FENCE.finditer(text):
        before = text[: match.start()].rstrip("\n")
        indent = len(match["indent"])
        code = "".join(
            line[indent:] if line.strip() else line for line in match["code"].splitlines(keepends=True)
        )
        line = text.count("\n", 0, match.start("code")) + 1
        yield Block(match["info"].strip(), code, line, before.rpartition("\n")[2].strip())
