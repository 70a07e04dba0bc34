"""
Run real crews on the loopback LLM server, in an environment of their own, and print what was metered as JSON.

Each scenario is told by whom it was charged and what the server billed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import warnings

os.environ.update(CREWAI_DISABLE_TELEMETRY="true", CREWAI_TRACING_ENABLED="false", OTEL_SDK_DISABLED="true")
warnings.filterwarnings("ignore")

from crewai import LLM, Agent, Crew, Task  # noqa: E402  # reads the environment when it is imported
from crewai.events import crewai_event_bus  # noqa: E402
from crewai.tools import tool  # noqa: E402
from pydantic import BaseModel  # noqa: E402

from paygent import ModelCostRate, Paygent, PaygentLimitExceeded, PlanConfig, paygent_context  # noqa: E402
from paygent.integrations import CrewAICallback  # noqa: E402
from paygent.testing.llm_server import LLMServer  # noqa: E402


class Person(BaseModel):
    """A person, as structured output."""

    name: str


@tool("get_weather")
def get_weather(city: str) -> str:
    """Return the weather in a city."""
    return f"sunny in {city}"


def crew(model="gpt-4o-mini", *, tools=(), stream=False, output=None, callback=None):
    agent = Agent(
        role="Writer",
        goal="Write",
        backstory="Writes.",
        tools=list(tools),
        llm=LLM(model=model, stream=stream),
    )
    task = Task(
        description="Please use get_weather now" if tools else "Say hello",
        expected_output="A greeting", agent=agent, output_pydantic=output,
    )  # fmt: skip
    return Crew(agents=[agent], tasks=[task], step_callback=callback)


def scenarios(pg):
    """Name each scenario, and say how to run it."""

    def callback(user="ann"):
        return CrewAICallback(pg, user_id=user)

    def within(user, run):
        with paygent_context(user):
            return run()

    claude = "anthropic/claude-haiku-4-5"
    yield "callback", lambda: crew(callback=callback()).kickoff()
    yield "context", lambda: within("ann", lambda: crew().kickoff())
    yield "both", lambda: within("ann", lambda: crew(callback=callback("ben")).kickoff())
    yield "stream", lambda: crew(stream=True, callback=callback()).kickoff()
    yield "stream in context", lambda: within("ann", lambda: crew(stream=True).kickoff())
    yield "tools", lambda: crew(tools=[get_weather], callback=callback()).kickoff()
    yield "structured", lambda: crew(output=Person, callback=callback()).kickoff()
    yield "anthropic", lambda: crew(claude, callback=callback()).kickoff()
    yield "anthropic in context", lambda: within("ann", lambda: crew(claude).kickoff())
    yield "async", lambda: asyncio.run(crew(callback=callback()).akickoff())
    yield "async in context", lambda: within("ann", lambda: asyncio.run(crew().akickoff()))
    yield "batch", lambda: crew(callback=callback()).kickoff_for_each([{"n": "1"}, {"n": "2"}])
    yield "spent with callback", lambda: crew(callback=callback("cleo")).kickoff()
    yield "spent in context", lambda: within("cleo", lambda: crew().kickoff())
    pg.uninstrument()
    yield "without patches", lambda: within("ben", lambda: crew(callback=callback()).kickoff())


def run(scenario, server, events):
    """Run one scenario, and return what was metered and what was billed."""
    events.clear()
    server.reset()
    refused = False
    try:
        scenario()
    except PaygentLimitExceeded:
        refused = True
    crewai_event_bus.flush(timeout=10)
    made = server.generated.values()
    return {
        "refused": refused,
        "requests": len(server.requests),
        "users": sorted({event.user_id for event in events}),
        "calls": [len(events), sum(one.requests for one in made)],
        "input": [sum(event.input_tokens for event in events), sum(one.input_tokens for one in made)],
        "output": [sum(event.output_tokens for event in events), sum(one.output_tokens for one in made)],
    }


def main():
    with LLMServer(reply_tokens=20) as server:
        os.environ.update(
            OPENAI_API_KEY="any", OPENAI_BASE_URL=server.openai_base_url, ANTHROPIC_API_KEY="any",
            ANTHROPIC_BASE_URL=server.anthropic_base_url,
        )  # fmt: skip
        pg = Paygent.init(ledger="memory://")
        rate = ModelCostRate(input=0.01, output=0.03)
        pg.configure_plan("default", PlanConfig(default_cost_rate=rate))
        pg.configure_plan("spent", PlanConfig(max_spend_per_period=0.0, default_cost_rate=rate))
        pg.assign_plan("cleo", "spent")
        events = []
        pg.on_usage(events.append)
        seen = {name: run(scenario, server, events) for name, scenario in scenarios(pg)}
        pg.shutdown()
    sys.stdout.write("\n" + json.dumps(seen) + "\n")


if __name__ == "__main__":
    main()
