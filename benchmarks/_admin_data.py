"""A year-old company in a PostgreSQL database, by a few statements: users, events, and their exact sums."""

from __future__ import annotations

PLANS = 4
DAYS = 60

# {users} and {events} are how many; {now} and {month} are microseconds, {start} the first day.
STATEMENTS = (
    """
    INSERT INTO paygent_enduser (uuid, project_id, external_user_id, name, email, metadata, sdk_enabled,
    grant_window,
        grant_nusd, contended_us, created_us)
    SELECT gen_random_uuid(), {project}, 'user-' || i, 'Customer ' || i, 'customer' || i || '@example.com',
    '{{}}',
        true, '', 0, 0, {now} FROM generate_series(1, {users}) i
    """,
    """
    INSERT INTO paygent_subscription (user_id, plan_id, starts_us, ends_us, reference, created_us, created_by)
    SELECT u.id, p.id, {now} - (u.id % 300 + 1) * 86400000000, 4611686018427387904, '', {now}, 'bench'
    FROM paygent_enduser u JOIN paygent_plan p ON p.name = 'plan-' || (u.id % {plans}) WHERE u.id % 5 <> 0
    """,
    """
    INSERT INTO paygent_event (project_id, user_id, plan_id, event_id, timestamp_us, received_us, period,
    session,
        provider, operation, model, request_model, response_model, input_tokens, output_tokens,
        cache_read_input_tokens, cache_write_input_tokens, reasoning_output_tokens, cost_tokens_nusd,
        cost_tools_nusd,
        cost_nusd, metadata, source, estimated, cost_explicit, rate_source, tag)
    SELECT {project}, e.user_id, s.plan_id, gen_random_uuid()::text, e.ts, e.ts,
        CASE WHEN e.ts >= {month} THEN 'p{month}' ELSE 'p0' END, 's' || e.ts || ':x', 'openai', 'chat',
        'model-' || e.model, 'model-' || e.model, 'model-' || e.model, e.tokens, 100, 0, 0, 0, e.cost, 0,
        e.cost,
        '{{"feature": "tag-' || e.tag || '"}}', 'auto', e.i % 25 = 0, false, 'plan', 'tag-' || e.tag
    FROM (
        SELECT i, {first_user} + (power(random(), 3) * ({users} - 1))::bigint AS user_id, i % 8 AS model,
            (i / 8) % 12 AS tag, (200 + random() * 4000)::bigint AS tokens,
            (100000 + random() * 9000000)::bigint AS cost,
            {now} - (random() * {days} * 86400000000)::bigint AS ts
        FROM generate_series(1, {events}) i
    ) e LEFT JOIN paygent_subscription s ON s.user_id = e.user_id
    """,
    """
    INSERT INTO paygent_total ("user_id", "window", scope, key, amount)
    SELECT user_id, period, 'total_spend', md5('total_spend' || period), SUM(cost_nusd)
    FROM paygent_event GROUP BY user_id, period
    """,
    """
    INSERT INTO paygent_total ("user_id", "window", scope, key, amount)
    SELECT user_id, period, 'model_limit:' || model, md5(model || period), SUM(input_tokens + output_tokens)
    FROM paygent_event GROUP BY user_id, period, model
    """,
    """
    INSERT INTO paygent_userusage (project_id, user_id, grain, starts, calls, input_tokens, output_tokens,
    cost_nusd,
        estimated_nusd)
    SELECT {project}, user_id, g.grain, CASE WHEN g.grain = 1 THEN d.day ELSE date_trunc('month',
    d.day)::date END,
        COUNT(*), SUM(input_tokens), SUM(output_tokens), SUM(cost_nusd), 0
    FROM paygent_event e, (VALUES (1), (2)) g(grain),
        LATERAL (SELECT (to_timestamp(e.timestamp_us / 1000000) AT TIME ZONE 'UTC')::date AS day) d
    GROUP BY 1, 2, 3, 4
    """,
    """
    INSERT INTO paygent_dailyusage (project_id, day, plan_id, model, tag, key, shard, calls, input_tokens,
    output_tokens,
        cost_nusd, estimated_nusd)
    SELECT {project}, (to_timestamp(timestamp_us / 1000000) AT TIME ZONE 'UTC')::date, plan_id, model, tag,
        md5(COALESCE(plan_id, 0) || model || tag), user_id % 8, COUNT(*), SUM(input_tokens),
        SUM(output_tokens),
        SUM(cost_nusd), SUM(CASE WHEN estimated THEN cost_nusd ELSE 0 END)
    FROM paygent_event GROUP BY 1, 2, 3, 4, 5, 6, 7
    """,
    """
    INSERT INTO paygent_gateevent (project_id, user_id, gate_id, timestamp_us, status, gate_reason, usage_pct,
        current_value, limit_value, model, blocked, count)
    SELECT {project}, user_id, event_id, timestamp_us, 'hard_gate', 'total_spend', 1.0, 2.0, 2.0, model,
    true, 1
    FROM paygent_event WHERE id % 20 = 0
    """,
    """
    INSERT INTO paygent_dailygate (project_id, day, status, gate_reason, blocked, key, shard, count)
    SELECT {project}, (to_timestamp(timestamp_us / 1000000) AT TIME ZONE 'UTC')::date, status, gate_reason,
    blocked,
        'all', user_id % 8, COUNT(*) FROM paygent_gateevent GROUP BY 1, 2, 3, 4, 5, 6, 7
    """,
    """
    INSERT INTO paygent_lease (user_id, lease_id, seq, expires_us, amounts, busy)
    SELECT id, 'lease-' || id, 1, {now} + 20000000, '[["total_spend", "p{month}", 1000]]', false
    FROM paygent_enduser ORDER BY id DESC LIMIT 500
    """,
    "VACUUM ANALYZE",
)
