//! The attribute conventions of instrumented programs: many names for one thing (MAPPING §2).
//!
//! For each thing the first name present wins; a name that lost, and every attribute that is none of these, stays in
//! `data` under its own name.

use std::collections::HashMap;
use std::sync::OnceLock;

use fleetlog_schemas::event::{AgentEvent, TokenBasis};
use fleetlog_schemas::id::NanoUsd;

use crate::json::ObjectWriter;
use crate::otlp::model::{AnyValue, Attributes};
use crate::otlp::origin::Origin;
use crate::tokens::Stated;

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
    ResponseId,
    FinishReason,
    TtftSeconds,
    TtftMillis,
    ErrorType,
    ErrorMessage,
    EventName,
    RecordId,
}

const SLOTS: usize = Slot::RecordId as usize + 1;

/// The names of each thing, the winning one first.
const ALIASES: [(Slot, &[&str]); SLOTS] = [
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
            "model",
        ],
    ),
    (Slot::ModelRequested, &["gen_ai.request.model", "llm.request.model_name", "ai.model.id", "slug"]),
    (
        Slot::Input,
        &[
            "gen_ai.usage.input_tokens",
            "gen_ai.usage.prompt_tokens",
            "llm.token_count.prompt",
            "ai.usage.inputTokens",
            "ai.usage.promptTokens",
        ],
    ),
    (
        Slot::Output,
        &[
            "gen_ai.usage.output_tokens",
            "gen_ai.usage.completion_tokens",
            "llm.token_count.completion",
            "ai.usage.outputTokens",
            "ai.usage.completionTokens",
        ],
    ),
    (
        Slot::CacheRead,
        &[
            "gen_ai.usage.cache_read.input_tokens",
            "gen_ai.usage.cache_read_input_tokens",
            "gen_ai.usage.details.cache_read_tokens",
            "llm.token_count.prompt_details.cache_read",
            "ai.usage.cachedInputTokens",
            "ai.usage.inputTokenDetails.cacheReadTokens",
        ],
    ),
    (
        Slot::CacheWrite,
        &[
            "gen_ai.usage.cache_write.input_tokens",
            "gen_ai.usage.cache_creation.input_tokens",
            "gen_ai.usage.cache_creation_input_tokens",
            "gen_ai.usage.details.cache_write_tokens",
            "llm.token_count.prompt_details.cache_write",
        ],
    ),
    (
        Slot::Reasoning,
        &[
            "gen_ai.usage.reasoning.output_tokens",
            "gen_ai.usage.reasoning_tokens",
            "llm.usage.reasoning_tokens",
            "llm.token_count.completion_details.reasoning",
            "ai.usage.reasoningTokens",
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
            "langsmith.metadata.session_id",
            "lmnr.association.properties.session_id",
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
            "tool.id",
            "ai.toolCall.id",
            "tool_use_id",
            "call_id",
        ],
    ),
    (Slot::ResponseId, &["gen_ai.response.id", "ai.response.id", "request_id"]),
    (
        Slot::FinishReason,
        &["gen_ai.response.finish_reasons", "gen_ai.response.finish_reason", "ai.response.finishReason"],
    ),
    (Slot::TtftSeconds, &["gen_ai.response.time_to_first_chunk"]),
    (Slot::TtftMillis, &["ttft_ms", "ai.response.msToFirstChunk", "time_to_first_token_ms"]),
    (Slot::ErrorType, &["error.type", "exception.type", "error_type"]),
    (Slot::ErrorMessage, &["exception.message", "error.message", "langfuse.observation.status_message"]),
    (Slot::EventName, &["event.name"]),
    (Slot::RecordId, &["log.record.uid", "event.id"]),
];

/// What a record describes, by the attribute that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// One call to a model.
    ModelCall,
    /// An agent or workflow; usage on it sums up its calls.
    Agent,
    /// A call of a tool.
    Tool,
    /// Something else that is named.
    Other,
    /// Nothing names it.
    Unsaid,
}

/// The attributes that name an operation, the winning one first.
const OPERATIONS: [&str; 6] = [
    "langfuse.observation.type",
    "openinference.span.kind",
    "gen_ai.operation.name",
    "ai.operationId",
    "traceloop.span.kind",
    "llm.request.type",
];

