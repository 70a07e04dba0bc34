"""What `Paygent.init` decides for the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from paygent import catalogue
from paygent.clock import boot_clock
from paygent.core.pricing import Rates
from paygent.ledger import LeaseReply


def nothing(_user_id: str) -> LeaseReply | None:
    """Nothing is remembered of any user."""
    return None


@dataclass
class Options:
    """The arguments of ``Paygent.init`` by which calls are gated and metered, with its defaults."""

    raise_on_hard_gate: bool = True
    fail_open: bool = True
    unattributed: str = "pass"
    no_plan: str = "allow"
    unpriced: str = "block"
    on_cancel: str = "estimate"
    include_usage: bool | None = None
    busy_timeout_s: float = 2.0
    max_batch_size: int = 100
    flush_interval_s: float = 5.0
    max_queue_size: int = 10_000
    model_aliases: dict[str, str] = field(default_factory=dict)
    journal_dir: Path | None = None  # instead of where the ledger keeps journals
    flush_on_request_end: bool = False
    remembered: Callable[[str], LeaseReply | None] = nothing  # what was last known of a user, from disk
    refresh_interval_s: float | None = None  # of users whom nothing else asks about
    lookup: Callable[[str, str | None], Rates | None] = catalogue.lookup
    boot: Callable[[], float] = field(default_factory=boot_clock)
