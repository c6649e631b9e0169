//! The attribute conventions of instrumented programs: many names for one thing (MAPPING §2).
//!
//! OpenTelemetry's gen_ai of every generation, OpenInference, OpenLLMetry, the Vercel AI SDK, pydantic-ai and Logfire,
//! Langfuse over OTLP, Copilot and OpenCode. For each thing the first name present wins; a name that lost, and every
//! attribute that is none of these, stays in `data` under its own name. [`spans`] and [`logs`] say what a record of
//! each signal becomes.

use std::borrow::Cow;

use fleetlog_schemas::event::{AgentEvent, Status, TokenBasis};
use fleetlog_schemas::id::NanoUsd;
use serde_json::Value;

use crate::json::{Cursor, ObjectWriter, mend};
use crate::otlp::model::{AnyValue, Attributes};
use crate::otlp::origin::Origin;
use crate::records::Object;
use crate::tokens::{Stated, Writes};
use crate::{usage, usage_details};

mod aliases;
pub(crate) mod logs;
mod operation;
pub(crate) mod spans;

use aliases::SLOTS;
pub(crate) use aliases::Slot;
pub(crate) use operation::Operation;

/// A record's attributes, sorted by what they say.
pub(crate) struct Gathered<'a> {
    slots: [Option<Winner<'a>>; SLOTS],
    rest: Attributes<'a>,
}

struct Winner<'a> {
    rank: usize,
    name: Cow<'a, str>,
    value: AnyValue<'a>,
}

