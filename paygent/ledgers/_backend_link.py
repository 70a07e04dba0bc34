"""HTTP to the backend: errors as the ledger port knows them, and a pause after each."""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from paygent._forking import know_the_resolver, no_fork
from paygent.ledger import LedgerError

if TYPE_CHECKING:
    import httpx

CONNECT_TIMEOUT_S = 2.0
READ_TIMEOUT_S = 5.0
PAUSE_FIRST_S = 0.5
PAUSE_MAX_S = 5.0
API = "/api/v1"
_REFUSED = (401, 403)
_own = threading.local()
_TOO_LARGE = 413
_REJECTED = (400, 409, _TOO_LARGE, 422)  # what is sent is at fault; any other status: a server not well
_SMALL_BYTES = 8192  # what refuses even so much as too large is a proxy set wrong: it is waited for


class UnauthorizedError(LedgerError):
    """The backend does not take the API key."""


class RejectedError(Exception):
    """The backend will not have a request, however often it is sent; ``field`` is what is wrong with it."""

    def __init__(self, status: int, detail: str, field: str | None = None) -> None:
        super().__init__(f"{status} {detail}" + (f" ({field})" if field else ""))
        self.status = status
        self.field = field


def _of_others(record: logging.LogRecord) -> bool:  # noqa: ARG001  # the form of a filter
    """Keep our request of each second out of the log of the HTTP client, which tells of all at INFO."""
    return not getattr(_own, "is_asking", False)


def api_root(base_url: str) -> str:
    """The address that all paths are appended to, however the base was written."""
    root = base_url.rstrip("/")
    return root if root.endswith(API) else root + API


class Link:
    """
    Requests with the project's key.

    After a failure the next request is refused at once for a while, longer each time and at most five
    seconds, with jitter: many processes must not come back at the same moment. ``clock`` is monotonic, in
    seconds.
    """

    def __init__(self, base_url: str, api_key: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.root = api_root(base_url)
        self._headers = {"authorization": f"Bearer {api_key}", "content-type": "application/json"}
        self._clock = clock
        self._client: httpx.Client | None = None
        self._failures = 0
        self._failure = ""
        self._pause_until_s = 0.0

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """Return the JSON at *path*; ``None`` where there is nothing."""
        return self._request("GET", path, None, query)

    def post(self, path: str, said: Any) -> Any:
        """Post JSON, and return what is answered."""
        return self._request("POST", path, said)

    def delete(self, path: str) -> None:
        """Delete what is at *path*; what is gone already is as good."""
        self._request("DELETE", path, None)

    def ping(self, timeout_s: float) -> None:
        """
        Ask whether the backend is there and takes the key, without regard to a pause.

        Raises:
            UnauthorizedError: It does not take the key.
            LedgerError: It is not there, or something else is.
        """
        self._pause_until_s = 0.0
        if self._request("POST", "/leases", [], timeout_s=timeout_s) != []:
            raise self.misunderstood("it is no answer of a backend")

    def misunderstood(self, reason: str) -> LedgerError:
        """Pause: whatever answers there is no backend, or one of another kind."""
        return self._failed(f"its answer cannot be used ({reason})")

    def forget_after_fork(self) -> None:
        """In a forked child: the parent's connections are not ours to use or close."""
        self._client = None

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _request(
        self,
        method: str,
        path: str,
        said: Any,
        query: Mapping[str, Any] | None = None,
        timeout_s: float = READ_TIMEOUT_S,
    ) -> Any:
        if self._clock() < self._pause_until_s:
            raise LedgerError(f"{self._failure}; it is asked again shortly")
        client = self._connected()
        import httpx

        timeout = httpx.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))
        body = None if said is None else json.dumps(said, separators=(",", ":"))
        ends_s = time.monotonic() + timeout_s
        # Not left to the client: before 0.28 it takes an id that looks escaped for one that is.
        asked = f"?{urlencode(query, quote_via=quote, safe='')}" if query else ""
        request = client.build_request(method, self.root + path + asked, content=body)
        request.extensions["timeout"] = timeout.as_dict()
        _own.is_asking = True
        try:
            response = client.send(request, stream=True)
            try:
                content = b"".join(self._within(ends_s, response.iter_bytes()))
            finally:
                response.close()
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise self._failed(f"{type(error).__name__}: {error}") from error
        finally:
            _own.is_asking = False
        return self._read(method, response.status_code, content, len(body or ""))

    def _connected(self) -> httpx.Client:
        """The client; it, and what looks up an address, are loaded with the first request."""
        if self._client is None:
            with no_fork:
                import httpx

                know_the_resolver()
                logging.getLogger("httpx").addFilter(_of_others)
                self._client = httpx.Client(headers=self._headers, follow_redirects=False)
        return self._client

    @staticmethod
    def _within(ends_s: float, parts: Iterator[bytes]) -> Iterator[bytes]:
        """Read on as long as it is worth while: the client's own limit is for each part."""
        for part in parts:
            yield part
            if time.monotonic() > ends_s:
                raise TimeoutError("the answer did not come to its end in time")

    def _read(self, method: str, status: int, content: bytes, sent_bytes: int) -> Any:
        if status in _REFUSED:
            self._failed(f"it does not take the API key ({status}), see api_key or PAYGENT_API_KEY")
            raise UnauthorizedError(f"the backend does not take the API key ({status})")
        is_gone = status == 404 and method != "POST"
        if status >= 300 and not is_gone and status not in _REJECTED:
            raise self._failed(f"it answered {status}")
        if status == _TOO_LARGE and sent_bytes <= _SMALL_BYTES:
            raise self._failed(f"it answered {status} to {sent_bytes} bytes")
        answer = self._parsed(status, content)
        self._failures = 0
        if status < 400:
            return answer
        if is_gone:
            return None
        problem = answer if isinstance(answer, dict) else {}
        raise RejectedError(status, str(problem.get("detail", "")), problem.get("field"))

    def _parsed(self, status: int, content: bytes) -> Any:
        """The JSON of an answer; a proxy says that a body is too large for it by a page of its own."""
        try:
            return json.loads(content) if content else None
        except ValueError:
            if status == _TOO_LARGE:
                return None
            raise self._failed(f"it answered {status} with something that is no JSON") from None

    def _failed(self, reason: str) -> LedgerError:
        """Pause, and say what happened; addresses may be said, keys are in no message of the HTTP client."""
        pause_s = min(PAUSE_MAX_S, PAUSE_FIRST_S * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        self._pause_until_s = self._clock() + pause_s * random.uniform(0.5, 1.0)  # noqa: S311  # jitter
        self._failure = f"the backend at {self.root} cannot be asked: {reason}"
        return LedgerError(self._failure)
