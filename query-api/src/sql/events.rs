//! SELECTs over the stored events.

use super::{Builder, Param, Statement, search, within};
use crate::time_range::TimeRange;

/// Which events a list has.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventFilter {
    /// Any of these types.
    pub(crate) types: Vec<String>,
    /// Any of these statuses.
    pub(crate) statuses: Vec<String>,
    /// Session.
    pub(crate) session: Option<String>,
    /// Trace.
    pub(crate) trace: Option<String>,
    /// Agent's id or name.
    pub(crate) agent: Option<String>,
    /// Model that answered.
    pub(crate) model: Option<String>,
    /// The source's own name of the record.
    pub(crate) name: Option<String>,
    /// Program that emitted it.
    pub(crate) source: Option<String>,
    /// Tool.
    pub(crate) tool: Option<String>,
    /// Person or account.
    pub(crate) user: Option<String>,
    /// Words that all occur in the payload.
    pub(crate) search: Option<String>,
}

/// The sort key of an event: its time, then its place in the events topic, which no two rows share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct EventKey(pub(crate) i64, pub(crate) i32, pub(crate) i64, pub(crate) u32);

/// In which direction a list runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Newest first.
    Newest,
    /// Oldest first.
    Oldest,
}

/// Whether the heavy columns are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    /// No: lists and charts never do.
    Left,
    /// `context` and `data` too.
    Included,
}

/// One list of columns for both cases, so that a row has one shape: what is not read is the empty string.
macro_rules! columns {
    ($context:literal, $data:literal) => {
        concat!(
            "SELECT
  event_id, dedup_key, source, source_format, source_version, channel, timestamp, timestamp_source, end_timestamp,
  received_at, type, name, status, level, error_type, error_message, session_id, trace_id, span_id, parent_id, turn_id,
  request_id, tool_call_id, agent_id, parent_agent_id, agent_name, user_id, host, provider, model, model_requested,
  finish_reason, attempt, duration_ms, ttft_ms, in_uncached, cache_read, cache_write_5m, cache_write_1h, out_visible,
  out_reasoning, token_basis, usage_role, llm_call_key, call_family, precedence, revision, cost_reported,
  cost_computed, price_version, tool_name, tool_kind, mcp_server, decision, exit_code, file_path, lines_added, lines_removed, file_size, bytes_in, bytes_out,
  unknown_reason, redactions, new_fields, ",
            $context,
            ", ",
            $data,
            ",
  raw_partition, raw_offset, raw_index, log_partition, log_offset, log_index
FROM events"
        )
    };
}

// Named differently than the columns: a condition on `data` would otherwise mean the empty string.
const LIGHT: &str = columns!("'' AS payload_context", "'' AS payload_data");
const WHOLE: &str = columns!("context AS payload_context", "data AS payload_data");

impl Payload {
    const fn columns(self) -> &'static str {
        match self {
            Self::Left => LIGHT,
            Self::Included => WHOLE,
        }
    }
}

/// The hour as the table's own sort key has it: with it in front, the engine reads the newest (oldest) hours and stops.
macro_rules! hour {
    () => {
        "intDiv(toUnixTimestamp64Nano(timestamp), 3600000000000)"
    };
}

const NEWEST_FIRST: &str = concat!(
    "\nORDER BY ",
    hour!(),
    " DESC, timestamp DESC, log_partition DESC, log_offset DESC, log_index DESC"
);
const OLDEST_FIRST: &str =
    concat!("\nORDER BY ", hour!(), ", timestamp, log_partition, log_offset, log_index");

/// Events within the range, in the order asked for, from after the last one shown.
pub(crate) fn events(
    project_id: &str,
    range: TimeRange,
    filter: &EventFilter,
    (order, payload): (Order, Payload),
    after: Option<EventKey>,
    limit: u32,
) -> Statement {
    let mut query = Builder::select(payload.columns()).project(project_id).range(within!("timestamp"), range);
    query = filtered(query, filter);
    if let Some(EventKey(timestamp_ns, partition, offset, index)) = after {
        // The first condition is implied by the second; it is the one the primary key understands.
        query = query
            .and(match order {
                Order::Newest => "timestamp <= fromUnixTimestamp64Nano({after_ns:Int64}, 'UTC')",
                Order::Oldest => "timestamp >= fromUnixTimestamp64Nano({after_ns:Int64}, 'UTC')",
            })
            .and(match order {
                Order::Newest => {
                    "(timestamp, log_partition, log_offset, log_index) < (fromUnixTimestamp64Nano({after_ns:Int64}, 'UTC'), {after_partition:Int64}, {after_offset:Int64}, {after_index:UInt64})"
                }
                Order::Oldest => {
                    "(timestamp, log_partition, log_offset, log_index) > (fromUnixTimestamp64Nano({after_ns:Int64}, 'UTC'), {after_partition:Int64}, {after_offset:Int64}, {after_index:UInt64})"
                }
            })
            .bind("after_ns", Param::Int(timestamp_ns))
            .bind("after_partition", Param::Int(i64::from(partition)))
            .bind("after_offset", Param::Int(offset))
            .bind("after_index", Param::UInt(u64::from(index)));
    }
    let ordered = match order {
        Order::Newest => query.push(NEWEST_FIRST),
        Order::Oldest => query.push(OLDEST_FIRST),
    };
    ordered.limit(limit).build()
}

fn filtered(query: Builder, filter: &EventFilter) -> Builder {
    let query = query
        .and_some("session_id = {session:String}", "session", filter.session.as_deref())
        .and_some("trace_id = {trace:String}", "trace", filter.trace.as_deref())
        .and_any("type IN {types:Array(String)}", "types", &filter.types)
        .and_any("status IN {statuses:Array(String)}", "statuses", &filter.statuses)
        .and_some(
            "(agent_id = {agent:String} OR agent_name = {agent:String})",
            "agent",
            filter.agent.as_deref(),
        )
        .and_some("model = {model:String}", "model", filter.model.as_deref())
        .and_some("name = {name:String}", "name", filter.name.as_deref())
        .and_some("source = {source:String}", "source", filter.source.as_deref())
        .and_some("tool_name = {tool:String}", "tool", filter.tool.as_deref())
        .and_some("user_id = {user:String}", "user", filter.user.as_deref());
    match &filter.search {
        Some(words) => search::all_words(query, words),
        None => query,
    }
}

/// The stored rows of one event id: more than one when its sender repeated it. The earliest stored is the one shown.
pub(crate) fn event_by_id(project_id: &str, range: TimeRange, event_id: &str) -> Statement {
    Builder::select(WHOLE)
        .project(project_id)
        .range(within!("timestamp"), range)
        .and_text("event_id = {event:String}", "event", event_id)
        .push("\nORDER BY received_at, log_partition, log_offset, log_index\nLIMIT 1")
        .build()
}
