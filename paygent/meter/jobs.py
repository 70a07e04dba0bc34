"""One line of a batch's results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from paygent.core.usage import Usage


class JobLine(NamedTuple):
    """What one request of a batch used; ``key`` names it within the batch (the caller's ``custom_id``)."""

    key: str
    model: str | None
    usage: Usage
    tools: Sequence[str] = ()
