"""
The CrewAI callback: meters a crew's model calls from CrewAI's event bus, and stops a crew that has spent.

A step's output carries no usage. The bus reports each model call with it, whichever provider was asked, in
a thread of CrewAI's own and after the call: there is nothing to hold then. The gate is its hook before each
model call, and the step.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from paygent._forking import ProcessLock
from paygent._shelter import Sheltered
from paygent.core.errors import PaygentLimitExceeded
from paygent.core.usage import Usage
from paygent.instrumentation import text_bytes
from paygent.instrumentation._fields import count, fields, items, text
from paygent.integrations._billing import Answer, Billing

if TYPE_CHECKING:
    from paygent.client import Paygent

_SDK_HOMES = ("crewai.llms.providers.openai.", "crewai.llms.providers.anthropic.")
_LITELLM_HOME = "crewai.llm"
_LITELLM_SDK_ROUTES = ("openai", "azure")  # its other routes have HTTP clients of their own
_LITELLM_SDK_MODELS = ("gpt-", "chatgpt-", "o1", "o3", "o4")
_PROVIDERS = {"gemini": "google", "bedrock": "aws"}


class CrewAICallback:
    """
    Meter every model call of a crew for one user; pass it as ``Crew(..., step_callback=callback)``.

    Skips a call that the patched SDK counts: an OpenAI or Anthropic model within ``paygent_context`` while
    ``auto_instrument`` is on.

    Raises:
        ImportError: CrewAI is not installed.
        ValueError: *user_id* is empty, or it or *session_id* is too long or not encodable.
        TypeError: One of them is neither text nor a number, or *metadata* is no mapping.
    """

    def __init__(
        self,
        pg: Paygent,
        user_id: str,
        session_id: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._pg = pg
        self._billing = Billing(pg, user_id, session_id, metadata)
        self._last_model: str | None = None
        self._last_through_sdk = False
        _listen()

    def __call__(self, step_output: Any) -> None:  # noqa: ARG002  # CrewAI hands it over; it has no usage
        """
        Stop the crew after a step once the plan is spent; the step's calls are metered from the bus.

        Raises:
            PaygentLimitExceeded: The plan does not cover another call.
        """
        with Sheltered(self._billing.meter, "gating a CrewAI step"):
            self._gate("step", self._last_model, through_sdk=self._last_through_sdk)

    def _gate_call(self, llm: Any) -> None:
        """Refuse a call about to be made; what the patched SDK counts, it gates too."""
        with Sheltered(self._billing.meter, "gating a CrewAI call"):
            model = text(getattr(llm, "model", None))
            self._gate("chat", model, through_sdk=_goes_through_sdk(llm, model or ""))

    def _gate(self, operation: str, model: str | None, *, through_sdk: bool) -> None:
        meter = self._billing.meter
        payer = self._billing.payer(through_sdk=through_sdk)
        if payer is None or payer.user_id is None:
            return
        if self._pg.check_guard(payer.user_id, model).status == "hard_gate":
            call = meter.call(payer, None, operation, model, 0, None)
            call.__enter__()  # the real gate: callbacks, the audit trail, and the refusal
            meter.void(call)

    def _meter_call(self, llm: Any, event: Any) -> None:
        """Post one call that CrewAI reports as completed."""
        meter = self._billing.meter
        with Sheltered(meter, "metering a CrewAI call"):
            model = text(getattr(event, "model", None))
            self._last_model = model
            self._last_through_sdk = _goes_through_sdk(llm, model or "")
            payer = self._billing.payer(through_sdk=self._last_through_sdk)
            if payer is None:
                return
            provider = text(getattr(llm, "provider", None))
            size = text_bytes(getattr(event, "messages", None))
            call = meter.call(payer, _PROVIDERS.get(provider or "", provider), "chat", model, size, None)
            call.forced = True  # it has been made: posted in full, also beyond the limit
            call.__enter__()
            self._billing.settle(call, lambda: _answer_of(event))


# --- the bus ----------------------------------------------------------------------------------------------

# Whose a task or an agent is, by its id; gone with the callback, which its crew keeps alive.
_owners: WeakValueDictionary[str, CrewAICallback] = WeakValueDictionary()
_lock = ProcessLock()
_bus: Any = None


def _events() -> ModuleType:
    try:
        return import_module("crewai.events")
    except ImportError as error:
        raise ImportError('CrewAICallback needs crewai: pip install "paygent[crewai]"') from error


def _listen() -> None:
    """Subscribe to CrewAI's bus, once per process: its handlers stay for ever."""
    global _bus  # noqa: PLW0603  # one bus per process
    events = _events()
    with _lock:
        if _bus is not events.crewai_event_bus:
            _bus = events.crewai_event_bus
            _bus.on(events.CrewKickoffStartedEvent)(_on_kickoff)
            _bus.on(events.LLMCallCompletedEvent)(_on_completed)
            _hook_calls()


