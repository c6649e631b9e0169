-- Facts: what the aggregator did with one raw record's events out of one record of the events topic. Written after
-- the events are proved stored, never before (INV-6).
CREATE TABLE IF NOT EXISTS {database}.piece_settlements
(
    project_id       LowCardinality(String)  COMMENT 'Project.',
    raw_partition    Int32                   COMMENT 'Partition of the raw record.',
    raw_offset       Int64                   COMMENT 'Offset of the raw record.' CODEC(Delta, ZSTD(1)),
    received_at      DateTime64(9, 'UTC')    COMMENT 'When the gateway accepted it.' CODEC(Delta, ZSTD(1)),
    first_index      UInt32                  COMMENT 'Lowest index (within the request) of the records in this piece.',
    last_index       UInt32                  COMMENT 'Highest index of the records in this piece.',
    stored           UInt32                  COMMENT 'Records of which at least one event is stored.',
    duplicate        UInt32                  COMMENT 'Records all of whose events were known already.',
    events           UInt32                  COMMENT 'Events of this piece that are stored.',
    log_partition    Int32                   COMMENT 'Partition of the events topic.',
    log_offset       Int64                   COMMENT 'Offset in that partition.' CODEC(Delta, ZSTD(1)),
    log_index        UInt32                  COMMENT 'Number of the piece within that record.',
    insert_before    DateTime64(3, 'UTC')    COMMENT 'The insert that brought this row was not allowed to start after this time.' CODEC(ZSTD(1)),

    INDEX log_position (log_partition, log_offset) TYPE minmax GRANULARITY 1,
    CONSTRAINT insert_in_time CHECK insert_before > now64(3)
)
ENGINE = MergeTree
PARTITION BY toDate(received_at)
ORDER BY (project_id, toStartOfMinute(received_at), raw_partition, raw_offset)
TTL toDateTime(received_at) + toIntervalDay({retention_days})
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000
COMMENT 'Facts: how many of a raw record''s events were stored and how many were duplicates, per record of the events topic.'
