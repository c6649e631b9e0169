-- The ledger asks by place in the raw log: which of these offsets are settled? (INV-6, INV-7)
ALTER TABLE {database}.settlements
    ADD INDEX IF NOT EXISTS raw_position (raw_partition, raw_offset) TYPE minmax GRANULARITY 1
