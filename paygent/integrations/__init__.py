"""Callbacks for agent frameworks; a framework is imported when its callback is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paygent.integrations.crewai import CrewAICallback
    from paygent.integrations.langchain import LangChainCallback

__all__ = ["CrewAICallback", "LangChainCallback"]

_HOMES = {
    "CrewAICallback": "paygent.integrations.crewai",
    "LangChainCallback": "paygent.integrations.langchain",
}


def __getattr__(name: str) -> Any:
    """
    Import the callback *name*, and with it what it needs of its framework.

    Raises:
        ImportError: The framework is not installed; the message says what to install.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
