-- Derived, a pure set merged by the engine: which sessions the events of a trace name, and since when. The earliest (by
-- first_at, then by id) owns the trace's events that name none. Written before a session is recomputed, so that whoever
-- reads a trace later sees whose it is; minima and maxima bear repetition, so the order of writing decides nothing.
CREATE TABLE IF NOT EXISTS {database}.trace_sessions
(
    project_id        LowCardinality(String)                                  COMMENT 'Project.',
    trace_id          String                                                  COMMENT 'Trace.' CODEC(ZSTD(1)),
    session_id        String                                                  COMMENT 'Session that at least one event of the trace names.' CODEC(ZSTD(1)),
    first_at          SimpleAggregateFunction(min, DateTime64(9, 'UTC'))      COMMENT 'Time of the first event that names both.' CODEC(ZSTD(1)),
    last_received_at  SimpleAggregateFunction(max, DateTime('UTC'))           COMMENT 'When an event that names both was last received, to the day.' CODEC(ZSTD(1))
)
ENGINE = AggregatingMergeTree
ORDER BY (project_id, trace_id, session_id)
TTL last_received_at + toIntervalDay({retention_days})
COMMENT 'Derived, internal: the sessions that the events of a trace name.'
