-- Replaces the view of 0039: what is judged reads as the index of 0040 has it, so that a filter on observation_id uses that.
-- A score that is sent again under its id replaces the one before. Opik's scores have no id, only that of what they judge:
-- what is judged and the name make one. A change of LangSmith's says neither name nor session nor what is judged, only the
-- id and the members that change: it is laid over the score of that id, and not shown while that one is not there. So scores
-- stay grouped by what they judge, and a trace's are found by the filter on trace_id; those that name only an observation of
-- it by that on observation_id. The number stands in score (LangSmith) or value, the word in category_name (Opik), value or
-- score.
CREATE OR REPLACE VIEW {database}.scores
(
    project_id      LowCardinality(String)  COMMENT 'Project.',
    score_id        String                  COMMENT 'Id that its sender gave it; of Opik''s, which have none, what is judged and the name; else that of its event.',
    timestamp       DateTime64(9, 'UTC')    COMMENT 'When it was given.',
    trace_id        String                  COMMENT 'Trace that is judged; empty when a session is, or where only the observation is named.',
    observation_id  String                  COMMENT 'Observation that is judged; empty when the whole trace or session is.',
    session_id      String                  COMMENT 'Session that is judged, or that was named beside the trace.',
    name            String                  COMMENT 'Name.',
    source          String                  COMMENT 'Program that gave it.',
    value           Nullable(Float64)       COMMENT 'As a number; true is 1 and false is 0. NULL where there is only a word.',
    text            String                  COMMENT 'As it was written; the word where there is a number beside it.',
    data_type       String                  COMMENT 'NUMERIC, CATEGORICAL, BOOLEAN or TEXT, in the sender''s words; empty when not said.',
    comment         String                  COMMENT 'Comment, or reason.'
)
AS WITH given AS
(
    SELECT
        e.project_id AS project_id,
        e.trace_id AS trace_id,
        if(e.type = 'score', e.span_id, '') AS span_id,
        e.session_id AS session_id,
        e.timestamp AS timestamp,
        e.name AS name,
        e.source AS source,
        e.source_format = 'langsmith.feedback' AND e.session_id = '' AND e.name = '' AS change,
        (e.revision, e.timestamp, e.dedup_key) AS place,
        if(JSONHas(e.data, 'body'), JSONExtractRaw(e.data, 'body'), e.data) AS body,
        JSONExtractString(body, 'id') AS stated_id,
        multiIf(e.source_format = 'opik.feedback', concat(e.trace_id, e.span_id, e.session_id, '/', e.name), stated_id != '', stated_id, e.event_id) AS score_id,
        if(JSONExtractRaw(body, 'score') = 'null', '', JSONExtractRaw(body, 'score')) AS score,
        if(JSONExtractRaw(body, 'value') = 'null', '', JSONExtractRaw(body, 'value')) AS value,
        JSONExtractString(body, 'category_name') AS category,
        JSONExtractString(body, 'dataType') AS data_type,
        if(JSONExtractString(body, 'comment') != '', JSONExtractString(body, 'comment'), JSONExtractString(body, 'reason')) AS comment
    FROM {database}.events AS e
    WHERE e.type = 'score'
)
SELECT
    r.project_id AS project_id,
    r.score_id AS score_id,
    r.timestamp AS timestamp,
    r.trace_id AS trace_id,
    r.span_id AS observation_id,
    r.session_id AS session_id,
    r.name AS name,
    r.source AS source,
    if(r.score_number IS NULL, r.value_number, r.score_number) AS value,
    multiIf(r.category != '', r.category, r.value_text != '', r.value_text, r.score_text) AS text,
    r.data_type AS data_type,
    r.comment AS comment
FROM
(
    SELECT
        s.project_id AS project_id,
        s.score_id AS score_id,
        s.trace_id AS trace_id,
        s.span_id AS span_id,
        s.session_id AS session_id,
        s.latest.1 AS timestamp,
        s.latest.2 AS name,
        s.latest.3 AS source,
        if(c.score != '', c.score, s.latest.4) AS score,
        if(c.value != '', c.value, s.latest.5) AS value,
        s.latest.6 AS category,
        s.latest.7 AS data_type,
        if(c.comment != '', c.comment, s.latest.8) AS comment,
        if(startsWith(score, '"'), JSONExtractString(concat('[', score, ']'), 1), score) AS score_text,
        if(startsWith(value, '"'), JSONExtractString(concat('[', value, ']'), 1), value) AS value_text,
        multiIf(score = 'true', 1, score = 'false', 0, toFloat64OrNull(score_text)) AS score_number,
        multiIf(value = 'true', 1, value = 'false', 0, toFloat64OrNull(value_text)) AS value_number
    FROM
    (
        SELECT
            g.project_id AS project_id,
            g.score_id AS score_id,
            g.trace_id AS trace_id,
            g.span_id AS span_id,
            g.session_id AS session_id,
            argMax((g.timestamp, g.name, g.source, g.score, g.value, g.category, g.data_type, g.comment), g.place) AS latest
        FROM given AS g
        WHERE NOT g.change
        GROUP BY g.project_id, g.score_id, g.trace_id, g.span_id, g.session_id
    ) AS s
    LEFT JOIN
    (
        SELECT
            g.project_id AS project_id,
            g.score_id AS score_id,
            argMaxIf(g.score, g.place, g.score != '') AS score,
            argMaxIf(g.value, g.place, g.value != '') AS value,
            argMaxIf(g.comment, g.place, g.comment != '') AS comment
        FROM given AS g
        WHERE g.change
        GROUP BY g.project_id, g.score_id
    ) AS c ON c.project_id = s.project_id AND c.score_id = s.score_id
) AS r
COMMENT 'Derived: scores, each once, with their values taken out of the event''s data.'
