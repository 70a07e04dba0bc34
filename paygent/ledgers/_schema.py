"""The tables of the SQLite ledger. Amounts are integers: nano-dollars, or tokens for a model's limit."""

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE accounts (
    user_id TEXT PRIMARY KEY,
    plan TEXT,                      -- NULL: the plan named "default", if there is one
    own_config TEXT,                -- JSON of a PlanConfig that binds this user alone
    period_start_us INTEGER, period_end_us INTEGER,
    sdk_enabled INTEGER NOT NULL DEFAULT 1,
    contended_us INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE plans (
    name TEXT PRIMARY KEY, key TEXT NOT NULL, config TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE sessions (
    user_id TEXT NOT NULL, own_id TEXT NOT NULL,    -- "" is the default session
    session_id TEXT NOT NULL, started_us INTEGER NOT NULL, ends_us INTEGER NOT NULL,
    PRIMARY KEY (user_id, own_id)
) WITHOUT ROWID;
CREATE INDEX sessions_by_end ON sessions (ends_us);
CREATE TABLE totals (
    user_id TEXT NOT NULL, scope TEXT NOT NULL, window TEXT NOT NULL, amount INTEGER NOT NULL,
    PRIMARY KEY (user_id, window, scope)
) WITHOUT ROWID;
CREATE TABLE leases (
    user_id TEXT NOT NULL, lease_id TEXT NOT NULL, seq INTEGER NOT NULL, expires_us INTEGER NOT NULL,
    amounts TEXT NOT NULL, denied TEXT, busy INTEGER NOT NULL,
    PRIMARY KEY (user_id, lease_id)
) WITHOUT ROWID;
CREATE INDEX leases_by_process ON leases (lease_id);
CREATE TABLE events (
    id TEXT PRIMARY KEY, user_id TEXT NOT NULL, timestamp_us INTEGER NOT NULL,
    period TEXT NOT NULL, session TEXT NOT NULL, session_id TEXT,
    provider TEXT, operation TEXT, model TEXT, request_model TEXT, response_model TEXT,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    cache_read_input_tokens INTEGER NOT NULL, cache_write_input_tokens INTEGER NOT NULL,
    reasoning_output_tokens INTEGER NOT NULL,
    cost_tokens_nusd INTEGER NOT NULL, cost_tools_nusd INTEGER NOT NULL,
    tool_calls TEXT, metadata TEXT, source TEXT NOT NULL,
    estimated INTEGER NOT NULL, cost_explicit INTEGER NOT NULL, rate_source TEXT, description TEXT
) WITHOUT ROWID;
CREATE INDEX events_by_user ON events (user_id, timestamp_us);
CREATE TABLE gate_events (
    id TEXT PRIMARY KEY, user_id TEXT NOT NULL, timestamp_us INTEGER NOT NULL, session_id TEXT,
    status TEXT NOT NULL, gate_reason TEXT, usage_pct REAL NOT NULL, current_value REAL NOT NULL,
    limit_value REAL NOT NULL, model TEXT, blocked INTEGER NOT NULL, message TEXT, metadata TEXT,
    count INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX gate_events_by_user ON gate_events (user_id, timestamp_us);
CREATE TABLE jobs (
    provider TEXT NOT NULL, job_id TEXT NOT NULL, user_id TEXT NOT NULL, session_id TEXT, model TEXT,
    metadata TEXT,
    PRIMARY KEY (provider, job_id)
) WITHOUT ROWID;
CREATE TABLE job_aliases (
    provider TEXT NOT NULL, alias TEXT NOT NULL, job_id TEXT NOT NULL, PRIMARY KEY (provider, alias)
) WITHOUT ROWID;
"""
