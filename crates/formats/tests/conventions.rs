//! One call, agent, tool and judgement in the words of every attribute convention (MAPPING §2, §6).
//!
//! The Langfuse spans are a capture. The others were written after the conventions' documents and the
//! instrumentations' sources; `golden.rs` has captures of the OpenTelemetry SDK and the Vercel AI SDK.

#![cfg(test)]

#[path = "support/samples.rs"]
mod samples;
mod support;

use fleetlog_formats::{Decoded, Fate, decode};
use fleetlog_schemas::event::{
    AgentEvent, Channel, EventType, Status, TimestampSource, TokenBasis, UsageRole,
};
use fleetlog_schemas::id::NanoUsd;
use fleetlog_schemas::record::Route;
use serde_json::{Value, json};
use support::{decoded, input, view};

const TRACE: &str = "5b0965da0d293e45beb618ce926625a2";
const SPAN: &str = "85c17ca66cc022ce";

/// A value in OTLP's wrapper.
fn wrapped(value: &Value) -> Value {
    match value {
        Value::String(text) => json!({"stringValue": text}),
        Value::Bool(flag) => json!({"boolValue": flag}),
        Value::Number(number) if number.is_f64() => json!({"doubleValue": number}),
        // Exporters write 64-bit integers as text.
        Value::Number(number) => json!({"intValue": number.to_string()}),
        Value::Array(values) => {
            json!({"arrayValue": {"values": values.iter().map(wrapped).collect::<Vec<_>>()}})
        }
        Value::Object(_) => json!({"kvlistValue": {"values": attributes(value)}}),
        Value::Null => json!({}),
    }
}

fn attributes(object: &Value) -> Value {
    let object = object.as_object().unwrap();
    object.iter().map(|(name, value)| json!({"key": name, "value": wrapped(value)})).collect()
}

fn spans(service: &str, scope: &str, spans: &[Value]) -> Vec<u8> {
    let resource =
        json!({"attributes": attributes(&json!({"service.name": service, "service.instance.id": "i1"}))});
    let body = json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": scope}, "spans": spans}]}]});
    serde_json::to_vec(&body).unwrap()
}

fn span(name: &str, said: Value) -> Value {
    json!({
        "traceId": TRACE, "spanId": SPAN, "name": name, "kind": 3,
        "startTimeUnixNano": "1795264656000000000", "endTimeUnixNano": "1795264657500000000",
        "attributes": attributes(&said),
    })
}

fn decoded_body(route: Route, body: &[u8]) -> Decoded {
    decode(&input(route, "body.json", body)).unwrap()
}

/// The event of one span with these attributes.
fn event_in(service: &str, scope: &str, name: &str, said: Value) -> AgentEvent {
    let decoded = decoded_body(Route::OtlpTraces, &spans(service, scope, &[span(name, said)]));
    assert_eq!((decoded.events.len(), decoded.eventless.len()), (1, 0));
    decoded.events.into_iter().next().unwrap()
}

fn event(scope: &str, name: &str, said: Value) -> AgentEvent {
    event_in("agent-x", scope, name, said)
}

/// The six buckets: uncached, read, written for 5 minutes and an hour; visible, reasoning.
fn buckets(event: &AgentEvent) -> [u64; 6] {
    let AgentEvent { in_uncached, cache_read, cache_write_5m, cache_write_1h, .. } = event;
    [*in_uncached, *cache_read, *cache_write_5m, *cache_write_1h, event.out_visible, event.out_reasoning]
}

#[test]
fn langfuse_python_3_spans() {
    insta::assert_json_snapshot!(view(&decoded(Route::OtlpTraces, "langfuse-py-3.15/spans.json")));
}

