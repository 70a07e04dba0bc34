import pytest
from engine_values import call, plan

from paygent.ledger import LeaseRequest
from paygent.meter.purse import ModelPurse


@pytest.fixture
def pg(init):
    pg = init(ledger="memory://")
    pg.configure_plan("default", plan(1e9, default_cost_rate={"input": 1.0, "output": 1.0}))
    return pg


def answer(model="m"):
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    return {"object": "chat.completion", "choices": [], "model": model, "usage": usage}


def ask(pg, model="m", session=None):
    pg.wrap(lambda: answer(model), user_id="ada", model=model, provider="openai", session_id=session)


def test_a_user_at_rest_keeps_no_empty_containers(pg):
    """After a call, once it is settled, a user has his three purses and nothing made for more of them."""
    ask(pg)
    pg.flush()
    wallet = pg._meter.wallets["ada"]
    assert wallet.more is None
    assert wallet.events == ()
    assert wallet.asks is None
    assert wallet.sessions is None
    assert len(wallet.purses) == 3


def test_models_asked_in_turn_keep_their_own_purses(pg):
    """A user who changes models with every call has the tokens and the cost of each, and no hold left."""
    for _ in range(3):
        ask(pg, "m")
        ask(pg, "n")
    pg.flush()
    purses = {p.scope: p for p in pg._meter.wallets["ada"].purses.values() if isinstance(p, ModelPurse)}
    assert {scope: (p.used, p.held) for scope, p in purses.items()} == {
        "model_limit:m": (45, 0),
        "model_limit:n": (45, 0),
    }
    usage = pg.get_usage("ada")
    assert usage.period_tokens_by_model == {"m": 45, "n": 45}
    assert sum(usage.period_cost_by_model.values()) == pytest.approx(usage.period_cost)


def test_sessions_in_turn_keep_their_own_purses(pg):
    """Calls of two named sessions and of the default one count each in its own purse."""
    for session in ("one", "two", None) * 2:
        ask(pg, session=session)
    wallet = pg._meter.wallets["ada"]
    spent = {p.window.key: p.used for p in wallet.purses.values() if p.scope == "session_spend"}
    assert len(spent) == 3
    assert len(set(spent.values())) == 1
    assert sum(spent.values()) == wallet.period_purse.used


def test_a_wallet_that_was_dropped_does_not_speak_for_the_one_after_it(init):
    """A reader that still has it does not empty the lease of the new one, and gets the new one."""
    pg = init(ledger="memory://", flush_interval=1e6)
    pg.configure_plan("default", plan(1000))
    call(pg)
    pg.flush(give_back=True)
    old, exporter = pg._meter.wallets["ada"], pg._meter.exporter
    refresh = exporter.refresh

    def late(wallet):
        exporter.refresh = refresh
        pg.reset_user("ada")
        call(pg)
        return refresh(wallet)

    exporter.refresh = late
    assert pg.get_usage("ada").period_cost == pytest.approx(0.02)
    new = pg._meter.wallets["ada"]
    assert new is not old
    bucket, elsewhere = new.period_purse.bucket, LeaseRequest("ada", "elsewhere", 1)
    (reply,) = exporter.call(lambda ledger: ledger.lease([elsewhere])).result(30)
    assert reply.others[bucket] == new.period_purse.lease > 0


@pytest.mark.parametrize("read", ["refresh_user", "assign_plan"])
def test_a_user_who_is_reset_while_he_is_loaded_is_loaded_anew(init, read):
    """The state that is returned is of the wallet that lives on, with the plan."""
    pg = init(ledger="memory://")
    pg.configure_plan("default", plan(10))
    exporter = pg._meter.exporter
    refresh = exporter.refresh

    def late(wallet):
        exporter.refresh = refresh
        pg.reset_user("bob")
        return refresh(wallet)

    exporter.refresh = late
    getattr(pg, read)(*["bob", "default"][: 1 + (read == "assign_plan")])
    state = pg.get_user_state("bob")
    assert state.plan_config.max_spend_per_period == pytest.approx(0.1)
    assert pg.queue_stats["last_error"] is None
