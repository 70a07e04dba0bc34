"""The dashboard, knowing no framework: a request's method, path and query in, a complete answer out."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

from paygent.charts.markup import tag, text
from paygent.client import Paygent
from paygent.dashboard import markup, overview_page, plans_page, shell, users_pages
from paygent.dashboard.reading import Kept, overview, read, user_page, users_page
from paygent.dashboard.reading import plans_page as read_plans
from paygent.dashboard.shell import Frame
from paygent.insight import DAY_US, Insight, InsightLedger
from paygent.ledger import Ledger, LedgerError
from paygent.web.limit_response import LimitResponse

log = logging.getLogger("paygent")

Authorize = Callable[..., "bool | Awaitable[bool]"]  # of the framework's request

DAYS = 30
_NO_SUMS = (
    "This ledger keeps no sums over all users, so there is no overview and no list. "
    "Type a user's whole id to see where he stands."
)


class Dashboard:
    """
    The pages of one Paygent.

    Args:
        pg: Whose ledger to show; ``None``: the process's Paygent at the time of each request.
        authorize: The app's own check of a request; only ``True`` lets it pass. There is no default.
        now_us: The clock that says which day it is, in microseconds since the epoch.

    Raises:
        TypeError: *authorize* is not callable, or *pg* is no Paygent.
    """

    def __init__(
        self, pg: Paygent | None, authorize: Authorize, now_us: Callable[[], int] | None = None
    ) -> None:
        if not callable(authorize):
            raise TypeError(
                "authorize must be a function of the request that returns True for those who may see the "
                f"dashboard, not {authorize!r}: without it anybody could"
            )
        if pg is not None and not isinstance(pg, Paygent):
            raise TypeError(f"pg must be a paygent.Paygent or None, not {type(pg).__name__}")
        self.authorize = authorize
        self._pg = pg
        self._now_us = now_us or (lambda: time.time_ns() // 1000)
        self._kept = Kept()

    def allows(self, said: object) -> bool:
        """Whether an answer of ``authorize`` lets its request pass: ``True`` does, and nothing else."""
        if said is not True and said is not False:
            log.warning("the dashboard's authorize returned %s, not a bool: refused", type(said).__name__)
        return said is True

    def answer(self, method: str, path: str, query: str, root: str) -> LimitResponse:
        """
        Answer a request that was allowed; blocks while the ledger is asked.

        Args:
            path: Below the place where the dashboard is mounted, without the first slash.
            query: As it stands in the address.
            root: That place, without a slash at the end.
        """
        if method not in ("GET", "HEAD"):
            return shell.plain(405, "This only reads.", ("allow", "GET, HEAD"))
        found = shell.asset(path) or self._page(path, query, root)
        return found._replace(body=b"") if method == "HEAD" else found

    def _page(self, path: str, query: str, root: str) -> LimitResponse:
        path = path.rstrip("/")
        pg = self._pg or Paygent.get_instance()
        frame = Frame(root, path, pg.queue_stats if pg is not None else {"degraded": True})
        if pg is None or not pg.is_initialized:
            return _unavailable(frame, "Paygent is not running in this process.")
        if not pg.is_local_mode:
            return _elsewhere(frame, pg)
        given = {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}
        try:
            return read(pg, lambda ledger: self._shown(ledger, frame, given)) or _missing(frame)
        except LedgerError as error:
            log.warning("the dashboard could not ask the ledger: %s", error)
            return _unavailable(frame, "The ledger cannot be asked at the moment. The log says more.")

    def _shown(self, ledger: Ledger, frame: Frame, given: dict[str, str]) -> LimitResponse | None:
        if frame.current == "user" and given.get("id"):
            seen = user_page(ledger, given["id"], self._days(DAYS))
            return shell.page(frame, given["id"], *users_pages.user(frame, seen))
        if frame.current == "plans":
            return shell.page(frame, "Plans", *plans_page.content(read_plans(ledger)))
        if frame.current not in ("", "users"):
            return None
        if not isinstance(ledger, Insight):
            return _without_sums(frame, given)
        return self._over_all(ledger, frame, given)

    def _over_all(self, ledger: InsightLedger, frame: Frame, given: dict[str, str]) -> LimitResponse:
        if frame.current == "users":
            listed = users_page(ledger, given.get("q", ""), given.get("after"))
            return shell.page(frame, "Users", *users_pages.users(frame, listed))
        asked = given.get("days", "")
        days = int(asked) if asked in map(str, overview_page.RANGES) else DAYS
        seen = overview(ledger, self._days(days), self._kept)
        return shell.page(frame, "Overview", *overview_page.content(frame, seen))

    def _days(self, count: int) -> range:
        """The last *count* days since the epoch, today included."""
        today = self._now_us() // DAY_US
        return range(today - count + 1, today + 1)


def _missing(frame: Frame) -> LimitResponse:
    back = markup.link(frame.to(""), "To the overview")
    return shell.page(frame, "Not found", tag("h1", "There is no such page"), tag("p", back), status=404)


def _unavailable(frame: Frame, sentence: str) -> LimitResponse:
    return shell.page(
        frame, "Unavailable", tag("h1", "Nothing to show"), markup.notice(text(sentence)), status=503
    )


def _without_sums(frame: Frame, given: dict[str, str]) -> LimitResponse:
    if frame.current == "users" and given.get("q"):
        return shell.moved(frame.to_user(given["q"]))
    title = "Users" if frame.current == "users" else "Overview"
    parts = (
        tag("h1", title),
        markup.notice(text(_NO_SUMS), kind="info"),
        users_pages.search(frame, "", "Id"),
    )
    return shell.page(frame, title, *parts)


def _elsewhere(frame: Frame, pg: Paygent) -> LimitResponse:
    """In connected mode all of this is at the backend, which serves it to whoever may see it there."""
    address = pg.base_url.rstrip("/").removesuffix("/api/v1") + "/admin/"
    parts = (
        tag("h1", "At the backend"),
        markup.notice(
            "This app is connected to a Paygent backend, which has these pages, and more, in its own admin: "
            + markup.link(address, text(address), rel="noreferrer"),
            kind="info",
        ),
    )
    return shell.page(frame, "At the backend", *parts)
