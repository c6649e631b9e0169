//! A group with its calls: one row, replaced as a whole.

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::nested::{differing, joined, nested, row_columns, stored_row};

/// What a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GroupKind {
    /// A session.
    Session,
    /// A trace, for events that name no session.
    Trace,
    /// A minute, for events that name neither.
    Loose,
}

impl GroupKind {
    /// The word in the tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Trace => "trace",
            Self::Loose => "loose",
        }
    }
}

nested! {
    /// A call to a model, counted once.
    Call, StoredCalls in "calls" {
        /// Identity within the group.
        "call_key" call_key: String,
        /// Event whose usage counts.
        "event_id" event_id: String,
        /// Time of the call, nanoseconds.
        "timestamp" timestamp: i64,
        /// When it ended, nanoseconds.
        "end_timestamp" end_timestamp: Option<i64>,
        /// When the first sighting was received, nanoseconds.
        "received_at" received_at: i64,
        /// Trace.
        "trace_id" trace_id: String,
        /// Span.
        "span_id" span_id: String,
        /// Turn.
        "turn_id" turn_id: String,
        /// The provider's id of the request.
        "request_id" request_id: String,
        /// Agent.
        "agent_id" agent_id: String,
        /// The agent's name.
        "agent_name" agent_name: String,
        /// Person or account.
        "user_id" user_id: String,
        /// Program that reported it.
        "source" source: String,
        /// Provider.
        "provider" provider: String,
        /// Model that answered.
        "model" model: String,
        /// Model asked for.
        "model_requested" model_requested: String,
        /// Why the model stopped.
        "finish_reason" finish_reason: String,
        /// How it ended.
        "status" status: &'static str,
        /// Class of the error.
        "error_type" error_type: String,
        /// Text of the error.
        "error_message" error_message: String,
        /// Attempt number.
        "attempt" attempt: Option<u32>,
        /// Duration, milliseconds.
        "duration_ms" duration_ms: Option<f64>,
        /// Time to the first token, milliseconds.
        "ttft_ms" ttft_ms: Option<f64>,
        /// Uncached input tokens.
        "in_uncached" in_uncached: u64,
        /// Input tokens read from a cache.
        "cache_read" cache_read: u64,
        /// Input tokens written to a 5-minute cache.
        "cache_write_5m" cache_write_5m: u64,
        /// Input tokens written to a 1-hour cache.
        "cache_write_1h" cache_write_1h: u64,
        /// Visible output tokens.
        "out_visible" out_visible: u64,
        /// Reasoning tokens.
        "out_reasoning" out_reasoning: u64,
        /// Convention of the counts.
        "token_basis" token_basis: String,
        /// Reported cost, billionths of a dollar.
        "cost_reported" cost_reported: Option<i64>,
        /// Computed cost, billionths of a dollar.
        "cost_computed" cost_computed: Option<i64>,
        /// Price table of the computed cost.
        "price_version" price_version: String,
        /// Channel whose usage counts.
        "channel" channel: &'static str,
        /// Format of the event that counts.
        "source_format" source_format: String,
        /// Distinct events that report it.
        "sightings" sightings: u32,
        /// Channels that report it, most authoritative first.
        "channels" channels: String,
        /// Whether a guess was involved.
        "guessed" guessed: bool,
        /// What was guessed, in words.
        "guess" guess: String,
        /// Events that report it, by time, at most 32.
        "event_ids" event_ids: Vec<String>,
        /// Raw partition of the event that counts.
        "raw_partition" raw_partition: i32,
        /// Raw offset of it.
        "raw_offset" raw_offset: i64,
        /// Index of it within its request.
        "raw_index" raw_index: u32,
    }
}

