"""The purse: one limit of one user in one window, as a process sees it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import FunctionType

from paygent.core.balance import UNLIMITED, within
from paygent.core.plan import MODEL_COST, MODEL_LIMIT, Limit
from paygent.core.windows import Window
from paygent.ledger import Bucket

REFILL_CALLS = 16  # a slice for fewer calls is near its limit: there, more is asked for when it is needed

# What the ledger says is posted on a bucket; ``None`` where it does not speak of that bucket.
Said = Callable[[Bucket], "int | None"]


@lru_cache(maxsize=1024)
def model_scope(model: str) -> str:
    """The scope of a model's limit, one object for all users: each of their purses would have its own."""
    return MODEL_LIMIT + model


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
            self.stay_within()
        return used - amount < self.soft <= used

    def stay_within(self) -> None:
        """Let go of what is past the limit, as far as it is in no hold."""
        if self.finite:
            self.lease = within(self.lease, self.held, self.hard - self.used - self.others)

    def refill_below(self, need: int | None) -> None:
        """Have more asked for in the background once a quarter of a new slice for calls of *need* is left."""
        if need is not None:
            idle = self.lease - self.held
            self.low = idle >> 2 if idle >= REFILL_CALLS * need else 0

    def send(self) -> None:
        """Note how much of what was posted here is on its way to the ledger."""
        self.sent = self.unsettled

    def arrive(self) -> None:
        """What was sent has reached the ledger."""
        self.posted += self.sent
        self.unsettled -= self.sent
        self.sent = 0

    def hear(self, said: Said) -> None:
        """Take over what the ledger says is posted."""
        posted = said(self.bucket)
        if posted is not None:
            self.posted = posted

    def fail(self) -> None:
        """Nothing has reached the ledger; nobody has granted what was held beyond the lease."""
        self.lease -= self.raised
        self.sent = self.raised = 0

    @property
    def finite(self) -> bool:
        """Whether the plan limits this scope; only then is it leased."""
        return self.hard < UNLIMITED

    @property
    def used(self) -> int:
        """Posted by anyone as far as is known here, and by this process since."""
        return self.posted + self.unsettled

    @property
    def is_settled(self) -> bool:
        """Whether nothing is open or on its way here."""
        return not (self.held or self.unsettled)

    @property
    def is_blank(self) -> bool:
        """Whether nothing at all is known here."""
        return self.is_settled and not self.posted and not (self.finite and self.lease)

    @property
    def bucket(self) -> Bucket:
        """What the ledger calls this purse."""
        return self.scope, self.window.key


class ModelPurse(Purse):
    """
    The tokens of one model, and with them what they cost: that is counted for the reports, never limited.

    The ledger keeps two buckets; a purse of its own for the cost would be 160 bytes of every user.
    """

    __slots__ = ("cost_posted", "cost_sent", "cost_unsettled")

    def __init__(self, scope: str, window: Window, limit: Limit) -> None:
        super().__init__(scope, window, limit)
        self.cost_posted = self.cost_sent = self.cost_unsettled = 0

    # With a code object of its own: the interpreter fits each one to the class that it meets in it.
    close = FunctionType(Purse.close.__code__.replace(), globals(), "close")

    def send(self) -> None:
        """The same for the cost."""
        super().send()
        self.cost_sent = self.cost_unsettled

    def arrive(self) -> None:
        """The same for the cost."""
        super().arrive()
        self.cost_posted += self.cost_sent
        self.cost_unsettled -= self.cost_sent
        self.cost_sent = 0

    def hear(self, said: Said) -> None:
        """The same for the cost."""
        super().hear(said)
        posted = said((MODEL_COST + self.scope[len(MODEL_LIMIT) :], self.window.key))
        if posted is not None:
            self.cost_posted = posted

    def fail(self) -> None:
        """The same for the cost."""
        super().fail()
        self.cost_sent = 0

    @property
    def cost_used(self) -> int:
        """What was spent on the model, as far as is known here."""
        return self.cost_posted + self.cost_unsettled

    @property
    def is_settled(self) -> bool:
        """The same for the cost."""
        return not (self.held or self.unsettled or self.cost_unsettled)

    @property
    def is_blank(self) -> bool:
        """The same for the cost."""
        return super().is_blank and not self.cost_posted
