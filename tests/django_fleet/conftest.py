"""A Django project under gunicorn with four workers, on SQLite and on PostgreSQL."""

import sys
from pathlib import Path

import pytest
from django_project import harness

harness.set_up()

from django_project.harness import django_unblocked  # noqa: E402  # once Django is set up
from fleet_server import Served  # noqa: E402
from real_servers import postgres  # noqa: E402

from paygent.testing.llm_server import LLMServer  # noqa: E402

SIMULATION = str(Path(__file__).parents[1] / "simulation")
if SIMULATION not in sys.path:
    sys.path.append(SIMULATION)

__all__ = ["django_unblocked"]


@pytest.fixture(scope="module")
def llm():
    with LLMServer(latency_s=0.01) as server:
        yield server


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def served(request, llm, tmp_path_factory, django_unblocked):
    """One server for all tests of a module; killed if it is still there in the end."""
    folder = tmp_path_factory.mktemp("fleet")
    url = f"sqlite://{folder / 'app.sqlite3'}"
    if request.param == "postgres":
        server = postgres()
        server.start()
        url = server.new_database()
    with Served(url, folder, llm.openai_base_url) as project:
        yield project
    if request.param == "postgres":
        server.drop_database(url)
