-- Derived: the share of one group (a session; the trace itself, for events that name no session) in one trace, replaced as
-- a whole by a higher version. A trace that several sessions name has a row for each. Read the view traces instead.
CREATE TABLE IF NOT EXISTS {database}.trace_groups
(
    project_id          LowCardinality(String)  COMMENT 'Project.',
    trace_id            String                  COMMENT 'Trace.' CODEC(ZSTD(1)),
    group_kind          LowCardinality(String)  COMMENT 'session or trace.',
    group_id            String                  COMMENT 'Session id or trace id.' CODEC(ZSTD(1)),
    version             UInt64                  COMMENT 'Version: nanoseconds of the store''s clock, read before the facts were. The highest counts.' CODEC(Delta, ZSTD(1)),
    name                String                  COMMENT 'Name: that of the trace''s own record, else of its root span; empty when neither is there.' CODEC(ZSTD(1)),
    user_id             String                  COMMENT 'Person or account.' CODEC(ZSTD(1)),
    started_at          DateTime64(9, 'UTC')    COMMENT 'Time of the first event.' CODEC(ZSTD(1)),
    ended_at            DateTime64(9, 'UTC')    COMMENT 'Time of the last event or its end.' CODEC(ZSTD(1)),
    first_received_at   DateTime64(9, 'UTC')    COMMENT 'When its first event was received.' CODEC(ZSTD(1)),
    last_received_at    DateTime64(9, 'UTC')    COMMENT 'When its last event was received.' CODEC(ZSTD(1)),
    event_count         UInt64                  COMMENT 'Events, repeats counted once.' CODEC(T64, ZSTD(1)),
    observation_count   UInt64                  COMMENT 'Observations: spans, calls and records with an id of their own within the trace.' CODEC(T64, ZSTD(1)),
    error_count         UInt64                  COMMENT 'Observations and events that failed.' CODEC(T64, ZSTD(1)),
    score_count         UInt64                  COMMENT 'Scores.' CODEC(T64, ZSTD(1)),
    llm_call_count      UInt64                  COMMENT 'Calls to models.' CODEC(T64, ZSTD(1)),
    llm_error_count     UInt64                  COMMENT 'Calls to models that failed.' CODEC(T64, ZSTD(1)),
    tool_call_count     UInt64                  COMMENT 'Tool calls.' CODEC(T64, ZSTD(1)),
    tool_error_count    UInt64                  COMMENT 'Tool calls that failed.' CODEC(T64, ZSTD(1)),
    in_uncached         UInt64                  COMMENT 'Input tokens neither read from nor written to a cache, over its calls. The six token columns are disjoint.' CODEC(T64, ZSTD(1)),
    cache_read          UInt64                  COMMENT 'Input tokens read from a cache.' CODEC(T64, ZSTD(1)),
    cache_write_5m      UInt64                  COMMENT 'Input tokens written to a 5-minute cache.' CODEC(T64, ZSTD(1)),
    cache_write_1h      UInt64                  COMMENT 'Input tokens written to a 1-hour cache.' CODEC(T64, ZSTD(1)),
    out_visible         UInt64                  COMMENT 'Output tokens that are not reasoning.' CODEC(T64, ZSTD(1)),
    out_reasoning       UInt64                  COMMENT 'Output tokens spent on reasoning.' CODEC(T64, ZSTD(1)),
    cost_reported       Decimal(18, 9)          COMMENT 'Sum of the reported costs in USD, over the calls that have one.' CODEC(ZSTD(1)),
    cost_reported_calls UInt64                  COMMENT 'Calls with a reported cost.' CODEC(T64, ZSTD(1)),
    cost_computed       Decimal(18, 9)          COMMENT 'Sum of the computed costs in USD, over the calls that have one.' CODEC(ZSTD(1)),
    cost_computed_calls UInt64                  COMMENT 'Calls with a computed cost. Fewer than llm_call_count: some prices are unknown.' CODEC(T64, ZSTD(1)),
    guessed_calls       UInt64                  COMMENT 'Calls whose counting involved a guess.' CODEC(T64, ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (project_id, trace_id, group_kind, group_id)
TTL toDateTime(last_received_at) + toIntervalDay({derived_retention_days})
COMMENT 'Derived, internal: the share of a session in a trace, one row per version. Read traces instead.'
