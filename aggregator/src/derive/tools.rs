//! Tool calls, each counted once.
//!
//! A tool call is named by the model's `tool_call_id`, else it is the event itself. A decision about a tool is not a
//! call: it says what became of one that is reported, and a refusal stands for a call that was never made.

use std::cmp::Reverse;

use fleetlog_schemas::event::{EventType, Status};
use fleetlog_store::Tool;
use fleetlog_store::derived::Sighting;

use super::merge::{self, Identity};

const REJECT: &str = "reject";

/// All tool calls of a group, by time.
pub(super) fn tools(sightings: &[Sighting]) -> Vec<Tool> {
    let mut tools: Vec<Tool> =
        merge::gather(sightings, identity, rank).iter().filter_map(|(_, seen)| tool(seen)).collect();
    tools.sort_by(|a, b| (a.timestamp, &a.call_key).cmp(&(b.timestamp, &b.call_key)));
    tools
}

fn identity(sighting: &Sighting) -> Option<Identity<'_>> {
    let kind = kind(sighting);
    match (sighting.tool_call_id.is_empty(), kind.is_tool()) {
        (false, true) => Some(Identity::Key(&sighting.tool_call_id)),
        (false, false) if kind == EventType::ToolDecision => Some(Identity::Key(&sighting.tool_call_id)),
        (true, true) => Some(Identity::Event(sighting.dedup_key)),
        (false | true, false) => None,
    }
}

fn kind(sighting: &Sighting) -> EventType {
    EventType::parse(&sighting.event_type).unwrap_or_default()
}

fn rank(sighting: &Sighting) -> impl Ord + use<> {
    let says = [
        merge::status(sighting) != Status::Unset,
        sighting.duration_ms.is_some(),
        !sighting.tool_name.is_empty(),
        sighting.lines_added.is_some(),
    ];
    let complete = says.into_iter().filter(|said| *said).count();
    (Reverse(kind(sighting).is_tool()), merge::channel(sighting), Reverse(complete))
}

fn tool(seen: &[&Sighting]) -> Option<Tool> {
    let best = *seen.first()?;
    let text = |field: fn(&Sighting) -> &String| merge::text(seen, field);
    let decision = text(|sighting| &sighting.decision);
    // Decisions rank last: without a report of the call itself, the first sighting is one.
    let reported = kind(best).is_tool();
    if !reported && decision != REJECT {
        return None;
    }
    let finest = seen
        .iter()
        .map(|sighting| kind(sighting))
        .find(|kind| kind.is_tool() && *kind != EventType::ToolCall)
        .unwrap_or(EventType::ToolCall);
    Some(Tool {
        call_key: if best.tool_call_id.is_empty() {
            best.event_id.clone()
        } else {
            best.tool_call_id.clone()
        },
        event_id: best.event_id.clone(),
        timestamp: best.timestamp,
        end_timestamp: merge::value(seen, |sighting| sighting.end_timestamp),
        received_at: merge::first_received(seen),
        trace_id: text(|sighting| &sighting.trace_id),
        span_id: text(|sighting| &sighting.span_id),
        turn_id: text(|sighting| &sighting.turn_id),
        agent_id: text(|sighting| &sighting.agent_id),
        agent_name: text(|sighting| &sighting.agent_name),
        user_id: text(|sighting| &sighting.user_id),
        source: best.source.clone(),
        event_type: finest.as_str(),
        tool_name: text(|sighting| &sighting.tool_name),
        tool_kind: text(|sighting| &sighting.tool_kind),
        mcp_server: text(|sighting| &sighting.mcp_server),
        status: ended(seen, &decision).as_str(),
        decision,
        error_type: text(|sighting| &sighting.error_type),
        error_message: text(|sighting| &sighting.error_message),
        duration_ms: merge::value(seen, |sighting| sighting.duration_ms),
        exit_code: merge::value(seen, |sighting| sighting.exit_code),
        file_path: text(|sighting| &sighting.file_path),
        lines_added: merge::value(seen, |sighting| sighting.lines_added),
        lines_removed: merge::value(seen, |sighting| sighting.lines_removed),
        file_size: merge::value(seen, |sighting| sighting.file_size),
        bytes_in: merge::value(seen, |sighting| sighting.bytes_in),
        bytes_out: merge::value(seen, |sighting| sighting.bytes_out),
        channel: merge::channel(best).as_str(),
        source_format: best.source_format.clone(),
        sightings: merge::count(seen),
        channels: merge::channels(seen),
        // Nothing about a tool call is guessed yet; the rules for sources without shared ids will.
        guessed: false,
        raw_partition: best.raw_partition,
        raw_offset: best.raw_offset,
        raw_index: best.raw_index,
    })
}

/// A refused call is denied, however its absence was reported; only a success proves that it ran all the same.
fn ended(seen: &[&Sighting], decision: &str) -> Status {
    let reported = seen
        .iter()
        .filter(|sighting| kind(sighting).is_tool())
        .map(|sighting| merge::status(sighting))
        .find(|status| *status != Status::Unset)
        .unwrap_or_default();
    if decision == REJECT && reported != Status::Ok { Status::Denied } else { reported }
}
