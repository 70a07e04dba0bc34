import ast
import re

import pytest
from project import ROOT, files, package_files

FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 400

# Split, so that this file does not hold what it looks for.
INDEX_HOSTS = [
    "pypi" + ".org",
    "python" + "hosted.org",
    "npm" + "js.org",
    "npm" + "js.com",
    "deb." + "debian.org",
]
DEVELOPER_PATH = re.compile(r"(?<![\w.\-])/(?:home|Users|root|work)/\w")

MODULES = [path for path in package_files() if path.suffix == ".py" and "migrations" not in path.parts]
TESTS = [path for path in files() if path.name.startswith("test_") and path.suffix == ".py"]


def functions(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def texts():
    for path in files():
        try:
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def found(pattern):
    return [
        f"{path}:{text.count(chr(10), 0, hit.start()) + 1}"
        for path, text in texts()
        for hit in pattern.finditer(text)
    ]


def test_no_file_names_a_package_index():
    """Which index packages come from is the machine's business: no file names one."""
    assert found(re.compile("|".join(map(re.escape, INDEX_HOSTS)), re.IGNORECASE)) == []


def test_no_file_is_a_leftover_of_an_editor():
    """What editors and patches leave behind is not part of the project."""
    leftovers = (".orig", ".rej", ".bak", "~", ".swp")
    assert [str(path.relative_to(ROOT)) for path in files() if path.name.endswith(leftovers)] == []


def test_no_file_holds_a_developers_path():
    """No file holds an absolute path that exists on one developer's machine only."""
    assert found(DEVELOPER_PATH) == []


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_small(module):
    """A module stays within 400 lines and its functions within 60."""
    lengths = {node.name: node.end_lineno - node.lineno + 1 for node in functions(module)}
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES_MAX} == {}
    lines = module.read_text(encoding="utf-8").count("\n")
    assert lines <= MODULE_LINES_MAX


def test_modules_of_tests_have_names_of_their_own():
    """Test folders are no packages: two modules of one name would be taken for each other."""
    names = [
        path.name for path in files() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] == "tests"
    ]
    assert {name for name in names if names.count(name) > 1 and name != "conftest.py"} == set()


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_states_its_behaviour(path):
    """Each test has a docstring whose first line is a sentence."""
    tests = [node for node in functions(path) if node.name.startswith("test_")]
    summaries = {node.name: (ast.get_docstring(node) or "").partition("\n\n")[0] for node in tests}
    assert [name for name, summary in summaries.items() if not summary.endswith((".", ":"))] == []
