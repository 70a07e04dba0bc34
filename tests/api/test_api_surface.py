"""Every symbol, signature and default of the SDK reference."""

from __future__ import annotations

import importlib
import inspect
import pickle

import pytest

import paygent
from paygent import Paygent

SYMBOLS = [
    "Paygent",
    "paygent_context",
    "paygent_track",
    "PaygentLimitExceeded",
    "PaygentBackendUnreachable",
    "PaygentAuthInvalid",
    "PlanConfig",
    "ModelCostRate",
    "ModelLimitConfig",
    "GuardResult",
    "UsageEvent",
    "CurrentUsage",
    "ModelUsage",
    "UserState",
    "BudgetRemaining",
    "MaxTokensAdvice",
    "BillingPeriod",
    "UserSession",
    "GateEvent",
    "PaygentUnavailable",
    "ProviderRegistry",
    "paygent_exempt",
]
MODELS = [
    "PlanConfig",
    "ModelCostRate",
    "ModelLimitConfig",
    "GuardResult",
    "UsageEvent",
    "CurrentUsage",
    "ModelUsage",
    "UserState",
    "BudgetRemaining",
    "MaxTokensAdvice",
    "BillingPeriod",
    "UserSession",
    "GateEvent",
]


class Reference:
    """The signatures as the reference prints them."""

    def init(
        self,
        api_key=None,
        base_url=None,
        db_path=None,
        flush_interval=5.0,
        max_batch_size=100,
        max_queue_size=10_000,
        raise_on_hard_gate=True,
        auto_instrument=True,
        registry=None,
        refresh_interval=60.0,
        strict_backend=False,
    ): ...
    def get_instance(self): ...
    def instrument(self): ...
    def uninstrument(self): ...
    def flush(self): ...
    def shutdown(self, timeout=10.0): ...
    def wrap(
        self,
        call,
        *,
        user_id,
        model=None,
        session_id=None,
        metadata=None,
        provider=None,
        estimated_input_tokens=None,
        estimated_max_tokens=None,
    ): ...

    awrap = wrap

    def track(self, user_id=None, session_id=None, plan=None, metadata=None, *, user_id_param=None): ...
    def check_guard(self, user_id, model=None): ...
    def is_within_limit(self, user_id, model=None): ...
    def get_remaining_budget(self, user_id): ...
    def get_max_tokens(self, user_id, model, *, estimated_input_tokens=0, messages=None, hard_cap=4096): ...
    def get_usage(self, user_id): ...
    def get_model_usage(self, user_id): ...
    def get_user_state(self, user_id): ...
    def refresh_user(self, user_id): ...
    def reset_user(self, user_id): ...
    def on_soft_gate(self, callback): ...
    def on_hard_gate(self, callback): ...
    def on_usage(self, callback): ...
    def on_session_start(self, callback): ...
    def configure_plan(self, plan_name, config): ...
    def assign_plan(self, user_id, plan, billing_period=None): ...
    def start_session(self, user_id, plan="default", plan_config=None): ...
    def record_event(
        self,
        user_id=None,
        cost=None,
        model=None,
        input_tokens=0,
        output_tokens=0,
        description=None,
        metadata=None,
        idempotency_key=None,
    ): ...


def paygent_context(user_id, session_id=None, plan=None, metadata=None): ...
def paygent_track(user_id=None, session_id=None, plan=None, metadata=None, *, user_id_param=None): ...


METHODS = [name for name in vars(Reference) if not name.startswith("_")]


def parameters(function):
    return [
        (p.name, p.default, p.kind)
        for p in inspect.signature(function).parameters.values()
        if p.name != "self"
    ]


@pytest.mark.parametrize("name", SYMBOLS)
def test_every_public_symbol_is_importable(name):
    """Each symbol of the reference is importable from ``paygent`` and listed there."""
    assert getattr(paygent, name) is not None
    assert name in paygent.__all__


@pytest.mark.parametrize("name", MODELS)
def test_models_have_their_usual_home(name):
    """``paygent.models`` offers the models under the same names."""
    assert getattr(importlib.import_module("paygent.models"), name) is getattr(paygent, name)


