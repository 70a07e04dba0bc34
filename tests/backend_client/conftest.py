import warnings

import pytest
from ledger_waits import ledger_waits
from moody_server import KEY, MoodyServer

from paygent import Paygent
from paygent.ledgers import _backend_link

__all__ = ["ledger_waits"]


@pytest.fixture
def server():
    server = MoodyServer()
    yield server
    server.stop()


@pytest.fixture
def connected(tmp_path):
    """``connected(server)`` is a Paygent of this machine; another call is the next process of it."""
    made = []

    def connect(server, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # whether init warns is tested by itself
            pg = Paygent.init(KEY, server.url, tmp_path / "p.db", auto_instrument=False, **options)
        made.append((pg, server))
        return pg

    yield connect
    for pg, server in made:
        server.mood = "well"
        pg.shutdown(5.0)
        pg._meter.ledger.close()  # one that went away in an outage has left its connections open


@pytest.fixture
def short_pauses(monkeypatch):
    """The same outage in a tenth of the time; two seconds are enough for a backend that is well."""
    monkeypatch.setattr(_backend_link, "PAUSE_FIRST_S", 0.05)
    monkeypatch.setattr(_backend_link, "PAUSE_MAX_S", 0.2)
    monkeypatch.setattr(_backend_link, "READ_TIMEOUT_S", 2.0)
    monkeypatch.setattr(_backend_link.Link._request, "__defaults__", (None, 2.0))
