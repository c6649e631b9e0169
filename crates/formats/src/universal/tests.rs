use fleetlog_schemas::id::NanoUsd;
use fleetlog_schemas::record::Route;

use super::*;
use crate::input::Fate;

fn input(body: &[u8]) -> Input<'_> {
    Input {
        route: Route::Events,
        content_type: "application/json",
        format_hint: "",
        body,
        project_id: "p1",
        request_id: "req-1",
        idempotency_key: "",
        received_at: 1_800_000_000_000_000_000,
        raw_partition: 3,
        raw_offset: 42,
        first_record: 100,
        piece: 0,
        rejected: &[],
        stream: None,
    }
}

fn one(body: &str) -> AgentEvent {
    let mut decoded = decode(&input(body.as_bytes())).unwrap();
    assert_eq!((decoded.events.len(), decoded.eventless.len()), (1, 0), "{decoded:?}");
    decoded.events.remove(0)
}

#[test]
fn only_a_type_is_needed() {
    let event = one(r#"{"type":"session.start"}"#);
    assert_eq!(event.event_type, EventType::SessionStart);
    assert_eq!((event.name.as_str(), event.project_id.as_str()), ("session.start", "p1"));
    assert_eq!((event.timestamp, event.timestamp_source), (event.received_at, TimestampSource::Ingest));
    assert_eq!((event.raw_partition, event.raw_offset, event.raw_index), (3, 42, 100));
    assert_eq!((event.context.as_str(), event.data.as_str()), ("{}", "{}"));
    assert_eq!(event.event_id, event.dedup_key.to_string());
}

#[test]
fn unknown_type_is_kept_and_says_why() {
    let event = one(r#"{"type":"deploy.started","name":"x","data":{"a":1}}"#);
    assert_eq!((event.event_type, event.name.as_str()), (EventType::RawUnknown, "deploy.started"));
    assert_eq!(
        (event.unknown_reason.as_str(), event.data.as_str()),
        ("unknown_type", r#"{"a":1,"name":"x"}"#)
    );
}

#[test]
fn columns_metrics_and_usage_find_their_place() {
    let event = one(
        r#"{"id":"e1","timestamp":"2026-11-21T12:37:36.034Z","type":"llm.request","agentId":"a","sessionId":7,
            "model":"gpt-5","requestId":"r1","costReported":0.0175,"context":{"cwd":"/x"},
            "metrics":{"duration":12.5,"inputTokens":1000,"outputTokens":"100","cachedInputTokens":400,"reasoningTokens":40}}"#,
    );
    assert_eq!(
        (event.event_id.as_str(), event.session_id.as_str(), event.agent_id.as_str()),
        ("e1", "7", "a")
    );
    assert_eq!(event.timestamp, 1_795_264_656_034_000_000);
    assert_eq!(
        (event.in_uncached, event.cache_read, event.out_visible, event.out_reasoning),
        (600, 400, 60, 40)
    );
    assert_eq!((event.token_basis, event.usage_role), (TokenBasis::Inclusive, UsageRole::Call));
    assert_eq!((event.llm_call_key.as_str(), event.duration_ms), ("r1", Some(12.5)));
    assert_eq!(event.cost_reported, Some(NanoUsd(17_500_000)));
    assert_eq!((event.context.as_str(), event.data.as_str()), (r#"{"cwd":"/x"}"#, "{}"));
}

#[test]
fn buckets_given_directly_are_disjoint() {
    let event = one(
        r#"{"type":"llm.request","inUncached":5,"outVisible":6,"cacheWrite1h":7,"data":{"callId":"c1"}}"#,
    );
    assert_eq!((event.token_basis, event.in_total(), event.out_total()), (TokenBasis::Disjoint, 12, 6));
    assert_eq!(event.llm_call_key, "c1");
    let step = one(r#"{"type":"agent.step","inUncached":5}"#);
    assert_eq!((step.usage_role, step.llm_call_key.as_str()), (UsageRole::Rollup, ""));
}

#[test]
fn bare_total_is_counted_and_marked_guessed() {
    let event = one(r#"{"id":"e","type":"llm.response","metrics":{"tokenCount":150,"widgets":2}}"#);
    assert_eq!((event.in_total() + event.out_total(), event.token_basis), (150, TokenBasis::Guessed));
    assert_eq!(event.data, r#"{"metrics":{"tokenCount":150,"widgets":2}}"#);
    assert_eq!(event.llm_call_key, "e");
}

#[test]
fn what_has_no_column_or_does_not_fit_stays_in_data() {
    let event = one(
        r#"{"type":"log","level":"WARN","message":"hi","traceId":{"a":1},"status":"weird","exitCode":1.5,
            "data":{"message":"other"},"inUncached":99999999999999999999}"#,
    );
    assert_eq!((event.level.as_str(), event.trace_id.as_str(), event.status), ("warn", "", Status::Unset));
    let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
    let expected = serde_json::json!({"message": "other", "message#2": "hi", "traceId": {"a": 1}, "status": "weird",
        "exitCode": 1.5, "inUncached": 99_999_999_999_999_999_999_u128 as f64});
    assert_eq!(data["message#2"], expected["message#2"]);
    assert_eq!(data["traceId"], expected["traceId"]);
    assert_eq!((&data["status"], &data["exitCode"]), (&expected["status"], &expected["exitCode"]));
    assert_eq!(one(r#"{"type":"log","data":"text"}"#).data, r#"{"value":"text"}"#);
    assert_eq!(one(r#"{"type":"log","data":null,"context":null,"id":null}"#).data, "{}");
}

#[test]
fn errors_are_read_in_both_spellings() {
    let event = one(r#"{"type":"tool.call","error":{"type":"Timeout","message":"too slow"}}"#);
    assert_eq!(
        (event.status, event.error_type.as_str(), event.error_message.as_str()),
        (Status::Error, "Timeout", "too slow")
    );
    assert_eq!(one(r#"{"type":"tool.call","error":"too slow"}"#).error_message, "too slow");
}

#[test]
fn absurd_time_is_clamped_with_the_original_kept() {
    let event = one(r#"{"type":"log","timestamp":"0001-01-01T00:00:00Z"}"#);
    assert_eq!(event.timestamp_source, TimestampSource::Clamped);
    assert_eq!(event.data, r#"{"timestamp_original":"0001-01-01T00:00:00Z"}"#);
    let event = one(r#"{"type":"log","timestamp":"soon"}"#);
    assert_eq!((event.timestamp, event.timestamp_source), (event.received_at, TimestampSource::Ingest));
}

#[test]
fn half_an_emoji_does_not_cost_the_event() {
    let event = one(r#"{"type":"log","sessionId":"a\ud83d","data":{"text":"b\ud83d"}}"#);
    assert_eq!((event.session_id.as_str(), event.data.as_str()), ("a\u{fffd}", r#"{"text":"b\ufffd"}"#));
}

#[test]
fn equal_events_live_and_their_retry_is_the_same() {
    let body = br#"[{"type":"log","timestamp":1795264656},{"type":"log","timestamp":1795264656},{"type":"log"},{"type":"log"},{"type":"log","id":"x"},{"type":"log","id":"x"}]"#;
    let keys = |input: &Input<'_>| -> Vec<_> {
        decode(input).unwrap().events.into_iter().map(|event| event.dedup_key).collect()
    };
    let first = keys(&input(body));
    assert_ne!(first[0], first[1]);
    assert_ne!(first[2], first[3]);
    assert_eq!(first[4], first[5]);
    let retry = keys(&Input { request_id: "req-2", raw_offset: 77, ..input(body) });
    assert_eq!((&first[..2], &first[4..]), (&retry[..2], &retry[4..]));
    assert_ne!(first[2], retry[2]);
    let with_key = |request_id| keys(&Input { request_id, idempotency_key: "k", ..input(body) });
    assert_eq!(with_key("req-3"), with_key("req-4"));
}

#[test]
fn bad_record_costs_only_itself_and_rejected_ones_are_skipped() {
    let body = br#"[{"type":"log","id":"a"},{"type":1},{"type":"log","x":tru},{"type":"log","projectId":"p2"},{"type":"log","id":"b"}]"#;
    let decoded = decode(&Input { rejected: &[1], ..input(body) }).unwrap();
    let ids: Vec<_> = decoded.events.iter().map(|event| (event.event_id.as_str(), event.raw_index)).collect();
    assert_eq!(ids, [("a", 100), ("b", 104)]);
    let dead: Vec<_> =
        decoded.eventless.iter().map(|entry| (entry.index, matches!(entry.fate, Fate::Dead(_)))).collect();
    assert_eq!(dead, [(2, true), (3, true)]);
}

#[test]
fn names_in_snake_case_find_the_same_columns() {
    let event = one(
        r#"{"type":"llm.request","session_id":"s","agent_id":"a","trace_id":"t","cache_write_5m":7,"end_timestamp":1795264656000,
            "error_message":"no","project_id":42,"tool__name":"x","_hidden":1,"metrics":{"input_tokens":12,"output_tokens":3}}"#,
    );
    assert_eq!(
        (event.session_id.as_str(), event.agent_id.as_str(), event.trace_id.as_str()),
        ("s", "a", "t")
    );
    assert_eq!((event.cache_write_5m, event.error_message.as_str()), (7, "no"));
    assert_eq!(event.end_timestamp, Some(1_795_264_656_000_000_000));
    let snake = one(r#"{"type":"llm.request","metrics":{"input_tokens":12,"output_tokens":3}}"#);
    assert_eq!((snake.in_total(), snake.out_total(), snake.data.as_str()), (12, 3, "{}"));
    // Another world's project, and names that are none.
    let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
    assert_eq!((&data["project_id"], &data["_hidden"]), (&42.into(), &1.into()), "{data}");
}

#[test]
fn a_second_value_for_a_column_is_kept_beside_the_first() {
    let event = one(
        r#"{"type":"log","userId":"a","user_id":"b","durationMs":1,"metrics":{"duration":2},"data":{"x":1},"data":{"y":2},
            "sessionId":"s","session_id":"s"}"#,
    );
    assert_eq!((event.user_id.as_str(), event.duration_ms, event.session_id.as_str()), ("a", Some(1.0), "s"));
    let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
    let expected = serde_json::json!({"x": 1, "user_id": "b", "metrics": {"duration": 2}, "data": {"y": 2}});
    assert_eq!(data, expected, "what says the same twice needs no second place");
}

#[test]
fn only_lower_case_words_with_one_underscore_between_them_are_another_spelling() {
    let event = one(
        r#"{"type":"log","type_":"x","id":"e","id_":"f","data":{"a":1},"data_":{"b":2},"project_Id":"q","project__id":"r",
            "_session_id":"s","Session_Id":"t","tool__name":"u"}"#,
    );
    assert_eq!((event.name.as_str(), event.event_id.as_str()), ("log", "e"));
    assert_eq!((event.session_id.as_str(), event.tool_name.as_str()), ("", ""));
    let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
    let expected = serde_json::json!({"a": 1, "type_": "x", "id_": "f", "data_": {"b": 2}, "project_Id": "q",
        "project__id": "r", "_session_id": "s", "Session_Id": "t", "tool__name": "u"});
    assert_eq!(data, expected);
}
