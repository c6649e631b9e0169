-- Derived: one row per project and minute, replaced as a whole by a higher version. Read the view usage_1m instead.
CREATE TABLE IF NOT EXISTS {database}.usage_1m_groups
(
    project_id        LowCardinality(String)   COMMENT 'Project.',
    bucket            DateTime('UTC')          COMMENT 'Start of the minute.' CODEC(Delta, ZSTD(1)),
    version           UInt64                   COMMENT 'Version: nanoseconds of the store''s clock, read before its inputs were. The highest counts.' CODEC(Delta, ZSTD(1)),
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
    )                                          COMMENT 'Sums over the calls of that minute, per combination of dimensions.' CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (project_id, bucket)
TTL bucket + toIntervalDay({derived_retention_days})
COMMENT 'Derived, internal: usage of one minute as nested arrays, one row per version. Read usage_1m instead.'