impl Operation {
    fn of(attribute: &str, word: &str) -> Self {
        match (attribute, word) {
            (
                _,
                "chat" | "generate_content" | "text_completion" | "completion" | "embeddings" | "embedding",
            ) => Self::ModelCall,
            ("langfuse.observation.type", "generation") => Self::ModelCall,
            ("openinference.span.kind", "LLM" | "EMBEDDING") => Self::ModelCall,
            ("llm.request.type", "rerank") => Self::ModelCall,
            ("ai.operationId", id) if id.rsplit('.').next().is_some_and(|last| last.starts_with("do")) => {
                Self::ModelCall
            }
            (_, "execute_tool" | "tool" | "TOOL" | "ai.toolCall") => Self::Tool,
            (_, "invoke_agent" | "create_agent" | "invoke_workflow" | "agent" | "AGENT" | "workflow") => {
                Self::Agent
            }
            // The outer span of the AI SDK repeats the sum of its calls.
            ("ai.operationId", _) => Self::Agent,
            _ => Self::Other,
        }
    }
}

type Ranks = HashMap<&'static str, (Slot, usize)>;

fn ranks() -> &'static Ranks {
    static RANKS: OnceLock<Ranks> = OnceLock::new();
    RANKS.get_or_init(|| {
        let ranked = |&(slot, names): &(Slot, &[&'static str])| {
            names.iter().enumerate().map(move |(rank, name)| (*name, (slot, rank))).collect::<Vec<_>>()
        };
        ALIASES.iter().flat_map(ranked).collect()
    })
}

/// A record's attributes, sorted by what they say.
pub(crate) struct Gathered<'a> {
    slots: [Option<Winner<'a>>; SLOTS],
    rest: Attributes<'a>,
}

struct Winner<'a> {
    rank: usize,
    name: std::borrow::Cow<'a, str>,
    value: AnyValue<'a>,
}

impl Slot {
    /// Whether `value` can be put where the slot goes.
    fn fits(self, value: &AnyValue<'_>) -> bool {
        match self {
            Self::Input | Self::Output | Self::CacheRead | Self::CacheWrite | Self::Reasoning => {
                value.count().is_some()
            }
            Self::Cost => value.number().and_then(NanoUsd::from_usd).is_some(),
            Self::TtftSeconds | Self::TtftMillis => value.number().is_some(),
            _ => value.first_text().is_some_and(|text| !text.is_empty()),
        }
    }
}

impl<'a> Gathered<'a> {
    pub(crate) fn of(attributes: Attributes<'a>) -> Self {
        let mut gathered = Self { slots: Default::default(), rest: Vec::new() };
        for (name, value) in attributes {
            match ranks().get(&*name) {
                Some((slot, rank)) if slot.fits(&value) => {
                    gathered.seat(*slot, Winner { rank: *rank, name, value })
                }
                _ => gathered.rest.push((name, value)),
            }
        }
        gathered
    }

    /// Gives the slot to the better of its holder and `candidate`; the other stays an attribute.
    fn seat(&mut self, slot: Slot, candidate: Winner<'a>) {
        let Some(seat) = self.slots.get_mut(slot as usize) else { return };
        let loser = match seat {
            Some(holder) if holder.rank <= candidate.rank => Some(candidate),
            _ => seat.replace(candidate),
        };
        self.rest.extend(loser.map(|loser| (loser.name, loser.value)));
    }

