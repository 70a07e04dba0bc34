"""
Which operation a request is: a table over the paths of both providers.

Paths are those that the SDKs hand to ``request``, without the query. Azure, Bedrock and Vertex clients
rewrite theirs below the seam; the rewritten forms are known too, for requests made with ``client.post()``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from paygent.instrumentation import usage as _usage
from paygent.instrumentation.readers import (
    ChatReader,
    CompletionReader,
    EventReader,
    MessageReader,
    Reader,
    ResponseReader,
    RunReader,
)

# call: gated and metered. free: passes through. unmetered: gated, but its usage is never reported to us.
# batch: gated; its results are counted when read. unknown: not in the table; metered if it reports usage.
Kind = Literal["call", "free", "unmetered", "batch", "unknown"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One kind of request: its name, and how usage and tools are read from its answer."""

    provider: str
    name: str
    kind: Kind
    usage: _usage.UsageReader
    tools: _usage.ToolsReader
    reader: type[Reader]


def _openai(name: str, kind: Kind = "call", reader: type[Reader] = EventReader) -> Operation:
    return Operation("openai", name, kind, _usage.openai_usage, _usage.openai_tools, reader)


def _anthropic(name: str, kind: Kind = "call", reader: type[Reader] = MessageReader) -> Operation:
    return Operation("anthropic", name, kind, _usage.anthropic_usage, _usage.anthropic_tools, reader)


_IMAGES = _openai("images")
_AUDIO = _openai("transcription")
_VIDEO = _openai("video")
_RUN = _openai("run", "call", RunReader)
_REALTIME = _openai("realtime", "unmetered")
_LIVE = _openai("live", "unmetered")
_AGENTS = _openai("agents", "unmetered")
_TUNING = _openai("fine_tuning", "unmetered")
_FREE = {"openai": _openai("free", "free"), "anthropic": _anthropic("free", "free")}
_UNKNOWN = {
    "openai": _openai("unknown", "unknown"),
    "anthropic": _anthropic("unknown", "unknown", EventReader),
}

# "{}" stands for one segment.
_OPENAI: dict[str, Operation] = {
    "/chat/completions": _openai("chat", "call", ChatReader),
    "/completions": _openai("completion", "call", CompletionReader),
    "/responses": _openai("responses", "call", ResponseReader),
    "/responses/compact": _openai("responses", "call", ResponseReader),
    "/embeddings": _openai("embeddings"),
    "/decisions": _openai("decisions"),
    "/images/generations": _IMAGES,
    "/images/edits": _IMAGES,
    "/images/variations": _IMAGES,
    "/audio/speech": _openai("speech"),
    "/audio/transcriptions": _AUDIO,
    "/audio/translations": _AUDIO,
    "/videos": _VIDEO,
    "/videos/edits": _VIDEO,
    "/videos/extensions": _VIDEO,
    "/videos/{}/remix": _VIDEO,
    "/threads/runs": _RUN,
    "/threads/{}/runs": _RUN,
    "/threads/{}/runs/{}/submit_tool_outputs": _RUN,
    "/batches": _openai("batch", "batch"),
    "/realtime/calls": _REALTIME,
    "/realtime/calls/{}/accept": _REALTIME,
    "/realtime/client_secrets": _REALTIME,
    "/realtime/sessions": _REALTIME,
    "/realtime/transcription_sessions": _REALTIME,
    "/realtime/translations/client_secrets": _REALTIME,
    "/live/sessions": _LIVE,
    "/live/sessions/{}/accept": _LIVE,
    "/live/sessions/{}/fork": _LIVE,
    "/agents/automations/{}/invocations": _AGENTS,
    "/agents/sessions": _AGENTS,
    "/agents/sessions/{}/events": _AGENTS,
    "/chatkit/sessions": _openai("chatkit", "unmetered"),
    "/evals/{}/runs": _openai("evals", "unmetered"),
    "/fine_tuning/jobs": _TUNING,
    "/fine_tuning/jobs/{}/resume": _TUNING,
    "/fine_tuning/alpha/graders/run": _TUNING,
}
_ANTHROPIC: dict[str, Operation] = {
    "/v1/messages": _anthropic("messages"),
    "/v1/complete": _anthropic("completion", "call", CompletionReader),
    "/v1/messages/batches": _anthropic("batch", "batch"),
    "/v1/sessions": _anthropic("sessions", "unmetered"),
    "/v1/sessions/{}/events": _anthropic("sessions", "unmetered"),
    "/v1/deployments/{}/run": _anthropic("deployments", "unmetered"),
    "/v1/dreams": _anthropic("dreams", "unmetered"),
    "/model/{}/invoke": _anthropic("messages"),
    "/model/{}/invoke-with-response-stream": _anthropic("messages"),
}
_TABLES = {"openai": _OPENAI, "anthropic": _ANTHROPIC}