#[test]
fn one_call_is_the_same_in_every_convention() {
    let semconv_1_26 = json!({"gen_ai.system": "OpenAI", "gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-5",
        "gen_ai.response.model": "gpt-5-2025", "gen_ai.usage.prompt_tokens": 1200, "gen_ai.usage.completion_tokens": 30,
        "gen_ai.usage.cache_read_input_tokens": 1000, "gen_ai.usage.reasoning_tokens": 5,
        "traceloop.association.properties.session_id": "s1", "traceloop.association.properties.user_id": "u1"});
    let semconv_1_42 = json!({"gen_ai.provider.name": "openai", "gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-5",
        "gen_ai.response.model": "gpt-5-2025", "gen_ai.usage.input_tokens": 1200, "gen_ai.usage.output_tokens": 30,
        "gen_ai.usage.cache_read.input_tokens": 1000, "gen_ai.usage.reasoning.output_tokens": 5,
        "gen_ai.conversation.id": "s1", "user.id": "u1"});
    let openinference = json!({"openinference.span.kind": "LLM", "llm.provider": "openai", "llm.model_name": "gpt-5-2025",
        "llm.token_count.prompt": 1200, "llm.token_count.completion": 30, "llm.token_count.total": 1230,
        "llm.token_count.prompt_details.cache_read": 1000, "llm.token_count.completion_details.reasoning": 5,
        "session.id": "s1", "user.id": "u1", "llm.input_messages.0.message.role": "user", "metadata": "{\"k\":1}"});
    let ai_sdk = json!({"ai.operationId": "ai.streamText.doStream", "ai.model.provider": "openai.responses",
        "ai.model.id": "gpt-5", "ai.response.model": "gpt-5-2025", "ai.usage.inputTokens": 1200, "ai.usage.outputTokens": 30,
        "ai.usage.cachedInputTokens": 1000, "ai.usage.reasoningTokens": 5,
        "ai.telemetry.metadata.sessionId": "s1", "ai.telemetry.metadata.userId": "u1"});
    let langfuse = json!({"langfuse.observation.type": "generation", "langfuse.observation.model.name": "gpt-5-2025",
        "gen_ai.system": "openai", "langfuse.observation.usage_details":
        "{\"prompt_tokens\":1200,\"completion_tokens\":30,\"total_tokens\":1230,\"prompt_tokens_details\":{\"cached_tokens\":1000},\"completion_tokens_details\":{\"reasoning_tokens\":5}}",
        "langfuse.session.id": "s1", "langfuse.user.id": "u1"});
    let unnamed = json!({"gen_ai.system": "openai", "gen_ai.response.model": "gpt-5-2025", "gen_ai.usage.input_tokens": "1200",
        "gen_ai.usage.output_tokens": "30", "gen_ai.usage.details.cache_read_tokens": 1000,
        "gen_ai.usage.details.reasoning_tokens": 5, "session.id": "s1", "enduser.id": "u1"});
    for said in [semconv_1_26, semconv_1_42, openinference, ai_sdk, langfuse, unnamed] {
        let event = event("some.scope", "chat", said.clone());
        assert_eq!(event.event_type, EventType::LlmRequest, "{said}");
        assert_eq!((event.usage_role, event.token_basis), (UsageRole::Call, TokenBasis::Inclusive), "{said}");
        assert_eq!(buckets(&event), [200, 1000, 0, 0, 25, 5], "{said}");
        assert_eq!((event.provider.as_str(), event.model.as_str()), ("openai", "gpt-5-2025"), "{said}");
        assert_eq!((event.session_id.as_str(), event.user_id.as_str()), ("s1", "u1"), "{said}");
        assert_eq!(event.llm_call_key, format!("{TRACE}:{SPAN}"));
        assert_eq!((event.channel, event.agent_id.as_str()), (Channel::Span, "i1"));
    }
}

#[test]
fn spans_around_calls_sum_them_up_and_do_not_count() {
    let usage = |said: Value| {
        let mut said = said;
        said["gen_ai.usage.input_tokens"] = 10.into();
        said["gen_ai.request.model"] = "gpt-5".into();
        said
    };
    for (scope, name, said) in [
        ("github.copilot", "invoke_agent", json!({"gen_ai.operation.name": "invoke_agent"})),
        ("pydantic-ai", "agent run", json!({"agent_name": "a"})),
        ("ai", "ai.generateText", json!({"ai.operationId": "ai.generateText"})),
        ("gen_ai", "invoke_agent gpt-5", json!({"gen_ai.operation.name": "invoke_agent"})),
        ("opentelemetry.instrumentation.langchain", "flow", json!({"traceloop.span.kind": "workflow"})),
        ("openinference.instrumentation.crewai", "crew", json!({"openinference.span.kind": "AGENT"})),
        ("langfuse-sdk", "agent", json!({"langfuse.observation.type": "agent"})),
    ] {
        let event = event(scope, name, usage(said));
        assert_eq!(
            (event.event_type, event.usage_role),
            (EventType::AgentStep, UsageRole::Rollup),
            "{scope}"
        );
        assert_eq!(event.llm_call_key, "", "{scope}");
    }
    let aggregated = json!({"gen_ai.operation.name": "invoke_agent", "gen_ai.aggregated_usage.input_tokens": 10,
        "gen_ai.aggregated_usage.output_tokens": 3});
    let event = event("pydantic-ai", "invoke_agent a", aggregated);
    assert_eq!((event.usage_role, buckets(&event)), (UsageRole::Rollup, [10, 0, 0, 0, 3, 0]));
    let chain =
        self::event("x", "chain", json!({"openinference.span.kind": "CHAIN", "llm.token_count.prompt": 4}));
    assert_eq!((chain.event_type, chain.usage_role), (EventType::Span, UsageRole::Rollup));
}

