//! What is recognised, how, and by which channel it counts.

use fleetlog_schemas::event::Channel;

/// A format with a decoder of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Its name in `source_format`, and as a format hint where it may be given one.
    pub name: &'static str,
    /// What it is.
    pub title: &'static str,
    /// How a record of it is recognised.
    pub recognised_by: &'static str,
    /// Version of the emitting program from which the mapping was made; empty when it has none.
    pub made_from: &'static str,
    /// The channel of its events.
    pub channel: Channel,
}

/// Every format, in the order of detection.
pub const CATALOGUE: &[Format] = &[
    Format {
        name: crate::universal::FORMAT,
        title: "Universal JSON events",
        recognised_by: "POST /v1/events; each object has a \"type\"",
        made_from: "",
        channel: Channel::Api,
    },
    Format {
        name: crate::langfuse::INGESTION.name,
        title: "Langfuse, ingestion batches",
        recognised_by: "POST /api/public/ingestion; batch[] with a type and a body",
        made_from: "langfuse-python 2.60.10, langfuse-js 3.39.2",
        channel: Channel::Api,
    },
    Format {
        name: crate::langfuse::SCORES.name,
        title: "Langfuse, single scores",
        recognised_by: "POST /api/public/scores",
        made_from: "langfuse-python 3.15.0",
        channel: Channel::Api,
    },
    Format {
        name: crate::langsmith::RUNS.name,
        title: "LangSmith, runs",
        recognised_by: "POST /runs, /runs/batch, PATCH /runs/{id}; trace_id with run_type or dotted_order",
        made_from: "langsmith-python 0.15.0, langsmith-js 0.12.0",
        channel: Channel::Api,
    },
    Format {
        name: crate::langsmith::multipart::HINT,
        title: "LangSmith, runs and feedback in the parts of a form",
        recognised_by: "POST /runs/multipart; multipart/form-data",
        made_from: "langsmith-python 0.15.0",
        channel: Channel::Api,
    },
    Format {
        name: crate::langsmith::FEEDBACK.name,
        title: "LangSmith, feedback",
        recognised_by: "POST /feedback; run_id with key and score",
        made_from: "langsmith-python 0.15.0",
        channel: Channel::Api,
    },
    Format {
        name: crate::openai_agents::TRACES.name,
        title: "OpenAI Agents SDK, traces and spans",
        recognised_by: "POST /v1/traces/ingest; data[].object trace or trace.span",
        made_from: "openai-agents 0.24.0",
        channel: Channel::Api,
    },
    Format {
        name: crate::opik::SPANS.name,
        title: "Opik, spans",
        recognised_by: "POST /v1/private/spans[/batch], PATCH …/{id}; project_name with trace_id",
        made_from: "opik 2.2.122",
        channel: Channel::Api,
    },
    Format {
        name: crate::opik::TRACES.name,
        title: "Opik, traces",
        recognised_by: "POST /v1/private/traces[/batch], PATCH …/{id}; project_name with start_time",
        made_from: "opik 2.2.122",
        channel: Channel::Api,
    },
    Format {
        name: crate::opik::FEEDBACK.name,
        title: "Opik, feedback scores",
        recognised_by: "PUT …/feedback-scores",
        made_from: "opik 2.2.122",
        channel: Channel::Api,
    },
    Format {
        name: crate::claude::logs::FORMAT,
        title: "Claude Code, OTLP log events",
        recognised_by: "scope com.anthropic.claude_code*, event name claude_code.*, or service claude-code",
        made_from: "2.1.197",
        channel: Channel::AgentLog,
    },
    Format {
        name: crate::claude::spans::FORMAT,
        title: "Claude Code, spans",
        recognised_by: "scope com.anthropic.claude_code*, or service claude-code",
        made_from: "2.1.197",
        channel: Channel::Span,
    },
    Format {
        name: crate::claude::hooks::FORMAT.name,
        title: "Claude Code, hook payloads",
        recognised_by: "hook_event_name (PascalCase) and session_id",
        made_from: "2.1.197",
        channel: Channel::Hook,
    },
    Format {
        name: crate::claude::transcript::FORMAT.name,
        title: "Claude Code, transcripts of sessions and sub-agents",
        recognised_by: "sessionId, and a transcript's type or a uuid; old lines by message.usage and timestamp",
        made_from: "2.1.197",
        channel: Channel::Transcript,
    },
    Format {
        name: crate::claude::stream_json::FORMAT.name,
        title: "Claude Code, output of -p --output-format stream-json",
        recognised_by: "session_id, and type system, assistant, user, result or another of its rows",
        made_from: "2.1.197",
        channel: Channel::Other,
    },
    Format {
        name: crate::codex::logs::FORMAT,
        title: "Codex, OTLP log events",
        recognised_by: "event name codex.*, or scope codex_*",
        made_from: "0.169.0",
        channel: Channel::AgentLog,
    },
    Format {
        name: crate::codex::spans::FORMAT,
        title: "Codex, spans",
        recognised_by: "scope codex_*",
        made_from: "0.169.0",
        channel: Channel::Span,
    },
    Format {
        name: crate::gemini::logs::FORMAT,
        title: "Gemini CLI, OTLP log events",
        recognised_by: "event name gemini_cli.*, or scope gemini-cli",
        made_from: "0.61.0",
        channel: Channel::AgentLog,
    },
    Format {
        name: crate::gemini::spans::FORMAT,
        title: "Gemini CLI, spans",
        recognised_by: "scope gemini-cli",
        made_from: "0.61.0",
        channel: Channel::Span,
    },
    Format {
        name: crate::codex::rollout::FORMAT.name,
        title: "Codex, rollout file",
        recognised_by: "a member payload, and type session_meta, turn_context, response_item, event_msg and the like",
        made_from: "0.169.0",
        channel: Channel::Transcript,
    },
    Format {
        name: crate::codex::exec::FORMAT.name,
        title: "Codex, output of codex exec --json",
        recognised_by: "type thread.*, turn.* or item.*",
        made_from: "0.169.0",
        channel: Channel::Other,
    },
    Format {
        name: crate::gemini::chat::FORMAT.name,
        title: "Gemini CLI, chat file",
        recognised_by: "members sessionId and projectHash, a member $set or $rewindTo, or type gemini",
        made_from: "0.61.0",
        channel: Channel::Transcript,
    },
    Format {
        name: crate::otlp::logs::FORMAT,
        title: "Any other OTLP log records",
        recognised_by: "POST /v1/logs, or a member resourceLogs",
        made_from: "",
        channel: Channel::AgentLog,
    },
    Format {
        name: crate::otlp::spans::FORMAT,
        title: "Any other OTLP spans, by the attribute conventions for generative AI",
        recognised_by: "POST /v1/traces, or a member resourceSpans",
        made_from: "",
        channel: Channel::Span,
    },
    Format {
        name: crate::otlp::metrics::FORMAT,
        title: "OTLP metric points",
        recognised_by: "POST /v1/metrics, or a member resourceMetrics",
        made_from: "",
        channel: Channel::Other,
    },
];
