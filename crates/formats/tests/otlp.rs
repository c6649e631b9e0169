//! OTLP in every dialect of JSON, and what is wrong with single records.

#![cfg(test)]

#[path = "support/samples.rs"]
mod samples;
mod support;

use fleetlog_formats::{Body, Decoded, Input, decode, inspect};
use fleetlog_schemas::event::{AgentEvent, EventType, Status, TimestampSource};
use fleetlog_schemas::record::Route;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as ProtoValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message as _;
use serde_json::{Value, json};
use support::{decoded, input, view};

const TRACE: &str = "5b0965da0d293e45beb618ce926625a2";

fn body(route: Route, bytes: &[u8]) -> Decoded {
    decode(&input(route, "body.json", bytes)).unwrap()
}

fn only(route: Route, text: &str) -> AgentEvent {
    let decoded = body(route, text.as_bytes());
    let [event] = <[AgentEvent; 1]>::try_from(decoded.events).unwrap();
    event
}

/// What both say, whatever their bytes: the identity of a log or point covers them.
fn said(event: AgentEvent) -> Value {
    view(&[AgentEvent { event_id: String::new(), dedup_key: Default::default(), ..event }])
}

#[test]
fn every_dialect_of_a_span_reads_the_same() {
    let camel = format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"x"}}}}]}},
        "scopeSpans":[{{"scope":{{"name":"s"}},"spans":[{{"traceId":"{TRACE}","spanId":"85c17ca66cc022ce","parentSpanId":"",
        "name":"n","kind":3,"startTimeUnixNano":"1795264656000000000","endTimeUnixNano":"1795264657000000000",
        "attributes":[{{"key":"i","value":{{"intValue":"7"}}}},{{"key":"e","value":{{}}}}],"droppedAttributesCount":1,
        "events":[{{"name":"exception","timeUnixNano":"5","attributes":[]}}],"links":[{{"traceId":"{TRACE}","spanId":"85c17ca66cc022ce"}}],
        "status":{{"code":2,"message":"m"}}}}]}}]}}]}}"#
    );
    let snake = r#"{"resource_spans":[{"resource":{"attributes":[{"key":"service.name","value":{"string_value":"x"}}]},
        "scope_spans":[{"scope":{"name":"s"},"spans":[{"trace_id":"Wwll2g0pPkW+thjOkmYlog==","span_id":"hcF8pmzAIs4=","parent_span_id":"0000000000000000",
        "name":"n","kind":"SPAN_KIND_CLIENT","start_time_unix_nano":1795264656000000000,"end_time_unix_nano":1795264657000000000,
        "attributes":[{"key":"i","value":{"int_value":7}},{"key":"e","value":null}],"dropped_attributes_count":"1",
        "events":[{"name":"exception","time_unix_nano":5}],"links":[{"trace_id":"Wwll2g0pPkW+thjOkmYlog==","span_id":"hcF8pmzAIs4"}],
        "status":{"code":"STATUS_CODE_ERROR","message":"m"},"unheardOf":[{}]}]}]}]}"#;
    let older = camel
        .replace("scopeSpans", "instrumentationLibrarySpans")
        .replace(r#""scope":"#, r#""instrumentationLibrary":"#)
        .replace(TRACE, &TRACE.to_uppercase());
    let event = only(Route::OtlpTraces, &camel);
    assert_eq!(
        (event.status, event.duration_ms, event.trace_id.as_str()),
        (Status::Error, Some(1000.0), TRACE)
    );
    similar_asserts::assert_eq!(view(std::slice::from_ref(&event)), view(&[only(Route::OtlpTraces, snake)]));
    similar_asserts::assert_eq!(view(&[event]), view(&[only(Route::OtlpTraces, &older)]));
}

#[test]
fn every_dialect_of_a_metric_point_reads_the_same() {
    let camel = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"tokens","unit":"1","sum":{"aggregationTemporality":2,"isMonotonic":true,
        "dataPoints":[{"timeUnixNano":"1795264656000000000","startTimeUnixNano":"5","asInt":"3","attributes":[{"key":"a","value":{"boolValue":true}}]}]}}]}]}]}"#;
    let snake = r#"{"resource_metrics":[{"scope_metrics":[{"metrics":[{"name":"tokens","unit":"1","sum":{"aggregation_temporality":"AGGREGATION_TEMPORALITY_CUMULATIVE","is_monotonic":true,
        "data_points":[{"time_unix_nano":1795264656000000000,"start_time_unix_nano":5,"as_int":3,"attributes":[{"key":"a","value":{"bool_value":true}}]}]}}]}]}]}"#;
    let event = only(Route::OtlpMetrics, camel);
    assert_eq!(event.event_type, EventType::MetricPoint);
    similar_asserts::assert_eq!(said(event), said(only(Route::OtlpMetrics, snake)));
}

fn log(record: &str) -> AgentEvent {
    only(Route::OtlpLogs, &format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{record}]}}]}}]}}"#))
}

