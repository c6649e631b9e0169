//! SELECTs over sessions, as the derivations keep them.

use super::{Builder, Param, Statement};
use crate::time_range::TimeRange;

/// Which sessions a list has.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionFilter {
    /// An agent's name among the session's agents.
    pub(crate) agent: Option<String>,
    /// A person or account among its users.
    pub(crate) user: Option<String>,
    /// A model among those that answered.
    pub(crate) model: Option<String>,
    /// `open` or `ended`.
    pub(crate) status: Option<String>,
    /// A program among those that emitted its events.
    pub(crate) source: Option<String>,
}

const COLUMNS: &str = "SELECT
  session_id, started_at, ended_at, duration_ms, status, event_count, prompt_count, error_count, llm_call_count,
  llm_error_count, tool_call_count, tool_error_count, tool_denied_count, agents, models, users, hosts, sources,
  in_uncached, cache_read, cache_write_5m, cache_write_1h, out_visible, out_reasoning,
  in_uncached + cache_read + cache_write_5m + cache_write_1h AS in_total, out_visible + out_reasoning AS out_total,
  toDecimal64(sessions.cost_reported, 9) AS cost_reported, cost_reported_calls,
  toDecimal64(sessions.cost_computed, 9) AS cost_computed, cost_computed_calls, guessed_calls, lines_added,
  lines_removed
FROM sessions";

/// Sessions that were active within the range, newest first; `after` is the start and id of the last one shown.
pub(crate) fn sessions(
    project_id: &str,
    range: TimeRange,
    filter: &SessionFilter,
    after: Option<&(i64, String)>,
    limit: u32,
) -> Statement {
    let mut query = Builder::select(COLUMNS)
        .project(project_id)
        .range(
            concat!(
                "started_at < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC') AND ",
                "ended_at >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC')"
            ),
            range,
        )
        .and_some("has(agents, {agent:String})", "agent", filter.agent.as_deref())
        .and_some("has(users, {user:String})", "user", filter.user.as_deref())
        .and_some("has(models, {model:String})", "model", filter.model.as_deref())
        .and_some("status = {status:String}", "status", filter.status.as_deref())
        .and_some("has(sources, {source:String})", "source", filter.source.as_deref());
    if let Some((started_ns, session_id)) = after {
        query = query
            .and(concat!(
                "(started_at, session_id) < ",
                "(fromUnixTimestamp64Nano({after_ns:Int64}, 'UTC'), {after_id:String})"
            ))
            .bind("after_ns", Param::Int(*started_ns))
            .bind("after_id", Param::Text(session_id.clone()));
    }
    query.push("\nORDER BY started_at DESC, session_id DESC").limit(limit).build()
}

/// One session.
pub(crate) fn session(project_id: &str, session_id: &str) -> Statement {
    Builder::select(COLUMNS)
        .project(project_id)
        .and_text("session_id = {session:String}", "session", session_id)
        .build()
}

/// When one session's first and last events were.
pub(crate) fn session_bounds(project_id: &str, session_id: &str) -> Statement {
    Builder::select("SELECT started_at, ended_at\nFROM sessions")
        .project(project_id)
        .and_text("session_id = {session:String}", "session", session_id)
        .build()
}
