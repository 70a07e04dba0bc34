"""The options: checked when the app starts, the same names in keyword arguments and in settings."""

import importlib
from pathlib import Path

import pytest

from paygent.web.options import OPTION_NAMES, WebOptions
from paygent.web.wording import Offer


def find_user(request):
    return "ada"


def test_the_defaults_are_the_documented_ones():
    """Without any option calls of nobody are left to the core, and a spent plan is a 429 problem."""
    options = WebOptions()
    assert (options.anonymous, options.status_code, options.error_format) == ("skip", 429, "problem")
    assert (options.expose_amounts, options.usage_headers) == (True, False)
    assert (options.enabled, options.report_only, options.defer_start_s) == (True, False, 1.0)


@pytest.mark.parametrize(
    ("given", "kind", "named"),
    [
        ({"status_code": 500}, ValueError, "status_code"),
        ({"error_format": "xml"}, ValueError, "error_format"),
        ({"anonymous": "allow"}, ValueError, "anonymous"),
        ({"upgrade_url": "javascript:alert(1)"}, ValueError, "upgrade_url"),
        ({"upgrade_url": 3}, TypeError, "upgrade_url"),
        ({"defer_start_s": -1}, ValueError, "defer_start_s"),
        ({"defer_start_s": float("inf")}, ValueError, "defer_start_s"),
        ({"get_user_id": "ada"}, TypeError, "get_user_id"),
        ({"on_limit": 1}, TypeError, "on_limit"),
        ({"enabled": "false"}, TypeError, "enabled"),
        ({"report_only": 1}, TypeError, "report_only"),
        ({"exempt": 3}, TypeError, "exempt"),
        ({"exempt": [3]}, TypeError, "exempt"),
        ({"offers": []}, TypeError, "offers"),
        ({"offers": {"free": {"prize": "1"}}}, TypeError, r"offers\['free'\]"),
        ({"paygent": "memory://"}, TypeError, "paygent"),
    ],
)
def test_an_option_that_cannot_be_right_is_named(given, kind, named):
    """A wrong value is refused when the app starts, and the message begins with the option's name."""
    with pytest.raises(kind, match=f"^{named}"):
        WebOptions.of(given)


@pytest.mark.parametrize(
    ("given", "meant"), [("get_user", "get_user_id"), ("upgrade_uri", "upgrade_url"), ("exemptt", "exempt")]
)
def test_an_unknown_option_is_met_with_the_nearest(given, meant):
    """A misspelt option is refused, and the message asks whether the nearest one was meant."""
    with pytest.raises(TypeError, match=f"did you mean {meant}"):
        WebOptions.of({given: None})


def test_an_option_like_no_other_lists_them_all():
    """A name that resembles none is met with the list."""
    with pytest.raises(TypeError, match=r"there are anonymous, .*usage_headers"):
        WebOptions.of({"zzz": None})


def test_settings_are_the_options_in_capitals():
    """Upper-case settings under a prefix set the options; other settings are left alone."""
    settings = {"PAYGENT_STATUS_CODE": 402, "PAYGENT_ANONYMOUS": "block", "SECRET_KEY": "x"}
    options = WebOptions.from_settings(settings, prefix="PAYGENT_")
    assert (options.status_code, options.anonymous) == (402, "block")


def test_overrides_win_over_settings():
    """What code says wins over the settings."""
    options = WebOptions.from_settings({"STATUS_CODE": 402}, overrides={"status_code": 429})
    assert options.status_code == 429


def test_an_unknown_setting_is_met_with_the_nearest_setting():
    """The message names the setting as the developer writes it."""
    with pytest.raises(TypeError, match="did you mean PAYGENT_UPGRADE_URL"):
        WebOptions.from_settings({"PAYGENT_UPGRADE_URI": "/"}, prefix="PAYGENT_")


def test_dotted_paths_are_imported():
    """Where a setting takes a function, text is the path to one, also among the exemptions."""
    path = f"{__name__}.find_user"
    options = WebOptions.from_settings({"GET_USER_ID": path, "ANONYMOUS": path, "EXEMPT": ["/health", path]})
    assert options.get_user_id is options.anonymous is find_user
    assert options.exempt == ("/health", find_user)


@pytest.mark.parametrize("path", ["no_such_module.f", f"{__name__}.no_such_name", "nothing", "..", ""])
def test_a_dotted_path_that_leads_nowhere_is_named(path):
    """A path to nothing is refused with the option and the path."""
    with pytest.raises(ValueError, match=r"get_user_id='.*': this dotted path leads nowhere"):
        WebOptions.from_settings({"GET_USER_ID": path})


def test_names_of_routes_may_hold_dots():
    """Where the framework's routes hold dots, no exemption is taken for a path to a function."""
    options = WebOptions.from_settings({"EXEMPT": ["api.health"]}, dotted_routes=True)
    assert options.exempt == ("api.health",)


def test_words_and_addresses_are_no_paths():
    """``anonymous="skip"`` and an upgrade address with dots stay what they are."""
    settings = {"ANONYMOUS": "skip", "UPGRADE_URL": "https://app.example.com/up", "EXEMPT": "/v1.0"}
    options = WebOptions.from_settings(settings)
    assert options.upgrade_url == "https://app.example.com/up"
    assert options.exempt == ("/v1.0",)


def test_offers_may_be_plain_settings():
    """An offer is an :class:`Offer`, its fields, or the name of a plan."""
    options = WebOptions(offers={"free": {"name": "pro", "price": "49.00"}, "pro": "team", "x": Offer("y")})
    assert options.offers == {"free": Offer("pro", price="49.00"), "pro": Offer("team"), "x": Offer("y")}


def test_every_option_of_the_product_is_there():
    """The names that the three plugins share are these and no others."""
    assert set(OPTION_NAMES) == {
        "get_user_id", "get_session_id", "get_plan", "metadata", "anonymous", "exempt", "upgrade_url",
        "on_limit", "status_code", "error_format", "expose_amounts", "usage_headers", "enabled",
        "report_only", "offers", "defer_start_s", "paygent",
    }  # fmt: skip


@pytest.mark.parametrize("name", OPTION_NAMES)
def test_the_table_of_the_documentation_has_every_option(name):
    """The one table of options names each under every framework."""
    table = (Path(__file__).parents[2] / "docs/web.md").read_text(encoding="utf-8")
    capitals = name.upper()
    (row,) = [line for line in table.splitlines() if f"`PAYGENT_{capitals}`" in line]
    assert f"`{name}" in row
    assert f"`{capitals}`" in row or name == "paygent"


@pytest.mark.parametrize("package", ["paygent_starlette", "paygent_flask", "paygent_django"])
def test_the_verbs_are_the_same_everywhere(package):
    """Each plugin offers the three verbs under the same names."""
    module = importlib.import_module(package)
    assert {"exempt", "tag", "require_budget", "Offer"} <= set(module.__all__)