#[test]
fn record_without_any_time_has_that_of_its_receipt() {
    let event = log(
        r#"{"timeUnixNano":"0","observedTimeUnixNano":0,"body":null,"attributes":[{"key":"a","value":{}}]}"#,
    );
    assert_eq!((event.timestamp, event.timestamp_source), (event.received_at, TimestampSource::Ingest));
    assert_eq!(serde_json::from_str::<Value>(&event.data).unwrap(), json!({"a": null}));
    let observed = log(r#"{"timeUnixNano":"0","observedTimeUnixNano":"1795264656000000000"}"#);
    assert_eq!(observed.timestamp_source, TimestampSource::Observed);
}

#[test]
fn times_that_no_column_holds_are_clamped_and_say_so() {
    let event = log(r#"{"timeUnixNano":"18446744073709551615"}"#);
    assert_eq!((event.timestamp, event.timestamp_source), (i64::MAX, TimestampSource::Clamped));
    assert!(event.data.contains(r#""timestamp_original":"18446744073709551615""#), "{}", event.data);
    let span = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"{TRACE}","spanId":"85c17ca66cc022ce","name":"n",
        "startTimeUnixNano":"9300000000000000000","endTimeUnixNano":"9300000000000000001"}}]}}]}}]}}"#
    );
    let event = only(Route::OtlpTraces, &span);
    assert_eq!((event.timestamp_source, event.end_timestamp), (TimestampSource::Clamped, Some(i64::MAX)));
    assert!(event.data.contains("end_timestamp_original"), "{}", event.data);
}

/// What the gateway rejects, by index and code, and how many events the processor makes of the rest.
fn rejected(route: Route, content_type: &str, bytes: &[u8]) -> (Vec<(u32, &'static str)>, usize) {
    let body = Body { route, content_type, format_hint: "", bytes };
    let found = inspect::inspect(&body, "p1").unwrap();
    let indexes: Vec<u32> = found.rejected.iter().map(|rejected| rejected.index).collect();
    let decoded = decode(&Input { content_type, rejected: &indexes, ..input(route, "", bytes) }).unwrap();
    (found.rejected.iter().map(|rejected| (rejected.index, rejected.code)).collect(), decoded.events.len())
}

#[test]
fn one_bad_record_of_a_thousand_costs_only_itself() {
    let deep = format!(r#"{{"body":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
    for (bad, code) in [
        (r#"{"body":tru}"#.as_bytes(), "malformed_json"),
        (br#"{"body":"x" "severityText":"a"}"#, "malformed_json"),
        (b"{\"body\":\"\xff\"}", "invalid_utf8"),
        (deep.as_bytes(), "too_deep"),
    ] {
        let mut bytes = br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":["#.to_vec();
        for number in 0..1000 {
            bytes.extend(if number == 0 { &b""[..] } else { b"," });
            bytes.extend(if number == 500 {
                bad
            } else {
                br#"{"severityText":"a","body":{"stringValue":"]}"}}"#
            });
        }
        bytes.extend(b"]}]}]}");
        assert_eq!(rejected(Route::OtlpLogs, "application/json", &bytes), (vec![(500, code)], 999));
    }
    let spans = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"{TRACE}","spanId":"85c17ca66cc022ce"}},{{"traceId":}},{{"traceId":"{TRACE}"}}]}}]}}]}}"#
    );
    let codes = vec![(1, "malformed_json"), (2, "bad_ids")];
    assert_eq!(rejected(Route::OtlpTraces, "application/json", spans.as_bytes()), (codes, 1));
    let points = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","gauge":{"dataPoints":[{"asInt":1},{"asInt":},{"asInt":3}]}}]}]}]}"#;
    assert_eq!(
        rejected(Route::OtlpMetrics, "application/json", points.as_bytes()),
        (vec![(1, "malformed_json")], 2)
    );
}

#[test]
fn requests_that_a_collector_wrote_to_a_file_are_read_line_by_line() {
    let request = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"severityText":"a"}]}]}]}"#;
    let file = format!("{request}\n{request}\n");
    for content_type in ["application/x-ndjson", ""] {
        assert_eq!(rejected(Route::OtlpLogs, content_type, file.as_bytes()), (vec![], 2));
        assert_eq!(rejected(Route::Raw, content_type, file.as_bytes()), (vec![], 2));
    }
}

#[test]
fn nesting_beyond_the_bound_is_rejected_in_protobuf_as_in_json() {
    let any = |value| AnyValue { value: Some(value) };
    let mut value = any(ProtoValue::IntValue(1));
    for _ in 0..60 {
        value = any(ProtoValue::ArrayValue(ArrayValue { values: vec![value] }));
    }
    let plain = LogRecord { severity_text: "a".into(), ..LogRecord::default() };
    let deep = LogRecord { body: Some(value), ..LogRecord::default() };
    let scope = ScopeLogs { log_records: vec![plain.clone(), deep, plain], ..ScopeLogs::default() };
    let logs = ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() };
    let bytes = ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec();
    assert_eq!(rejected(Route::OtlpLogs, "application/x-protobuf", &bytes), (vec![(1, "too_deep")], 2));
}

#[test]
fn examples_of_the_protocol_are_understood() {
    let Some(folder) = samples::folder("otlp-proto-examples") else { return };
    for (name, route, count) in [
        ("trace.json", Route::OtlpTraces, 1),
        ("logs.json", Route::OtlpLogs, 1),
        ("events.json", Route::OtlpLogs, 1),
        ("metrics.json", Route::OtlpMetrics, 4),
    ] {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        let events = body(route, &bytes).events;
        assert_eq!(events.len(), count, "{name}");
        for event in &events {
            assert_ne!(event.event_type, EventType::RawUnknown, "{name}");
            assert_eq!(
                (event.source.as_str(), event.timestamp_source),
                ("my.service", TimestampSource::Event)
            );
        }
    }
}

#[test]
fn span_of_the_python_sdk_keeps_what_marks_noise() {
    // What a policy against floods of internal spans goes by: the scope and the kind.
    let events = decoded(Route::OtlpTraces, "otel-py-1.45/spans.json");
    for event in &events {
        let (context, data): (Value, Value) =
            (serde_json::from_str(&event.context).unwrap(), serde_json::from_str(&event.data).unwrap());
        assert_eq!((&context["scope"]["name"], &data["span_kind"]), (&json!("manual"), &json!("internal")));
    }
}
