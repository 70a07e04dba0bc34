"""Which providers there are, and how each reads a ready result: what ``Paygent.wrap`` settles with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Protocol

from paygent._once import Once
from paygent.instrumentation._fields import fields
from paygent.instrumentation._report import log
from paygent.instrumentation.jobs import answer_of
from paygent.instrumentation.operations import Operation
from paygent.instrumentation.ports import CallPort
from paygent.instrumentation.readers import AutoReader
from paygent.instrumentation.results import settle
from paygent.instrumentation.usage import anthropic_tools, anthropic_usage, openai_tools, openai_usage


class Provider(Protocol):
    """One provider: its name, whether a result is its own, and how a call is settled by one."""

    @property
    def name(self) -> str:
        """The name, as in ``wrap(provider="openai")``."""

    def claims(self, result: Any) -> bool:
        """Return whether *result* is an answer of this provider."""

    def receive(self, call: CallPort, result: Any) -> None:
        """Settle *call* by *result* of any shape, or take over the stream that it is and defer the call."""


class OpenAIProvider:
    """Answers of OpenAI and of servers that speak its language."""

    name = "openai"
    _operation = Operation("openai", "wrap", "call", openai_usage, openai_tools, AutoReader)

    def claims(self, result: Any) -> bool:
        """Return whether *result* comes from the OpenAI SDK, or reads like its JSON."""
        if _comes_from(result, self.name):
            return True
        answer = _answer_of(result)
        return any(name in answer for name in ("choices", "output", "object")) or (
            "prompt_tokens" in fields(answer.get("usage"))
        )

    def receive(self, call: CallPort, result: Any) -> None:
        """Settle *call* by *result*, or defer it to the stream that *result* is."""
        settle(call, self._operation, _stream_within(result))


class AnthropicProvider:
    """Answers of Anthropic."""

    name = "anthropic"
    _operation = Operation("anthropic", "wrap", "call", anthropic_usage, anthropic_tools, AutoReader)

    def claims(self, result: Any) -> bool:
        """Return whether *result* comes from the Anthropic SDK, or reads like its JSON."""
        if _comes_from(result, self.name):
            return True
        answer = _answer_of(result)
        return answer.get("type") == "message" or ("stop_reason" in answer and "content" in answer)

    def receive(self, call: CallPort, result: Any) -> None:
        """Settle *call* by *result*, or defer it to the stream that *result* is."""
        settle(call, self._operation, _stream_within(result))


def _comes_from(result: Any, sdk: str) -> bool:
    kind: type[object] = type(result)
    return _is_of(kind, sdk)  # type: ignore[arg-type]  # classes are hashable


@lru_cache(maxsize=1024)
def _is_of(kind: type, sdk: str) -> bool:
    return any(base.__module__.partition(".")[0] == sdk for base in kind.__mro__)


def _answer_of(result: Any) -> Mapping[str, Any]:
    try:
        return answer_of(result)
    except AttributeError:  # no answer at all
        return {}


def _stream_within(result: Any) -> Any:
    """Return the stream that the SDKs' stream helpers read from; anything else as it is."""
    return fields(result).get("_raw_stream", result)


_said = Once()


class ProviderRegistry:
    """
    The providers whose results can be metered; OpenAI and Anthropic unless told otherwise.

    Args:
        providers: Tried in this order where ``wrap`` is not told the provider.
    """

    def __init__(self, providers: Iterable[Provider] | None = None) -> None:
        chosen = (OpenAIProvider(), AnthropicProvider()) if providers is None else providers
        self._providers: dict[str, Provider] = {provider.name: provider for provider in chosen}

    @property
    def names(self) -> list[str]:
        """The names of the providers, in the order in which they are tried."""
        return list(self._providers)

    def register(self, provider: Provider) -> None:
        """Add *provider*; one of the same name is replaced."""
        self._providers[provider.name] = provider

    def get(self, name: str) -> Provider:
        """
        Return the provider called *name*.

        Raises:
            ValueError: There is none of that name.
        """
        try:
            return self._providers[name]
        except KeyError:
            raise ValueError(f"unknown provider {name!r}; there are {', '.join(self._providers)}") from None

    def receive(self, call: CallPort, result: Any, provider: str | None = None) -> None:
        """
        Settle *call* by *result*, read as *provider* or as the first one that claims it.

        A result that nobody claims is settled by estimate: unknown never becomes zero.

        Raises:
            ValueError: There is no provider of that name.
        """
        if provider is not None:
            self.get(provider).receive(call, result)
            return
        for candidate in self._providers.values():
            if candidate.claims(result):
                candidate.receive(call, result)
                return
        if hasattr(result, "__await__") and _said.is_new("awaitable"):
            log.warning(
                "wrap() was given a call that returns an awaitable, unmetered: use await pg.awrap(...)"
            )
        call.finish_estimated(None, 0)
