-- Derived, a pure set: in which hours of event time a group has events. Written before a group is recomputed, so that
-- the recomputation finds all of its facts through the order of `events` (project, hour, session) however far apart
-- their times are, and never scans. A projection of the same facts by group would cost a third of every insert and merge.
CREATE TABLE IF NOT EXISTS {database}.group_hours
(
    project_id        LowCardinality(String)   COMMENT 'Project.',
    group_kind        LowCardinality(String)   COMMENT 'session or trace.',
    group_id          String                   COMMENT 'Session id or trace id.' CODEC(ZSTD(1)),
    hour              Int32                    COMMENT 'Hour, counted from 1970, of the timestamp of at least one of its events.' CODEC(Delta, ZSTD(1)),
    last_received_at  DateTime('UTC')          COMMENT 'When an event of that hour was last received, to the day.' CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(last_received_at)
ORDER BY (project_id, group_kind, group_id, hour)
TTL last_received_at + toIntervalDay({retention_days} + 2)
COMMENT 'Derived, internal: the hours in which a session or trace has events.'
