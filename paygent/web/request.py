"""The slot of a request: whose it is, found at the first LLM call, and what its calls came to."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from paygent.context import Payer, checked_metadata, checked_session_id, checked_user_id, current_payer
from paygent.core.errors import PaygentLimitExceeded, Refusal
from paygent.core.models import GuardResult
from paygent.core.plan import NUSD_PER_USD
from paygent.meter import refusals
from paygent.web.limit_response import Declined
from paygent.web.options import is_async

if TYPE_CHECKING:
    from paygent.web.plugin import WebPlugin

log = logging.getLogger("paygent")

_FAILED = "%s failed: the LLM calls of this request go on without it"
_NOBODY = "Nobody is signed in, and the web plugin's anonymous='block' refuses such calls."


class RequestTally:
    """
    What the calls of one request came to, in integers: fed by the engine, on whichever thread a call ends.

    Of one user they come one by one; calls that keywords give to other users may be added at the same moment.
    """

    __slots__ = ("calls", "cost_nusd", "has_admitted", "on_admitted", "refusal", "soft", "tokens")

    def __init__(self) -> None:
        self.calls = self.cost_nusd = self.tokens = 0
        self.has_admitted = False
        self.soft: Any = None  # the purse at its soft mark
        self.on_admitted: Callable[[], None] | None = None
        self.refusal: Declined | None = None

    def admitted(self) -> None:
        """A call passed the gate; whoever waits for that hears of it once, from whichever thread."""
        self.has_admitted = True
        told, self.on_admitted = self.on_admitted, None
        if told is not None:
            told()

    def refused(self, error: Declined) -> None:
        """A call was refused with *error*."""
        self.refusal = error

    def posted(self, cost_nusd: int, tokens: int, soft: Any) -> None:
        """A call is settled."""
        self.calls += 1
        self.cost_nusd += cost_nusd
        self.tokens += tokens
        if soft is not None:
            self.soft = soft


class RequestSlot(Payer):
    """
    Who pays for the LLM calls of one request, and what they came to: ``request.paygent``.

    Nothing is looked up before the first call (or the first reading of ``user_id`` or ``exempt``). Assigning
    ``user_id``, ``session_id``, ``plan`` or ``metadata`` wins over what the options would find. Facts:
    ``user_id``, ``cost`` (US dollars), ``calls``, ``tokens``, ``warning``. ``plugin`` is the app's own.
    """

    __slots__ = ("_anonymous", "_awaited", "_exempt", "_found", "_subject", "_user_id", "plugin", "unhandled")

    tally: RequestTally

    def __init__(self, plugin: WebPlugin, subject: Any) -> None:
        self.plugin = plugin
        self._subject = subject
        self._user_id: str | None = None
        self._anonymous: str | None = None  # who an async option says is nobody
        self._found = self._awaited = False
        self._exempt: bool | None = None
        self.session_id = self.plan = self.metadata = None
        self.metered = False
        self.reports_only = plugin.options.report_only
        self.tally = RequestTally()
        self.unhandled: Declined | None = None  # the refusal that a framework makes an error page of

    # -- who pays -------------------------------------------------------------------------------------

    @property
    def is_found(self) -> bool:
        """Whether it has been looked up whose request this is: an LLM call was made, or somebody asked."""
        return self._found

    @property
    def user_id(self) -> str | None:
        """Whose request this is; ``None`` for nobody so far: some frameworks sign in within the view."""
        if not self._found:
            self._find()
        return self._look_up() if self._user_id is None else self._user_id

    @user_id.setter
    def user_id(self, user_id: object) -> None:
        self._user_id = checked_user_id(user_id)

    @property
    def exempt(self) -> bool:
        """Whether the calls of this request pass unmetered."""
        # Only a yes is kept: before the framework has routed the request, nobody knows its route.
        if self._exempt is None and self.plugin.exemptions.covers(self.request):
            self._exempt = True
        return self._exempt or False

    @exempt.setter
    def exempt(self, exempt: bool) -> None:
        self._exempt = exempt

    @property
    def resolve(  # type: ignore[override]  # nobody sets it
        self,
    ) -> Callable[[], str | None] | None:
        """What the engine asks where the call belongs to nobody."""
        return self._refuse_nobody if self.plugin.options.anonymous == "block" else None

    @property
    def identify(  # type: ignore[override]  # nobody sets it
        self,
    ) -> Callable[[], Awaitable[None]] | None:
        """What an async LLM call awaits before it begins, where an option is an async function."""
        is_needed = self.plugin.awaits and (self._user_id is None or not self._awaited)
        return self.find_async if is_needed else None

    @property
    def request(self) -> Any:
        """The framework's request."""
        return self.plugin.request_of(self._subject)

    def tag(self, **metadata: Any) -> None:
        """Note *metadata* on each event of this request from now on."""
        self.metadata = {**(self.metadata or {}), **metadata}

    def _look_up(self) -> str | None:
        """Ask who it is, as long as it is nobody; who stands in for nobody never sticks."""
        plugin, anonymous = self.plugin, self.plugin.options.anonymous
        user: str | None = self._asked("get_user_id", plugin.find_user, checked_user_id)
        self._user_id = user
        if user is None and callable(anonymous):
            user = self._anonymous or self._asked("anonymous", anonymous, checked_user_id)
        return user

    def _find(self) -> None:
        """Ask the other options, once; what is assigned stays."""
        self._found = True
        options = self.plugin.options
        if self.session_id is None and options.get_session_id is not None:
            self.session_id = self._asked("get_session_id", options.get_session_id, checked_session_id)
        if self.plan is None and options.get_plan is not None:
            self.plan = self._asked("get_plan", options.get_plan, _checked_plan)
        if options.metadata is not None:
            self._note(self._asked("metadata", options.metadata, checked_metadata))

    def _note(self, found: Mapping[str, Any] | None) -> None:
        self.metadata = {**(found or {}), **(self.metadata or {})} or None

    def _asked(self, name: str, find: Callable[[Any], Any], checked: Callable[[Any], Any]) -> Any:
        """Ask one option; a fault in it is logged, and harms no other."""
        try:
            if not is_async(find):
                return checked(find(self.request))
            return None if self._awaited else checked(self.plugin.awaited_here(name, find, self.request))
        except Exception:
            log.exception(_FAILED, name)
            return None

    async def find_async(self) -> None:
        """Await the options that are async functions: at the first async LLM call, by ``identify``."""
        if self.exempt:
            return
        options, find_user = self.plugin.options, self.plugin.find_user
        if self._user_id is None:
            self._user_id = await self._await("get_user_id", find_user, checked_user_id)
        if self._user_id is None and not is_async(find_user):
            self._user_id = self._asked("get_user_id", find_user, checked_user_id)
        if self._user_id is None:
            self._anonymous = await self._await("anonymous", options.anonymous, checked_user_id)
        if not self._awaited:
            if self.session_id is None:
                self.session_id = await self._await(
                    "get_session_id", options.get_session_id, checked_session_id
                )
            if self.plan is None:
                self.plan = await self._await("get_plan", options.get_plan, _checked_plan)
            self._note(await self._await("metadata", options.metadata, checked_metadata))
        self._awaited = True

    async def _await(self, name: str, find: Any, checked: Callable[[Any], Any]) -> Any:
        if not is_async(find):
            return None
        try:
            return checked(await find(self.request))
        except Exception:
            log.exception(_FAILED, name)
            return None

    def _refuse_nobody(self) -> str | None:
        """Refuse a call that belongs to nobody; asked by the engine, and only where the options say so."""
        if self.reports_only:
            return None
        result = GuardResult(status="hard_gate", message=_NOBODY)
        error = PaygentLimitExceeded(result, Refusal("no_user", result))
        self.tally.refused(error)
        raise error

    # -- what the calls came to -----------------------------------------------------------------------

    @property
    def refusal(self) -> Declined | None:
        """The last refusal of a call of this request; the view may have caught it."""
        return self.tally.refusal

    @refusal.setter
    def refusal(self, refusal: Declined | None) -> None:
        self.tally.refusal = refusal

    @property
    def cost(self) -> float:
        """US dollars of the calls settled so far."""
        return self.tally.cost_nusd / NUSD_PER_USD

    @property
    def calls(self) -> int:
        """Calls settled so far."""
        return self.tally.calls

    @property
    def tokens(self) -> int:
        """Tokens of the calls settled so far."""
        return self.tally.tokens

    @property
    def warning(self) -> str | None:
        """A sentence on the limit that is nearly used up, if one is."""
        soft = self.tally.soft
        return None if soft is None else refusals.guard_result(soft, "soft_gate").message


def current_slot() -> RequestSlot | None:
    """The slot of the request that is being served here, if a plugin has opened one."""
    payer = current_payer()
    return payer if isinstance(payer, RequestSlot) else None


def _checked_plan(plan: object) -> str | None:
    if plan is None or isinstance(plan, str):
        return plan or None
    raise TypeError(f"get_plan must return a plan's name, not {type(plan).__name__}")