nested! {
    /// A tool call, counted once.
    Tool, StoredTools in "tools" {
        /// Identity within the group.
        "call_key" call_key: String,
        /// Most authoritative event.
        "event_id" event_id: String,
        /// Time of the call, nanoseconds.
        "timestamp" timestamp: i64,
        /// When it ended, nanoseconds.
        "end_timestamp" end_timestamp: Option<i64>,
        /// When the first sighting was received, nanoseconds.
        "received_at" received_at: i64,
        /// Trace.
        "trace_id" trace_id: String,
        /// Span.
        "span_id" span_id: String,
        /// Turn.
        "turn_id" turn_id: String,
        /// Agent.
        "agent_id" agent_id: String,
        /// The agent's name.
        "agent_name" agent_name: String,
        /// Person or account.
        "user_id" user_id: String,
        /// Program that reported it.
        "source" source: String,
        /// Finest event type known.
        "type" event_type: &'static str,
        /// Tool.
        "tool_name" tool_name: String,
        /// Kind of tool.
        "tool_kind" tool_kind: String,
        /// MCP server.
        "mcp_server" mcp_server: String,
        /// How it ended.
        "status" status: &'static str,
        /// Decision about it.
        "decision" decision: String,
        /// Class of the error.
        "error_type" error_type: String,
        /// Text of the error.
        "error_message" error_message: String,
        /// Duration, milliseconds.
        "duration_ms" duration_ms: Option<f64>,
        /// Exit code.
        "exit_code" exit_code: Option<i32>,
        /// File.
        "file_path" file_path: String,
        /// Lines added.
        "lines_added" lines_added: Option<u64>,
        /// Lines removed.
        "lines_removed" lines_removed: Option<u64>,
        /// Size of the file.
        "file_size" file_size: Option<u64>,
        /// Bytes of input.
        "bytes_in" bytes_in: Option<u64>,
        /// Bytes of output.
        "bytes_out" bytes_out: Option<u64>,
        /// Channel of the most authoritative event.
        "channel" channel: &'static str,
        /// Format of it.
        "source_format" source_format: String,
        /// Distinct events that report it.
        "sightings" sightings: u32,
        /// Channels that report it, most authoritative first.
        "channels" channels: String,
        /// Whether a guess was involved.
        "guessed" guessed: bool,
        /// What was guessed, in words.
        "guess" guess: String,
        /// Events that report it, by time, at most 32.
        "event_ids" event_ids: Vec<String>,
        /// Raw partition of that event.
        "raw_partition" raw_partition: i32,
        /// Raw offset of it.
        "raw_offset" raw_offset: i64,
        /// Index of it within its request.
        "raw_index" raw_index: u32,
    }
}

/// What a group says as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Time of the first event, nanoseconds.
    pub started_at: i64,
    /// Time of the last event, nanoseconds.
    pub ended_at: i64,
    /// When the first event was received, nanoseconds.
    pub first_received_at: i64,
    /// When the last event was received, nanoseconds.
    pub last_received_at: i64,
    /// Whether an end was reported and nothing began after it.
    pub ended: bool,
    /// Distinct events.
    pub event_count: u64,
    /// Errors outside any call.
    pub error_count: u64,
    /// Prompts.
    pub prompt_count: u64,
    /// Names of agents, sorted.
    pub agents: Vec<String>,
    /// Models that answered, sorted.
    pub models: Vec<String>,
    /// Users, sorted.
    pub users: Vec<String>,
    /// Machines, sorted.
    pub hosts: Vec<String>,
    /// Sources, sorted.
    pub sources: Vec<String>,
}

/// A row of `session_groups`.
pub(crate) struct GroupRow<'a> {
    pub(crate) project_id: &'a str,
    pub(crate) kind: GroupKind,
    pub(crate) group_id: &'a str,
    pub(crate) version: u64,
    pub(crate) session: &'a Session,
    pub(crate) calls: &'a [Call],
    pub(crate) tools: &'a [Tool],
}