#[test]
fn tools_of_every_convention_have_their_name_and_call() {
    for (said, name, call) in [
        (
            json!({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "bash", "gen_ai.tool.call.id": "c1"}),
            "bash",
            "c1",
        ),
        (json!({"gen_ai.tool.name": "bash", "gen_ai.tool.call_id": "c1"}), "bash", "c1"),
        (
            json!({"ai.operationId": "ai.toolCall", "ai.toolCall.name": "bash", "ai.toolCall.id": "c1"}),
            "bash",
            "c1",
        ),
        (json!({"openinference.span.kind": "TOOL", "tool.name": "bash", "tool_call.id": "c1"}), "bash", "c1"),
        (json!({"traceloop.span.kind": "tool", "traceloop.entity.name": "bash"}), "bash", ""),
        (json!({"langfuse.observation.type": "tool"}), "shell", ""),
    ] {
        let event = event("some.scope", "shell", said.clone());
        assert_eq!(event.event_type, EventType::CommandRun, "{said}");
        assert_eq!((event.tool_name.as_str(), event.tool_call_id.as_str()), (name, call), "{said}");
    }
    let read = json!({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "read_file",
        "gen_ai.tool.call.arguments": "{\"path\":\"src/a.rs\"}", "process.exit.code": "3"});
    let event = event("some.scope", "execute_tool read_file", read);
    assert_eq!(
        (event.event_type, event.file_path.as_str(), event.exit_code),
        (EventType::FileRead, "src/a.rs", Some(3))
    );
    let merged = json!({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "(merged tools)"});
    assert_eq!(self::event("gcp.vertex.agent", "execute_tool (merged)", merged).event_type, EventType::Span);
    let mcp = json!({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "issues", "mcp.server.name": "github"});
    let event = self::event("some.scope", "execute_tool issues", mcp);
    assert_eq!((event.event_type, event.tool_kind.as_str()), (EventType::McpCall, "mcp"));
}

#[test]
fn anthropic_counts_are_guessed_by_what_is_possible() {
    let said = |input: u64| {
        json!({"gen_ai.operation.name": "chat", "gen_ai.system": "anthropic", "gen_ai.request.model": "claude",
        "gen_ai.usage.input_tokens": input, "gen_ai.usage.output_tokens": 17,
        "gen_ai.usage.cache_read_input_tokens": 4000, "gen_ai.usage.cache_creation_input_tokens": 300})
    };
    for (input, uncached) in [(21, 21), (4321, 21)] {
        let event = event("opentelemetry.instrumentation.anthropic", "anthropic.chat", said(input));
        assert_eq!(
            (buckets(&event), event.token_basis),
            ([uncached, 4000, 300, 0, 17, 0], TokenBasis::Guessed)
        );
    }
}

#[test]
fn counts_mean_what_their_instrumentation_is_known_to_mean() {
    let anthropic = |input: u64, more: Value| {
        let mut said = json!({
            "gen_ai.operation.name": "chat", "gen_ai.system": "anthropic", "gen_ai.usage.input_tokens": input,
            "gen_ai.usage.cache_read.input_tokens": 4000, "gen_ai.usage.output_tokens": 17,
        });
        said.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        said
    };
    let openlit = event("openlit.instrumentation.anthropic", "chat", anthropic(5000, json!({})));
    assert_eq!(
        (buckets(&openlit), openlit.token_basis),
        ([5000, 4000, 0, 0, 17, 0], TokenBasis::AnthropicRaw)
    );
    let written = json!({
        "gen_ai.usage.cache_creation.input_tokens": 300,
        "anthropic.usage.cache_creation.ephemeral_1h_input_tokens": 200,
    });
    let sdk = event("com.anthropic.sdk.python", "chat", anthropic(4321, written));
    assert_eq!((buckets(&sdk), sdk.token_basis), ([21, 4000, 100, 200, 17, 0], TokenBasis::Inclusive));
}

