-- A client that changes what it sends shows it in fields that nobody knew; the rate of them by format and version is asked of this table.
ALTER TABLE {database}.events
    ADD COLUMN IF NOT EXISTS new_fields UInt32 DEFAULT 0 COMMENT 'Members of data that none of the captures had from which the format was mapped.' CODEC(T64, ZSTD(1)) AFTER redactions