    fn take(&mut self, slot: Slot) -> Option<AnyValue<'a>> {
        self.slots.get_mut(slot as usize)?.take().map(|winner| winner.value)
    }

    /// The slot's text, taken out; empty when nothing says it.
    pub(crate) fn take_text(&mut self, slot: Slot) -> String {
        self.take(slot).and_then(|value| value.first_text()).unwrap_or_default()
    }

    fn take_count(&mut self, slot: Slot) -> Option<u64> {
        self.take(slot).and_then(|value| value.count())
    }

    /// What the record describes. The attribute stays where it is: it has no column.
    pub(crate) fn operation(&self) -> Operation {
        let named = OPERATIONS.iter().find_map(|attribute| {
            let (_, value) = self.rest.iter().find(|(name, _)| name == attribute)?;
            value.as_str().map(|word| Operation::of(attribute, word))
        });
        named.unwrap_or(Operation::Unsaid)
    }

    /// Session and user, which the resource may also name.
    pub(crate) fn identity_into(&mut self, event: &mut AgentEvent, origin: &Origin<'_>) {
        let of_resource = |slot: Slot| {
            let names = ALIASES.iter().find(|(named, _)| *named == slot).map_or(&[][..], |(_, names)| names);
            names.iter().find_map(|name| origin.resource_text(name)).unwrap_or_default().to_owned()
        };
        event.session_id = self.take_text(Slot::Session);
        if event.session_id.is_empty() {
            event.session_id = of_resource(Slot::Session);
        }
        event.user_id = self.take_text(Slot::User);
        if event.user_id.is_empty() {
            event.user_id = of_resource(Slot::User);
        }
    }

    /// Who did what with which model and tool.
    pub(crate) fn content_into(&mut self, event: &mut AgentEvent) {
        event.provider = provider(self.take_text(Slot::Provider));
        event.model = self.take_text(Slot::Model);
        event.model_requested = self.take_text(Slot::ModelRequested);
        if event.model.is_empty() {
            event.model.clone_from(&event.model_requested);
        }
        event.agent_id = self.take_text(Slot::AgentId);
        event.agent_name = self.take_text(Slot::AgentName);
        event.tool_name = self.take_text(Slot::ToolName);
        event.tool_call_id = self.take_text(Slot::ToolCallId);
        event.request_id = self.take_text(Slot::ResponseId);
        event.finish_reason = self.take_text(Slot::FinishReason);
        let seconds =
            self.take(Slot::TtftSeconds).and_then(|value| value.number()).map(|seconds| seconds * 1e3);
        event.ttft_ms = self.take(Slot::TtftMillis).and_then(|value| value.number()).or(seconds);
    }

    /// Tokens and reported cost.
    pub(crate) fn usage_into(&mut self, event: &mut AgentEvent) {
        let stated = Stated {
            input: self.take_count(Slot::Input),
            output: self.take_count(Slot::Output),
            cache_read: self.take_count(Slot::CacheRead),
            cache_write: self.take_count(Slot::CacheWrite),
            reasoning: self.take_count(Slot::Reasoning),
        };
        let basis = stated.basis_for(&event.provider);
        if basis != TokenBasis::None {
            stated.apply(basis, event);
        }
        event.cost_reported =
            self.take(Slot::Cost).and_then(|value| value.number()).and_then(NanoUsd::from_usd);
    }

    /// Whatever has not been taken, under its own names.
    pub(crate) fn rest_into(self, data: &mut ObjectWriter) {
        for (name, value) in &self.rest {
            data.field(name, value);
        }
        for winner in self.slots.iter().flatten() {
            data.field(&winner.name, &winner.value);
        }
    }
}

/// The provider's name; the AI SDK appends the kind of API to it (`openai.responses`).
fn provider(name: String) -> String {
    match name.rsplit_once('.') {
        Some((
            provider,
            "chat" | "responses" | "messages" | "completion" | "embedding" | "generative-ai",
        )) => provider.to_owned(),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> AnyValue<'static> {
        AnyValue::Text(value.to_owned().into())
    }

    #[test]
    fn slots_are_listed_in_their_own_order() {
        for (place, (slot, _)) in ALIASES.iter().enumerate() {
            assert_eq!(*slot as usize, place);
        }
    }

    #[test]
    fn first_name_wins_whatever_the_order_and_losers_stay() {
        let attributes = vec![
            ("gen_ai.system".into(), text("old")),
            ("gen_ai.provider.name".into(), text("new")),
            ("llm.provider".into(), text("other")),
            ("gen_ai.usage.input_tokens".into(), text("many")),
        ];
        let mut gathered = Gathered::of(attributes);
        assert_eq!(gathered.take_text(Slot::Provider), "new");
        let mut data = ObjectWriter::new();
        gathered.rest_into(&mut data);
        let expected = r#"{"gen_ai.system":"old","llm.provider":"other","gen_ai.usage.input_tokens":"many"}"#;
        assert_eq!(data.finish(), expected);
    }

    #[test]
    fn operations_of_every_convention_are_told_apart() {
        let of = |name: &'static str, word: &str| Gathered::of(vec![(name.into(), text(word))]).operation();
        assert_eq!(of("gen_ai.operation.name", "chat"), Operation::ModelCall);
        assert_eq!(of("ai.operationId", "ai.streamText.doStream"), Operation::ModelCall);
        assert_eq!(of("ai.operationId", "ai.streamText"), Operation::Agent);
        assert_eq!(of("ai.operationId", "ai.toolCall"), Operation::Tool);
        assert_eq!(of("openinference.span.kind", "LLM"), Operation::ModelCall);
        assert_eq!(of("openinference.span.kind", "CHAIN"), Operation::Other);
        assert_eq!(of("traceloop.span.kind", "workflow"), Operation::Agent);
        assert_eq!(of("http.method", "GET"), Operation::Unsaid);
        assert_eq!(provider("sink.chat".into()), "sink");
        assert_eq!(provider("aws.bedrock".into()), "aws.bedrock");
    }
}
