"""The users' half of the public object: pre-flight answers, usage, plans in code."""

from __future__ import annotations

from typing import Any

from paygent import instrumentation
from paygent._shelter import Sheltered
from paygent.context import checked_user_id
from paygent.core.models import (
    BillingPeriod,
    BudgetRemaining,
    CurrentUsage,
    GuardResult,
    MaxTokensAdvice,
    ModelUsage,
    PlanConfig,
    UserState,
)
from paygent.ledger import DEFAULT_PLAN
from paygent.meter import accounts, advice
from paygent.meter.live import live_state, usage_of
from paygent.meter.meter import Meter
from paygent.meter.wallet import Wallet


class Users:
    """
    What :class:`paygent.Paygent` knows of users.

    A fault of ours in any of these answers what an unlimited user would hear, and is logged.
    """

    _meter: Meter

    # -- pre-flight -----------------------------------------------------------------------------------

    def check_guard(self, user_id: str, model: str | None = None) -> GuardResult:
        """Say what the gate would say to the next call; nothing is reserved, called back or written."""
        meter = self._meter
        wallet = meter.wallets.get(user_id) or meter.wallet(known_user(user_id))
        try:
            boot_s = meter.boot()
            if not accounts.is_loaded(wallet, boot_s):
                wallet = accounts.loaded(meter, wallet.user_id)
            now_us = int(boot_s * 1e6) + wallet.offset_us
            with wallet.lock:
                return advice.guard(wallet, model, now_us, blocks_unpriced=meter.blocks_unpriced)
        except Exception:  # noqa: BLE001  # the guarded boundary: a fault of ours is logged there
            meter.own_fault("checking the guard")
            return GuardResult()

    def is_within_limit(self, user_id: str, model: str | None = None) -> bool:
        """Whether the next call would not meet a closed gate."""
        return self.check_guard(user_id, model).status != "hard_gate"

    def get_remaining_budget(self, user_id: str) -> BudgetRemaining:
        """What is left on each limit of the user's plan."""
        user = known_user(user_id)
        with Sheltered(self._meter, "reading a budget"):
            wallet = accounts.loaded(self._meter, user)
            with wallet.lock:
                return advice.budget(wallet, wallet.now_us(self._meter.boot()))
        return BudgetRemaining()

    def get_max_tokens(
        self,
        user_id: str,
        model: str,
        *,
        estimated_input_tokens: int = 0,
        messages: list[Any] | None = None,
        hard_cap: int = 4096,
    ) -> MaxTokensAdvice:
        """
        Recommend a ``max_tokens`` that passes no limit; 0 and ``"blocked"``: do not make the call.

        Args:
            estimated_input_tokens: Input of the call. With *messages* too, the larger of both counts: the
                gate will size the call by its messages.
            hard_cap: The largest answer, whatever the limits leave.
        """
        user = known_user(user_id)
        meter = self._meter
        with Sheltered(meter, "advising on max_tokens"):
            input_bytes = instrumentation.text_bytes(messages) if messages else 0
            by_messages = int(input_bytes * meter.habits(model).tokens_per_byte) + 1
            input_tokens = max(estimated_input_tokens, by_messages)
            wallet = accounts.loaded(meter, user)
            now_us = wallet.now_us(meter.boot())
            blocks = meter.blocks_unpriced
            with wallet.lock:
                return advice.max_tokens(
                    wallet, model, input_tokens, hard_cap, now_us, blocks_unpriced=blocks
                )
        return MaxTokensAdvice(max_tokens=0, binding_limit="blocked")

    # -- usage and state --------------------------------------------------------------------------------

    def get_usage(self, user_id: str) -> CurrentUsage:
        """A snapshot of what the user has used; changing it changes nothing."""
        user = known_user(user_id)
        with Sheltered(self._meter, "reading usage"):
            wallet = self._asked(user)
            with wallet.lock:
                return usage_of(wallet, wallet.now_us(self._meter.boot()))
        return CurrentUsage()

    def get_model_usage(self, user_id: str) -> list[ModelUsage]:
        """One row per model with usage or a limit."""
        user = known_user(user_id)
        with Sheltered(self._meter, "reading usage"):
            wallet = self._asked(user)
            with wallet.lock:
                return advice.model_usage(wallet, wallet.now_us(self._meter.boot()))
        return []

    def get_user_state(self, user_id: str) -> UserState:
        """The live state: what is assigned to it changes the next guard check in this process."""
        user = known_user(user_id)
        with Sheltered(self._meter, "reading a user"):
            return live_state(self._meter, self._asked(user))
        return _unlimited(user)

    def refresh_user(self, user_id: str) -> UserState:
        """Ask the ledger anew, local edits undone; without an answer the state stays as it is."""
        user = known_user(user_id)
        with Sheltered(self._meter, "refreshing a user"):
            wallet = accounts.refreshed(self._meter, user)
            self._meter.gate.announce(wallet)
            return live_state(self._meter, wallet)
        return _unlimited(user)

    def reset_user(self, user_id: str) -> None:
        """Drop the user from memory; what he has used stays in the ledger."""
        user = known_user(user_id)
        with Sheltered(self._meter, "dropping a user"):
            self._meter.forget(user)

    def _asked(self, user_id: str) -> Wallet:
        """The wallet of a user as the ledger knows him now; those who wait for a loaded user are told."""
        wallet = accounts.loaded(self._meter, user_id, fresh=True)
        self._meter.gate.announce(wallet)
        return wallet

    # -- plans in code ----------------------------------------------------------------------------------

    def configure_plan(self, plan_name: str, config: PlanConfig) -> None:
        """
        Register a plan; equal content changes nothing, other content binds the next call.

        Raises:
            ValueError: The name is empty, or *config* is no valid plan.
        """
        name, plan = plan_named(plan_name), PlanConfig.model_validate(config)
        with Sheltered(self._meter, "configuring a plan"):
            accounts.put_plan(self._meter, name, plan)

    def assign_plan(self, user_id: str, plan: str, billing_period: BillingPeriod | None = None) -> UserState:
        """Put the user on a registered plan, usage kept; an unknown plan has no limits, with a warning."""
        user, name = known_user(user_id), plan_named(plan)
        with Sheltered(self._meter, "assigning a plan"):
            wallet = accounts.assign(self._meter, user, name, billing_period)
            self._meter.gate.announce(wallet)
            return live_state(self._meter, wallet)
        return _unlimited(user, name)

    def start_session(
        self, user_id: str, plan: str = DEFAULT_PLAN, plan_config: PlanConfig | None = None
    ) -> UserState:
        """
        Load the user ahead of the first call.

        *plan_config* sets his limits, never his usage. A *plan* that nobody configured is only taken on by a
        user without one.
        """
        user, name = known_user(user_id), plan_named(plan)
        config = None if plan_config is None else PlanConfig.model_validate(plan_config)
        with Sheltered(self._meter, "loading a user"):
            wallet = accounts.start(self._meter, user, name, config)
            self._meter.gate.announce(wallet)
            return live_state(self._meter, wallet)
        return _unlimited(user, name)


def known_user(user_id: object) -> str:
    """
    The id of a user who must be somebody.

    Raises:
        ValueError: Empty, too long, or not encodable.
    """
    checked = checked_user_id(user_id)
    if checked is None:
        raise ValueError("user_id must not be empty")
    return checked


def plan_named(name: object) -> str:
    """
    The name of a plan.

    Raises:
        ValueError: Not a text, empty, or not encodable.
    """
    accounts.checked_label("plan", name)
    if not isinstance(name, str) or not name:
        raise ValueError("plan must be named by a text that is not empty")
    return name


def _unlimited(user_id: str, plan: str = DEFAULT_PLAN) -> UserState:
    """What is answered where a fault of ours keeps the true state from being known."""
    return UserState(user_id=user_id, plan=plan, plan_config=PlanConfig(), current_usage=CurrentUsage())
