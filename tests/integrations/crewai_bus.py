"""
A stand-in for what the CrewAI callback uses of ``crewai.events``; CrewAI itself pins an older OpenAI SDK.

Written after CrewAI 1.15: the bus takes handlers per event class and calls them as ``handler(source, event)``
in a thread, in a copy of the emitter's context; a kickoff waits for its handlers; errors are printed, never
raised. An event carries ``model``, ``messages``, ``response``, ``usage``, and the ids of task and agent.
Hooks are called before each model call, in the caller's thread; what they raise is printed, all but
``HookAborted``.
"""

from __future__ import annotations

import contextvars
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4


class CrewKickoffStartedEvent:
    """A crew is about to start."""


@dataclass
class LLMCallCompletedEvent:
    """One model call is done."""

    model: str = "other-1"
    messages: Any = "Hi"
    response: Any = "Hello there"
    usage: dict[str, Any] | None = None
    task_id: str | None = None
    agent_id: str | None = None


class HookAborted(Exception):  # noqa: N818  # CrewAI's name
    """The one error of a hook that ends the call."""

    def __init__(self, reason: str, source: Any = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.source = source


class Bus:
    """The event bus: handlers run in a thread, in a copy of the context; ``hooks`` are those before calls."""

    def __init__(self) -> None:
        self.handlers: dict[type, list[Any]] = {}
        self.errors: list[Exception] = []
        self.hooks: list[Any] = []

    def on(self, event_type: type) -> Any:
        def decorator(handler: Any) -> Any:
            self.handlers.setdefault(event_type, []).append(handler)
            return handler

        return decorator

    def emit(self, source: Any, event: Any) -> None:
        with ThreadPoolExecutor(1) as pool:
            for handler in self.handlers.get(type(event), ()):
                error = pool.submit(contextvars.copy_context().run, handler, source, event).exception()
                if error is not None:
                    self.errors.append(error)


@dataclass
class Part:
    """A task or an agent."""

    step_callback: Any = None
    id: Any = field(default_factory=uuid4)


class LLM:
    """A model of a provider with an SDK that is not patched."""

    provider = "gemini"
    model = "other-1"


class OpenAICompletion(LLM):
    """A model asked through the OpenAI SDK."""

    provider = "openai"


OpenAICompletion.__module__ = "crewai.llms.providers.openai.completion"


class Crew:
    """A crew of one agent and one task."""

    def __init__(self, bus: Bus, step_callback: Any = None, agent: Part | None = None) -> None:
        self.step_callback = step_callback
        self.bus = bus
        self.agents = [agent or Part()]
        self.tasks = [Part()]

    def start(self) -> None:
        self.bus.emit(self, CrewKickoffStartedEvent())

    def ask(self, llm: Any = None) -> None:
        """Ask the hooks, as CrewAI does before each model call."""
        context = types.SimpleNamespace(crew=self, task=self.tasks[0], agent=self.agents[0], llm=llm or LLM())
        for hook in self.bus.hooks:
            try:
                hook(context)
            except HookAborted:
                raise
            except Exception as error:  # noqa: BLE001  # CrewAI prints it and makes the call
                self.bus.errors.append(error)

    def call(self, llm: Any = None, **event: Any) -> None:
        """Report a finished call of the crew's agent on its task."""
        ids = {"task_id": str(self.tasks[0].id), "agent_id": str(self.agents[0].id)}
        self.bus.emit(llm or LLM(), LLMCallCompletedEvent(**{**ids, **event}))


def install(monkeypatch: Any) -> Bus:
    """Put the stand-in where ``import crewai.events`` finds it."""
    names = ("crewai", "events", "event_bus", "hooks", "dispatch")
    package, events, bus_module, hooks, dispatch = (types.ModuleType(name) for name in names)
    bus = Bus()
    package.__dict__.update(events=events, __path__=[])
    events.__dict__.update(
        crewai_event_bus=bus,
        CrewKickoffStartedEvent=CrewKickoffStartedEvent,
        LLMCallCompletedEvent=LLMCallCompletedEvent,
        event_bus=bus_module,
    )
    hooks.__dict__.update(register_before_llm_call_hook=bus.hooks.append, __path__=[])
    dispatch.__dict__.update(HookAborted=HookAborted)
    bus_module.__dict__.update(is_replaying=lambda: False)
    monkeypatch.setitem(sys.modules, "crewai", package)
    monkeypatch.setitem(sys.modules, "crewai.events", events)
    monkeypatch.setitem(sys.modules, "crewai.events.event_bus", bus_module)
    monkeypatch.setitem(sys.modules, "crewai.hooks", hooks)
    monkeypatch.setitem(sys.modules, "crewai.hooks.dispatch", dispatch)
    return bus
