"""Ledgers chosen by URL, and what is said of one that cannot be meant."""

import builtins

import pytest

from paygent.ledgers import open_ledger
from paygent.ledgers._urls import journal_folder, safe_url, without_secrets
from paygent.ledgers.postgres import PostgresLedger
from paygent.ledgers.redis import RedisLedger


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("postgresql://app:pw@db:5432/shop?sslmode=require", PostgresLedger),
        ("postgres://db/shop", PostgresLedger),
        ("postgresql:///shop?host=/var/run/postgresql", PostgresLedger),
        ("postgresql://one:5432,two:5433/shop?target_session_attrs=read-write", PostgresLedger),
        ("redis://cache:6379/3", RedisLedger),
        ("redis://cache", RedisLedger),
        ("rediss://app:pw@cache:6380/0?ssl_cert_reqs=required", RedisLedger),
        ("unix:///run/redis.sock?db=2", RedisLedger),
    ],
)
def test_a_url_names_a_ledger(url, kind):
    """Each kind of URL makes its ledger, and opens nothing."""
    assert type(open_ledger(url)) is kind


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql+psycopg://app:s3cr3t@db/shop", "unknown scheme 'postgresql+psycopg'"),
        ("mysql://app:s3cr3t@db/shop", "known are memory://"),
        ("postgresql://app:s3cr3t@db/shop?no_such_option=1", "no_such_option"),
        ("postgresql://app:s3cr3t@[::1/shop", "]"),
        ("redis://:s3cr3t@cache/shop", "a number, not 'shop'"),
        ("redis:///0", "redis://host:6379/0"),
        ("rediss://:s3cr3t@cache/0?socket_timeout=soon", "socket_timeout"),
        ("redis://:s3cr3t@cache:port/0", "port"),
        ("unix://:s3cr3t@", "unix:///path/to/redis.sock"),
        ("app:s3cr3t@db", "not a URL"),
    ],
)
def test_a_url_that_cannot_be_meant_says_why(url, told):
    """The error names what is wrong with the URL, and holds no password."""
    with pytest.raises(ValueError, match=r"^ledger=") as raised:
        open_ledger(url)
    assert told in str(raised.value)
    seen = [
        raised.value,
        raised.value.__cause__,
        raised.value.__context__ if not raised.value.__suppress_context__ else None,
    ]
    assert not any("s3cr3t" in str(error) for error in seen)


@pytest.mark.parametrize(
    ("url", "driver", "extra"),
    [("postgresql://u:s3cr3t@h/d", "psycopg", "postgres"), ("redis://:s3cr3t@h/0", "redis", "redis")],
)
def test_a_missing_driver_is_named(monkeypatch, url, driver, extra):
    """Without its driver a ledger is refused with the command that installs it."""
    real = builtins.__import__

    def without(name, *arguments, **more):
        if name == driver:
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=rf"pip install 'paygent\[{extra}\]'") as raised:
        open_ledger(url)
    assert "s3cr3t" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("redis://:pw@h:1/0", "redis://@h:1/0"),
        ("postgresql://u:p@ss:w@h/d?password=pw", "postgresql://u@h/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("unix:///run/redis.sock?password=pw", "unix:///run/redis.sock"),
        ("a password", "…"),
    ],
)
def test_a_safe_url_has_no_secret(url, safe):
    """What is logged of a URL has neither a password nor options."""
    assert safe_url(url) == safe


def test_secrets_are_taken_out_of_what_drivers_say():
    """A password that a driver quotes is replaced, as it stands in the URL and as it is meant."""
    url = "postgresql://u:p%40ss@h/d?sslpassword=k3y"
    assert without_secrets("got p%40ss or p@ss or k3y", url) == "got *** or *** or ***"
    assert without_secrets("nothing", "postgresql://u@h/d") == "nothing"


def test_journals_of_a_store_are_in_one_folder(monkeypatch, tmp_path):
    """Who signs in makes no difference to where the journals are; another store has another folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folders = {journal_folder(url) for url in ("redis://a:b@h/0", "redis://h/0", "redis://a:c@h/0?x=1")}
    assert len(folders) == 1
    assert folders.pop().parent == tmp_path / ".paygent/journal"
    assert journal_folder("redis://h/1") != journal_folder("redis://h/0")
    assert open_ledger("redis://a@h/0").journal_dir == journal_folder("redis://h/0")
    assert open_ledger("postgresql://u:p@h/d").journal_dir == journal_folder("postgresql://h/d")
