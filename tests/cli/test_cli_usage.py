import importlib.metadata

import pytest

from paygent import cli


def exit_status(*arguments):
    """Read a command line that ends with its usage, or with what it was asked to show; nothing is run."""
    with pytest.raises(SystemExit) as ended:
        cli._parser().parse_args(arguments)
    return ended.value.code


def test_it_tells_its_version(capsys):
    """``paygent --version`` shows that of the installed package, and needs no command."""
    assert exit_status("--version") == 0
    assert capsys.readouterr().out == f"paygent {importlib.metadata.version('paygent')}\n"


def test_run_from_its_sources_it_has_no_version(capsys, monkeypatch):
    """Where the package is not installed ``--version`` says so; nothing else asks for it."""

    def not_found(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", not_found)
    assert exit_status("--version") == 0
    assert capsys.readouterr().out == "paygent, run from its sources\n"


@pytest.mark.parametrize(
    "command, option, value, said",
    [
        ("serve", "--port", "65536", "must be from 0 to 65535, not 65536"),
        ("serve", "--port", "-1", "must be from 0 to 65535, not -1"),
        ("serve", "--port", "http", "invalid number value: 'http'"),
        ("demo", "--port", "99999999", "must be from 0 to 65535, not 99999999"),
        ("serve", "--workers", "-1", "must be at least 0, not -1"),
        ("serve", "--threads", "0", "must be at least 1, not 0"),
    ],
)
def test_numbers_that_cannot_be_meant_are_usage_errors(capsys, command, option, value, said):
    """Exit status 2 before anything is made, with a line that names the option."""
    assert exit_status(command, option, value) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"paygent {command}: error: argument {option}: {said}"