impl<'a> Gathered<'a> {
    pub(crate) fn of(attributes: Attributes<'a>) -> Self {
        let mut gathered = Self { slots: Default::default(), rest: Vec::new() };
        for (name, value) in attributes {
            match aliases::slot(&name) {
                Some((slot, rank)) if slot.fits(&value) => gathered.seat(slot, Winner { rank, name, value }),
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

    /// An attribute that has no column.
    fn other(&self, name: &str) -> Option<&AnyValue<'a>> {
        self.rest.iter().find(|(other, _)| other == name).map(|(_, value)| value)
    }

    fn other_text(&self, name: &str) -> &str {
        self.other(name).and_then(AnyValue::as_str).unwrap_or_default()
    }

    /// The JSON object that an attribute holds, as text or as a map.
    fn other_object(&self, name: &str) -> Option<Object> {
        match self.other(name)? {
            AnyValue::Text(text) => serde_json::from_str(text).ok(),
            map @ AnyValue::Map(_) => match serde_json::to_value(map) {
                Ok(Value::Object(object)) => Some(object),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether a slot's winner has this name.
    fn won_by(&self, slot: Slot, name: &str) -> bool {
        self.slots.get(slot as usize).and_then(Option::as_ref).is_some_and(|winner| winner.name == name)
    }

    /// What the record describes. The attribute stays where it is: it has no column.
    pub(crate) fn operation(&self) -> Operation {
        let word = |attribute: &&'static str| Some((*attribute, self.other(attribute)?.as_str()?));
        let mut named =
            operation::NAMED_BY.iter().filter_map(word).map(|(name, word)| Operation::of(name, word));
        // Older instrumentations name the tool that runs and nothing else.
        let by_tool = self.won_by(Slot::ToolName, "gen_ai.tool.name").then_some(Operation::Tool);
        named.find(|operation| *operation != Operation::Unsaid).or(by_tool).unwrap_or(Operation::Unsaid)
    }

    /// Session, user and the agent's instance, which the resource may also name.
    pub(crate) fn identity_into(&mut self, event: &mut AgentEvent, origin: &Origin<'_>) {
        let of_resource = |slot: Slot| {
            let named = slot.names().iter().find_map(|name| origin.resource_text(name));
            named.unwrap_or_default().to_owned()
        };
        event.session_id = self.take_text(Slot::Session);
        if event.session_id.is_empty() {
            event.session_id = of_resource(Slot::Session);
        }
        event.user_id = self.take_text(Slot::User);
        if event.user_id.is_empty() {
            event.user_id = of_resource(Slot::User);
        }
        event.agent_id = self.take_text(Slot::AgentId);
        if event.agent_id.is_empty() {
            event.agent_id = origin.resource_text("service.instance.id").unwrap_or_default().to_owned();
        }
    }

    /// Who did what with which model and tool.
    pub(crate) fn content_into(&mut self, event: &mut AgentEvent) {
        // MLflow writes every value as JSON.
        let or_mlflow = |said: String, gathered: &Self, name: &str| match said.is_empty() {
            true => gathered.other_text(name).trim_matches('"').to_owned(),
            false => said,
        };
        let said = self.take_text(Slot::Provider);
        event.provider = provider(&or_mlflow(said, self, "mlflow.llm.provider"));
        let said = self.take_text(Slot::Model);
        event.model = or_mlflow(said, self, "mlflow.llm.model");
        event.model_requested = self.take_text(Slot::ModelRequested);
        if event.model.is_empty() {
            event.model.clone_from(&event.model_requested);
        }
        event.agent_name = self.take_text(Slot::AgentName);
        event.tool_name = self.take_text(Slot::ToolName);
        event.tool_call_id = self.take_text(Slot::ToolCallId);
        event.mcp_server = self.take_text(Slot::McpServer);
        event.exit_code = self.take(Slot::ExitCode).and_then(|value| aliases::exit_code(&value));
        event.request_id = self.take_text(Slot::ResponseId);
        event.finish_reason = self.take_text(Slot::FinishReason);
        let seconds =
            self.take(Slot::TtftSeconds).and_then(|value| value.number()).map(|seconds| seconds * 1e3);
        event.ttft_ms = self.take(Slot::TtftMillis).and_then(|value| value.number()).or(seconds);
    }

    /// Tokens and reported cost, as the scope's instrumentation states them.
    pub(crate) fn usage_into(&mut self, event: &mut AgentEvent, scope: &str) {
        let detailed = self
            .other_object("langfuse.observation.usage_details")
            .is_some_and(|details| usage_details::apply(&details, event));
        if !detailed && !self.whole_usage_into(event) {
            self.counts_into(event, scope);
        }
        let cost = ["langfuse.observation.cost_details", "mlflow.llm.cost"];
        event.cost_reported = cost
            .iter()
            .find_map(|name| self.other_object(name))
            .as_ref()
            .and_then(usage_details::cost)
            .or_else(|| self.take(Slot::Cost).and_then(|value| value.number()).and_then(NanoUsd::from_usd));
    }

    /// The counts that LangSmith and MLflow put into one attribute as JSON; false when there are none. Both include what
    /// came from the cache, whatever the provider.
    fn whole_usage_into(&self, event: &mut AgentEvent) -> bool {
        let wholes = ["langsmith.metadata.usage_metadata", "mlflow.chat.tokenUsage"];
        let Some(whole) = wholes.iter().find_map(|name| self.other_object(name)) else { return false };
        usage::apply_as(TokenBasis::Inclusive, &whole, event);
        event.token_basis != TokenBasis::None
    }

    fn counts_into(&mut self, event: &mut AgentEvent, scope: &str) {
        let stated = Stated {
            input: self.take_count(Slot::Input),
            output: self.take_count(Slot::Output),
            cache_read: self.take_count(Slot::CacheRead),
            cache_write: self.take_count(Slot::CacheWrite),
            reasoning: self.take_count(Slot::Reasoning),
        };
        let basis = match (stated.basis_for(&event.provider, &event.model), event.provider.as_str()) {
            (TokenBasis::Guessed, "anthropic") => known_basis(scope).unwrap_or(TokenBasis::Guessed),
            (basis, _) => basis,
        };
        if basis != TokenBasis::None {
            stated.apply(basis, event);
            let hour = self.other("anthropic.usage.cache_creation.ephemeral_1h_input_tokens");
            let long = hour.and_then(AnyValue::count).unwrap_or(0);
            return Writes { short: 0, long }.apply(event);
        }
        let totals = [
            "gen_ai.usage.total_tokens",
            "llm.usage.total_tokens",
            "llm.token_count.total",
            "ai.usage.totalTokens",
        ];
        if let Some(total) = totals.iter().find_map(|name| self.other(name)?.count()) {
            // How it splits between input and output is not said.
            event.in_uncached = total;
            event.token_basis = TokenBasis::Guessed;
        }
    }

    /// How it ended, as far as attributes say it.
    pub(crate) fn outcome_into(&mut self, event: &mut AgentEvent) {
        event.error_type = self.take_text(Slot::ErrorType);
        let message = self.take_text(Slot::ErrorMessage);
        if event.error_message.is_empty() {
            event.error_message = message;
        }
        let success = self.other("success").and_then(AnyValue::truth);
        let failed = success == Some(false) || self.other_text("langfuse.observation.level") == "ERROR";
        if failed && event.error_message.is_empty() {
            event.error_message = self.other_text("error").to_owned();
        }
        match (event.status, success) {
            _ if failed => event.status = Status::Error,
            (Status::Unset, _) if !event.error_type.is_empty() => event.status = Status::Error,
            (Status::Unset, Some(true)) => event.status = Status::Ok,
            _ => {}
        }
    }

    /// A refusal by the HTTP server that a call went to.
    pub(crate) fn http_error_into(&self, event: &mut AgentEvent) {
        let code = self.other("http.response.status_code").and_then(AnyValue::count);
        if let Some(code) = code.filter(|code| *code >= 400) {
            event.status = Status::Error;
            if event.error_type.is_empty() {
                event.error_type = code.to_string();
            }
        }
    }

    /// The severity that Langfuse or Logfire gives it.
    pub(crate) fn level(&self) -> Option<String> {
        let langfuse = self.other_text("langfuse.observation.level");
        let number = self.other("logfire.level_num").and_then(AnyValue::count);
        let word = match (langfuse, number) {
            ("ERROR", _) => "error",
            ("WARNING", _) => "warn",
            ("DEBUG", _) => "debug",
            ("DEFAULT", _) => "info",
            (_, Some(1..=4)) => "trace",
            (_, Some(5..=8)) => "debug",
            (_, Some(9..=12)) => "info",
            (_, Some(13..=16)) => "warn",
            (_, Some(17..=20)) => "error",
            (_, Some(21..=24)) => "fatal",
            _ => return None,
        };
        Some(word.to_owned())
    }

    /// Whatever has not been taken, under its own names; JSON in text is unfolded where the convention puts it there.
    pub(crate) fn rest_into(self, data: &mut ObjectWriter) {
        for (name, value) in &self.rest {
            match value.as_str().filter(|_| holds_json(name)).and_then(embedded_json) {
                Some(json) => data.raw(name, &json),
                None => data.field(name, value),
            }
        }
        for winner in self.slots.iter().flatten() {
            data.field(&winner.name, &winner.value);
        }
    }
}

/// The convention of an instrumentation of Anthropic's API that is known to have always had that one.
fn known_basis(scope: &str) -> Option<TokenBasis> {
    if scope.starts_with("openlit") {
        return Some(TokenBasis::AnthropicRaw);
    }
    scope.starts_with("com.anthropic.sdk").then_some(TokenBasis::Inclusive)
}

/// Whether the attribute's text is JSON by its convention: OpenInference's metadata and Langfuse's details.
fn holds_json(name: &str) -> bool {
    const NAMES: [&str; 4] = [
        "metadata",
        "langfuse.observation.usage_details",
        "langfuse.observation.cost_details",
        "langfuse.observation.model.parameters",
    ];
    const PREFIXES: [&str; 2] = ["langfuse.observation.metadata", "langfuse.trace.metadata"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The JSON that a text is; only what cannot be meant as plain text.
fn embedded_json(text: &str) -> Option<Vec<u8>> {
    let mut cursor = Cursor::new(text.as_bytes());
    if !matches!(cursor.peek(), Some(b'{' | b'[' | b'"')) {
        return None;
    }
    let json = cursor.skip_value().ok()?;
    cursor.peek().is_none().then(|| mend(json))
}

/// One name for each provider: OpenTelemetry's well-known one where there is one. The AI SDK appends the kind of API
/// (`openai.responses`), older conventions had other words, some instrumentations capitalise.
fn provider(name: &str) -> String {
    let name = name.trim().to_ascii_lowercase();
    let bare = match name.rsplit_once('.') {
        Some((provider, "chat" | "responses" | "messages" | "completion" | "embedding")) => provider,
        _ => &name,
    };
    let known = match bare {
        "az.ai.openai" | "azure_openai" | "azure-openai" | "azure.openai" => "azure.ai.openai",
        "az.ai.inference" => "azure.ai.inference",
        "vertex_ai" | "vertexai" | "google.vertex" | "google-vertex" => "gcp.vertex_ai",
        "gemini" | "google.generative-ai" | "google-gla" | "google_genai" => "gcp.gemini",
        "bedrock" | "amazon-bedrock" | "aws_bedrock" => "aws.bedrock",
        "xai" => "x_ai",
        "mistral" | "mistralai" => "mistral_ai",
        "watsonx" => "ibm.watsonx.ai",
        other => other,
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> AnyValue<'static> {
        AnyValue::Text(value.to_owned().into())
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
    fn json_in_text_is_unfolded_only_where_it_is_meant() {
        let attributes = vec![
            ("metadata".into(), text(r#"{"a":1}"#)),
            ("langfuse.trace.metadata.k".into(), text(r#""1""#)),
            ("langfuse.trace.metadata.n".into(), text("1")),
            ("langfuse.observation.metadata".into(), text("{broken")),
            ("other".into(), text("{}")),
        ];
        let mut data = ObjectWriter::new();
        Gathered::of(attributes).rest_into(&mut data);
        let expected = r#"{"metadata":{"a":1},"langfuse.trace.metadata.k":"1","langfuse.trace.metadata.n":"1","langfuse.observation.metadata":"{broken","other":"{}"}"#;
        assert_eq!(data.finish(), expected);
    }

    #[test]
    fn providers_have_one_name_each() {
        for (sent, expected) in [
            ("sink.chat", "sink"),
            ("openai.responses", "openai"),
            ("OpenAI", "openai"),
            ("aws.bedrock", "aws.bedrock"),
            ("amazon-bedrock", "aws.bedrock"),
            ("google.generative-ai", "gcp.gemini"),
            ("google.vertex.chat", "gcp.vertex_ai"),
            ("az.ai.inference", "azure.ai.inference"),
        ] {
            assert_eq!(provider(sent), expected);
        }
    }

    #[test]
    fn a_total_alone_is_kept_and_marked_as_guessed() {
        let attributes = vec![("llm.usage.total_tokens".into(), AnyValue::Int(7))];
        let mut event = AgentEvent::default();
        Gathered::of(attributes).usage_into(&mut event, "");
        assert_eq!((event.in_uncached, event.token_basis), (7, TokenBasis::Guessed));
    }
}
