//! SELECTs that show how one call was counted.

use super::calls::LLM;
use super::{Builder, Param, Statement};
use crate::time_range::NS_PER_S;

/// How far from a call's time its sightings are looked for: clocks of channels differ.
const MARGIN_NS: i64 = 86_400 * NS_PER_S;
/// How far from it the records of other channels are shown that no id joins to it.
const NEAR_NS: i64 = 600 * NS_PER_S;

/// Where a call is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallPlace {
    /// Sessions, traces or minutes that may hold it.
    pub(crate) groups: Vec<String>,
    /// A trace whose sessions may hold it.
    pub(crate) trace: Option<String>,
}

/// The call of this key, or the one that lists this event.
pub(crate) fn call(project_id: &str, place: &CallPlace, key: Option<&str>, event: Option<&str>) -> Statement {
    let query = Builder::select(LLM)
        .project(project_id)
        .and("group_kind IN ('session', 'trace', 'loose')")
        .bind("groups", Param::Texts(place.groups.clone()));
    let query = match &place.trace {
        None => query.and("group_id IN {groups:Array(String)}"),
        Some(trace) => query
            .and(concat!(
                "(group_id IN {groups:Array(String)} OR group_id IN (SELECT session_id FROM trace_sessions ",
                "WHERE project_id = {project:String} AND trace_id = {trace:String}))"
            ))
            .bind("trace", Param::Text(trace.clone())),
    };
    query
        .and_some("call_key = {key:String}", "key", key)
        .and_some("(event_id = {event:String} OR has(event_ids, {event:String}))", "event", event)
        .push("\nORDER BY group_kind, group_id")
        .limit(1)
        .build()
}

/// The events that tell of a call, and those of other channels near it that share no id with it.
pub(crate) fn sightings(
    project_id: &str,
    (session_id, trace_id): (&str, &str),
    (call_key, event_ids): (&str, &[String]),
    timestamp_ns: i64,
    limit: u32,
) -> Statement {
    Builder::select(
        "SELECT
  event_id, source, source_format, source_version, channel, type, timestamp, end_timestamp, received_at, trace_id,
  span_id, turn_id, request_id, model, status, usage_role, token_basis, in_uncached, cache_read, cache_write_5m,
  cache_write_1h, out_visible, out_reasoning, cost_reported, cost_computed, price_version, llm_call_key, call_family,
  precedence, revision
FROM events",
    )
    .project(project_id)
    .and(concat!(
        "timestamp >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC') AND ",
        "timestamp <= fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')"
    ))
    .bind("from_ns", Param::Int(timestamp_ns.saturating_sub(MARGIN_NS)))
    .bind("to_ns", Param::Int(timestamp_ns.saturating_add(MARGIN_NS)))
    .and("type IN ('llm.request', 'llm.response')")
    .and(concat!(
        "((session_id = {session:String} AND (session_id != '' OR trace_id = {trace:String})) OR ",
        "(session_id = '' AND trace_id != '' AND trace_id = {trace:String}))"
    ))
    .bind("session", Param::Text(session_id.to_owned()))
    .bind("trace", Param::Text(trace_id.to_owned()))
    .and(concat!(
        "(event_id IN {events:Array(String)} OR (llm_call_key != '' AND llm_call_key = {key:String}) OR ",
        "(call_family != '' AND timestamp >= fromUnixTimestamp64Nano({near_from_ns:Int64}, 'UTC') ",
        "AND timestamp <= fromUnixTimestamp64Nano({near_to_ns:Int64}, 'UTC')))"
    ))
    .bind("events", Param::Texts(event_ids.to_vec()))
    .bind("key", Param::Text(call_key.to_owned()))
    .bind("near_from_ns", Param::Int(timestamp_ns.saturating_sub(NEAR_NS)))
    .bind("near_to_ns", Param::Int(timestamp_ns.saturating_add(NEAR_NS)))
    .push("\nORDER BY timestamp, event_id, log_partition, log_offset, log_index\nLIMIT 1 BY dedup_key")
    .limit(limit)
    .build()
}
