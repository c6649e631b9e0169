-- Derived: what one group contributes to one minute of usage. Written with every recomputation of the group, for every
-- minute in which it has a sighting (empty when no call counts there any more), so that a minute is recomputed from a
-- short range of this table and never by a scan over the groups.
CREATE TABLE IF NOT EXISTS {database}.usage_contributions
(
    project_id        LowCardinality(String)   COMMENT 'Project.',
    minute            DateTime('UTC')          COMMENT 'Minute.' CODEC(Delta, ZSTD(1)),
    group_kind        LowCardinality(String)   COMMENT 'session, trace or loose.',
    group_id          String                   COMMENT 'Session id, trace id or minute.' CODEC(ZSTD(1)),
    version           UInt64                   COMMENT 'Version of the group. The highest counts.' CODEC(Delta, ZSTD(1)),
    usage Nested
    (
        source               LowCardinality(String),
        provider             LowCardinality(String),
        model                LowCardinality(String),
        agent_name           LowCardinality(String),
        user_id              LowCardinality(String),
        calls                UInt64,
        errors               UInt64,
        in_uncached          UInt64,
        cache_read           UInt64,
        cache_write_5m       UInt64,
        cache_write_1h       UInt64,
        out_visible          UInt64,
        out_reasoning        UInt64,
        cost_reported        Decimal(18, 9),
        cost_reported_calls  UInt64,
        cost_computed        Decimal(18, 9),
        cost_computed_calls  UInt64,
        duration_us          UInt64,
        duration_calls       UInt64,
        guessed_calls        UInt64
    )                                          COMMENT 'Sums over the group''s calls of that minute, per combination of dimensions.' CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (project_id, minute, group_kind, group_id)
TTL minute + toIntervalDay({derived_retention_days})
COMMENT 'Derived, internal: the share of one session, trace or loose minute in one minute of usage. Read usage_1m or usage_1h instead.'
