//! The typed columns as members of a universal event: their camelCase names and what fits them.

use fleetlog_schemas::event::{AgentEvent, Status, UsageRole};
use fleetlog_schemas::id::NanoUsd;

use crate::json::Scalar;
use crate::moment::Moment;

/// Largest count taken as one. Beyond it a sum of a few columns could leave 64 bits, and no count is that large.
const LARGEST_COUNT: u64 = 1 << 53;

/// A value as text, when it is one that reads as text.
pub(super) fn text(value: &Scalar<'_>) -> Option<String> {
    match value {
        Scalar::Text(text) => Some(text.text().into_owned()),
        Scalar::Number(number) => Some((*number).to_owned()),
        Scalar::Bool(flag) => Some(flag.to_string()),
        Scalar::Null | Scalar::Object(_) | Scalar::Array(_) => None,
    }
}

/// A value as a finite number.
pub(super) fn float(value: &Scalar<'_>) -> Option<f64> {
    let parse = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    match value {
        Scalar::Number(number) => parse(number),
        Scalar::Text(text) => parse(&text.text()),
        _ => None,
    }
}

/// A value as a count.
pub(super) fn count(value: &Scalar<'_>) -> Option<u64> {
    let parse = |text: &str| text.trim().parse::<u64>().ok();
    let exact = match value {
        Scalar::Number(number) => parse(number),
        Scalar::Text(text) => parse(&text.text()),
        _ => None,
    };
    let whole =
        || float(value).filter(|number| number.fract() == 0.0 && *number >= 0.0).map(|number| number as u64);
    exact.or_else(whole).filter(|count| *count <= LARGEST_COUNT)
}

fn integer(value: &Scalar<'_>) -> Option<i32> {
    let number = float(value).filter(|number| number.fract() == 0.0)?;
    (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number).then_some(number as i32)
}

/// Puts `value` into a column that holds nothing yet, or the same; false when it holds another, or there is no value.
pub(super) fn put<T: Default + PartialEq>(column: &mut T, value: Option<T>) -> bool {
    match value {
        Some(value) if *column == T::default() || *column == value => {
            *column = value;
            true
        }
        _ => false,
    }
}

/// Puts `value` into the column called `name`; false when there is none, it does not fit, or the column holds another.
pub(super) fn set(event: &mut AgentEvent, name: &str, value: &Scalar<'_>) -> bool {
    if matches!(value, Scalar::Null) {
        return true;
    }
    if let Some(column) = text_column(event, name) {
        return put(column, text(value));
    }
    if let Some(column) = count_column(event, name) {
        return put(column, count(value));
    }
    if let Some(column) = optional_count_column(event, name) {
        return put(column, count(value).map(Some));
    }
    match name {
        "durationMs" => put(&mut event.duration_ms, float(value).map(Some)),
        "ttftMs" => put(&mut event.ttft_ms, float(value).map(Some)),
        "exitCode" => put(&mut event.exit_code, integer(value).map(Some)),
        "attempt" => {
            let attempt = count(value).and_then(|count| u32::try_from(count).ok());
            put(&mut event.attempt, attempt.map(Some))
        }
        "costReported" | "costUsd" => {
            let cost = float(value).and_then(NanoUsd::from_usd);
            put(&mut event.cost_reported, cost.map(Some))
        }
        "status" => {
            let status = text(value).and_then(|word| Status::parse(&word.to_ascii_lowercase()));
            put(&mut event.status, status)
        }
        "usageRole" => put(&mut event.usage_role, text(value).and_then(|word| UsageRole::parse(&word))),
        "level" => put(&mut event.level, text(value).map(|level| level.to_ascii_lowercase())),
        "endTimestamp" => {
            let end = Moment::of_scalar(value).filter(|moment| !moment.clamped);
            put(&mut event.end_timestamp, end.map(|moment| Some(moment.nanos)))
        }
        _ => false,
    }
}

fn text_column<'e>(event: &'e mut AgentEvent, name: &str) -> Option<&'e mut String> {
    Some(match name {
        "id" | "eventId" => &mut event.event_id,
        "source" => &mut event.source,
        "sourceVersion" => &mut event.source_version,
        "name" => &mut event.name,
        "errorType" => &mut event.error_type,
        "errorMessage" | "error" => &mut event.error_message,
        "sessionId" => &mut event.session_id,
        "traceId" => &mut event.trace_id,
        "spanId" => &mut event.span_id,
        "parentId" => &mut event.parent_id,
        "turnId" => &mut event.turn_id,
        "requestId" => &mut event.request_id,
        "toolCallId" => &mut event.tool_call_id,
        "agentId" => &mut event.agent_id,
        "parentAgentId" => &mut event.parent_agent_id,
        "agentName" => &mut event.agent_name,
        "userId" => &mut event.user_id,
        "host" => &mut event.host,
        "provider" => &mut event.provider,
        "model" => &mut event.model,
        "modelRequested" => &mut event.model_requested,
        "finishReason" => &mut event.finish_reason,
        "callId" | "llmCallKey" => &mut event.llm_call_key,
        "toolName" => &mut event.tool_name,
        "toolKind" => &mut event.tool_kind,
        "mcpServer" => &mut event.mcp_server,
        "decision" => &mut event.decision,
        "filePath" => &mut event.file_path,
        _ => return None,
    })
}

fn count_column<'e>(event: &'e mut AgentEvent, name: &str) -> Option<&'e mut u64> {
    Some(match name {
        "inUncached" => &mut event.in_uncached,
        "cacheRead" => &mut event.cache_read,
        "cacheWrite5m" => &mut event.cache_write_5m,
        "cacheWrite1h" => &mut event.cache_write_1h,
        "outVisible" => &mut event.out_visible,
        "outReasoning" => &mut event.out_reasoning,
        _ => return None,
    })
}

fn optional_count_column<'e>(event: &'e mut AgentEvent, name: &str) -> Option<&'e mut Option<u64>> {
    Some(match name {
        "linesAdded" => &mut event.lines_added,
        "linesRemoved" => &mut event.lines_removed,
        "fileSize" => &mut event.file_size,
        "bytesIn" => &mut event.bytes_in,
        "bytesOut" => &mut event.bytes_out,
        _ => return None,
    })
}