#[test]
fn counts_in_one_attribute_are_read_whole() {
    let langsmith = json!({
        "langsmith.span.kind": "llm", "gen_ai.usage.input_tokens": 1200, "gen_ai.usage.output_tokens": 50,
        "langsmith.metadata.usage_metadata": json!({
            "input_tokens": 1200, "output_tokens": 50,
            "input_token_details": {"cache_read": 1000}, "output_token_details": {"reasoning": 20},
        }).to_string(),
    });
    assert_eq!(buckets(&event("langsmith", "ChatOpenAI", langsmith)), [200, 1000, 0, 0, 30, 20]);
    let mlflow = json!({
        "mlflow.spanType": "\"CHAT_MODEL\"", "mlflow.llm.model": "\"claude-sonnet-4-5\"",
        "mlflow.llm.provider": "\"anthropic\"",
        "mlflow.chat.tokenUsage": json!({
            "input_tokens": 1230, "output_tokens": 50, "cache_read_input_tokens": 1000,
            "cache_creation_input_tokens": 30, "cache_creation_input_tokens_above_1hr": 20,
        }).to_string(),
        "mlflow.llm.cost": "{\"input_cost\": 0.003, \"output_cost\": 0.0005, \"total_cost\": 0.0035}",
    });
    let call = event("mlflow.anthropic", "Messages", mlflow);
    assert_eq!(buckets(&call), [200, 1000, 10, 20, 50, 0]);
    assert_eq!((call.provider.as_str(), call.model.as_str()), ("anthropic", "claude-sonnet-4-5"));
    assert_eq!(call.cost_reported, NanoUsd::from_usd(0.0035));
}

#[test]
fn costs_are_reported_only_where_they_are_costs() {
    let cost = |said: Value| event("some.scope", "chat", said).cost_reported;
    assert_eq!(cost(json!({"gen_ai.usage.cost": 0.5})), NanoUsd::from_usd(0.5));
    assert_eq!(cost(json!({"llm.cost.total": "0.5"})), NanoUsd::from_usd(0.5));
    assert_eq!(cost(json!({"operation.cost": 0.5})), NanoUsd::from_usd(0.5));
    assert_eq!(
        cost(json!({"langfuse.observation.cost_details": "{\"input\":0.25,\"output\":0.25}"})),
        NanoUsd::from_usd(0.5)
    );
    assert_eq!(
        cost(json!({"langfuse.observation.cost_details": "{\"input\":9,\"total\":0.5}"})),
        NanoUsd::from_usd(0.5)
    );
    // Premium requests, not money.
    assert_eq!(cost(json!({"github.copilot.cost": 3.0})), None);
}

#[test]
fn failures_are_found_wherever_a_convention_puts_them() {
    for (said, error_type, message) in [
        (json!({"error.type": "timeout"}), "timeout", ""),
        (
            json!({"langfuse.observation.level": "ERROR", "langfuse.observation.status_message": "boom"}),
            "",
            "boom",
        ),
        (json!({"success": "false", "error": "boom"}), "", "boom"),
        (json!({"gen_ai.operation.name": "chat", "http.response.status_code": 429}), "429", ""),
    ] {
        let event = event("some.scope", "x", said.clone());
        assert_eq!(event.status, Status::Error, "{said}");
        assert_eq!(
            (event.error_type.as_str(), event.error_message.as_str()),
            (error_type, message),
            "{said}"
        );
    }
    let served = event("some.scope", "GET /", json!({"http.response.status_code": 404}));
    assert_eq!(served.status, Status::Unset);
    let mut raised = span("x", json!({}));
    raised["events"] = json!([{"name": "exception", "attributes": attributes(&json!({"exception.type": "E", "exception.message": "m"}))}]);
    let raised = decoded_body(Route::OtlpTraces, &spans("s", "s", &[raised])).events.remove(0);
    assert_eq!(
        (raised.status, raised.error_type.as_str(), raised.error_message.as_str()),
        (Status::Error, "E", "m")
    );
}

