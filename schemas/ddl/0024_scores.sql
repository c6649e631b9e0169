-- Judgements of traces, observations and sessions. A score that is sent again under its id replaces the one before. The
-- value stands in the event's data or in the body of its envelope, as a number, a word or a truth value; LangSmith calls
-- it score, and sends a value of null beside it.
CREATE VIEW IF NOT EXISTS {database}.scores
(
    project_id      LowCardinality(String)  COMMENT 'Project.',
    score_id        String                  COMMENT 'Id that its sender gave it, else that of its event.',
    timestamp       DateTime64(9, 'UTC')    COMMENT 'When it was given.',
    trace_id        String                  COMMENT 'Trace that is judged; empty when a session is.',
    observation_id  String                  COMMENT 'Observation that is judged; empty when the whole trace or session is.',
    session_id      String                  COMMENT 'Session that is judged, or that was named beside the trace.',
    name            String                  COMMENT 'Name.',
    source          String                  COMMENT 'Program that gave it.',
    value           Nullable(Float64)       COMMENT 'As a number; true is 1 and false is 0. NULL for a word.',
    text            String                  COMMENT 'As it was written.',
    data_type       String                  COMMENT 'NUMERIC, CATEGORICAL, BOOLEAN or TEXT, in the sender''s words; empty when not said.',
    comment         String                  COMMENT 'Comment.'
)
AS SELECT
    s.project_id AS project_id,
    s.score_id AS score_id,
    s.latest.1 AS timestamp,
    s.trace_id AS trace_id,
    s.span_id AS observation_id,
    s.session_id AS session_id,
    s.latest.2 AS name,
    s.latest.3 AS source,
    multiIf(raw = 'true', 1, raw = 'false', 0, toFloat64OrNull(text)) AS value,
    if(startsWith(raw, '"'), JSONExtractString(concat('[', raw, ']'), 1), raw) AS text,
    JSONExtractString(s.latest.4, 'dataType') AS data_type,
    JSONExtractString(s.latest.4, 'comment') AS comment
FROM
(
    SELECT
        project_id,
        score_id,
        trace_id,
        span_id,
        session_id,
        argMax((given.timestamp, given.name, given.source, given.body), (given.revision, given.timestamp, given.dedup_key)) AS latest,
        if(JSONExtractRaw(latest.4, 'value') NOT IN ('', 'null'), JSONExtractRaw(latest.4, 'value'), JSONExtractRaw(latest.4, 'score')) AS raw
    FROM
    (
        SELECT
            project_id,
            trace_id,
            span_id,
            session_id,
            timestamp,
            name,
            source,
            revision,
            dedup_key,
            if(JSONHas(data, 'body'), JSONExtractRaw(data, 'body'), data) AS body,
            JSONExtractString(body, 'id') AS stated_id,
            if(stated_id != '', stated_id, event_id) AS score_id
        FROM {database}.events
        WHERE type = 'score'
    ) AS given
    GROUP BY project_id, score_id, trace_id, span_id, session_id
) AS s
COMMENT 'Derived: scores, each once, with their values taken out of the event''s data.'
