"""
Which configured model a provider's model name means.

The same model is called ``gpt-4o`` in a plan, ``gpt-4o-2024-08-06`` in the provider's answer,
``openai/gpt-4o`` behind a router and ``us.anthropic.claude-sonnet-4-20250514-v1:0`` on Bedrock. A name is
made plainer step by step, and only by what is known to leave the model the same; a mere common beginning
never counts: ``gpt-4o-mini`` is not a kind of ``gpt-4o``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

# What stands before the model: routers, clouds, and the parts of their resource paths.
_ROUTERS = frozenset(
    {
        "openai",
        "azure",
        "azure_ai",
        "azure_openai",
        "anthropic",
        "openrouter",
        "litellm",
        "litellm_proxy",
        "bedrock",
        "converse",
        "bedrock_converse",
        "aws",
        "amazon",
        "vertex",
        "vertex_ai",
        "vertexai",
        "google",
        "google_vertex",
        "gemini",
        "publishers",
        "models",
    }
)
# Patterns are text, compiled by `re` when they are first needed: they would be a tenth of `import paygent`.
_CLOUD_REGION = r"[a-z]{2,4}(?:-[a-z]+)+-\d"  # us-east-1, us-gov-west-1, ap-southeast-2
_BEDROCK_GEOGRAPHY = r"(?:us|us-gov|eu|apac|jp|au|ca|sa|global)\.(?=[a-z0-9]+\.)"
_BEDROCK_VENDOR = (
    r"(?:anthropic|amazon|meta|mistral|cohere|ai21|deepseek|openai|qwen|google|moonshot|minimax|nvidia|writer)\."
    r"(?=[a-z])"
)
_BEDROCK_VERSION = r"-v\d+:\d+(?::\w+)?$"
_VERTEX_DATE = r"@(\d{8})$"
_VERTEX_ALIAS = r"@(?:default|latest)$"
_MONTH = r"(?:0[1-9]|1[0-2])"
_DAY = r"(?:0[1-9]|[12]\d|3[01])"
_DATE = rf"-(?:20\d\d-{_MONTH}-{_DAY}|20\d\d{_MONTH}{_DAY}|{_MONTH}{_DAY})$"
_LATEST = r"-latest$"
_PREVIEW = r"-preview$"


def match(model: str, known: Collection[str]) -> str | None:
    """
    Return the name among *known* that *model* means, ``None`` if it means none of them.

    An exact hit wins; else the candidates of *model* are looked for in turn, most specific first. A known
    name that carries a date stands for that snapshot alone; one without a date stands for all of them.
    Takes some microseconds: callers keep the answer per model.
    """
    if model in known:
        return model
    plain = _plain_names(known)
    for candidate in candidates(model):
        names = plain.get(candidate)
        if names is not None:
            return min(names, key=lambda name: (_prefix(name) != _prefix(model), len(name), name))
    return None


def candidates(model: str) -> tuple[str, ...]:
    """
    Return the spellings of *model* to look for, from the name as given to the plainest.

    A fine-tuned model (``ft:BASE:org:name:id``) ends at ``ft:BASE``, never at ``BASE``: it costs more.
    """
    name = model.strip().lower()
    spellings = [model, *_addresses(name)]
    plainest = spellings[-1]
    if plainest.startswith("ft:"):
        spellings += _fine_tuned(plainest)
    else:
        spellings += _variants(plainest)
    return tuple(dict.fromkeys(spelling for spelling in spellings if spelling))


def _plain_names(known: Iterable[str]) -> dict[str, list[str]]:
    """Group *known* by what is left without addresses; dates stay, as they tell snapshots apart."""
    plain: dict[str, list[str]] = {}
    for name in known:
        lower = name.strip().lower()
        spelling = _without_version(_addresses(lower)[-1])
        for plainest in {spelling, re.sub(_LATEST, "", spelling)}:
            plain.setdefault(plainest, []).append(name)
    return plain


def _addresses(name: str) -> list[str]:
    """Return *name*, then without its ARN, its router prefixes, its Bedrock geography and vendor."""
    steps = [name]
    if name.startswith(("arn:", "projects/")):
        name = name.rpartition("/")[2]
        steps.append(name)
    while (shorter := _without_router(name)) is not None:
        name = shorter
        steps.append(name)
    for pattern in (_BEDROCK_GEOGRAPHY, _BEDROCK_VENDOR):
        found = re.match(pattern, name)
        if found:
            name = name[found.end() :]
            steps.append(name)
    return steps


def _without_router(name: str) -> str | None:
    for separator in ("/", ":"):
        head, found, rest = name.partition(separator)
        if found and rest and (head in _ROUTERS or (separator == "/" and re.fullmatch(_CLOUD_REGION, head))):
            return rest
    return None


def _without_version(name: str) -> str:
    """Drop Bedrock's version tail and write a Vertex date as the others do."""
    name = re.sub(_VERTEX_ALIAS, "", re.sub(_VERTEX_DATE, r"-\1", name))
    return re.sub(_BEDROCK_VERSION, "", name)


def _fine_tuned(name: str) -> list[str]:
    base = ":".join(name.split(":", 2)[:2])
    return [base, re.sub(_DATE, "", base)]


def _variants(name: str) -> list[str]:
    """
    Return *name* without version tail, then without date or alias, then without ``-preview``.

    A date *before* ``-preview`` stays: ``gpt-4-1106-preview`` is another model than ``gpt-4``.
    """
    unversioned = _without_version(name)
    undated = re.sub(_LATEST, "", re.sub(_DATE, "", unversioned))
    return [unversioned, undated, re.sub(_PREVIEW, "", undated)]


def _prefix(name: str) -> str:
    return name.strip().lower().rpartition("/")[0]
