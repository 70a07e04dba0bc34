"""A call of a request whose user nobody knows: what the log says of it."""

from paygent.context import as_payer
from paygent.web.exemptions import Place
from paygent.web.options import WebOptions
from paygent.web.plugin import WebPlugin


def test_the_warning_names_the_options_that_find_the_user(pg, caplog):
    """Within a request the options of the plugin are what to look at, not the context; it is said once."""
    plugin = WebPlugin(
        WebOptions(), default_user=lambda request: None, place_of=lambda request: Place("/", None)
    )
    for _ in range(2):
        with as_payer(plugin.open({})):
            pg.wrap(lambda: "answer", user_id=None)
    where = "in a web request for no user (a user_id of None or empty, else see get_user_id and anonymous)"
    assert [record.message for record in caplog.records if "passes unmetered" in record.message] == [
        f"an LLM call was made {where}: it passes unmetered"
    ]
