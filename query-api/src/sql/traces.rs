//! SELECTs over traces, what they consist of, and scores.

use super::{Builder, Param, Statement, within};
use crate::time_range::TimeRange;

/// Which traces a list has.
#[derive(Clone, Debug, Default)]
pub(crate) struct TraceFilter {
    /// Session.
    pub(crate) session: Option<String>,
    /// Person or account.
    pub(crate) user: Option<String>,
    /// Name.
    pub(crate) name: Option<String>,
    /// Only traces in which something failed.
    pub(crate) failed: bool,
}

const TRACES: &str = "SELECT
  trace_id, name, session_id, user_id, started_at, ended_at, duration_ms, event_count, observation_count, error_count,
  score_count, llm_call_count, llm_error_count, tool_call_count, tool_error_count, in_uncached, cache_read,
  cache_write_5m, cache_write_1h, out_visible, out_reasoning,
  in_uncached + cache_read + cache_write_5m + cache_write_1h AS in_total, out_visible + out_reasoning AS out_total,
  toDecimal64(traces.cost_reported, 9) AS cost_reported, cost_reported_calls,
  toDecimal64(traces.cost_computed, 9) AS cost_computed, cost_computed_calls, guessed_calls
FROM traces";

/// Traces that were active within the range, newest first; `after` is the start and id of the last one shown.
pub(crate) fn traces(
    project_id: &str,
    range: TimeRange,
    filter: &TraceFilter,
    after: Option<&(i64, String)>,
    limit: u32,
) -> Statement {
    let mut query = Builder::select(TRACES)
        .project(project_id)
        .range(
            concat!(
                "started_at < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC') AND ",
                "ended_at >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC')"
            ),
            range,
        )
        .and_some("session_id = {session:String}", "session", filter.session.as_deref())
        .and_some("user_id = {user:String}", "user", filter.user.as_deref())
        .and_some("name = {name:String}", "name", filter.name.as_deref());
    if filter.failed {
        query = query.and("error_count + llm_error_count + tool_error_count > 0");
    }
    if let Some((started_ns, trace_id)) = after {
        query = query
            .and(concat!(
                "(started_at, trace_id) < ",
                "(fromUnixTimestamp64Nano({after_ns:Int64}, 'UTC'), {after_id:String})"
            ))
            .bind("after_ns", Param::Int(*started_ns))
            .bind("after_id", Param::Text(trace_id.clone()));
    }
    query.push("\nORDER BY started_at DESC, trace_id DESC").limit(limit).build()
}

/// One trace.
pub(crate) fn trace(project_id: &str, trace_id: &str) -> Statement {
    Builder::select(TRACES)
        .project(project_id)
        .and_text("trace_id = {trace:String}", "trace", trace_id)
        .build()
}

/// What a trace consists of, by the time at which it began.
pub(crate) fn observations(project_id: &str, trace_id: &str, limit: u32) -> Statement {
    Builder::select(
        "SELECT
  observation_id, parent_id, type, name, source, channel, started_at, ended_at, duration_ms, status, level, error_type,
  error_message, agent_name, user_id, provider, model, tool_name, usage_role, in_uncached, cache_read, cache_write_5m,
  cache_write_1h, out_visible, out_reasoning, cost_reported, cost_computed, bytes_in, bytes_out, score_count, pieces,
  event_id
FROM observations",
    )
    .project(project_id)
    .and_text("trace_id = {trace:String}", "trace", trace_id)
    .push("\nORDER BY started_at, observation_id")
    .limit(limit)
    .build()
}

/// Which scores a list has.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScoreFilter {
    /// Trace that is judged, or whose observation is.
    pub(crate) trace: Option<String>,
    /// Observation that is judged.
    pub(crate) observation: Option<String>,
    /// Session that is judged.
    pub(crate) session: Option<String>,
    /// Name.
    pub(crate) name: Option<String>,
}

macro_rules! scores_from {
    ($from:literal) => {
        concat!(
            "SELECT
  score_id, timestamp, trace_id, observation_id, session_id, name, source, value, text, data_type, comment
FROM ",
            $from
        )
    };
}

const SCORES: &str = scores_from!("scores");

/// The scores that name the trace, and those that name no trace but an observation of it. Two selects, since each is found
/// through another index.
const SCORES_OF_TRACE: &str = scores_from!(
    "(
  SELECT * FROM scores WHERE project_id = {project:String} AND trace_id = {trace:String}
  UNION ALL
  SELECT * FROM scores WHERE project_id = {project:String} AND trace_id = '' AND observation_id IN (
    SELECT span_id FROM events
    WHERE project_id = {project:String} AND trace_id = {trace:String} AND trace_id != '' AND span_id != ''
      AND channel IN ('span', 'api') AND type != 'score'
  )
)"
);

/// Scores given within the range, newest first; `after` is the time and id of the last one shown.
pub(crate) fn scores(
    project_id: &str,
    range: TimeRange,
    filter: &ScoreFilter,
    after: Option<&(i64, String)>,
    limit: u32,
) -> Statement {
    let query = match &filter.trace {
        None => Builder::select(SCORES),
        Some(trace) => Builder::select(SCORES_OF_TRACE).bind("trace", Param::Text(trace.clone())),
    };
    let mut query = query
        .project(project_id)
        .range(within!("timestamp"), range)
        .and_some("observation_id = {observation:String}", "observation", filter.observation.as_deref())
        .and_some("session_id = {session:String}", "session", filter.session.as_deref())
        .and_some("name = {name:String}", "name", filter.name.as_deref());
    if let Some((given_ns, score_id)) = after {
        query = query
            .and(concat!(
                "(timestamp, score_id) < ",
                "(fromUnixTimestamp64Nano({after_ns:Int64}, 'UTC'), {after_id:String})"
            ))
            .bind("after_ns", Param::Int(*given_ns))
            .bind("after_id", Param::Text(score_id.clone()));
    }
    query.push("\nORDER BY timestamp DESC, score_id DESC").limit(limit).build()
}
