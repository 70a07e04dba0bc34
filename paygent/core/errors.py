"""
Every error and warning of Paygent, and whose fault each one is.

::

    Exception
    ├── PaygentLimitExceeded        the user's limit: the plan does not cover this call
    └── PaygentUnavailable          the outside world: no ledger, and ``init(fail_open=False)``
    ValueError                      the developer: a value that cannot be right (the message names the field)
    UserWarning
    ├── PaygentBackendUnreachable   the outside world: the backend did not answer at ``init()``
    └── PaygentAuthInvalid          the developer: the backend refused the API key at ``init()``

The two warnings are raised instead of warned of with ``init(strict_backend=True)``.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from paygent.core.models import GuardResult


class Refusal(NamedTuple):
    """
    Why a call was not admitted, as a value; the engine turns it into :class:`PaygentLimitExceeded`.

    ``code`` is one of ``period_spend``, ``session_spend``, ``model_tokens``, ``model_not_in_plan``,
    ``no_plan``, ``no_user``, ``busy`` and ``unpriced``. ``retryable`` is true only for *busy*: the call was
    refused because of other calls in flight, and waiting helps. ``unit`` is ``"usd"`` or ``"tokens"``;
    ``limit`` and ``used`` are in that unit. ``resets_at`` is when the window of the spent limit ends.
    """

    code: str
    guard_result: GuardResult
    user_id: str | None = None
    plan: str | None = None
    model: str | None = None
    unit: str = "usd"
    limit: float = 0.0
    used: float = 0.0
    retryable: bool = False
    resets_at: datetime | None = None


class PaygentLimitExceeded(Exception):
    """
    The user's plan does not cover this call; nothing was sent to the provider.

    A bare message stands for a closed gate: result stores of task queues rebuild exceptions from their text.
    """

    def __init__(self, guard_result: GuardResult | str, refusal: Refusal | None = None) -> None:
        if isinstance(guard_result, str):
            guard_result = GuardResult(status="hard_gate", message=guard_result)
        super().__init__(guard_result.message or "limit reached")
        self.guard_result = guard_result
        self.refusal = refusal or _refusal_of(guard_result)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by value: task queues carry exceptions between processes."""
        return type(self), (self.guard_result, self.refusal)

    @property
    def retryable(self) -> bool:
        """Whether the same call may pass in a moment, without a new plan or a new period."""
        return self.refusal.retryable


def _refusal_of(result: GuardResult) -> Refusal:
    """What a bare answer of the gate says on its own."""
    reason = result.gate_reason or "total_spend"
    is_model = reason.startswith("model_limit:")
    code = "model_tokens" if is_model else {"session_spend": "session_spend"}.get(reason, "period_spend")
    return Refusal(
        code,
        result,
        model=reason.partition(":")[2] or None,
        unit="tokens" if is_model else "usd",
        limit=result.limit_value,
        used=result.current_value,
    )


class PaygentUnavailable(Exception):
    """The ledger cannot be asked and ``init(fail_open=False)`` forbids to go on without it."""


class PaygentBackendUnreachable(UserWarning):
    """The backend did not answer when ``init()`` asked for its health."""


class PaygentAuthInvalid(UserWarning):
    """The backend refused the API key (401 or 403) when ``init()`` asked for its health."""


# The only errors of ours that a caller may see; every other one is a fault, logged where it is met.
VISIBLE = (PaygentLimitExceeded, PaygentUnavailable)
