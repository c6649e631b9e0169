-- Facts: what the processor made of each raw record (INV-6): records = filtered + dead + context + sum(pieces.records).
CREATE TABLE IF NOT EXISTS {database}.settlements
(
    project_id       LowCardinality(String)  COMMENT 'Project.',
    raw_partition    Int32                   COMMENT 'Partition of the raw record.',
    raw_offset       Int64                   COMMENT 'Offset of the raw record.' CODEC(Delta, ZSTD(1)),
    received_at      DateTime64(9, 'UTC')    COMMENT 'When the gateway accepted it.' CODEC(Delta, ZSTD(1)),
    request_id       String                  COMMENT 'The gateway''s id of the request.' CODEC(ZSTD(1)),
    records          UInt32                  COMMENT 'Records as the gateway counted them, rejected ones excluded.',
    filtered         UInt32                  COMMENT 'Records dropped by policy.',
    dead             UInt32                  COMMENT 'Records that became dead letters.',
    context          UInt32                  COMMENT 'Records that only gave context to others.',
    events           UInt32                  COMMENT 'Events made of the others.',
    pieces Nested
    (
        partition    Int32,
        records      UInt32
    )                                        COMMENT 'Partitions of the events topic that the others went to, and how many records each.',
    log_partition    Int32                   COMMENT 'Partition of the events topic that carried this settlement.',
    log_offset       Int64                   COMMENT 'Offset in that partition.' CODEC(Delta, ZSTD(1)),
    log_index        UInt32                  COMMENT 'Index within that record.',
    insert_before    DateTime64(3, 'UTC')    COMMENT 'The insert that brought this row was not allowed to start after this time.' CODEC(ZSTD(1)),

    INDEX log_position (log_partition, log_offset) TYPE minmax GRANULARITY 1,
    CONSTRAINT insert_in_time CHECK insert_before > now64(3)
)
ENGINE = MergeTree
PARTITION BY toDate(received_at)
ORDER BY (project_id, toStartOfMinute(received_at), raw_partition, raw_offset)
TTL toDateTime(received_at) + toIntervalDay({retention_days})
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000
COMMENT 'Facts: the fate of every raw record, as the processor decided it. With piece_settlements it balances against what the gateway counted.'
