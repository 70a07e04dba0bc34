import re
import subprocess
import sys
from pathlib import Path

import pytest
from project import ROOT, Block, blocks, environment, files

DOCUMENTS = [
    path
    for path in files()
    if path.suffix == ".md" and (path.parent == ROOT or ROOT / "docs" in path.parents)
]
REASON = re.compile(r"^<!-- no-run: .{10,} -->$")


def python_blocks(path: Path) -> list[Block]:
    return [block for block in blocks(path.read_text(encoding="utf-8")) if block.info.startswith("python")]


WITH_CODE = [path for path in DOCUMENTS if any(block.info == "python" for block in python_blocks(path))]


def run_blocks(document: Path, home: Path) -> subprocess.CompletedProcess[str]:
    runner = [sys.executable, str(ROOT / "tests/house/run_blocks.py"), str(document)]
    return subprocess.run(
        runner,
        cwd=home,
        env=environment(HOME=str(home), PYTHONPATH=str(ROOT)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@pytest.mark.parametrize("document", WITH_CODE, ids=lambda path: path.name)
def test_the_python_blocks_of_a_document_run(document, tmp_path):
    """Every Python block of README and docs runs, in order, against the loopback LLM server."""
    result = run_blocks(document, tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_block_that_does_not_run_says_why(document):
    """A Python block is either run, or marked ``no-run`` below a comment with the reason."""
    for block in python_blocks(document):
        assert block.info in {"python", "python no-run"}, f"{document.name}:{block.line}: {block.info}"
        if block.info == "python no-run":
            assert REASON.match(block.above), f"{document.name}:{block.line} gives no reason"


def test_a_broken_block_fails_with_the_line_of_the_document(tmp_path):
    """The runner shares names between blocks, runs top-level await, and reports where a block broke."""
    document = tmp_path / "broken.md"
    document.write_text(
        "```python\nimport asyncio\nx = 1\n```\n\n```python\nawait asyncio.sleep(0)\nx += 1\n```\n"
        "```python no-run\n1 / 0\n```\n\n```python\nassert x == 3, x\n```\n"
    )
    result = run_blocks(document, tmp_path)
    assert result.returncode == 1
    assert "line 15" in result.stderr
    assert "AssertionError: 2" in result.stderr


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_the_readme_shows_the_command(command):
    """The README's code blocks hold each of the two commands on a line of its own."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = {
        line.removeprefix("$ ").partition(" #")[0].strip()
        for block in blocks(readme)
        for line in block.code.splitlines()
    }
    assert command in lines
    target = command.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
