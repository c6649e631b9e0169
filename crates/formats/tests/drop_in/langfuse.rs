//! Langfuse.

use fleetlog_formats::langfuse::ids;
use fleetlog_schemas::event::{AgentEvent, EventType, Status, TokenBasis, UsageRole};
use fleetlog_schemas::id::NanoUsd;
use fleetlog_schemas::record::Route;
use serde_json::json;

use crate::Request;
use crate::support::{decoded, fixture, view};

const INGESTION: &str = "langfuse.ingestion";

fn batch(name: &str) -> Vec<AgentEvent> {
    Request::json(INGESTION, &fixture(name)).events()
}

#[test]
fn javascript_sdk_3() {
    insta::assert_json_snapshot!(view(&batch("langfuse-js-3.39/ingestion.json")));
}

#[test]
fn python_sdk_2() {
    insta::assert_json_snapshot!(view(&batch("langfuse-py-2.60/ingestion.json")));
}

#[test]
fn python_sdk_3() {
    let mut events = decoded(Route::OtlpTraces, "langfuse-py-3.15/spans.pb");
    events.extend(batch("langfuse-py-3.15/ingestion.json"));
    insta::assert_json_snapshot!(view(&events));
}

#[test]
fn answer_lists_the_ids_in_the_order_of_the_records() {
    for name in ["langfuse-js-3.39", "langfuse-py-2.60", "langfuse-py-3.15"] {
        let name = format!("{name}/ingestion.json");
        let entries = ids(&fixture(&name)).unwrap();
        let answered: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
        let events = batch(&name);
        assert_eq!(answered, events.iter().map(|event| event.event_id.as_str()).collect::<Vec<_>>());
        assert!(entries.iter().all(|entry| entry.complaint.is_none()));
    }
}

#[test]
fn update_is_later_than_its_creation_though_it_stands_before_it() {
    let events = batch("langfuse-js-3.39/ingestion.json");
    let span: Vec<&AgentEvent> = events.iter().filter(|event| event.span_id.starts_with("fdf0")).collect();
    let [update, create] = span[..] else { panic!("{span:?}") };
    assert_eq!((update.status, create.status), (Status::Error, Status::Unset));
    assert!(update.revision > create.revision);
    assert_eq!(update.trace_id, create.trace_id);
}

#[test]
fn pieces_of_a_generation_name_one_call() {
    for name in ["langfuse-js-3.39/ingestion.json", "langfuse-py-2.60/ingestion.json"] {
        let events = batch(name);
        let calls: Vec<&AgentEvent> =
            events.iter().filter(|event| event.event_type == EventType::LlmRequest).collect();
        let [create, update] = calls[..] else { panic!("{calls:?}") };
        assert_eq!(create.llm_call_key, update.llm_call_key);
        assert_eq!((create.model.as_str(), create.usage_role), ("gpt-4o", UsageRole::None));
        assert_eq!((update.usage_role, update.in_uncached, update.out_visible), (UsageRole::Call, 10, 2));
        assert!(update.revision > create.revision);
    }
}

#[test]
fn observations_of_every_type_have_their_place() {
    let kinds = [
        ("span", EventType::Span),
        ("generation", EventType::LlmRequest),
        ("embedding", EventType::LlmRequest),
        ("event", EventType::Log),
        ("agent", EventType::AgentStep),
        ("tool", EventType::ToolCall),
        ("chain", EventType::Span),
        ("retriever", EventType::Span),
        ("evaluator", EventType::Span),
        ("guardrail", EventType::Span),
    ];
    for (kind, expected) in kinds {
        let id = format!("{kind}-1");
        let legacy = json!({"id": id, "traceId": "t", "type": kind.to_uppercase(), "name": "n"});
        let own = json!({"id": id, "traceId": "t", "name": "n"});
        let at = "2026-11-21T12:07:43.848Z";
        let body = json!({"batch": [
            {"id": "a", "type": format!("{kind}-create"), "timestamp": at, "body": own},
            {"id": "b", "type": "observation-update", "timestamp": at, "body": legacy},
        ]});
        for event in Request::json(INGESTION, body.to_string().as_bytes()).events() {
            assert_eq!((event.event_type, event.span_id.as_str()), (expected, id.as_str()), "{kind}");
            assert_eq!(event.tool_call_id.is_empty(), expected != EventType::ToolCall);
            assert_eq!(event.llm_call_key.is_empty(), expected != EventType::LlmRequest);
        }
    }
}

#[test]
fn what_is_no_observation_is_kept() {
    let body = json!({"batch": [
        {"id": "a", "type": "sdk-log", "timestamp": "2026-11-21T12:07:43Z", "body": {"log": "x"}},
        {"id": "b", "type": "dataset-run-item-create", "timestamp": "2026-11-21T12:07:43Z", "body": {"runName": "x"}},
        {"id": "c", "type": "quark-create", "timestamp": "2026-11-21T12:07:43Z", "body": {}},
        {"id": "d", "type": "trace-create", "timestamp": "2026-11-21T12:07:43Z"},
        7,
    ]});
    let events = Request::json(INGESTION, body.to_string().as_bytes()).events();
    let types: Vec<_> =
        events.iter().map(|event| (event.event_type, event.unknown_reason.as_str())).collect();
    let expected = [
        (EventType::Log, ""),
        (EventType::Log, ""),
        (EventType::RawUnknown, "unknown_type"),
        (EventType::RawUnknown, "bad_shape"),
    ];
    assert_eq!(types, expected);
}

#[test]
fn score_without_an_envelope_is_a_score() {
    let body =
        br#"{"id":"s1","traceId":"t","observationId":"o","name":"quality","value":0.5,"dataType":"NUMERIC"}"#;
    let events = Request::json("langfuse.scores", body).events();
    let [score] = &events[..] else { panic!("{events:?}") };
    assert_eq!((score.event_type, score.name.as_str()), (EventType::Score, "quality"));
    assert_eq!((score.trace_id.as_str(), score.span_id.as_str()), ("t", "o"));
}

#[test]
fn costs_and_failures_have_columns() {
    let events = batch("langfuse-py-2.60/ingestion.json");
    let priced = events.iter().find(|event| event.cost_reported.is_some()).unwrap();
    assert_eq!(priced.cost_reported, Some(NanoUsd(300_000_000)));
    assert_eq!((priced.token_basis, priced.cache_read), (TokenBasis::Disjoint, 4));
    let failed = events.iter().find(|event| event.status == Status::Error).unwrap();
    assert_eq!((failed.error_message.as_str(), failed.level.as_str()), ("boom", "error"));
    assert!(
        events.iter().all(|event| event.source == "langfuse-python" && event.source_version == "2.60.10")
    );
}
