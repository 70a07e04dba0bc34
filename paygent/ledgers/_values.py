"""Values as text, for stores that keep them in one column or field."""

from __future__ import annotations

import json
from typing import Any

from paygent.ledger import Bucket


def to_json(value: Any) -> str | None:
    """JSON in ASCII, so that no store stumbles over a character; what JSON does not know is kept as text."""
    return None if value is None else json.dumps(value, default=str, skipkeys=True)


def from_json(value: Any) -> Any:
    """What :func:`to_json` was given."""
    return None if value is None else json.loads(value)


def amounts_to(amounts: dict[Bucket, int]) -> str:
    """Amounts by bucket as one text."""
    return json.dumps([(scope, window, amount) for (scope, window), amount in amounts.items()])


def amounts_from(text: str | bytes) -> dict[Bucket, int]:
    """What :func:`amounts_to` was given."""
    return {(scope, window): amount for scope, window, amount in json.loads(text)}
