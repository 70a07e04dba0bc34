"""What somebody meets who starts the backend for the first time, and where that goes wrong."""

import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys

import pytest
from django_app import app_databases
from listening import free_port

from paygent_django.server import environment


@pytest.fixture
def paygent(tmp_path):
    """Run a command line to its end, at home in the test's own folder."""

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "paygent.cli", *arguments],
            env={**os.environ, "HOME": str(tmp_path)},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=100,
        )  # fmt: skip

    return run


def no_folder(tmp_path):
    (tmp_path / "file").touch()
    return f"sqlite:///{tmp_path}/file/server.db"


def no_database(tmp_path):
    (tmp_path / "notes.txt").write_text("not a database" * 100, encoding="utf-8")
    return f"sqlite:///{tmp_path}/notes.txt"


def no_server(_tmp_path):
    return f"postgresql://paygent:correct-horse@127.0.0.1:{free_port()}/paygent"


@pytest.mark.parametrize(
    "database, said",
    [
        (no_folder, "File exists"),
        (no_database, "file is not a database"),
        (no_server, "Connection refused"),
    ],
    ids=["no folder", "no database", "no server"],
)
def test_a_database_that_cannot_be_used_is_said(paygent, tmp_path, database, said):
    """Exit status 2 and one line with the database's own reason, without its password."""
    done = paygent("serve", "--port", "0", "--database", database(tmp_path))
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert done.stderr.startswith("paygent serve: PAYGENT_DATABASE (--database) cannot be used: ")
    assert said in done.stderr
    assert "correct-horse" not in done.stderr


def test_a_command_says_it_too(paygent, tmp_path):
    """``paygent manage`` ends in the same way where nobody answers."""
    done = paygent("manage", "--database", no_server(tmp_path), "changepassword", "admin")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert done.stderr.startswith("paygent manage: PAYGENT_DATABASE (--database) cannot be used: ")


def test_a_command_before_the_first_start_says_what_to_do(paygent):
    """On a database without tables: exit status 2 and one line that names both ways to make them."""
    done = paygent("manage", "changepassword", "admin")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "no tables yet: start paygent serve once, or run paygent manage migrate" in done.stderr


def test_a_fault_of_a_command_itself_is_shown_whole(paygent, tmp_path):
    """On a database that is set up an error has another reason: its traceback stays."""
    path = tmp_path / "server.db"
    shutil.copy(app_databases.migrated_file(), path)
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE auth_user")
    connection.close()
    done = paygent("manage", "--database", f"sqlite:///{path}", "changepassword", "admin")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "no such table: auth_user" in done.stderr


def test_postgresql_without_its_driver_says_what_to_install(monkeypatch):
    """The driver is an extra: where it is missing the error names it."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(environment.SetupError, match=r"pip install 'paygent\[postgres\]'"):
        environment.database("postgresql://x/y")


def test_a_server_that_cannot_listen_shows_what_it_made(paygent, tmp_path):
    """Login and key are made once and shown once: also where the port turns out to be taken."""
    path = tmp_path / "server.db"
    shutil.copy(app_databases.migrated_file(), path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = paygent("serve", "--port", str(port), "--database", f"sqlite:///{path}")
    assert done.returncode == 1
    assert "Paygent serves" not in done.stdout
    assert re.search(r"admin login +admin / \S+\n +API key +pg_live_\S+\n", done.stdout)
