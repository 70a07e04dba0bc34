"""The purse: one limit of one user in one window, as a process sees it."""

from __future__ import annotations

from paygent.core.balance import UNLIMITED, within
from paygent.core.plan import Limit
from paygent.core.windows import Window
from paygent.ledger import Bucket

REFILL_CALLS = 16  # a slice for fewer calls is near its limit: there, more is asked for when it is needed


class Purse:
    """
    One scope in one window: what the ledger last said, and what this process did since.

    ``lease`` is what is granted and not yet posted, ``held`` the open holds on it, ``low`` how little of it
    may be idle before more is asked for, ``unsettled`` what was posted here and is not yet in ``posted``.
    Nano-dollars, or tokens for a model's limit.
    """

    __slots__ = (
        "cap", "hard", "held", "lease", "low", "others", "posted", "raised", "scope", "sent", "soft",
        "unsettled", "window",
    )  # fmt: skip

    def __init__(self, scope: str, window: Window, limit: Limit) -> None:
        self.scope = scope
        self.window = window
        self.posted = self.unsettled = self.held = self.others = self.sent = self.low = self.raised = 0
        self.lease = UNLIMITED
        self.limited_by(limit)

    def limited_by(self, limit: Limit) -> None:
        """Take on *limit*; a purse that becomes limited starts with nothing but its holds."""
        if limit.hard >= UNLIMITED:
            self.lease = UNLIMITED
        elif self.lease >= UNLIMITED >> 1:
            self.lease = 0
        self.cap, self.soft, self.hard = limit

    def close(self, need: int, amount: int) -> bool:
        """
        End a hold of *need* and post *amount*; returns whether that carries the purse over its soft mark.

        What a grant went past the limit is for its one call; it must not be there for the next.
        """
        self.held -= need
        lease = self.lease = self.lease - amount
        unsettled = self.unsettled = self.unsettled + amount
        used = self.posted + unsettled
        hard = self.hard
        if lease > hard - used - self.others and hard < UNLIMITED:
            self.lease = within(lease, self.held, hard - used - self.others)
        return used - amount < self.soft <= used

    def refill_below(self, need: int | None) -> None:
        """Have more asked for in the background once a quarter of a new slice for calls of *need* is left."""
        if need is not None:
            idle = self.lease - self.held
            self.low = idle >> 2 if idle >= REFILL_CALLS * need else 0

    @property
    def finite(self) -> bool:
        """Whether the plan limits this scope; only then is it leased."""
        return self.hard < UNLIMITED

    @property
    def used(self) -> int:
        """Posted by anyone as far as is known here, and by this process since."""
        return self.posted + self.unsettled

    @property
    def bucket(self) -> Bucket:
        """What the ledger calls this purse."""
        return self.scope, self.window.key
