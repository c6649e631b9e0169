//! What must be known of a rollout's earlier lines to understand a later one.
//!
//! The facts that have a name go into the stream's context; the rest is remembered in its `noted`:
//! - Whether the line is copied. A fork or sub-agent begins with a copy of the session it came from, its header and turns
//!   included, stamped with the moment of copying. The copy ends at the ordinal that the header states; else at the first
//!   turn whose id, a UUID of version 7, was minted after the session's own; else, where turns have no ids, at the first
//!   line that was written later than the header by more than the copying takes.
//! - Which call a `token_count` tells of. It repeats the last call whenever anything on the screen changes, so one whose
//!   running total is the last one's tells of nothing new, and one whose total is that of the response just recorded
//!   tells of that response.

use fleetlog_schemas::record::StreamContext;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::confine::brief;
use crate::moment::Moment;
use crate::records::{Object, count, object, text};

/// How long the copying of a session's history takes at most, nanoseconds.
const COPYING: i64 = 2_000_000_000;

/// What is remembered, as it stands after the current line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Memory {
    /// The line is copied from another session.
    pub(super) replayed: bool,
    /// The copy has not ended yet.
    copying: bool,
    /// The line's running total has been told of before.
    pub(super) known: bool,
    /// Key of the call that the last running total includes as its last.
    pub(super) call: String,
    /// The last running total; empty before the first.
    total: String,
    /// Whether a `token_count` has told of that total.
    told: bool,
    /// Ordinal of the session's first own line, where the header states it.
    own_from: Option<u64>,
    /// When the header was written, nanoseconds.
    begun: Option<i64>,
}

impl Memory {
    pub(super) fn of(stream: &StreamContext) -> Self {
        // What another program wrote there is not understood, and nothing is remembered.
        serde_json::from_str(&stream.noted).unwrap_or_default()
    }

    fn note(&self, stream: &mut StreamContext) {
        stream.noted = serde_json::to_string(self).unwrap_or_default();
    }
}

/// Takes from a line what later lines need.
pub(super) fn follow(stream: &mut StreamContext, line: &Object) {
    let Some((kind, payload)) = super::parts(line) else { return };
    let mut memory = Memory::of(stream);
    memory.known = false;
    let inner = text(payload, "type");
    if kind == "session_meta" {
        header(stream, &mut memory, line, payload);
        return memory.note(stream);
    }
    let turn = match (kind, inner) {
        ("turn_context" | "token_usage_record", _) | ("event_msg", "task_started" | "turn_started") => {
            text(payload, "turn_id")
        }
        _ => "",
    };
    set(&mut stream.turn_id, turn);
    let thread = match (kind, inner) {
        ("token_usage_record", _) | ("event_msg", "item_completed") => text(payload, "thread_id"),
        _ => "",
    };
    if stream.session_id.is_empty() {
        set(&mut stream.session_id, thread);
    }
    memory.copying = memory.copying && copied(stream, &memory, line);
    memory.replayed = memory.copying || !thread.is_empty() && thread != stream.session_id;
    match (kind, inner) {
        ("turn_context", _) => settings(stream, payload),
        ("event_msg", "thread_settings_applied") => {
            object(payload, "thread_settings").into_iter().for_each(|applied| settings(stream, applied));
        }
        ("token_usage_record", _) => memory.record(payload),
        ("event_msg", "token_count") => memory.tell(&stream.turn_id, payload),
        _ => {}
    }
    memory.note(stream);
}

/// The thread that a session was forked or spawned from; empty when it is a session of its own.
pub(super) fn parent(meta: &Object) -> &str {
    let subagent = object(meta, "source").and_then(|source| object(source, "subagent"));
    let spawn = subagent.and_then(|subagent| object(subagent, "thread_spawn"));
    let named = [
        text(meta, "parent_thread_id"),
        spawn.map_or("", |spawn| text(spawn, "parent_thread_id")),
        text(meta, "forked_from_id"),
        text(meta, "forked_from"),
    ];
    named.into_iter().find(|id| !id.is_empty()).unwrap_or_default()
}

