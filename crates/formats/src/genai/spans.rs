//! Spans of instrumented programs.

use fleetlog_schemas::event::{AgentEvent, EventType, Status, TokenBasis, UsageRole};

use super::{Gathered, Operation, logs};
use crate::input::Fate;
use crate::json::ObjectWriter;
use crate::moment::Moment;
use crate::otlp::Decoder;
use crate::otlp::model::Span;
use crate::otlp::origin::Origin;
use crate::otlp::spans::{FORMAT, envelope, finish_data};
use crate::tools;

/// Start markers that Logfire sends ahead of the span itself.
const PENDING: &str = "logfire_pending_span";

/// Attributes that hold a tool's arguments as JSON.
const ARGUMENTS: [&str; 5] = [
    "gen_ai.tool.call.arguments",
    "ai.toolCall.args",
    "tool.parameters",
    "input.value",
    "langfuse.observation.input",
];

/// Maps one span; the judgements that it carries become events of their own.
///
/// # Errors
/// The span is not kept, and why.
pub(crate) fn events<'a>(
    decoder: &Decoder<'_>,
    origin: &Origin<'a>,
    index: u32,
    mut span: Span<'a>,
) -> Result<Vec<AgentEvent>, Fate> {
    let mut data = ObjectWriter::new();
    let mut event = envelope(decoder, origin, index, FORMAT, &span, &mut data);
    let mut gathered = Gathered::of(std::mem::take(&mut span.attributes));
    if gathered.other_text("logfire.span_type") == "pending_span" {
        return Err(Fate::Filtered(PENDING));
    }
    let operation = gathered.operation();
    gathered.identity_into(&mut event, origin);
    gathered.content_into(&mut event);
    gathered.usage_into(&mut event, &origin.scope.name);
    let has_usage = event.token_basis != TokenBasis::None || event.cost_reported.is_some();
    let operation = match operation {
        Operation::Unsaid if !has_usage || event.model.is_empty() => Operation::Unsaid,
        // No operation is named, but who counts tokens talks to a model; the runs of older pydantic-ai sum them up.
        Operation::Unsaid if origin.scope.name.starts_with("pydantic-ai") && !event.agent_name.is_empty() => {
            Operation::Agent
        }
        Operation::Unsaid => Operation::ModelCall,
        // ADK's span around the tools that ran side by side, each of which has its own.
        Operation::Tool if event.tool_name == "(merged tools)" => Operation::Other,
        operation => operation,
    };
    classify(&mut event, operation, has_usage);
    outcome(&mut event, &mut gathered, &span, operation);
    // LangSmith's exporter sets the status to ok behind the exception that it has recorded.
    if origin.scope.name == "langsmith" && span.events.iter().any(|entry| entry.name == "exception") {
        event.status = Status::Error;
    }
    details(&mut event, &gathered, origin);
    if operation == Operation::Tool {
        tool(&mut event, &gathered);
    }
    let scores = logs::scores_of_span(decoder, origin, index, &event, &span);
    gathered.rest_into(&mut data);
    finish_data(&mut event, data, &span);
    Ok(std::iter::once(event).chain(scores).collect())
}

fn classify(event: &mut AgentEvent, operation: Operation, has_usage: bool) {
    event.event_type = match operation {
        Operation::ModelCall => EventType::LlmRequest,
        Operation::Agent => EventType::AgentStep,
        Operation::Tool => EventType::ToolCall,
        Operation::Log => EventType::Log,
        Operation::Other | Operation::Unsaid => EventType::Span,
    };
    match operation {
        Operation::ModelCall => {
            // A response id need not be unique within its trace, and only the trace as a whole could tell.
            event.llm_call_key = format!("{}:{}", event.trace_id, event.span_id);
            event.usage_role = if has_usage { UsageRole::Call } else { UsageRole::None };
        }
        _ if has_usage => event.usage_role = UsageRole::Rollup,
        _ => {}
    }
}

/// How it ended: the span's status, its attributes, else the exception it recorded.
fn outcome(event: &mut AgentEvent, gathered: &mut Gathered<'_>, span: &Span<'_>, operation: Operation) {
    gathered.outcome_into(event);
    let exception = span.events.iter().rev().find(|entry| entry.name == "exception");
    for (name, value) in exception.into_iter().flat_map(|entry| &entry.attributes) {
        let column = match &**name {
            "exception.type" => &mut event.error_type,
            "exception.message" => &mut event.error_message,
            _ => continue,
        };
        if column.is_empty() {
            *column = value.text().unwrap_or_default();
        }
    }
    if event.status == Status::Unset && !event.error_type.is_empty() {
        event.status = Status::Error;
    }
    // A server's 404 is no failure of the server; of a call that was made it is one.
    if matches!(operation, Operation::ModelCall | Operation::Agent | Operation::Tool) {
        gathered.http_error_into(event);
    }
}

/// What single conventions say beside the common.
fn details(event: &mut AgentEvent, gathered: &Gathered<'_>, origin: &Origin<'_>) {
    event.level = gathered.level().unwrap_or_default();
    // Copilot and OpenCode write session logs as well, which share no id of a call with their spans.
    event.call_family = match origin.scope.name.as_str() {
        "github.copilot" => "copilot".to_owned(),
        _ if origin.resource_text("service.name") == Some("opencode") => "opencode".to_owned(),
        _ => String::new(),
    };
    if event.ttft_ms.is_none() {
        let first = gathered.other_text("langfuse.observation.completion_start_time");
        let first = Moment::of_text(first.trim_matches('"')).filter(|first| !first.clamped);
        let waited = first.map(|first| first.nanos.saturating_sub(event.timestamp));
        event.ttft_ms = waited.filter(|waited| *waited >= 0).map(|waited| waited as f64 / 1e6);
    }
}

fn tool(event: &mut AgentEvent, gathered: &Gathered<'_>) {
    if event.tool_name.is_empty() {
        let entity = gathered.other_text("traceloop.entity.name");
        event.tool_name = if entity.is_empty() { event.name.clone() } else { entity.to_owned() };
    }
    if gathered.other_text("gen_ai.tool.type") == "mcp" {
        event.tool_kind = "mcp".to_owned();
    }
    tools::refine(event);
    if let Some(arguments) = ARGUMENTS.iter().find_map(|name| gathered.other_object(name)) {
        tools::note_arguments(event, &arguments);
    }
}
