//! The event model: one shape for everything an agent, SDK or collector can report.
//!
//! An absent text is the empty string and an absent count of tokens is zero, as in the tables; where "not said"
//! differs from zero (durations, costs, exit codes) the field is an `Option`. Times are nanoseconds since the
//! Unix epoch, UTC.

use crate::avro::avro_record;
use crate::id::{Key128, NanoUsd};

/// Declares a closed vocabulary: an enum whose wire form is a fixed word.
macro_rules! vocabulary {
    ($(#[$doc:meta])* $name:ident, default $default:ident, { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant),+ }

        impl $name {
            /// Every word of the vocabulary, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word on the wire and in the tables.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The member a word stands for, if it is one of the vocabulary.
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl Default for $name {
            fn default() -> Self { Self::$default }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl crate::avro::Field for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                crate::avro::put_str(out, self.as_str());
            }
            fn decode(input: &mut &[u8]) -> Result<Self, crate::avro::DecodeError> {
                // A word from a newer writer is not an error: the default says "not understood".
                Ok(Self::parse(crate::avro::take_str(input)?).unwrap_or_default())
            }
        }
    };
}
pub(crate) use vocabulary;

vocabulary! {
    /// What happened.
    EventType, default RawUnknown, {
        /// A session of an agent began.
        SessionStart = "session.start",
        /// A session ended.
        SessionEnd = "session.end",
        /// A person, or a program on their behalf, gave an instruction.
        UserPrompt = "user.prompt",
        /// An agent (or sub-agent) began.
        AgentStart = "agent.start",
        /// One turn or step of an agent.
        AgentStep = "agent.step",
        /// An agent (or sub-agent) ended.
        AgentEnd = "agent.end",
        /// The agent's context was compacted.
        AgentCompaction = "agent.compaction",
        /// A call to a language model, as the caller reports it.
        LlmRequest = "llm.request",
        /// The answer to a call to a language model.
        LlmResponse = "llm.response",
        /// A tool was allowed or refused.
        ToolDecision = "tool.decision",
        /// A tool ran; no finer type applies.
        ToolCall = "tool.call",
        /// A shell command ran.
        CommandRun = "command.run",
        /// A file was read.
        FileRead = "file.read",
        /// A file was changed.
        FileEdit = "file.edit",
        /// A file was created.
        FileCreate = "file.create",
        /// A file was deleted.
        FileDelete = "file.delete",
        /// Something was searched for.
        Search = "search",
        /// A page or API was fetched.
        WebFetch = "web.fetch",
        /// A tool of an MCP server was called.
        McpCall = "mcp.call",
        /// An error outside any call.
        Error = "error",
        /// A judgement of a trace, session or call.
        Score = "score",
        /// One point of a metric; never added to usage.
        MetricPoint = "metric.point",
        /// A log record without a finer meaning.
        Log = "log",
        /// A span without a finer meaning.
        Span = "span",
        /// Kept whole, not understood.
        RawUnknown = "raw.unknown",
    }
}

impl EventType {
    /// Whether an event of this type is a sighting of a tool call.
    pub const fn is_tool(self) -> bool {
        matches!(
            self,
            Self::ToolCall
                | Self::CommandRun
                | Self::FileRead
                | Self::FileEdit
                | Self::FileCreate
                | Self::FileDelete
                | Self::Search
                | Self::WebFetch
                | Self::McpCall
        )
    }

    /// Whether an event of this type may be a sighting of a call to a language model.
    pub const fn is_llm(self) -> bool {
        matches!(self, Self::LlmRequest | Self::LlmResponse)
    }
}

vocabulary! {
    /// How it ended.
    Status, default Unset, {
        /// Not said.
        Unset = "unset",
        /// It succeeded.
        Ok = "ok",
        /// It failed.
        Error = "error",
        /// It was refused.
        Denied = "denied",
        /// It was cancelled.
        Cancelled = "cancelled",
    }
}

vocabulary! {
    /// Where an event's timestamp comes from.
    TimestampSource, default Ingest, {
        /// The record's own time.
        Event = "event",
        /// The record's own time cannot be stored: the nearest that can be; `data` holds the original.
        Clamped = "clamped",
        /// The time at which a collector observed the record.
        Observed = "observed",
        /// The record had no usable time: the gateway's time of receipt.
        Ingest = "ingest",
    }
}

vocabulary! {
    /// The convention by which a source's token counts were brought to six disjoint buckets (MAPPING §1).
    TokenBasis, default None, {
        /// The event states no tokens.
        None = "none",
        /// OpenAI: cached tokens are part of the input, reasoning part of the output.
        Inclusive = "inclusive",
        /// Anthropic: input excludes cache reads and writes.
        AnthropicRaw = "anthropic_raw",
        /// Gemini: input includes cached tokens, output excludes thoughts.
        Gemini = "gemini",
        /// The source's buckets are disjoint already.
        Disjoint = "disjoint",
        /// The convention had to be guessed.
        Guessed = "guessed",
    }
}

vocabulary! {
    /// What a record's token counts describe. Whether they count is decided in the derivation.
    UsageRole, default None, {
        /// No usage stated.
        None = "none",
        /// One call.
        Call = "call",
        /// A sum over calls that are also reported one by one.
        Rollup = "rollup",
        /// A running total.
        Cumulative = "cumulative",
    }
}

vocabulary! {
    /// The channel by which a sighting of a call arrived, most authoritative first.
    Channel, default Other, {
        /// The agent's own log records.
        AgentLog = "agent_log",
        /// A span of the call to the model or of the tool.
        Span = "span",
        /// A transcript or rollout file.
        Transcript = "transcript",
        /// A hook payload.
        Hook = "hook",
        /// The universal event API or an SDK that reports calls directly.
        Api = "api",
        /// Anything else.
        Other = "other",
    }
}

avro_record! {
    /// One event, as it travels from the processor to the aggregator.
    ///
    /// # Invariants
    /// `dedup_key` was computed before redaction; the six token buckets are disjoint; `cost_reported` is what
    /// the sender said and `cost_computed` what the price table says, and neither overwrites the other.
    pub struct AgentEvent, "AgentEvent" {
        /// The sender's id, else one derived from `dedup_key`.
        pub event_id: String,
        /// Two arrivals with the same key are the same event (MAPPING §9).
        pub dedup_key: Key128,
        /// The key's project.
        pub project_id: String,
        /// What emitted it, for instance `claude-code`.
        pub source: String,
        /// The format it arrived in, for instance `claude.otlp.logs`.
        pub source_format: String,
        /// The emitting program's version.
        pub source_version: String,
        /// The channel by which it arrived.
        pub channel: Channel,
        /// When it happened, nanoseconds UTC.
        pub timestamp: i64,
        /// Where `timestamp` comes from.
        pub timestamp_source: TimestampSource,
        /// When it ended, nanoseconds UTC.
        pub end_timestamp: Option<i64>,
        /// When the gateway accepted it, nanoseconds UTC.
        pub received_at: i64,
        /// What happened.
        pub event_type: EventType,
        /// The source's own name of the record.
        pub name: String,
        /// How it ended.
        pub status: Status,
        /// Severity: `trace`, `debug`, `info`, `warn`, `error` or `fatal`.
        pub level: String,
        /// Class of the error.
        pub error_type: String,
        /// Text of the error.
        pub error_message: String,
        /// Session (conversation) it belongs to.
        pub session_id: String,
        /// Trace, 32 hexadecimal digits when it comes from OTLP.
        pub trace_id: String,
        /// Span, 16 hexadecimal digits when it comes from OTLP.
        pub span_id: String,
        /// Parent span or parent record.
        pub parent_id: String,
        /// Turn within the session (a prompt and all that follows from it).
        pub turn_id: String,
        /// The provider's or SDK's id of the request.
        pub request_id: String,
        /// The model's id of the tool call.
        pub tool_call_id: String,
        /// Agent that did it.
        pub agent_id: String,
        /// Agent that started the agent.
        pub parent_agent_id: String,
        /// The agent's name or type.
        pub agent_name: String,
        /// Person or account.
        pub user_id: String,
        /// Machine.
        pub host: String,
        /// Provider of the model, for instance `anthropic`.
        pub provider: String,
        /// Model that answered.
        pub model: String,
        /// Model that was asked for.
        pub model_requested: String,
        /// Why the model stopped.
        pub finish_reason: String,
        /// Attempt number, from 1.
        pub attempt: Option<u32>,
        /// Duration in milliseconds.
        pub duration_ms: Option<f64>,
        /// Time to the first token in milliseconds.
        pub ttft_ms: Option<f64>,
        /// Input tokens neither read from nor written to a cache.
        pub in_uncached: u64,
        /// Input tokens read from a cache.
        pub cache_read: u64,
        /// Input tokens written to a 5-minute cache.
        pub cache_write_5m: u64,
        /// Input tokens written to a 1-hour cache.
        pub cache_write_1h: u64,
        /// Output tokens that are not reasoning.
        pub out_visible: u64,
        /// Output tokens spent on reasoning.
        pub out_reasoning: u64,
        /// By which convention the buckets were obtained.
        pub token_basis: TokenBasis,
        /// What the counts describe.
        pub usage_role: UsageRole,
        /// Sightings with the same non-empty key are the same call to a model. A running total names its series here.
        pub llm_call_key: String,
        /// Family of records whose channels share no id of a call (`codex`, `gemini`): of these the unit that is counted
        /// is session × channel. Empty where the key is shared.
        pub call_family: String,
        /// Among the records of one family, channel and turn that state usage, those of the lowest precedence count.
        pub precedence: u32,
        /// Order among the records of one thing that is reported in pieces or again: the sender's time of writing in
        /// nanoseconds, or a line number. Field by field the highest wins; 0 where the record is whole.
        pub revision: i64,
        /// Cost the sender reported.
        pub cost_reported: Option<NanoUsd>,
        /// Cost computed from the price table.
        pub cost_computed: Option<NanoUsd>,
        /// Version of the price table used.
        pub price_version: String,
        /// Tool.
        pub tool_name: String,
        /// Kind of tool: `builtin`, `mcp`, `agent` or empty.
        pub tool_kind: String,
        /// MCP server of the tool.
        pub mcp_server: String,
        /// `accept` or `reject`, with a `tool.decision`.
        pub decision: String,
        /// Exit code of a command.
        pub exit_code: Option<i32>,
        /// File the event is about.
        pub file_path: String,
        /// Lines added.
        pub lines_added: Option<u64>,
        /// Lines removed.
        pub lines_removed: Option<u64>,
        /// Size of the file in bytes.
        pub file_size: Option<u64>,
        /// Bytes that went in (request, tool input).
        pub bytes_in: Option<u64>,
        /// Bytes that came out (response, tool output).
        pub bytes_out: Option<u64>,
        /// Why a record is kept as `raw.unknown`.
        pub unknown_reason: String,
        /// Secrets replaced in this event.
        pub redactions: u32,
        /// JSON object: where it happened (resource, scope, environment).
        pub context: String,
        /// JSON object: everything the record said that has no column.
        pub data: String,
        /// Partition of the raw record.
        pub raw_partition: i32,
        /// Offset of the raw record.
        pub raw_offset: i64,
        /// Index of the record within the request.
        pub raw_index: u32,
        /// Service tier of the call as the record states it; empty for the standard one.
        pub service_tier: String,
        /// Place where the call was served, where that was chosen.
        pub inference_geo: String,
        /// Members of `data` that none of the captures had from which the format was mapped.
        pub new_fields: u32,
    }
}

impl AgentEvent {
    /// Input tokens of every kind; whatever a sender claims, the sum does not overflow.
    pub fn in_total(&self) -> u64 {
        [self.cache_read, self.cache_write_5m, self.cache_write_1h]
            .into_iter()
            .fold(self.in_uncached, u64::saturating_add)
    }

    /// Output tokens of every kind; whatever a sender claims, the sum does not overflow.
    pub fn out_total(&self) -> u64 {
        self.out_visible.saturating_add(self.out_reasoning)
    }
}

macro_rules! text_columns {
    ($($column:ident),+ $(,)?) => {
        impl AgentEvent {
            /// Every text column but `context` and `data`, by name.
            pub fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
                [$((stringify!($column), self.$column.as_str())),+].into_iter()
            }

            /// Every text column but `context` and `data`, by name, to be changed.
            pub fn texts_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut String)> {
                [$((stringify!($column), &mut self.$column)),+].into_iter()
            }
        }
    };
}
text_columns! {
    event_id, project_id, source, source_format, source_version, name, level, error_type, error_message, session_id,
    trace_id, span_id, parent_id, turn_id, request_id, tool_call_id, agent_id, parent_agent_id, agent_name, user_id,
    host, provider, model, model_requested, finish_reason, llm_call_key, call_family, price_version, tool_name,
    tool_kind, mcp_server, decision, file_path, unknown_reason, service_tier, inference_geo,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avro::Record;

    #[test]
    fn text_columns_are_all_strings_but_the_two_documents() {
        let event = serde_json::to_value(AgentEvent::default()).unwrap();
        let blank: Vec<&str> =
            AgentEvent::FIELDS.iter().copied().filter(|field| event[field] == "").collect();
        let listed: Vec<&str> = AgentEvent::default().texts().map(|(name, _)| name).collect();
        let expected: Vec<&str> =
            blank.into_iter().filter(|field| !matches!(*field, "context" | "data")).collect();
        assert_eq!(listed, expected);
    }
}