fn header(stream: &mut StreamContext, memory: &mut Memory, line: &Object, meta: &Object) {
    let id = [text(meta, "id"), text(meta, "session_id")].into_iter().find(|id| !id.is_empty());
    let Some(id) = id else { return };
    // While copying, another header is that of the session that the copied lines come from.
    memory.replayed = memory.copying && stream.session_id != id;
    if memory.replayed {
        return;
    }
    if stream.session_id != id {
        *memory = Memory::default();
        stream.turn_id.clear();
        stream.model.clear();
        id.clone_into(&mut stream.session_id);
        memory.own_from = count(meta, "subagent_history_start_ordinal");
        memory.copying = memory.own_from.is_some() || !parent(meta).is_empty();
        memory.begun = moment(line);
    }
    set(&mut stream.cwd, text(meta, "cwd"));
    set(&mut stream.provider, text(meta, "model_provider"));
    set(&mut stream.source, text(meta, "originator"));
    set(&mut stream.version, text(meta, "cli_version"));
    let spawned = object(meta, "source").is_some_and(|source| source.contains_key("subagent"));
    stream.agent_id =
        if spawned || meta.get("parent_thread_id").is_some_and(Value::is_string) { id } else { "" }
            .to_owned();
}

/// What a turn runs with.
fn settings(stream: &mut StreamContext, settings: &Object) {
    set(&mut stream.model, text(settings, "model"));
    set(&mut stream.cwd, text(settings, "cwd"));
    set(&mut stream.provider, text(settings, "model_provider_id"));
}

/// Whether a line of a session that began with a copy is still of it.
fn copied(stream: &StreamContext, memory: &Memory, line: &Object) -> bool {
    if let (Some(from), Some(ordinal)) = (memory.own_from, count(line, "ordinal")) {
        return ordinal < from;
    }
    if let (Some(turn), Some(session)) = (minted(&stream.turn_id), minted(&stream.session_id)) {
        return turn < session;
    }
    match (memory.begun, moment(line)) {
        (Some(begun), Some(written)) => written.saturating_sub(begun) <= COPYING,
        _ => false,
    }
}

/// When a UUID of version 7 was minted, in milliseconds since the epoch (RFC 9562, section 5.7).
fn minted(uuid: &str) -> Option<u64> {
    let version = uuid.len() == 36 && uuid.as_bytes().get(14) == Some(&b'7');
    let (high, low) = (uuid.get(..8)?, uuid.get(9..13)?);
    let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
    version.then_some(hex(high)? << 16 | hex(low)?)
}

impl Memory {
    /// Remembers the running total after a response that was recorded with its id.
    fn record(&mut self, payload: &Object) {
        let total = object(payload, "thread_token_usage").map(total).unwrap_or_default();
        if !total.is_empty() {
            let response = text(payload, "response_id");
            self.total = total;
            self.call = brief(response).unwrap_or_else(|| response.to_owned());
            self.told = false;
        }
    }

    /// Finds out which call a `token_count` tells of.
    fn tell(&mut self, turn: &str, payload: &Object) {
        let Some(info) = object(payload, "info") else { return };
        let total = object(info, "total_token_usage").map(total).unwrap_or_default();
        if total.is_empty() {
            self.call.clear();
        } else if total == self.total {
            self.known = self.told;
        } else {
            self.call = format!("{turn}/{total}");
        }
        self.told = !total.is_empty();
        self.total = total;
    }
}

/// A running total as one text.
fn total(usage: &Object) -> String {
    const PARTS: [&str; 6] = [
        "input_tokens",
        "cached_input_tokens",
        "cache_write_input_tokens",
        "output_tokens",
        "reasoning_output_tokens",
        "total_tokens",
    ];
    PARTS.map(|part| count(usage, part).unwrap_or(0).to_string()).join("+")
}

fn moment(line: &Object) -> Option<i64> {
    Moment::of_text(text(line, "timestamp")).map(|moment| moment.nanos)
}

/// Takes a fact that is stated.
fn set(column: &mut String, value: &str) {
    if !value.is_empty() {
        value.clone_into(column);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_of_version_7_says_when_it_was_minted() {
        assert_eq!(minted("01a1fe08-c838-7360-910a-2042e11dd7b1"), Some(0x01a1_fe08_c838));
        assert_eq!(minted("01a1fe08-c838-4360-910a-2042e11dd7b1"), None);
        assert_eq!(minted("sub-1"), None);
        assert_eq!(minted(&"é".repeat(18)), None);
    }
}
