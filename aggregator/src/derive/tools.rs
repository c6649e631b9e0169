//! Tool calls, each counted once.
//!
//! A tool call is named by the model's `tool_call_id`, which all channels share, else it is the event itself. A decision
//! about a tool is not a call: it says what became of one that is reported, and a refusal stands for a call that was
//! never made.
//!
//! In a family (its channels share no other id), calls without an id count in one channel whole and elsewhere only
//! outside its time, marked as guessed: the channel is the most authoritative of those whose calls have ids, else of
//! all that report calls. See [`family`](super::family) for the same rule about calls to models.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use fleetlog_schemas::event::{Channel, EventType, Status};
use fleetlog_store::Tool;
use fleetlog_store::derived::Sighting;

use super::carry::Past;
use super::cover::{Covers, Interval, Starts};
use super::merge::{self, Gathered, Identity};

const REJECT: &str = "reject";

/// All tool calls that a group's facts tell of, by time. `past` is what tool calls tell of families that stand as they
/// are stored.
pub(super) fn tools(sightings: &[&Sighting], starts: &Starts, past: &Past) -> Vec<Tool> {
    let guesses = beside(sightings, starts, past);
    let named = sightings
        .iter()
        .filter_map(|sighting| identity(sighting).map(|identity| (identity, *sighting)))
        .filter(|(_, sighting)| !matches!(guesses.get(&sighting.dedup_key), Some(Beside::Covered)));
    let mut tools: Vec<Tool> = merge::gather(named, |name| name, rank)
        .iter()
        .filter_map(|gathered| {
            let guess = match guesses.get(&gathered.best()?.dedup_key) {
                Some(Beside::Guessed(guess)) => guess.as_str(),
                Some(Beside::Covered) | None => "",
            };
            tool(gathered, guess)
        })
        .collect();
    tools.sort_by(|a, b| (a.timestamp, &a.call_key).cmp(&(b.timestamp, &b.call_key)));
    tools
}

/// What becomes of a call without an id that its family's best channel does not tell of.
enum Beside {
    /// It lies in the time of a better channel, which has told of it.
    Covered,
    /// It counts; why that is a guess.
    Guessed(String),
}

/// The families' calls without an id that are not their best channel's.
fn beside(sightings: &[&Sighting], starts: &Starts, past: &Past) -> HashMap<u128, Beside> {
    let mut families: BTreeMap<&str, BTreeMap<Channel, Vec<&Sighting>>> = BTreeMap::new();
    for sighting in sightings.iter().filter(|s| !s.call_family.is_empty() && kind(s).is_tool()) {
        let channels = families.entry(&sighting.call_family).or_default();
        channels.entry(merge::channel(sighting)).or_default().push(sighting);
    }
    let mut beside = HashMap::new();
    for mut channels in families.into_values() {
        for channel in past.channels() {
            channels.entry(channel).or_default();
        }
        let with_ids: BTreeSet<Channel> = channels
            .iter()
            .filter(|(channel, calls)| {
                past.states_usage(**channel) || calls.iter().any(|call| !call.tool_call_id.is_empty())
            })
            .map(|(channel, _)| *channel)
            .collect();
        let mut covers = Covers::default();
        let mut order: Vec<Channel> = channels.keys().copied().collect();
        order.sort_by_key(|channel| (!with_ids.contains(channel), *channel));
        for (at, channel) in order.iter().copied().enumerate() {
            let mut calls: Vec<(Interval, &Sighting)> =
                channels[&channel].iter().map(|call| (interval(call), *call)).collect();
            calls.sort_by_key(|(interval, call)| (*interval, call.dedup_key));
            let intervals: Vec<Interval> = calls.iter().map(|(interval, _)| *interval).collect();
            let outside = past.outside(&covers, &order[at..], starts, &intervals);
            let guess = covers.guess();
            let mut counting: Vec<Interval> = past.cover(channel).into_iter().collect();
            for ((interval, call), outside) in calls.into_iter().zip(outside) {
                if call.tool_call_id.is_empty() {
                    if !outside || past.has(call.timestamp, call.end_timestamp) {
                        beside.insert(call.dedup_key, Beside::Covered);
                        continue;
                    }
                    if let Some(guess) = &guess {
                        beside.insert(call.dedup_key, Beside::Guessed(guess.clone()));
                    }
                }
                counting.push(interval);
            }
            covers.add(channel, counting.into_iter());
        }
    }
    beside
}

fn interval(call: &Sighting) -> Interval {
    Interval::of(call.timestamp, call.end_timestamp, call.duration_ms, merge::timestamp_source(call))
}

fn identity(sighting: &Sighting) -> Option<Identity<'_>> {
    let kind = kind(sighting);
    match (sighting.tool_call_id.is_empty(), kind.is_tool()) {
        (false, true) => Some(Identity::Key(&sighting.tool_call_id)),
        (false, false) if kind == EventType::ToolDecision || merge::is_untyped(sighting) => {
            Some(Identity::Key(&sighting.tool_call_id))
        }
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

fn tool(gathered: &Gathered<'_>, guess: &str) -> Option<Tool> {
    let best = gathered.best()?;
    let text = |field: fn(&Sighting) -> &String| gathered.text(field);
    let decision = text(|sighting| &sighting.decision);
    // Decisions rank last: without a report of the call itself, the first sighting is one.
    let reported = kind(best).is_tool();
    if !reported && decision != REJECT {
        return None;
    }
    let finest = gathered
        .says()
        .map(kind)
        .find(|kind| kind.is_tool() && *kind != EventType::ToolCall)
        .unwrap_or(EventType::ToolCall);
    Some(Tool {
        call_key: gathered.key(),
        event_id: best.event_id.clone(),
        timestamp: best.timestamp,
        end_timestamp: gathered.value(|sighting| sighting.end_timestamp),
        received_at: gathered.first_received(),
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
        status: ended(gathered, &decision).as_str(),
        decision,
        error_type: text(|sighting| &sighting.error_type),
        error_message: text(|sighting| &sighting.error_message),
        duration_ms: gathered.value(|sighting| sighting.duration_ms),
        exit_code: gathered.value(|sighting| sighting.exit_code),
        file_path: text(|sighting| &sighting.file_path),
        lines_added: gathered.value(|sighting| sighting.lines_added),
        lines_removed: gathered.value(|sighting| sighting.lines_removed),
        file_size: gathered.value(|sighting| sighting.file_size),
        bytes_in: gathered.value(|sighting| sighting.bytes_in),
        bytes_out: gathered.value(|sighting| sighting.bytes_out),
        channel: merge::channel(best).as_str(),
        source_format: best.source_format.clone(),
        sightings: gathered.count(),
        channels: gathered.channels(),
        guessed: !guess.is_empty(),
        guess: guess.to_owned(),
        event_ids: gathered.event_ids(),
        raw_partition: best.raw_partition,
        raw_offset: best.raw_offset,
        raw_index: best.raw_index,
    })
}

/// A refused call is denied, however its absence was reported; only a success proves that it ran all the same.
fn ended(gathered: &Gathered<'_>, decision: &str) -> Status {
    let reported = gathered
        .says()
        .filter(|sighting| kind(sighting).is_tool())
        .map(merge::status)
        .find(|status| *status != Status::Unset)
        .unwrap_or_default();
    if decision == REJECT && reported != Status::Ok { Status::Denied } else { reported }
}