#[test]
fn langsmiths_exporter_says_ok_of_what_has_failed() {
    let failed = |scope: &str| {
        let mut span = span("ChatOpenAI", json!({"langsmith.span.kind": "llm"}));
        span["status"] = json!({"code": 1});
        let said = attributes(&json!({"exception.type": "Exception", "exception.message": "429"}));
        span["events"] =
            json!([{"name": "exception", "timeUnixNano": "1795264656000000001", "attributes": said}]);
        decoded_body(Route::OtlpTraces, &spans("s", scope, &[span])).events.remove(0).status
    };
    assert_eq!([failed("langsmith"), failed("another")], [Status::Error, Status::Ok]);
}

#[test]
fn time_to_the_first_token_is_in_milliseconds() {
    let ttft = |said: Value| event("some.scope", "chat", said).ttft_ms;
    assert_eq!(ttft(json!({"gen_ai.response.time_to_first_chunk": 0.25})), Some(250.0));
    assert_eq!(ttft(json!({"ai.response.msToFirstChunk": 250.0})), Some(250.0));
    // The span starts at 12:37:36.
    assert_eq!(
        ttft(json!({"langfuse.observation.completion_start_time": "\"2026-11-21T12:37:36.250Z\""})),
        Some(250.0)
    );
}

#[test]
fn logfire_markers_are_dropped_and_its_logs_are_logs() {
    let pending = span("chat", json!({"logfire.span_type": "pending_span", "gen_ai.operation.name": "chat"}));
    let log = span("hello", json!({"logfire.span_type": "log", "logfire.level_num": 13}));
    let decoded = decoded_body(Route::OtlpTraces, &spans("s", "logfire", &[pending, log]));
    assert!(
        matches!(&decoded.eventless[..], [only] if only.index == 0 && matches!(only.fate, Fate::Filtered(_)))
    );
    let [event] = &decoded.events[..] else { panic!("{:?}", decoded.events) };
    assert_eq!((event.event_type, event.level.as_str(), event.raw_index), (EventType::Log, "warn", 1));
}

#[test]
fn agents_with_session_logs_besides_their_spans_name_their_family() {
    let chat = || json!({"gen_ai.operation.name": "chat"});
    assert_eq!(event("github.copilot", "chat", chat()).call_family, "copilot");
    assert_eq!(event_in("opencode", "ai", "ai.streamText.doStream", chat()).call_family, "opencode");
    assert_eq!(event("other", "chat", chat()).call_family, "");
}

fn logs(scope: &str, records: &[Value]) -> Vec<AgentEvent> {
    let body = json!({"resourceLogs": [{"scopeLogs": [{"scope": {"name": scope}, "logRecords": records}]}]});
    decoded_body(Route::OtlpLogs, &serde_json::to_vec(&body).unwrap()).events
}

#[test]
fn message_events_have_only_the_observed_time_and_belong_to_the_call_of_their_span() {
    let record = |name: &str| {
        json!({"observedTimeUnixNano": "1795264656034000000", "eventName": name, "traceId": TRACE, "spanId": SPAN,
        "attributes": attributes(&json!({"gen_ai.system": "openai"})), "body": wrapped(&json!({"content": "hi"}))})
    };
    let events = logs(
        "opentelemetry.instrumentation.openai_v2",
        &[record("gen_ai.user.message"), record("gen_ai.choice")],
    );
    let [message, choice] = &events[..] else { panic!("{events:?}") };
    assert!(events.iter().all(|event| event.timestamp_source == TimestampSource::Observed));
    assert_eq!((message.event_type, message.llm_call_key.as_str()), (EventType::Log, ""));
    assert_eq!((choice.event_type, choice.usage_role), (EventType::LlmResponse, UsageRole::None));
    assert_eq!(choice.llm_call_key, format!("{TRACE}:{SPAN}"));
    assert_eq!(choice.provider, "openai");
}

