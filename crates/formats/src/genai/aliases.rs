//! The names of each thing that an attribute may say (MAPPING §2).

use std::collections::HashMap;
use std::sync::OnceLock;

use fleetlog_schemas::id::NanoUsd;

use crate::otlp::model::AnyValue;

/// A thing that an attribute may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Provider,
    Model,
    ModelRequested,
    Input,
    Output,
    CacheRead,
    CacheWrite,
    Reasoning,
    Cost,
    Session,
    User,
    AgentId,
    AgentName,
    ToolName,
    ToolCallId,
    McpServer,
    ExitCode,
    ResponseId,
    FinishReason,
    TtftSeconds,
    TtftMillis,
    ErrorType,
    ErrorMessage,
    EventName,
    RecordId,
}

pub(super) const SLOTS: usize = Slot::RecordId as usize + 1;

/// The names of each thing, the winning one first.
pub(super) const ALIASES: [(Slot, &[&str]); SLOTS] = [
    (
        Slot::Provider,
        &[
            "gen_ai.provider.name",
            "gen_ai.system",
            "llm.provider",
            "llm.system",
            "ai.model.provider",
            "model_provider",
        ],
    ),
    (
        Slot::Model,
        &[
            "langfuse.observation.model.name",
            "gen_ai.response.model",
            "llm.response.model_name",
            "llm.model_name",
            "ai.response.model",
            "embedding.model_name",
            "model",
            "model_name",
        ],
    ),
    (Slot::ModelRequested, &["gen_ai.request.model", "llm.request.model_name", "ai.model.id", "slug"]),
    (
        Slot::Input,
        &[
            "gen_ai.usage.input_tokens",
            "gen_ai.usage.prompt_tokens",
            "llm.usage.prompt_tokens",
            "llm.token_count.prompt",
            "ai.usage.inputTokens",
            "ai.usage.promptTokens",
            "ai.usage.tokens",
            "gen_ai.aggregated_usage.input_tokens",
        ],
    ),
    (
        Slot::Output,
        &[
            "gen_ai.usage.output_tokens",
            "gen_ai.usage.completion_tokens",
            "llm.usage.completion_tokens",
            "llm.token_count.completion",
            "ai.usage.outputTokens",
            "ai.usage.completionTokens",
            "gen_ai.aggregated_usage.output_tokens",
        ],
    ),
    (
        Slot::CacheRead,
        &[
            "gen_ai.usage.cache_read.input_tokens",
            "gen_ai.usage.cache_read_input_tokens",
            "gen_ai.usage.details.cache_read_tokens",
            "llm.usage.cache_read_input_tokens",
            "llm.token_count.prompt_details.cache_read",
            "ai.usage.cachedInputTokens",
            "ai.usage.inputTokenDetails.cacheReadTokens",
            "gen_ai.aggregated_usage.cache_read.input_tokens",
        ],
    ),
    (
        Slot::CacheWrite,
        &[
            "gen_ai.usage.cache_write.input_tokens",
            "gen_ai.usage.cache_creation.input_tokens",
            "gen_ai.usage.cache_creation_input_tokens",
            "gen_ai.usage.details.cache_write_tokens",
            "llm.usage.cache_creation_input_tokens",
            "llm.token_count.prompt_details.cache_write",
            "ai.usage.inputTokenDetails.cacheWriteTokens",
            "gen_ai.aggregated_usage.cache_creation.input_tokens",
        ],
    ),
    (
        Slot::Reasoning,
        &[
            "gen_ai.usage.reasoning.output_tokens",
            "gen_ai.usage.reasoning_tokens",
            "gen_ai.usage.details.reasoning_tokens",
            "llm.usage.reasoning_tokens",
            "llm.token_count.completion_details.reasoning",
            "ai.usage.reasoningTokens",
            "ai.usage.outputTokenDetails.reasoningTokens",
        ],
    ),
    (Slot::Cost, &["gen_ai.usage.cost", "llm.cost.total", "operation.cost"]),
    (
        Slot::Session,
        &[
            "session.id",
            "gen_ai.conversation.id",
            "langfuse.session.id",
            "conversation.id",
            "traceloop.association.properties.session_id",
            "ai.telemetry.metadata.sessionId",
            "ai.settings.context.sessionId",
            "langsmith.metadata.session_id",
            "lmnr.association.properties.session_id",
            "traceloop.association.properties.thread_id",
            "langsmith.metadata.thread_id",
        ],
    ),
    (
        Slot::User,
        &[
            "user.id",
            "enduser.id",
            "langfuse.user.id",
            "user.email",
            "traceloop.association.properties.user_id",
            "ai.telemetry.metadata.userId",
            "ai.settings.context.userId",
            "lmnr.association.properties.user_id",
        ],
    ),
    (Slot::AgentId, &["gen_ai.agent.id", "agent_id"]),
    (Slot::AgentName, &["gen_ai.agent.name", "agent.name", "agent_name"]),
    (Slot::ToolName, &["gen_ai.tool.name", "tool.name", "ai.toolCall.name", "tool_name"]),
    (
        Slot::ToolCallId,
        &[
            "gen_ai.tool.call.id",
            "gen_ai.tool.call_id",
            "tool_call.id",
            "tool.id",
            "ai.toolCall.id",
            "tool_use_id",
            "call_id",
        ],
    ),
    (Slot::McpServer, &["mcp.server.name", "mcp_server_name", "mcp_server"]),
    (Slot::ExitCode, &["process.exit.code", "exit_code"]),
    (Slot::ResponseId, &["gen_ai.response.id", "ai.response.id", "request_id"]),
    (
        Slot::FinishReason,
        &[
            "gen_ai.response.finish_reasons",
            "gen_ai.response.finish_reason",
            "ai.response.finishReason",
            "llm.finish_reason",
            "anthropic.message.stop_reason",
        ],
    ),
    (
        Slot::TtftSeconds,
        &["gen_ai.response.time_to_first_chunk", "gen_ai.client.operation.time_to_first_chunk"],
    ),
    (Slot::TtftMillis, &["ttft_ms", "ai.response.msToFirstChunk", "time_to_first_token_ms"]),
    (Slot::ErrorType, &["error.type", "exception.type", "error_type"]),
    (Slot::ErrorMessage, &["exception.message", "error.message", "langfuse.observation.status_message"]),
    (Slot::EventName, &["event.name"]),
    (Slot::RecordId, &["log.record.uid", "event.id"]),
];