# Families of paths that no model works for, but where the tables above say otherwise.
_FREE_FAMILIES = {
    "openai": (
        r"/(agents|assistants|audio/voices|audio/voice_consents|containers|content_provenance_checks"
        r"|conversations|chatkit|evals|files|fine_tuning|live|models|moderations|organization|projects"
        r"|realtime|responses/input_tokens|responses/[^/]+/cancel|batches/[^/]+/cancel|chat/completions/[^/]+"
        r"|safety|skills|threads|uploads|vaults|vector_stores|videos/characters|webhook_endpoints)(/.*)?"
    ),
    "anthropic": (
        r"/v1/(agents|deployments|dreams|environments|files|memory_stores|messages/batches/[^/]+/cancel"
        r"|messages/count_tokens|models|organizations|sessions|skills|tunnels|user_profiles|vaults)(/.*)?"
    ),
}
_ORIGIN = r"(?i)^[a-z][a-z0-9+.-]*://[^/]*"
_AZURE = r"^(/openai)?(/deployments/[^/]+)?(?=/)"
_ANSWERS_KEPT_MAX = 2048


@lru_cache
def _patterns(provider: str) -> list[tuple[re.Pattern[str], Operation]]:
    """
    Return what is not in the table word for word, in the order to try.

    Worked out for the first such path: compiling fifty patterns would be a tenth of `import paygent`.
    """
    table = _TABLES[provider]
    found = [(re.compile(path.replace("{}", "[^/]+")), operation) for path, operation in table.items()]
    if provider == "anthropic":
        models = "(/v1)?/projects/.+/models/"
        found.append((re.compile(models + "count-tokens:rawPredict"), _FREE[provider]))
        found.append((re.compile(models + "[^/:]+:(streamRawPredict|rawPredict)"), table["/v1/messages"]))
    return [*found, (re.compile(_FREE_FAMILIES[provider]), _FREE[provider])]


# Answers by URL as given. Seeded with every plain path; bounded, as some URLs carry ids.
_known: dict[str, dict[str, Operation]] = {
    provider: {path: found for path, found in table.items() if "{" not in path}
    for provider, table in _TABLES.items()
}
KNOWN_OPENAI = _known["openai"]
KNOWN_ANTHROPIC = _known["anthropic"]


def operation_of(provider: str, url: str) -> Operation:
    """Return the operation of a POST to *url*: a path, with or without query, or an absolute URL."""
    known = _known[provider]
    found = known.get(url)
    if found is None:
        found = _look_up(provider, path_of(url))
        if len(known) < _ANSWERS_KEPT_MAX:
            known[url] = found
    return found


def path_of(url: str) -> str:
    """Return the path of *url* without origin, query and trailing slash, with one leading slash."""
    path = re.sub(_ORIGIN, "", url).partition("?")[0].partition("#")[0].rstrip("/")
    return path if path.startswith("/") else "/" + path


def _look_up(provider: str, path: str) -> Operation:
    for form in _forms(provider, path):
        for pattern, operation in _patterns(provider):
            if pattern.fullmatch(form):
                return operation
    return _UNKNOWN[provider]


def _forms(provider: str, path: str) -> tuple[str, ...]:
    """Return *path* as sent, and as it reads on the provider's own host."""
    if provider == "anthropic":
        return (path,)
    plain = re.sub(_AZURE, "", path.removeprefix("/v1"), count=1)
    return (path,) if plain == path else (path, plain)