#[test]
fn call_told_by_a_log_is_the_call_of_its_span() {
    let said = json!({"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 2});
    let record = json!({"timeUnixNano": "1795264656034000000", "eventName": "gen_ai.client.inference.operation.details",
        "traceId": TRACE, "spanId": SPAN, "attributes": attributes(&said)});
    let linked = logs("opentelemetry.util.genai", std::slice::from_ref(&record)).remove(0);
    assert_eq!((linked.usage_role, linked.llm_call_key), (UsageRole::Call, format!("{TRACE}:{SPAN}")));
    let copilot = logs("copilot-chat", &[record]).remove(0);
    assert_eq!((copilot.usage_role, copilot.llm_call_key.as_str()), (UsageRole::None, ""));
}

#[test]
fn judgements_are_scores_on_both_signals() {
    let said =
        attributes(&json!({"gen_ai.evaluation.name": "Relevance", "gen_ai.evaluation.score.value": 0.5,
        "gen_ai.evaluation.score.label": "relevant", "gen_ai.evaluation.explanation": "why"}));
    let record = json!({"timeUnixNano": "1795264656034000000", "eventName": "gen_ai.evaluation.result",
        "traceId": TRACE, "spanId": SPAN, "attributes": said});
    let mut judged = span("chat", json!({"gen_ai.operation.name": "chat"}));
    judged["events"] = json!([{"name": "gen_ai.evaluation.result", "timeUnixNano": "1795264656034000000", "attributes": said}]);
    let by_span = decoded_body(Route::OtlpTraces, &spans("s", "s", &[judged])).events;
    assert_eq!(by_span.iter().map(|event| event.raw_index).collect::<Vec<_>>(), [0, 0]);
    for score in [&by_span[1], &logs("s", &[record])[0]] {
        assert_eq!((score.event_type, score.name.as_str()), (EventType::Score, "Relevance"));
        assert_eq!((score.trace_id.as_str(), score.span_id.as_str()), (TRACE, SPAN));
        let data: Value = serde_json::from_str(&score.data).unwrap();
        assert_eq!(data, json!({"value": 0.5, "label": "relevant", "comment": "why", "dataType": "NUMERIC"}));
    }
}

/// The tables of a document that describe one span each: what its attributes say.
fn spans_in_tables(document: &str) -> Vec<Value> {
    let mut tables = vec![serde_json::Map::new()];
    for line in document.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, property, value, _] = cells[..] else {
            tables.push(serde_json::Map::new());
            continue;
        };
        let value = serde_json::from_str(value.trim_matches('`'));
        if let (Some(name), Ok(value), Some(table)) =
            (property.strip_prefix('`').and_then(|name| name.strip_suffix('`')), value, tables.last_mut())
        {
            table.insert(name.to_owned(), value);
        }
    }
    tables
        .into_iter()
        .filter(|table| table.contains_key("gen_ai.operation.name"))
        .map(Value::Object)
        .collect()
}

#[test]
fn examples_of_the_genai_conventions_are_understood() {
    let Some(folder) = samples::folder("otel-genai-examples") else { return };
    let document = std::fs::read_to_string(folder.join("non-normative__examples-llm-calls.md")).unwrap();
    let examples = spans_in_tables(&document);
    assert!(examples.len() >= 8, "{}", examples.len());
    for said in examples {
        let event = event("gen_ai", "example", said.clone());
        let expected = match said["gen_ai.operation.name"].as_str().unwrap() {
            "chat" => EventType::LlmRequest,
            "execute_tool" => EventType::ToolCall,
            other => panic!("{other}"),
        };
        assert_eq!(event.event_type, expected, "{said}");
        assert_eq!(event.in_total(), said["gen_ai.usage.input_tokens"].as_u64().unwrap_or(0), "{said}");
        assert_eq!(event.out_total(), said["gen_ai.usage.output_tokens"].as_u64().unwrap_or(0), "{said}");
    }
}

#[test]
fn examples_of_openinference_are_understood() {
    let Some(folder) = samples::folder("openinference-spec") else { return };
    let mut kinds = std::collections::BTreeMap::new();
    for name in ["llm_spans.md", "traces.md", "semantic_conventions.md"] {
        let document = std::fs::read_to_string(folder.join(name)).unwrap();
        let blocks = document.split("```json").skip(1).filter_map(|rest| rest.split("```").next());
        for example in blocks.filter_map(|block| serde_json::from_str::<Value>(block).ok()) {
            let said = if example["attributes"].is_object() { &example["attributes"] } else { &example };
            let Some(kind) = said["openinference.span.kind"].as_str() else { continue };
            let event = event("openinference", "example", said.clone());
            let expected = match kind {
                "LLM" => EventType::LlmRequest,
                "AGENT" => EventType::AgentStep,
                "TOOL" => EventType::ToolCall,
                _ => EventType::Span,
            };
            assert_eq!(event.event_type, expected, "{said}");
            assert_eq!(event.in_total(), said["llm.token_count.prompt"].as_u64().unwrap_or(0), "{said}");
            *kinds.entry(kind.to_owned()).or_insert(0) += 1;
        }
    }
    assert!(kinds.get("LLM").is_some_and(|count| *count >= 4), "{kinds:?}");
}
