"""What one call or event may say at most: far beyond any real one, and many of them still fit an integer."""

from __future__ import annotations

from typing import Final

EVENT_COST_USD_MAX: Final = 1_000_000
EVENT_TOKENS_MAX: Final = 10**12
CALL_TOKENS_MAX: Final = 100_000_000  # of a call to a provider, in a request or in its answer
MODEL_LENGTH_MAX: Final = 256  # characters of the name of a model or a tool: users may make up any
