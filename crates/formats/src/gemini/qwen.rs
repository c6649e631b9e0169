//! Qwen Code's own files: the chats of its sessions, and what a run prints.
//!
//! They are framed as Claude Code's are and filled as Gemini CLI's, which Qwen Code was made of. Its input includes what
//! came from the cache, and its output the thoughts. A call is told of more than once in one file, under no common
//! name: by a record of each call, or a total of all, and by the answers of the main conversation. The former are
//! complete, so they precede; the answers count where nothing else states usage.

use fleetlog_schemas::event::{AgentEvent, EventType};

use super::chat::note_path;
use super::{Counts, FAMILY};
use crate::records::{Object, count};
use crate::tools::refine_gemini;

pub(crate) mod chat;
pub(crate) mod stream;

/// The name in `source`, as on its other channels.
const SOURCE: &str = "qwen-code";

/// Precedence of the usage of an answer, which internal calls and most of a sub-agent's lack.
const OF_AN_ANSWER: u32 = 1;

/// Revision of the sighting in which the model asks for a tool.
const ASKED: i64 = 1;
/// Revision of the record that the program writes of a tool call.
const RECORDED: i64 = 2;
/// Revision of the sighting in which the result goes back to the model.
const ANSWERED: i64 = 3;

/// Makes an event a sighting of a tool call.
fn tool(event: &mut AgentEvent, name: &str, id: &str, arguments: Option<&Object>, revision: i64) {
    name.clone_into(&mut event.tool_name);
    id.clone_into(&mut event.tool_call_id);
    event.call_family = FAMILY.to_owned();
    event.revision = revision;
    refine_gemini(event);
    note_path(event, arguments);
}

/// Writes the usage of an answer, which then names a call by itself; nothing where all counts are zero.
fn answer(event: &mut AgentEvent, counts: Counts) {
    event.event_type = EventType::LlmResponse;
    let stated = [counts.stated.input, counts.stated.output];
    if stated.iter().all(|count| count.unwrap_or(0) == 0) {
        return;
    }
    counts.state(event);
    event.precedence = OF_AN_ANSWER;
    event.llm_call_key.clone_from(&event.event_id);
}

/// Takes the lines that a tool's edit added and removed.
fn note_lines(event: &mut AgentEvent, changed: Option<&Object>) {
    let Some(changed) = changed else { return };
    event.lines_added = count(changed, "model_added_lines");
    event.lines_removed = count(changed, "model_removed_lines");
}
