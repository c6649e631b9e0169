-- Facts: every event, stored once (INV-4).
--
-- Partitioned by the day of receipt, so that retention drops whole days and one insert touches one or two partitions
-- (a backfill of old transcripts by event time would hit max_partitions_per_insert_block). Ordered for the usual read:
-- a project's window of time, then one session in it. The hour is a division because toStartOfHour wraps outside
-- 1970..2106, and a key that is not monotone loses rows with absurd timestamps from answers (tried). timestamp itself is
-- left out of the primary key: with it there, a condition on timestamp is not applied to the hour before it (tried).
--
-- The text index costs 15 of 24 microseconds a row when it is built by the insert, so inserts leave it to the merges
-- (exclude_materialize_skip_indexes_on_insert, 4 microseconds a row); until then a search reads the new parts whole.
-- The exact duplicate lookup (INV-5) gets a projection ordered by project, hour and dedup_key in a later migration.
--
-- Words are searched in data_words and not in data: in JSON text a line break is a backslash and an n, and the n would
-- become the first letter of the next word.
CREATE TABLE IF NOT EXISTS {database}.events
(
    event_id         String                             COMMENT 'The sender''s id of the event, else one derived from dedup_key.' CODEC(ZSTD(1)),
    dedup_key        UInt128                            COMMENT '128-bit identity: two arrivals with the same key are the same event.' CODEC(NONE),
    project_id       LowCardinality(String)             COMMENT 'Project that owns the event.',
    source           LowCardinality(String)             COMMENT 'Program that emitted it, for instance claude-code.',
    source_format    LowCardinality(String)             COMMENT 'Format it arrived in, for instance claude.otlp.logs.',
    source_version   LowCardinality(String)             COMMENT 'Version of the emitting program.',
    channel          LowCardinality(String)             COMMENT 'Channel it arrived by: agent_log, span, transcript, hook, api or other.',
    timestamp        DateTime64(9, 'UTC')               COMMENT 'When it happened, as the source says.' CODEC(Delta, ZSTD(1)),
    timestamp_source LowCardinality(String)             COMMENT 'Where timestamp comes from: event, observed or ingest (no usable time: the time of receipt).',
    end_timestamp    Nullable(DateTime64(9, 'UTC'))     COMMENT 'When it ended; NULL when not said.' CODEC(ZSTD(1)),
    received_at      DateTime64(9, 'UTC')               COMMENT 'When the gateway accepted it. Retention counts from here.' CODEC(Delta, ZSTD(1)),
    type             LowCardinality(String)             COMMENT 'What happened: llm.request, llm.response, tool.call, command.run, session.start, error, raw.unknown and so on.',
    name             LowCardinality(String)             COMMENT 'The source''s own name of the record.',
    status           LowCardinality(String)             COMMENT 'How it ended: unset, ok, error, denied or cancelled.',
    level            LowCardinality(String)             COMMENT 'Severity: trace, debug, info, warn, error, fatal; empty when not said.',
    error_type       LowCardinality(String)             COMMENT 'Class of the error.',
    error_message    String                             COMMENT 'Text of the error.' CODEC(ZSTD(1)),
    session_id       String                             COMMENT 'Session (conversation) it belongs to; empty when not said.' CODEC(ZSTD(1)),
    trace_id         String                             COMMENT 'Trace it belongs to; 32 hexadecimal digits when it comes from OTLP.' CODEC(ZSTD(1)),
    span_id          String                             COMMENT 'Span; 16 hexadecimal digits when it comes from OTLP.' CODEC(ZSTD(1)),
    parent_id        String                             COMMENT 'Parent span or parent record.' CODEC(ZSTD(1)),
    turn_id          String                             COMMENT 'Turn within the session: a prompt and all that follows from it.' CODEC(ZSTD(1)),
    request_id       String                             COMMENT 'The provider''s or SDK''s id of the request.' CODEC(ZSTD(1)),
    tool_call_id     String                             COMMENT 'The model''s id of the tool call.' CODEC(ZSTD(1)),
    agent_id         String                             COMMENT 'Agent that did it.' CODEC(ZSTD(1)),
    parent_agent_id  String                             COMMENT 'Agent that started that agent.' CODEC(ZSTD(1)),
    agent_name       LowCardinality(String)             COMMENT 'Name or type of the agent.',
    user_id          LowCardinality(String)             COMMENT 'Person or account.',
    host             LowCardinality(String)             COMMENT 'Machine.',
    provider         LowCardinality(String)             COMMENT 'Provider of the model, for instance anthropic.',
    model            LowCardinality(String)             COMMENT 'Model that answered.',
    model_requested  LowCardinality(String)             COMMENT 'Model that was asked for.',
    finish_reason    LowCardinality(String)             COMMENT 'Why the model stopped.',
    attempt          Nullable(UInt32)                   COMMENT 'Attempt number, from 1; NULL when not said.' CODEC(ZSTD(1)),
    duration_ms      Nullable(Float64)                  COMMENT 'Duration in milliseconds; NULL when not said.' CODEC(ZSTD(1)),
    ttft_ms          Nullable(Float64)                  COMMENT 'Time to the first token in milliseconds; NULL when not said.' CODEC(ZSTD(1)),
    in_uncached      UInt64                             COMMENT 'Input tokens neither read from nor written to a cache. The six token columns are disjoint. Do not add them up here: copies of one call by several channels are all kept; use llm_calls.' CODEC(T64, ZSTD(1)),
    cache_read       UInt64                             COMMENT 'Input tokens read from a cache.' CODEC(T64, ZSTD(1)),
    cache_write_5m   UInt64                             COMMENT 'Input tokens written to a 5-minute cache.' CODEC(T64, ZSTD(1)),
    cache_write_1h   UInt64                             COMMENT 'Input tokens written to a 1-hour cache.' CODEC(T64, ZSTD(1)),
    out_visible      UInt64                             COMMENT 'Output tokens that are not reasoning.' CODEC(T64, ZSTD(1)),
    out_reasoning    UInt64                             COMMENT 'Output tokens spent on reasoning.' CODEC(T64, ZSTD(1)),
    token_basis      LowCardinality(String)             COMMENT 'Convention the token counts were converted from: none, inclusive, anthropic_raw, gemini, disjoint or guessed.',
    usage_role       LowCardinality(String)             COMMENT 'What the token counts describe: none, call, rollup or cumulative. Only call can count.',
    llm_call_key     String                             COMMENT 'Events of a session with the same non-empty key are sightings of the same call to a model.' CODEC(ZSTD(1)),
    cost_reported    Nullable(Decimal(18, 9))           COMMENT 'Cost in USD as the sender reported it; NULL when not reported.' CODEC(ZSTD(1)),
    cost_computed    Nullable(Decimal(18, 9))           COMMENT 'Cost in USD by the price table; NULL when the model or its price is unknown.' CODEC(ZSTD(1)),
    price_version    LowCardinality(String)             COMMENT 'Version of the price table behind cost_computed.',
    tool_name        LowCardinality(String)             COMMENT 'Tool.',
    tool_kind        LowCardinality(String)             COMMENT 'Kind of tool: builtin, mcp, agent or empty.',
    mcp_server       LowCardinality(String)             COMMENT 'MCP server of the tool.',
    decision         LowCardinality(String)             COMMENT 'accept or reject, with type tool.decision.',
    exit_code        Nullable(Int32)                    COMMENT 'Exit code of a command; NULL when not said.' CODEC(ZSTD(1)),
    file_path        String                             COMMENT 'File the event is about.' CODEC(ZSTD(1)),
    lines_added      Nullable(UInt64)                   COMMENT 'Lines added; NULL when not said.' CODEC(ZSTD(1)),
    lines_removed    Nullable(UInt64)                   COMMENT 'Lines removed; NULL when not said.' CODEC(ZSTD(1)),
    file_size        Nullable(UInt64)                   COMMENT 'Size of the file in bytes; NULL when not said.' CODEC(ZSTD(1)),
    bytes_in         Nullable(UInt64)                   COMMENT 'Bytes that went in (request, tool input); NULL when not said.' CODEC(ZSTD(1)),
    bytes_out        Nullable(UInt64)                   COMMENT 'Bytes that came out (response, tool output); NULL when not said.' CODEC(ZSTD(1)),
    unknown_reason   LowCardinality(String)             COMMENT 'Why a record is kept as raw.unknown.',
    redactions       UInt32                             COMMENT 'Secrets replaced in this event.' CODEC(T64, ZSTD(1)),
    context          String                             COMMENT 'JSON object: where it happened (resource, scope, environment).' CODEC(ZSTD(1)),
    data             String                             COMMENT 'JSON object: everything the record said that has no column. Search its words in data_words.' CODEC(ZSTD(1)),
    data_words       String ALIAS lower(replaceAll(replaceAll(data, '\\n', ' '), '\\t', ' ')) COMMENT 'The text of data in lower case, for searching words through the index: hasAllTokens(data_words, ''two words'').',
    raw_partition    Int32                              COMMENT 'Partition of the raw record it was made from.' CODEC(ZSTD(1)),
    raw_offset       Int64                              COMMENT 'Offset of that raw record.' CODEC(Delta, ZSTD(1)),
    raw_index        UInt32                             COMMENT 'Index of the record within the request.' CODEC(Delta, ZSTD(1)),
    log_partition    Int32                              COMMENT 'Partition of the events topic it was stored from.' CODEC(ZSTD(1)),
    log_offset       Int64                              COMMENT 'Offset in that partition. With log_partition and log_index: the position that proves an event stored once.' CODEC(Delta, ZSTD(1)),
    log_index        UInt32                             COMMENT 'Index within that record of the events topic.' CODEC(Delta, ZSTD(1)),
    insert_before    DateTime64(3, 'UTC')               COMMENT 'The insert that brought this row was not allowed to start after this time.' CODEC(ZSTD(1)),

    INDEX log_position (log_partition, log_offset) TYPE minmax GRANULARITY 1,
    INDEX event_id_filter event_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX session_id_filter session_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX trace_id_filter trace_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX data_text lower(replaceAll(replaceAll(data, '\\n', ' '), '\\t', ' ')) TYPE text(tokenizer = splitByNonAlpha),

    CONSTRAINT insert_in_time CHECK insert_before > now64(3)
)
ENGINE = MergeTree
PARTITION BY toDate(received_at)
PRIMARY KEY (project_id, intDiv(toUnixTimestamp64Nano(timestamp), 3600000000000), session_id)
ORDER BY (project_id, intDiv(toUnixTimestamp64Nano(timestamp), 3600000000000), session_id, timestamp)
TTL toDateTime(received_at) + toIntervalDay({retention_days})
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000
COMMENT 'Facts: every event, each stored once, kept 90 days by default. One LLM or tool call can appear in several events (one per channel that reported it): count calls, tokens and cost in llm_calls, tool_calls, sessions or usage_1h instead.'
