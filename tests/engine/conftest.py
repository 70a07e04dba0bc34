import pytest

from paygent import Paygent


@pytest.fixture
def init(tmp_path):
    """Paygent on a ledger of its own, shut down at the end."""
    made = []

    def init(**options):
        if "ledger" not in options:
            options.setdefault("db_path", tmp_path / "p.db")
        made.append(Paygent.init(auto_instrument=False, **options))
        return made[-1]

    yield init
    for pg in made:
        pg.shutdown()
