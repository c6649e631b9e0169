-- Derived: up to where the facts of each partition of the events topic are reflected in the groups.
CREATE TABLE IF NOT EXISTS {database}.derivation_progress
(
    log_partition   Int32                COMMENT 'Partition of the events topic.',
    derived_offset  Int64                COMMENT 'Every stored event of the partition up to this offset is reflected in the groups.',
    version         UInt64               COMMENT 'Version of the groups that reflect them. The highest counts.',
    updated_at      DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When this was recorded.'
)
ENGINE = ReplacingMergeTree(version)
ORDER BY log_partition
COMMENT 'Derived, internal: how far the derivations have come. Operators only.'
