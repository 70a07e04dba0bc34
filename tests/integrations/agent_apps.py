"""Models, tools and graphs of the real packages, pointed at the loopback LLM server."""

from __future__ import annotations

from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from langchain_openai import AzureChatOpenAI, ChatOpenAI, OpenAI
from pydantic import BaseModel

CLOSE = {"connection": "close"}  # LangChain never closes its clients: no connection outlives its answer


class Person(BaseModel):
    """A person, as structured output."""

    name: str
    age: int


@tool
def get_weather(city: str) -> str:
    """Return the weather in a city."""
    return f"sunny in {city}"


def chat_openai(server, **more):
    return ChatOpenAI(
        **{
            "model": "gpt-4o-mini",
            "base_url": server.openai_base_url,
            "api_key": "any",
            "max_retries": 0,
            "stream_usage": True,
            "default_headers": CLOSE,
            **more,
        }
    )


def chat_responses(server, **more):
    return chat_openai(server, use_responses_api=True, **more)


def chat_azure(server, **more):
    return AzureChatOpenAI(
        azure_endpoint=server.url,
        azure_deployment="gpt-4o-mini",
        api_version="2024-10-21",
        api_key="any",
        model="gpt-4o-mini",
        stream_usage=True,
        max_retries=0,
        default_headers=CLOSE,
        **more,
    )


def chat_anthropic(server, **more):
    return ChatAnthropic(
        model="claude-haiku-4-5",
        base_url=server.anthropic_base_url,
        api_key="any",
        max_tokens=100,
        max_retries=0,
        default_headers=CLOSE,
        **more,
    )


def plain_openai(server, **more):
    return OpenAI(
        model="gpt-3.5-turbo-instruct",
        base_url=server.openai_base_url,
        api_key="any",
        max_retries=0,
        default_headers=CLOSE,
        **more,
    )


CHATS = {
    "openai": chat_openai,
    "responses": chat_responses,
    "azure": chat_azure,
    "anthropic": chat_anthropic,
}
