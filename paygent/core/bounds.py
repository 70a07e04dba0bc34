"""What one call or event may say at most: far beyond any real one, and many of them still fit an integer."""

from __future__ import annotations

from typing import Final

EVENT_COST_USD_MAX: Final = 1_000_000
EVENT_TOKENS_MAX: Final = 10**12
CALL_TOKENS_MAX: Final = 100_000_000  # of a call to a provider, in a request or in its answer
ID_LENGTH_MAX: Final = 512  # characters of the name of a user or a session
ID_STORED_MAX: Final = 700  # of the same as a database holds it: what has to fit an index of any of them
DESCRIPTION_LENGTH_MAX: Final = 10_000  # characters of what the caller says of an event
MODEL_LENGTH_MAX: Final = 256  # characters of the name of a model or a tool: users may make up any


def stored_length(text: str) -> int:
    """How many characters *text* takes in a database: NUL, which few can hold, and U+2400 take two."""
    return len(text) + text.count("\0") + text.count("\u2400")