/// A row of `session_groups` as it is stored; `status` says whether an end was reported.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct StoredGroup {
    pub(crate) project_id: String,
    pub(crate) group_kind: String,
    pub(crate) group_id: String,
    pub(crate) version: u64,
    started_at: i64,
    ended_at: i64,
    pub(crate) first_received_at: i64,
    last_received_at: i64,
    status: String,
    event_count: u64,
    error_count: u64,
    prompt_count: u64,
    agents: Vec<String>,
    models: Vec<String>,
    users: Vec<String>,
    hosts: Vec<String>,
    sources: Vec<String>,
    calls: StoredCalls,
    tools: StoredTools,
}

stored_row!(StoredGroup);

impl StoredGroup {
    /// Names of its columns, in order.
    pub(crate) fn columns() -> String {
        [OWN, Call::COLUMNS, Tool::COLUMNS].concat().join(", ")
    }

    /// Whether nothing counts here any more.
    pub(crate) fn is_empty(&self) -> bool {
        self.event_count == 0 && self.calls.call_key.is_empty() && self.tools.call_key.is_empty()
    }

    /// What the group says.
    pub(crate) fn into_parts(self) -> (Session, Vec<Call>, Vec<Tool>) {
        let session = Session {
            started_at: self.started_at,
            ended_at: self.ended_at,
            first_received_at: self.first_received_at,
            last_received_at: self.last_received_at,
            ended: self.status == ENDED,
            event_count: self.event_count,
            error_count: self.error_count,
            prompt_count: self.prompt_count,
            agents: self.agents,
            models: self.models,
            users: self.users,
            hosts: self.hosts,
            sources: self.sources,
        };
        (session, self.calls.into(), self.tools.into())
    }

    /// The columns that do not hold what a group says.
    pub(crate) fn differing(&self, session: &Session, calls: &[Call], tools: &[Tool]) -> Vec<&'static str> {
        let mut names = differing!(self, session; started_at, ended_at, first_received_at, last_received_at,
            event_count, error_count, prompt_count, agents, models, users, hosts, sources);
        if self.status != status(session) {
            names.push("status");
        }
        names.extend(self.calls.differing(calls));
        names.extend(self.tools.differing(tools));
        names
    }
}

const ENDED: &str = "ended";

const fn status(session: &Session) -> &'static str {
    if session.ended { ENDED } else { "open" }
}

const OWN: &[&str] = &[
    "project_id",
    "group_kind",
    "group_id",
    "version",
    "started_at",
    "ended_at",
    "first_received_at",
    "last_received_at",
    "status",
    "event_count",
    "error_count",
    "prompt_count",
    "agents",
    "models",
    "users",
    "hosts",
    "sources",
];
const COUNT: usize = OWN.len() + Call::COLUMNS.len() + Tool::COLUMNS.len();

row_columns!(GroupRow, COUNT, &joined::<COUNT>(&[OWN, Call::COLUMNS, Tool::COLUMNS]));

impl Serialize for GroupRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let session = self.session;
        let mut row = serializer.serialize_struct("GroupRow", COUNT)?;
        row.serialize_field("project_id", self.project_id)?;
        row.serialize_field("group_kind", self.kind.as_str())?;
        row.serialize_field("group_id", self.group_id)?;
        row.serialize_field("version", &self.version)?;
        row.serialize_field("started_at", &session.started_at)?;
        row.serialize_field("ended_at", &session.ended_at)?;
        row.serialize_field("first_received_at", &session.first_received_at)?;
        row.serialize_field("last_received_at", &session.last_received_at)?;
        row.serialize_field("status", status(session))?;
        row.serialize_field("event_count", &session.event_count)?;
        row.serialize_field("error_count", &session.error_count)?;
        row.serialize_field("prompt_count", &session.prompt_count)?;
        row.serialize_field("agents", &session.agents)?;
        row.serialize_field("models", &session.models)?;
        row.serialize_field("users", &session.users)?;
        row.serialize_field("hosts", &session.hosts)?;
        row.serialize_field("sources", &session.sources)?;
        Call::serialize_columns(self.calls, &mut row)?;
        Tool::serialize_columns(self.tools, &mut row)?;
        row.end()
    }
}