@pytest.mark.parametrize("name", ["paygent_context", "paygent_track", "paygent_exempt"])
def test_contexts_have_their_usual_home(name):
    """``paygent.context`` offers the context managers under the same names."""
    assert getattr(importlib.import_module("paygent.context"), name) is getattr(paygent, name)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_the_signature_of_the_reference(name):
    """Names, order, defaults and kinds are those of the reference; what we add is keyword-only."""
    wanted, found = parameters(getattr(Reference, name)), parameters(getattr(Paygent, name))
    assert found[: len(wanted)] == wanted
    extra = found[len(wanted) :]
    assert all(kind is inspect.Parameter.KEYWORD_ONLY for _, _, kind in extra)
    assert all(default is not inspect.Parameter.empty for _, default, _ in extra)


@pytest.mark.parametrize("function", [paygent_context, paygent_track])
def test_a_function_has_the_signature_of_the_reference(function):
    """``paygent_context`` and ``paygent_track`` take exactly what the reference prints."""
    assert parameters(getattr(paygent, function.__name__)) == parameters(function)


def test_awrap_is_a_coroutine_function():
    """``awrap`` is awaited, ``wrap`` is called."""
    assert inspect.iscoroutinefunction(Paygent.awrap)
    assert not inspect.iscoroutinefunction(Paygent.wrap)


FIELDS = {
    "PlanConfig": """max_spend_per_period=inf max_spend_per_session=inf soft_gate_at=0.8 hard_gate_at=1.0
        model_limits={} cost_rates={} default_cost_rate=None tool_costs={} default_tool_cost=0.02
        session_timeout_minutes=30.0 pre_call_estimate=False pre_call_buffer_tokens=4096
        reservation_safety_factor=1.2""",
    "ModelLimitConfig": "max_tokens_per_period=None",
    "GuardResult": """status='ok' gate_reason=None usage_pct=0.0 current_value=0.0 limit_value=0.0
        message=None""",
    "CurrentUsage": """period_cost=0.0 session_cost=0.0 session_id=None session_started_at=None
        period_tokens_total=0 period_tokens_by_model={} period_cost_by_model={} reserved_cost=0.0
        reserved_tokens_by_model={}""",
    "BudgetRemaining": """period_spend_remaining=inf session_spend_remaining=inf model_tokens_remaining={}
        most_constrained='unbounded'""",
    "MaxTokensAdvice": """max_tokens=0 binding_limit='unbounded' period_spend_remaining=inf
        session_spend_remaining=inf model_tokens_remaining=None""",
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_model_has_the_defaults_of_the_reference(name):
    """Fields and defaults of a model without arguments are those that the reference prints."""
    assert repr(getattr(paygent, name)()) == f"{name}({', '.join(FIELDS[name].split())})"


@pytest.mark.parametrize(
    "name, fields",
    [
        ("ModelCostRate", "input output"),
        ("ModelUsage", "model tokens_used tokens_limit cost"),
        ("BillingPeriod", "start end"),
        (
            "UsageEvent",
            """id user_id session_id timestamp model input_tokens output_tokens total_tokens tool_calls
            cost_tokens cost_tools cost_total metadata synced""",
        ),
        (
            "UserState",
            """user_id paygent_user_id plan sdk_enabled plan_config current_usage billing_period
            last_refreshed""",
        ),
    ],
)
def test_a_model_has_the_fields_of_the_reference(name, fields):
    """The fields of the reference come first, in its order."""
    wanted = fields.split()
    assert list(getattr(paygent, name).model_fields)[: len(wanted)] == wanted


def test_user_session_is_the_former_name_of_user_state():
    """``UserSession`` is an alias, so that old ``isinstance`` checks hold."""
    assert paygent.UserSession is paygent.UserState


def test_a_refusal_carries_its_guard_result_through_pickle():
    """Task queues carry exceptions between processes: the refusal survives with its fields."""
    error = paygent.PaygentLimitExceeded(paygent.GuardResult(status="hard_gate", gate_reason="model_limit:m"))
    copy = pickle.loads(pickle.dumps(error))
    assert copy.guard_result == error.guard_result
    assert copy.refusal.code == "model_tokens"
    assert copy.retryable is False


@pytest.mark.parametrize("name", ["PaygentBackendUnreachable", "PaygentAuthInvalid"])
def test_backend_warnings_are_user_warnings(name):
    """The two warnings of ``init()`` can be filtered, and raised."""
    assert issubclass(getattr(paygent, name), UserWarning)
