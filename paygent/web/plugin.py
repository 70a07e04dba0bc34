"""What one app's plugin is made of, whichever the framework."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from paygent._forking import ProcessLock
from paygent.client import Paygent
from paygent.context import checked_user_id
from paygent.core.errors import PaygentLimitExceeded, PaygentUnavailable, Refusal
from paygent.core.models import GuardResult
from paygent.meter import active
from paygent.meter.patience import PATIENCE_S
from paygent.web.exemptions import Exemptions, Place
from paygent.web.limit_response import Declined, LimitResponder, LimitResponse
from paygent.web.options import Finder, WebOptions, is_async
from paygent.web.request import RequestSlot
from paygent.web.usage import me, usage_headers
from paygent.web.waiting import CannotAwaitError

log = logging.getLogger("paygent")


class WebPlugin:
    """
    One app's options, bound to its framework.

    Args:
        options: What the app asks for.
        default_user: The framework's signed-in user: called with the request, at the first LLM call.
        place_of: Path and route of a request.
        request_of: Makes the request out of what :meth:`open` was given; by default that is the request.
        await_here: Runs an async function of the request to its end from a thread that may wait, where the
            framework has a way to do that; raises :class:`CannotAwaitError` on any other thread.
    """

    def __init__(
        self,
        options: WebOptions,
        *,
        default_user: Callable[[Any], object],
        place_of: Callable[[Any], Place],
        request_of: Callable[[Any], Any] = lambda subject: subject,
        await_here: Callable[[Finder, Any], Any] | None = None,
    ) -> None:
        self.options = options
        self.find_user: Callable[[Any], Any] = options.get_user_id or default_user
        self.request_of = request_of
        self.exemptions = Exemptions(options.exempt, place_of)
        self.responder = LimitResponder(
            options.upgrade_url,
            options.expose_amounts,
            options.status_code,
            options.offers,
            options.error_format,
        )
        finders = (self.find_user, options.anonymous, options.get_session_id, options.get_plan)
        self.awaits = any(map(is_async, (*finders, options.metadata)))
        self.eager = False  # whether async options are awaited when a request begins: see awaited_here
        self._await_here = await_here
        self._lock = ProcessLock()
        self._seen = False

    # -- a request's life -----------------------------------------------------------------------------

    def open(self, subject: Any) -> RequestSlot:
        """
        Make the slot of a request; set it with ``paygent.context.set_payer`` (or ``as_payer`` per step).

        Where ``eager`` is true, ``await slot.find_async()`` before the request goes on.
        """
        if not self._seen:
            self.pg()
        return RequestSlot(self, subject)

    def awaited_here(self, name: str, find: Finder, request: Any) -> Any:
        """Ask the async option *name* for a call that cannot await, as those of a synchronous client."""
        if self._await_here is not None:
            with contextlib.suppress(CannotAwaitError):
                return self._await_here(find, request)
        self.eager = True
        log.error(
            "%s is async and was needed by an LLM call that cannot await it: this call goes on without; from "
            "now on it is awaited when a request begins",
            name,
        )
        return None

    def finish(self, slot: RequestSlot) -> None:
        """Call this when the response is complete, in a ``finally``; it never raises."""
        pg = self.ended(slot)
        if pg is not None:
            pg.flush(timeout=PATIENCE_S)

    async def finish_async(self, slot: RequestSlot) -> None:
        """The asynchronous twin of :meth:`finish`: the flush happens off the event loop."""
        pg = self.ended(slot)
        if pg is not None:
            flush = partial(pg.flush, timeout=PATIENCE_S)
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, flush))

    @staticmethod
    def ended(slot: RequestSlot) -> Paygent | None:
        """Settle what the request's end has dropped; returns whom to flush, where that is wanted and due."""
        tally = slot.tally
        tally.on_admitted = None
        meter = active.get()
        if meter is not None and meter.dropped_calls:
            meter.settle_dropped()  # the stream of a client who has left, say: not only at the next tick
        if not tally.has_admitted and not tally.calls:
            return None
        pg = Paygent.get_instance()
        if pg is None or not pg.flush_on_request_end or pg.is_degraded:
            return None
        return pg

    # -- the answer to a refused call -----------------------------------------------------------------

    def refuse(self, error: Declined, headers: Mapping[str, str], request: Any) -> Any:
        """
        Answer *error*: what ``on_limit`` returns (a response of the framework), else a ``LimitResponse``.

        Args:
            headers: The request's headers, names in lower case.
        """
        custom, answer = self.options.on_limit, None
        if custom is not None and not is_async(custom):
            try:
                answer = custom(request, self.responder.problem(error))
            except Exception:
                log.exception("on_limit failed: the usual answer is sent")
        return self._or_usual(answer, error, headers)

    async def refuse_async(self, error: Declined, headers: Mapping[str, str], request: Any) -> Any:
        """The asynchronous twin of :meth:`refuse`, which also awaits ``on_limit``."""
        custom = self.options.on_limit
        if custom is None or not is_async(custom):
            return self.refuse(error, headers, request)
        try:
            answer = await custom(request, self.responder.problem(error))
        except Exception:
            log.exception("on_limit failed: the usual answer is sent")
            answer = None
        return self._or_usual(answer, error, headers)

    def _or_usual(self, answer: Any, error: Declined, headers: Mapping[str, str]) -> Any:
        if answer is not None and self.is_response(answer):
            return answer
        if answer is not None:
            log.error("on_limit returned no response but %r: the usual answer is sent", type(answer).__name__)
        if inspect.iscoroutine(answer):
            answer.close()  # a plain function made it: nobody here waits for it
        return self.answer(error, headers)

    @staticmethod
    def is_response(answer: object) -> bool:
        """Whether the framework can send what ``on_limit`` returned; each has its own kind."""
        return not inspect.isawaitable(answer)

    def answer(self, error: Declined, headers: Mapping[str, str]) -> LimitResponse:
        """The usual answer to *error*."""
        return self.responder.response(error, headers)

    # -- what a user may see of himself -----------------------------------------------------------------

    def headers(self, slot: RequestSlot) -> dict[str, str]:
        """
        Return the ``Paygent-…`` headers of a response that starts now; it never waits.

        Empty where the option *usage_headers* is off, and for a request that has made no LLM call yet.
        """
        if not self.options.usage_headers or not slot.is_found or slot.user_id is None:
            return {}
        pg = Paygent.get_instance()
        if pg is None:
            return {}
        return usage_headers(pg, slot.user_id, expose_amounts=self.options.expose_amounts)

    def me(self, user_id: object) -> LimitResponse:
        """
        Answer ``GET …/paygent/me`` for the signed-in user, ``None`` for nobody; may wait for the ledger.

        401 for nobody, 503 where no ledger has spoken of the user.
        """
        known, pg = checked_user_id(user_id), self.pg()
        if known is None:
            result = GuardResult(status="hard_gate")
            return self.answer(PaygentLimitExceeded(result, Refusal("no_user", result)), {})
        shown = pg and me(pg, known, expose_amounts=self.options.expose_amounts)
        if not shown:
            return self.answer(PaygentUnavailable("no ledger has spoken of the user"), {})
        body = json.dumps(shown, separators=(",", ":")).encode()
        headers = (("content-type", "application/json"), ("content-length", str(len(body))))
        return LimitResponse(200, (*headers, ("cache-control", "no-store")), body)

    # -- the core ---------------------------------------------------------------------------------------

    def pg(self) -> Paygent | None:
        """
        The process's Paygent. Where the app has made none, it is made now, once, from the option *paygent*
        and the environment; ``None`` where that fails: calls then pass unmetered, and the log says so.
        """
        pg = Paygent.get_instance()
        if pg is not None or self._seen:
            self._seen = True
            return pg
        with self._lock:
            pg = Paygent.get_instance()
            if pg is None and not self._seen:
                pg = self._initialised()
            self._seen = True
        return pg

    def _initialised(self) -> Paygent | None:
        try:
            pg = Paygent.init(**(self.options.paygent or {}))
        except Exception:
            log.exception("Paygent.init() failed: LLM calls are neither metered nor gated")
            return None
        log.info("Paygent.init() was not called: the web plugin has done so")
        return pg