impl Slot {
    /// Whether `value` can be put where the slot goes.
    pub(super) fn fits(self, value: &AnyValue<'_>) -> bool {
        match self {
            Self::Input | Self::Output | Self::CacheRead | Self::CacheWrite | Self::Reasoning => {
                value.count().is_some()
            }
            Self::Cost => value.number().and_then(NanoUsd::from_usd).is_some(),
            Self::TtftSeconds | Self::TtftMillis => value.number().is_some(),
            Self::ExitCode => exit_code(value).is_some(),
            _ => value.first_text().is_some_and(|text| !text.is_empty()),
        }
    }

    /// Its names, the winning one first.
    pub(super) fn names(self) -> &'static [&'static str] {
        ALIASES.get(self as usize).map_or(&[], |(_, names)| names)
    }
}

/// An exit code; some senders put numbers into strings.
pub(super) fn exit_code(value: &AnyValue<'_>) -> Option<i32> {
    let number = value.number().filter(|number| number.fract() == 0.0)?;
    (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number).then_some(number as i32)
}

/// What an attribute of this name says, and its rank among the names of that thing.
pub(super) fn slot(name: &str) -> Option<(Slot, usize)> {
    static RANKS: OnceLock<HashMap<&'static str, (Slot, usize)>> = OnceLock::new();
    let ranks = RANKS.get_or_init(|| {
        let ranked = |&(slot, names): &(Slot, &[&'static str])| {
            names.iter().enumerate().map(move |(rank, name)| (*name, (slot, rank))).collect::<Vec<_>>()
        };
        ALIASES.iter().flat_map(ranked).collect()
    });
    ranks.get(name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_listed_in_their_own_order() {
        for (place, (slot, _)) in ALIASES.iter().enumerate() {
            assert_eq!(*slot as usize, place);
        }
    }

    #[test]
    fn no_name_says_two_things() {
        let names: Vec<_> = ALIASES.iter().flat_map(|(_, names)| *names).collect();
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(names.len(), distinct.len());
    }
}
