-- The ledger asks by place in the raw log: which dead letters of these offsets are stored? (INV-6, INV-7)
ALTER TABLE {database}.dead_letters
    ADD INDEX IF NOT EXISTS raw_position (raw_partition, raw_offset) TYPE minmax GRANULARITY 1
