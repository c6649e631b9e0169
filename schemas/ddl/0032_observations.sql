-- Replaces the view of 0023: a start and an end that lie centuries apart leave 64 bits as nanoseconds.
-- Spans, calls and steps with an id of their own within a trace, merged from the pieces in which they were reported (create
-- and update, start and end): field by field the piece of the highest revision wins, the token counts as one. Every
-- column is a minimum, a maximum or what stands beside one, so neither order nor repetition of events changes it, and it
-- needs no table of its own. Name the trace: then the filter on trace_id finds its few granules.
CREATE OR REPLACE VIEW {database}.observations
(
    project_id     LowCardinality(String)         COMMENT 'Project.',
    trace_id       String                         COMMENT 'Trace.',
    observation_id String                         COMMENT 'Id within the trace: the span''s, or the one its SDK gave it.',
    parent_id      String                         COMMENT 'Observation it is part of; empty at the root.',
    session_id     String                         COMMENT 'Session that its own records name; empty when they name none.',
    type           String                         COMMENT 'llm.request, tool.call, agent.step, span and so on: the finest that a piece states.',
    name           String                         COMMENT 'Name.',
    source         String                         COMMENT 'Program that emitted it.',
    channel        String                         COMMENT 'span, or api where an SDK reported it.',
    started_at     DateTime64(9, 'UTC')           COMMENT 'The earliest start that a piece states.',
    ended_at       Nullable(DateTime64(9, 'UTC')) COMMENT 'The latest end that a piece states; NULL while there is none.',
    duration_ms    Nullable(Float64)              COMMENT 'Duration in milliseconds: as reported, else from start to end; NULL when neither is known.',
    status         String                         COMMENT 'How it ended: unset, ok, error, denied or cancelled.',
    level          String                         COMMENT 'Severity; empty when not said.',
    error_type     String                         COMMENT 'Class of the error.',
    error_message  String                         COMMENT 'Text of the error.',
    agent_name     String                         COMMENT 'Name or type of the agent.',
    user_id        String                         COMMENT 'Person or account.',
    provider       String                         COMMENT 'Provider of the model.',
    model          String                         COMMENT 'Model that answered.',
    tool_name      String                         COMMENT 'Tool.',
    usage_role     String                         COMMENT 'What the token counts describe: none, call, rollup or cumulative. Add up tokens in llm_calls: a call can be an observation of two SDKs.',
    in_uncached    UInt64                         COMMENT 'Input tokens neither read from nor written to a cache. The six token columns are disjoint.',
    cache_read     UInt64                         COMMENT 'Input tokens read from a cache.',
    cache_write_5m UInt64                         COMMENT 'Input tokens written to a 5-minute cache.',
    cache_write_1h UInt64                         COMMENT 'Input tokens written to a 1-hour cache.',
    out_visible    UInt64                         COMMENT 'Output tokens that are not reasoning.',
    out_reasoning  UInt64                         COMMENT 'Output tokens spent on reasoning.',
    cost_reported  Nullable(Decimal(18, 9))       COMMENT 'Cost in USD as the sender reported it; NULL when not reported.',
    cost_computed  Nullable(Decimal(18, 9))       COMMENT 'Cost in USD by the price table; NULL when unknown.',
    bytes_in       Nullable(UInt64)               COMMENT 'Bytes of input; NULL when not said.',
    bytes_out      Nullable(UInt64)               COMMENT 'Bytes of output; NULL when not said.',
    score_count    UInt64                         COMMENT 'Scores of it.',
    pieces         UInt64                         COMMENT 'Distinct events that report it.',
    event_id       String                         COMMENT 'The latest of them. Input and output are in the data of its events.'
)
AS SELECT
    e.project_id AS project_id,
    e.trace_id AS trace_id,
    e.span_id AS observation_id,
    argMaxIf(e.parent_id, (e.revision, e.timestamp, e.dedup_key), e.type != 'score' AND e.parent_id != '') AS parent_id,
    argMaxIf(e.session_id, (e.revision, e.timestamp, e.dedup_key), e.type != 'score' AND e.session_id != '') AS session_id,
    argMaxIf(e.type, (e.type != 'span', e.revision, e.timestamp, e.dedup_key), e.type != 'score') AS type,
    argMaxIf(e.name, (e.revision, e.timestamp, e.dedup_key), e.type != 'score' AND e.name != '') AS name,
    argMaxIf(e.source, (e.revision, e.timestamp, e.dedup_key), e.type != 'score' AND e.source != '') AS source,
    argMaxIf(e.channel, (e.revision, e.timestamp, e.dedup_key), e.type != 'score') AS channel,
    minIf(e.timestamp, e.type != 'score') AS started_at,
    maxIf(e.end_timestamp, e.type != 'score') AS ended_at,
    if(countIf(e.type != 'score' AND e.duration_ms IS NOT NULL) > 0, argMaxIf(e.duration_ms, (e.revision, e.timestamp, e.dedup_key), e.type != 'score' AND e.duration_ms IS NOT NULL), (toInt128(toUnixTimestamp64Nano(ended_at)) - toUnixTimestamp64Nano(started_at)) / 1e6) AS duration_ms,
    argMaxIf(e.status, (e.status != 'unset', e.revision, e.timestamp, e.dedup_key), e.type != 'score') AS status,
    argMaxIf(e.level, (e.revision, e.timestamp, e.dedup_key), e.type != 'score' AND e.level != '') AS level,
    argMaxIf(e.error_type, (e.revision, e.timestamp, e.dedup_key), e.type != 'score' AND e.error_type != '') AS error_type,
    argMaxIf(e.error_message, (e.revision, e.timestamp, e.dedup_key), e.type != 'score' AND e.error_message != '') AS error_message,
    argMaxIf(e.agent_name, (e.revision, e.timestamp, e.dedup_key), e.type != 'score' AND e.agent_name != '') AS agent_name,
    argMaxIf(e.user_id, (e.revision, e.timestamp, e.dedup_key), e.type != 'score' AND e.user_id != '') AS user_id,
    argMaxIf(e.provider, (e.revision, e.timestamp, e.dedup_key), e.type != 'score' AND e.provider != '') AS provider,
    argMaxIf(e.model, (e.revision, e.timestamp, e.dedup_key), e.type != 'score' AND e.model != '') AS model,
    argMaxIf(e.tool_name, (e.revision, e.timestamp, e.dedup_key), e.type != 'score' AND e.tool_name != '') AS tool_name,
    argMaxIf(e.usage_role, (e.usage_role != 'none', e.revision, e.timestamp, e.dedup_key), e.type != 'score') AS usage_role,
    argMaxIf(e.in_uncached, (e.usage_role != 'none', e.revision, e.timestamp, e.dedup_key), e.type != 'score') AS in_uncached,
    argMaxIf(e.cache_read, (e.usage_role != 'none', e.revision, e.timestamp, e.dedup_key), e.type != 'score') AS cache_read,
    argMaxIf(e.cache_write_5m, (e.usage_role != 'none', e.revision, e.timestamp, e.dedup_key), e.type != 'score') AS cache_write_5m,
    argMaxIf(e.cache_write_1h, (e.usage_role != 'none', e.revision, e.timestamp, e.dedup_key), e.type != 'score') AS cache_write_1h,
    argMaxIf(e.out_visible, (e.usage_role != 'none', e.revision, e.timestamp, e.dedup_key), e.type != 'score') AS out_visible,
    argMaxIf(e.out_reasoning, (e.usage_role != 'none', e.revision, e.timestamp, e.dedup_key), e.type != 'score') AS out_reasoning,
    argMaxIf(e.cost_reported, (e.revision, e.timestamp, e.dedup_key), e.type != 'score' AND e.cost_reported IS NOT NULL) AS cost_reported,
    argMaxIf(e.cost_computed, (e.revision, e.timestamp, e.dedup_key), e.type != 'score' AND e.cost_computed IS NOT NULL) AS cost_computed,
    argMaxIf(e.bytes_in, (e.revision, e.timestamp, e.dedup_key), e.type != 'score' AND e.bytes_in IS NOT NULL) AS bytes_in,
    argMaxIf(e.bytes_out, (e.revision, e.timestamp, e.dedup_key), e.type != 'score' AND e.bytes_out IS NOT NULL) AS bytes_out,
    uniqExactIf(e.dedup_key, e.type = 'score') AS score_count,
    uniqExactIf(e.dedup_key, e.type != 'score') AS pieces,
    argMaxIf(e.event_id, (e.revision, e.timestamp, e.dedup_key), e.type != 'score') AS event_id
FROM {database}.events AS e
WHERE e.trace_id != '' AND e.span_id != '' AND (e.channel IN ('span', 'api') OR e.type = 'score')
GROUP BY e.project_id, e.trace_id, e.span_id
HAVING pieces > 0
COMMENT 'Derived: what traces consist of, each observation once, merged from its pieces.'
