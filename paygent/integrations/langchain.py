"""The LangChain callback: gates and meters the calls of LangChain's chat models and LLMs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

try:
    from langchain_core.callbacks import BaseCallbackHandler
except ImportError as error:
    raise ImportError('LangChainCallback needs langchain-core: pip install "paygent[langchain]"') from error

from paygent._shelter import Sheltered
from paygent.instrumentation import text_bytes
from paygent.integrations._billing import Billing
from paygent.integrations._langchain_fields import answer_of, ask_of, goes_through_sdk
from paygent.meter.call import Call

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import LLMResult

    from paygent.client import Paygent


FORGOTTEN_S = 900.0  # longer than any client waits for an answer


class LangChainCallback(BaseCallbackHandler):
    """
    Gate and meter every model call of a chain for one user; pass it in ``config={"callbacks": [callback]}``.

    Skips a call that the patched SDK counts: an OpenAI or Anthropic model within ``paygent_context`` while
    ``auto_instrument`` is on. A refused call raises ``PaygentLimitExceeded`` out of the chain, unsent.

    Raises:
        ValueError: *user_id* is empty, or it or *session_id* is too long or not encodable.
        TypeError: One of them is neither text nor a number, or *metadata* is no mapping.
    """

    raise_error = True  # LangChain else logs a refusal and makes the call

    def __init__(
        self,
        pg: Paygent,
        user_id: str,
        session_id: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._calls: dict[UUID, tuple[Call, float]] = {}  # with when they began; the oldest first
        self._billing = Billing(pg, user_id, session_id, metadata)

    def __del__(self) -> None:
        """Leave what never ended (a stream nobody closed) to the engine; no lock, no I/O."""
        for run_id in tuple(getattr(self, "_calls", ())):
            self._forget(run_id)

    def on_llm_start(
        self,
        serialized: dict[str, Any],
        prompts: list[str],
        *,
        run_id: UUID,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Gate a call of a plain LLM."""
        with Sheltered(self._billing.meter, "gating a LangChain call"):
            self._begin(run_id, "completion", text_bytes(prompts), serialized, metadata, kwargs)

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Gate a call of a chat model."""
        with Sheltered(self._billing.meter, "gating a LangChain call"):
            size = sum(text_bytes(message.content) for prompt in messages for message in prompt)
            self._begin(run_id, "chat", size, serialized, metadata, kwargs)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: ARG002
        """Post what the call used."""
        with Sheltered(self._billing.meter, "metering a LangChain call"):
            call = self._ended(run_id)
            if call is not None:
                is_batched = call.operation == "completion"
                self._billing.settle(call, lambda: answer_of(response, is_batched=is_batched))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Free the hold of a failed call; a stream that broke off is posted as far as it was seen."""
        with Sheltered(self._billing.meter, "metering a LangChain call"):
            call = self._ended(run_id)
            if call is None:
                return
            with Sheltered(self._billing.meter, "reading a LangChain error"):
                seen = answer_of(kwargs.get("response"))
                if seen.usage is not None or seen.output_bytes:
                    call.finish_estimated(seen.usage, seen.output_bytes, seen.model, seen.tools)
            call.fail(error)  # does nothing where it is settled

    def _begin(
        self,
        run_id: UUID,
        operation: str,
        size: int,
        serialized: Mapping[str, Any] | None,
        metadata: Mapping[str, Any] | None,
        more: Mapping[str, Any],
    ) -> None:
        params = more.get("invocation_params") or {}
        ask = ask_of(params, metadata or {})
        payer = self._billing.payer(through_sdk=goes_through_sdk(serialized, params, ask.provider))
        if payer is None:
            return
        input_bytes = size + text_bytes(params.get("tools"))
        call = self._billing.meter.call(
            payer, ask.provider, operation, ask.model, input_bytes, ask.max_output_tokens
        )
        boot_s = self._billing.meter.boot()
        self._forget_before(boot_s - FORGOTTEN_S)
        call.__enter__()
        self._calls[run_id] = call, boot_s
        self._billing.meter.covered.add(run_id)

    def _ended(self, run_id: UUID) -> Call | None:
        """The call of a run that is over; ``None``: it is not ours to count."""
        self._billing.meter.covered.discard(run_id)
        return self._calls.pop(run_id, (None, 0.0))[0]

    def _forget_before(self, earliest_s: float) -> None:
        """LangChain tells nobody of an ``ainvoke`` that is cancelled: its hold would stay for ever."""
        for run_id, (_, began_s) in tuple(self._calls.items()):
            if began_s >= earliest_s:
                return
            self._forget(run_id)

    def _forget(self, run_id: UUID) -> None:
        """Have the engine settle a run whose end is not told."""
        call = self._ended(run_id)
        if call is not None:
            self._billing.meter.later(call, None, 0)
