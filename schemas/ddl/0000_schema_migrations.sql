CREATE TABLE IF NOT EXISTS {database}.schema_migrations
(
    number     UInt32                  COMMENT 'Number of the migration.',
    name       String                  COMMENT 'Name of the migration.',
    checksum   String                  COMMENT 'Fingerprint of its text: 16 hexadecimal digits of XXH3.',
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When it was applied.'
)
ENGINE = ReplacingMergeTree(applied_at)
ORDER BY number
COMMENT 'Which migrations have been applied. Operators only.'
