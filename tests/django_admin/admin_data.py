"""Data as a young company has it: plans, users of all kinds, two months of calls, refusals and refunds."""

import random
import uuid

from paygent.core.events import Event
from paygent.core.windows import billing_period, from_us
from paygent.ledger import GateRow
from paygent_django import services
from paygent_django.models import EndUser, Lease, PlanVersion, Project, Subscription
from paygent_django.models.moments import now_us

USD = 10**9
DAY_US = 86_400_000_000
STRANGE = "org/42?x=#é 💥"
FORMULA = '=HYPERLINK("http://evil.example","you won")'
MARKUP = "<script>alert('x')</script>"
MODELS = {
    "gpt-4o": (25_000, 100_000),
    "gpt-4o-mini": (3_500, 14_000),
    "claude-sonnet-4-5": (33_000, 165_000),
    "text-embedding-3-small": (800, 0),
}
WEIGHTS = (5, 8, 6, 3)
FEATURES = ("chat", "summarise", "search", "draft-email", "")
NAMES = (
    "Ada Lovelace", "Grace Hopper", "Alan Turing", "Katherine Johnson", "Edsger Dijkstra", "Barbara Liskov",
    "Donald Knuth", "Radia Perlman", "Tim Berners-Lee", "Margaret Hamilton", "Ken Thompson", "Frances Allen",
    "Leslie Lamport", "Hedy Lamarr", "Niklaus Wirth", "Sophie Wilson", "Tony Hoare", "Anita Borg",
)  # fmt: skip


def plans(project):
    """Free, Pro and Team, and the first two versions of Pro."""
    rates = {"gpt-4o": {"input": 0.0025, "output": 0.01, "cache_read": 0.00125}}
    free = {"max_spend_per_period": 2.0, "max_spend_per_session": 0.5, "pre_call_estimate": True}
    pro = {
        "max_spend_per_period": 18.0,
        "max_spend_per_session": 5.0,
        "cost_rates": rates,
        "model_limits": {
            "gpt-4o": {"max_tokens_per_period": 2_000_000},
            "claude-sonnet-4-5": {},
            "gpt-4o-mini": {},
        },
        "tool_costs": {"web_search": 0.01},
    }
    save = services.save_plan
    made = {
        "free": save(project, "free", free, label="Free", price_nano=0, rank=0, by="maya").plan,
        "pro": save(
            project,
            "pro",
            {**pro, "max_spend_per_period": 12.0},
            label="Pro",
            price_nano=19 * USD,
            rank=1,
            by="maya",
        ).plan,
        "team": save(
            project,
            "team",
            {"max_spend_per_period": 60.0},
            label="Team",
            price_nano=99 * USD,
            rank=2,
            by="maya",
        ).plan,
    }
    made["pro"] = save(project, "pro", pro, label="Pro", price_nano=24 * USD, by="jonas").plan
    services.set_default_plan(project, made["free"])
    return made


def event_of(user, ts_us, cost_nusd=None, *, rng=random, **changes):
    """An event of a user as his process would have posted it."""
    model = changes.pop("model", None) or rng.choices(list(MODELS), WEIGHTS)[0]
    tokens_in, tokens_out = rng.randint(200, 6000), rng.randint(50, 1500)
    if cost_nusd is None:
        rate_in, rate_out = MODELS[model]
        cost_nusd = tokens_in * rate_in + tokens_out * rate_out
    feature = rng.choice(FEATURES)
    event = Event(
        id=str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        user_id=user,
        timestamp_us=ts_us,
        period=billing_period(None, ts_us).key,
        session=f"s{ts_us // 3_600_000_000}:x",
        session_id=None,
        provider="openai" if model.startswith(("gpt", "text")) else "anthropic",
        operation="chat",
        model=model,
        request_model=model,
        response_model=model,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        cache_read_input_tokens=0,
        cache_write_input_tokens=0,
        reasoning_output_tokens=0,
        cost_tokens_nusd=cost_nusd,
        cost_tools_nusd=0,
        tool_calls=(),
        metadata={"feature": feature} if feature else None,
        source="auto",
        estimated=int(rng.random() < 0.04),
        cost_explicit=0,
        rate_source="plan",
        description=None,
    )
    return event._replace(**changes)


