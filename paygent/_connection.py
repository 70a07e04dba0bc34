"""Where the ledger is: on this machine, in a database, or at a backend that may not be there yet."""

from __future__ import annotations

import os
import threading
import warnings
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from paygent import _settings
from paygent._forking import no_fork
from paygent.core.errors import PaygentAuthInvalid, PaygentBackendUnreachable
from paygent.ledger import Ledger, LedgerError
from paygent.ledgers import open_ledger
from paygent.ledgers._urls import store_digest

if TYPE_CHECKING:
    from paygent.ledgers._backend_link import Link

CHECK_TIMEOUT_S = 1.0  # to connect, and again to answer: init() waits two seconds at most


class Store(NamedTuple):
    """
    A ledger, and what is known of the backend behind it.

    ``name`` tells it from others without any secret. ``api_key`` of ``None`` means local mode.
    ``is_reachable`` is the result of the check at the start.
    """

    ledger: Ledger
    name: str
    api_key: str | None
    base_url: str
    is_reachable: bool = False


def open_store(
    api_key: str | None,
    base_url: str | None,
    ledger: str | None,
    db_path: str | os.PathLike[str] | None,
    *,
    strict: bool,
) -> Store:
    """
    Open what ``Paygent.init`` names; in connected mode the backend is asked once whether it is there.

    Raises:
        ValueError: A key and a ledger are given, or the URL of the ledger cannot be meant.
        PaygentBackendUnreachable: The backend did not answer, and *strict*; else this is a warning.
        PaygentAuthInvalid: It does not take the key, and *strict*; else this is a warning.
    """
    key, address = _settings.backend(api_key, base_url, ledger)
    if key is None:
        url = _settings.ledger_url(ledger, db_path)
        with no_fork:  # the module of the ledger
            return Store(open_ledger(url), url, None, address)
    with no_fork:
        from paygent.ledgers.backend import BackendLedger  # loaded in connected mode only

    store = BackendLedger(address, key, _settings.local_file(db_path))
    reachable = True
    try:
        _check(store.link)
    except LedgerError as error:
        if strict:
            store.close()
            raise _warning(address, error) from error
        warnings.warn(_warning(address, error), stacklevel=3)
        reachable = False
    return Store(store, f"backend://{store.project}", key, address, reachable)


def _check(link: Link) -> None:
    """
    Ask once whether the backend is there.

    On a thread: a resolver that hangs, or a server that answers letter by letter, keeps to no timeout.

    Raises:
        LedgerError: It is not there, or not within two seconds.
    """
    checked: Future[None] = Future()

    def ask() -> None:
        try:
            link.ping(CHECK_TIMEOUT_S)
        except BaseException as error:  # noqa: BLE001  # it belongs to whoever waits
            checked.set_exception(error)
        else:
            checked.set_result(None)

    threading.Thread(target=ask, name="paygent-check", daemon=True).start()
    try:
        checked.result(2 * CHECK_TIMEOUT_S)
    except FutureTimeoutError:
        raise LedgerError("it did not answer in time") from None


def _warning(base_url: str, error: LedgerError) -> PaygentAuthInvalid | PaygentBackendUnreachable:
    from paygent.ledgers._backend_link import UnauthorizedError

    if isinstance(error, UnauthorizedError):
        return PaygentAuthInvalid(
            f"the backend at {base_url} does not take the API key: see api_key or PAYGENT_API_KEY, and "
            "whether base_url or PAYGENT_BASE_URL names the backend that made it"
        )
    return PaygentBackendUnreachable(
        f"no connection to the backend: {error} (base_url or PAYGENT_BASE_URL); it is asked again"
    )


def journal_folder(journal_dir: str | os.PathLike[str] | None, store: str) -> Path | None:
    """
    The folder for the journals of the ledger named *store*, where one is asked for; each has its own.

    So no process recovers into its ledger what belongs to another.
    """
    chosen = journal_dir or os.environ.get("PAYGENT_JOURNAL_DIR") or None
    return Path(chosen).expanduser().absolute() / store_digest(store) if chosen is not None else None
