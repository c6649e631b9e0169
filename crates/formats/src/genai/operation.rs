//! What a record describes, by the attribute that names it.
//!
//! Only a call to a model has usage of its own. The outer spans of every convention (`ai.generateText`, `invoke_agent`,
//! a workflow, a chain) repeat the sum of the calls within them.

/// What a record describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// One call to a model.
    ModelCall,
    /// An agent or workflow; usage on it sums up its calls.
    Agent,
    /// A call of a tool.
    Tool,
    /// A moment, not a span of time.
    Log,
    /// Something else that is named.
    Other,
    /// Nothing names it.
    Unsaid,
}

/// The attributes that name an operation, the winning one first.
pub(super) const NAMED_BY: [&str; 10] = [
    "langfuse.observation.type",
    "openinference.span.kind",
    "gen_ai.operation.name",
    "ai.operationId",
    "traceloop.span.kind",
    "llm.request.type",
    "langsmith.span.kind",
    "lmnr.span.type",
    "mlflow.spanType",
    "logfire.span_type",
];

impl Operation {
    /// The operation that `word` stands for as the value of `attribute`.
    pub(super) fn of(attribute: &str, word: &str) -> Self {
        // MLflow writes every value as JSON.
        let word = word.trim_matches('"');
        match attribute {
            "langfuse.observation.type" => Self::of_langfuse(word),
            "gen_ai.operation.name" => Self::of_semconv(word),
            "ai.operationId" => Self::of_ai_sdk(word),
            "llm.request.type" => match word {
                "chat" | "completion" | "embedding" | "rerank" => Self::ModelCall,
                _ => Self::Unsaid,
            },
            "logfire.span_type" => match word {
                "log" => Self::Log,
                _ => Self::Unsaid,
            },
            _ => Self::of_kind(&word.to_ascii_lowercase()),
        }
    }

    fn of_langfuse(word: &str) -> Self {
        match word {
            "generation" | "embedding" => Self::ModelCall,
            "agent" => Self::Agent,
            "tool" => Self::Tool,
            "event" => Self::Log,
            _ => Self::Other,
        }
    }

    fn of_semconv(word: &str) -> Self {
        match word {
            "chat" | "generate_content" | "text_completion" | "embeddings" => Self::ModelCall,
            // Not in the conventions, yet sent.
            "completion" | "embedding" | "responses" | "llm_call" => Self::ModelCall,
            "execute_tool" | "tool_call" => Self::Tool,
            "invoke_agent" | "create_agent" | "invoke_workflow" | "agent_call" | "agent_step" => Self::Agent,
            _ => Self::Other,
        }
    }

    /// `ai.generateText.doGenerate`, `ai.streamText.doStream`, `ai.embed.doEmbed` are calls; `ai.generateText` and so on
    /// are around them.
    fn of_ai_sdk(word: &str) -> Self {
        let last = word.rsplit('.').next().unwrap_or_default();
        match word {
            "ai.toolCall" => Self::Tool,
            _ if last.strip_prefix("do").is_some_and(|verb| verb.starts_with(char::is_uppercase)) => {
                Self::ModelCall
            }
            _ => Self::Agent,
        }
    }

    /// The kinds of OpenInference, OpenLLMetry, LangSmith, Laminar and MLflow.
    fn of_kind(word: &str) -> Self {
        match word {
            "llm" | "chat_model" | "embedding" => Self::ModelCall,
            "agent" | "workflow" => Self::Agent,
            "tool" => Self::Tool,
            "unknown" | "default" => Self::Unsaid,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_of_every_convention_are_told_apart() {
        use Operation::{Agent, Log, ModelCall, Other, Tool, Unsaid};
        for (attribute, word, expected) in [
            ("gen_ai.operation.name", "chat", ModelCall),
            ("gen_ai.operation.name", "embeddings", ModelCall),
            ("gen_ai.operation.name", "execute_tool", Tool),
            ("gen_ai.operation.name", "invoke_agent", Agent),
            ("gen_ai.operation.name", "agent_step", Agent),
            ("gen_ai.operation.name", "retrieval", Other),
            ("ai.operationId", "ai.streamText.doStream", ModelCall),
            ("ai.operationId", "ai.streamText", Agent),
            ("ai.operationId", "ai.toolCall", Tool),
            ("openinference.span.kind", "LLM", ModelCall),
            ("openinference.span.kind", "EMBEDDING", ModelCall),
            ("openinference.span.kind", "RERANKER", Other),
            ("openinference.span.kind", "CHAIN", Other),
            ("traceloop.span.kind", "workflow", Agent),
            ("traceloop.span.kind", "task", Other),
            ("llm.request.type", "chat", ModelCall),
            ("llm.request.type", "unknown", Unsaid),
            ("langfuse.observation.type", "generation", ModelCall),
            ("langfuse.observation.type", "event", Log),
            ("mlflow.spanType", "\"CHAT_MODEL\"", ModelCall),
            ("logfire.span_type", "span", Unsaid),
            ("logfire.span_type", "log", Log),
        ] {
            assert_eq!(Operation::of(attribute, word), expected, "{attribute}={word}");
        }
    }
}