def gate_of(user, ts_us, *, blocked=True, reason="total_spend", used=2.0, limit=2.0, count=1):
    """A decision of the gate."""
    status = "hard_gate" if blocked else "soft_gate"
    return GateRow(
        str(uuid.uuid4()),
        user,
        ts_us,
        None,
        status,
        reason,
        used / limit,
        used,
        limit,
        "gpt-4o",
        int(blocked),
        "the limit is reached",
        None,
        count,
    )


def believable(project=None, *, days=60, calls=2500, seed=7, now=None):
    """Fill a database; returns the project."""
    rng, project, now = random.Random(seed), project or services.project(), now or now_us()
    made = plans(project)
    users = [(f"user_{4100 + index * 37}", name) for index, name in enumerate(NAMES)]
    users += [(STRANGE, MARKUP), ("formula", FORMULA)]
    rows = {}
    for index, (user_id, name) in enumerate(users):
        mail = name.split()[0].lower() + "@example.com" if index < len(NAMES) else ""
        rows[user_id] = services.create_user(project, user_id, name=name, email=mail)
        plan = made[("free", "pro", "pro", "team")[index % 4]]
        if plan is not made["free"]:
            services.subscribe(rows[user_id], plan, by="stripe")
    # what was bought today has run for a while
    Subscription.objects.using(project._state.db).filter(user__project=project).update(
        starts_us=now - (days - 20) * DAY_US
    )
    ledger = services.ledger_of(project)
    caps = {user: (2.0, 18.0, 18.0, 60.0)[index % 4] for index, user in enumerate(rows)}
    events = list(_within(caps, _calls(rng, rows, now, days, calls)))
    for start in range(0, len(events), 500):
        ledger.settle(events[start : start + 500])
    ledger.record_gates(_decisions(rng, list(rows), now, days))
    _long_ago(rows.values(), now - days * DAY_US)
    services.grant(rows["user_4137"], 5 * USD, reason="Outage on the 3rd", by="maya")
    services.set_metering(rows["user_4729"], False)
    _leases(rows, now)
    return Project.objects.using(project._state.db).get(pk=project.pk)


def _long_ago(users, since):
    """Users and the versions of plans as old as the events say."""
    for number, user in enumerate(users):
        EndUser.objects.using(user._state.db).filter(pk=user.pk).update(
            created_us=since - number * DAY_US // 3
        )
    project = next(iter(users)).project
    for version in PlanVersion.objects.using(project._state.db).filter(plan__project=project):
        moved = since + (version.number - 2) * 23 * DAY_US
        type(version).objects.using(project._state.db).filter(pk=version.pk).update(created_us=moved)


def _calls(rng, rows, now, days, calls):
    weights = [1 / (index + 2) for index in range(len(rows))]
    events = []
    for _ in range(calls):
        back = days * (1 - rng.random() ** 0.7)
        moment = now - int(back * DAY_US) - rng.randint(0, 3_600_000_000)
        if from_us(moment).weekday() >= 5 and rng.random() < 0.6:
            continue
        user = rng.choices(list(rows), weights)[0]
        events.append(event_of(user, moment, rng=rng))
    return sorted(events, key=lambda one: one.timestamp_us)


def _within(caps, events):
    """What the gate would have admitted: the call that reaches the limit is the last one of its month."""
    spent = {}
    for event in events:
        account = event.user_id, event.period
        if spent.get(account, 0) < caps[event.user_id] * USD:
            spent[account] = spent.get(account, 0) + event.cost_nusd
            yield event


def _decisions(rng, users, now, days):
    found = []
    for back in range(days):
        for _ in range(rng.randint(0, 7)):
            reason = rng.choice(["total_spend", "total_spend", "session_spend", "model_limit:gpt-4o"])
            used, limit = (2_000_412.0, 2_000_000.0) if reason.startswith("model") else (2.01, 2.0)
            moment = now - back * DAY_US - rng.randint(0, DAY_US - 1)
            found.append(gate_of(rng.choice(users), moment, reason=reason, used=used, limit=limit,
                                 blocked=rng.random() < 0.7, count=rng.randint(1, 4)))  # fmt: skip
    return found


def _leases(rows, now):
    user = rows["user_4137"]
    window = billing_period(None, now).key
    for index in range(2):
        Lease.objects.using(user._state.db).create(
            user=user, lease_id=str(uuid.UUID(int=index + 77)), seq=40 + index,
            expires_us=now + (28 - index * 7) * 1_000_000, busy=False,
            amounts=[["total_spend", window, (index + 1) * 120_000_000]],
        )  # fmt: skip