def _hook_calls() -> None:
    """Have CrewAI ask before each model call; versions without such hooks have the step alone."""
    try:
        hooks, dispatch = import_module("crewai.hooks"), import_module("crewai.hooks.dispatch")
    except ImportError:
        return

    class Refused(PaygentLimitExceeded, dispatch.HookAborted):  # type: ignore[misc,name-defined]  # not installed
        """The refusal as CrewAI lets it pass: other errors of a hook it prints, and makes the call."""

        def __reduce__(self) -> tuple[object, ...]:
            return PaygentLimitExceeded, (self.guard_result, self.refusal)

    def before_call(context: Any) -> None:
        owner = _owner_of(context)
        if owner is not None:
            try:
                owner._gate_call(getattr(context, "llm", None))  # noqa: SLF001  # of this module's own class
            except PaygentLimitExceeded as refused:
                raise Refused(refused.guard_result, refused.refusal) from None

    hooks.register_before_llm_call_hook(before_call)


def _owner_of(context: Any) -> CrewAICallback | None:
    """Whose a call is: its crew's, else that of its task or agent."""
    owner = getattr(getattr(context, "crew", None), "step_callback", None)
    if isinstance(owner, CrewAICallback):
        return owner
    ids = (str(getattr(getattr(context, part, None), "id", "")) for part in ("task", "agent"))
    return next((_owners[known] for known in ids if known in _owners), None)


def _on_kickoff(source: Any, event: Any) -> None:  # noqa: ARG001  # the shape of the bus's handlers
    """Note whose the tasks and agents of a crew are; CrewAI waits for this before it goes on."""
    owner = getattr(source, "step_callback", None)
    for part in (*items(getattr(source, "tasks", None)), *items(getattr(source, "agents", None))):
        own = owner if isinstance(owner, CrewAICallback) else getattr(part, "step_callback", None)
        if isinstance(own, CrewAICallback):
            _owners[str(part.id)] = own


def _on_completed(source: Any, event: Any) -> None:
    """Hand a call to the callback of its crew; calls of nobody's crew, and replayed ones, are left alone."""
    task, agent = getattr(event, "task_id", None), getattr(event, "agent_id", None)
    owner = _owners.get(task or "") or _owners.get(agent or "")
    if owner is not None and not _is_replayed():
        owner._meter_call(source, event)  # noqa: SLF001  # a method of this module's own class


def _is_replayed() -> bool:
    """Whether CrewAI repeats an event of the past, restored from a checkpoint."""
    is_replaying = getattr(sys.modules.get("crewai.events.event_bus"), "is_replaying", None)
    return is_replaying is not None and bool(is_replaying())


# --- reading ----------------------------------------------------------------------------------------------


def _goes_through_sdk(llm: Any, model: str) -> bool:
    """Whether *llm* is built on the OpenAI or Anthropic SDK, whose patched client sees the call."""
    homes = [base.__module__ for base in type(llm).__mro__]
    if any(home.startswith(_SDK_HOMES) for home in homes):
        return True
    if _LITELLM_HOME not in homes:
        return False
    route, slash, _ = model.partition("/")
    return route in _LITELLM_SDK_ROUTES if slash else model.startswith(_LITELLM_SDK_MODELS)


def _answer_of(event: Any) -> Answer:
    response = getattr(event, "response", None)
    return Answer(_usage_of(fields(getattr(event, "usage", None))), text_bytes(response))


def _usage_of(block: Mapping[str, Any]) -> Usage | None:
    """
    Read the usage of an event, whose keys differ by provider; ``None`` where it says nothing.

    Input includes what was read from or written to a cache, but where Anthropic's own names stand.
    Source: ``crewai.types.usage_metrics.UsageMetrics.from_provider_dict``.
    """
    sent = _first(block, "prompt_tokens", "prompt_token_count", "input_tokens")
    made = _first(block, "completion_tokens", "candidates_token_count", "output_tokens")
    details = fields(block.get("prompt_tokens_details"))
    read = _first(block, "cached_tokens", "cached_prompt_tokens", "cache_read_input_tokens")
    written = _first(block, "cache_creation_tokens", "cache_creation_input_tokens")
    if "input_tokens" in block and (
        "cache_read_input_tokens" in block or "cache_creation_input_tokens" in block
    ):
        sent = count(block["input_tokens"]) + read + written
    if not sent and not made:
        return None
    reasoning = _first(block, "reasoning_tokens")
    cached = read or count(details.get("cached_tokens"))
    return Usage(sent, made, cached, written, reasoning_output_tokens=reasoning)


def _first(block: Mapping[str, Any], *names: str) -> int:
    return next((count(block[name]) for name in names if count(block.get(name))), 0)
