-- Facts: what could not be used, and why. The original bytes stay in the dead-letter topic at log_partition and
-- log_offset: their redaction is a pattern over bytes that this table does not see.
CREATE TABLE IF NOT EXISTS {database}.dead_letters
(
    project_id       LowCardinality(String)  COMMENT 'Project; empty when not even the envelope was readable.',
    reason           LowCardinality(String)  COMMENT 'Reason code: undecodable, bad_compression, too_large, bad_envelope, event_too_large or poison.',
    message          String                  COMMENT 'What exactly went wrong.' CODEC(ZSTD(1)),
    stage            LowCardinality(String)  COMMENT 'Stage that gave up: processor or aggregator.',
    records          UInt32                  COMMENT 'Records lost with it, as the gateway counted them.',
    received_at      DateTime64(9, 'UTC')    COMMENT 'When the gateway accepted it.' CODEC(Delta, ZSTD(1)),
    failed_at        DateTime64(9, 'UTC')    COMMENT 'When it was given up.' CODEC(Delta, ZSTD(1)),
    request_id       String                  COMMENT 'The gateway''s id of the request.' CODEC(ZSTD(1)),
    key_id           LowCardinality(String)  COMMENT 'Public id of the API key that sent it.',
    route            LowCardinality(String)  COMMENT 'Door it came in by: events, otlp.logs, otlp.traces, otlp.metrics or raw.',
    format_hint      LowCardinality(String)  COMMENT 'Format named by the sender.',
    content_type     LowCardinality(String)  COMMENT 'Content-Type as sent.',
    content_encoding LowCardinality(String)  COMMENT 'Encoding of the original bytes.',
    payload_size     UInt64                  COMMENT 'Size of the original bytes, which stay in the dead-letter topic at log_partition and log_offset.',
    raw_partition    Int32                   COMMENT 'Partition of the raw record.',
    raw_offset       Int64                   COMMENT 'Offset of the raw record.',
    raw_index        Int32                   COMMENT 'Index of the record within the request; -1 for all of it.',
    log_partition    Int32                   COMMENT 'Partition of the dead-letter topic.',
    log_offset       Int64                   COMMENT 'Offset in that partition.',
    log_index        UInt32                  COMMENT 'Always 0: a record of that topic holds one dead letter.',
    insert_before    DateTime64(3, 'UTC')    COMMENT 'The insert that brought this row was not allowed to start after this time.' CODEC(ZSTD(1)),

    INDEX log_position (log_partition, log_offset) TYPE minmax GRANULARITY 1,
    CONSTRAINT insert_in_time CHECK insert_before > now64(3)
)
ENGINE = MergeTree
PARTITION BY toDate(failed_at)
PRIMARY KEY (project_id, toStartOfHour(failed_at), reason)
ORDER BY (project_id, toStartOfHour(failed_at), reason, failed_at)
TTL toDateTime(failed_at) + toIntervalDay({retention_days})
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000
COMMENT 'Facts: records that could not be used, with the reason and the place of the original bytes.'
