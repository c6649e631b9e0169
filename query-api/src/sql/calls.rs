//! SELECTs over the calls of one session, each counted once.

use super::{Builder, Param, Statement};

/// The columns of a call to a model.
pub(super) const LLM: &str = "SELECT
  session_id, call_key, event_id, timestamp, end_timestamp, trace_id, span_id, turn_id, request_id, agent_id, agent_name, user_id,
  source, provider, model, model_requested, finish_reason, status, error_type, error_message, attempt, duration_ms,
  ttft_ms, in_uncached, cache_read, cache_write_5m, cache_write_1h, out_visible, out_reasoning, token_basis,
  cost_reported, cost_computed, price_version, channel, source_format, sightings, channels, guessed, guess, event_ids
FROM llm_calls";

const TOOLS: &str = "SELECT
  call_key, event_id, timestamp, end_timestamp, trace_id, span_id, turn_id, agent_id, agent_name, user_id, source, type,
  tool_name, tool_kind, mcp_server, status, decision, error_type, error_message, duration_ms, exit_code, file_path,
  lines_added, lines_removed, file_size, bytes_in, bytes_out, channel, sightings, channels, guessed, guess,
  event_ids
FROM tool_calls";

/// The calls to models of a session, oldest first; `after` is the time and key of the last one shown.
pub(crate) fn llm_calls(
    project_id: &str,
    session_id: &str,
    after: Option<&(i64, String)>,
    limit: u32,
) -> Statement {
    of_session(LLM, project_id, session_id, after, limit)
}

/// What the calls of a trace cost by the price table, by the span that made them. `session_id` is the trace's, empty when
/// it has none: where the calls are found.
pub(crate) fn costs_of_trace(project_id: &str, session_id: &str, trace_id: &str, limit: u32) -> Statement {
    let (kind, group) = match session_id {
        "" => ("trace", trace_id),
        session_id => ("session", session_id),
    };
    Builder::select("SELECT span_id, cost_computed FROM llm_calls")
        .project(project_id)
        .and_text("group_kind = {kind:String}", "kind", kind)
        .and_text("group_id = {group:String}", "group", group)
        .and_text("trace_id = {trace:String}", "trace", trace_id)
        .and("cost_computed IS NOT NULL")
        .push("\nORDER BY timestamp, call_key")
        .limit(limit)
        .build()
}

/// The tool calls of a session, oldest first; `after` is the time and key of the last one shown.
pub(crate) fn tool_calls(
    project_id: &str,
    session_id: &str,
    after: Option<&(i64, String)>,
    limit: u32,
) -> Statement {
    of_session(TOOLS, project_id, session_id, after, limit)
}

/// The group's kind and id, not the view's session_id: they are the key by which the group is found.
fn of_session(
    columns: &'static str,
    project_id: &str,
    session_id: &str,
    after: Option<&(i64, String)>,
    limit: u32,
) -> Statement {
    let mut query = Builder::select(columns).project(project_id).and("group_kind = 'session'").and_text(
        "group_id = {session:String}",
        "session",
        session_id,
    );
    if let Some((timestamp_ns, call_key)) = after {
        query = query
            .and("(timestamp, call_key) > (fromUnixTimestamp64Nano({after_ns:Int64}, 'UTC'), {after_key:String})")
            .bind("after_ns", Param::Int(*timestamp_ns))
            .bind("after_key", Param::Text(call_key.clone()));
    }
    query.push("\nORDER BY timestamp, call_key").limit(limit).build()
}
