//! Whatever the bytes: no panic, exactly one fate a record, and a bad record costs only itself.

#![cfg(test)]

use std::collections::BTreeSet;

use fleetlog_formats::{Body, Decoded, Input, decode, inspect};
use fleetlog_schemas::record::Route;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use proptest::prelude::*;
use prost::Message;

const CONTENT_TYPES: [&str; 4] = ["application/json", "application/x-ndjson", "application/x-protobuf", ""];

fn input<'a>(route: Route, content_type: &'a str, body: &'a [u8], rejected: &'a [u32]) -> Input<'a> {
    Input {
        route,
        content_type,
        format_hint: "",
        body,
        project_id: "p1",
        request_id: "req-1",
        idempotency_key: "",
        received_at: 1_800_000_000_000_000_000,
        raw_partition: 0,
        raw_offset: 0,
        first_record: 0,
        piece: 0,
        rejected,
        stream: None,
    }
}

/// Indexes that have a fate; panics when one has two kinds of it.
fn fates(decoded: &Decoded) -> BTreeSet<u32> {
    let mut fates: BTreeSet<u32> = decoded.events.iter().map(|event| event.raw_index).collect();
    for entry in &decoded.eventless {
        assert!(fates.insert(entry.index), "record {} has two fates", entry.index);
    }
    fates
}

/// The processor must find exactly the records that the gateway counted and accepted.
fn assert_agreement(route: Route, content_type: &str, bytes: &[u8]) {
    let body = Body { route, content_type, format_hint: "", bytes };
    let inspected = inspect::inspect(&body, "p1");
    let rejected: Vec<u32> =
        inspected.iter().flat_map(|found| &found.rejected).map(|rejected| rejected.index).collect();
    let decoded = decode(&input(route, content_type, bytes, &rejected));
    match (inspected, decoded) {
        (Ok(found), Ok(decoded)) => {
            let accepted: BTreeSet<u32> =
                (0..found.records).filter(|index| rejected.binary_search(index).is_err()).collect();
            assert_eq!(fates(&decoded), accepted);
            for event in &decoded.events {
                for text in [&event.context, &event.data] {
                    let parsed: serde_json::Value = serde_json::from_str(text).unwrap();
                    assert!(parsed.is_object(), "{text}");
                }
                assert!(!event.event_id.is_empty());
            }
        }
        (Err(_), _) => {}
        (Ok(found), Err(undecodable)) => panic!("{found:?} but {undecodable}"),
    }
}

/// JSON-like text around the members that decoders look for.
fn jsonish() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        "type|id|timestamp|data|context|metrics|events|projectId|sessionId|error|tokenCount|duration",
        "resourceLogs|resourceSpans|resourceMetrics|resource|scope|scopeLogs|scopeSpans|scopeMetrics|logRecords|spans",
        "metrics|sum|dataPoints|attributes|key|value|stringValue|intValue|arrayValue|values|body|timeUnixNano|traceId",
        "spanId|name|log|llm.request|p1|5b0965da0d293e45beb618ce926625a2|85c17ca66cc022ce|session.id|1795264656",
    ];
    let leaf = prop_oneof![
        4 => word.clone().prop_map(|word| format!("\"{word}\"")),
        1 => "-?[0-9]{1,19}(\\.[0-9]{1,3})?",
        1 => "true|false|null",
        1 => Just("\"\\ud83d\"".to_owned()),
    ];
    leaf.prop_recursive(6, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((word.clone(), inner), 0..6).prop_map(|members| {
                let members: Vec<String> =
                    members.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

fn all_routes() -> impl Strategy<Value = (Route, &'static str)> {
    (prop::sample::select(Route::ALL), prop::sample::select(&CONTENT_TYPES[..]))
}

/// A valid request in protobuf, to be broken.
fn logs_request(records: Vec<Vec<u8>>) -> Vec<u8> {
    // Encoded by hand so that a record may be any bytes: each level is a field of its bytes.
    let field = |number: u32, payload: &[u8]| {
        let mut out = Vec::new();
        prost::encoding::bytes::encode(number, &payload.to_vec(), &mut out);
        out
    };
    let records: Vec<u8> = records.iter().flat_map(|record| field(2, record)).collect();
    field(1, &field(2, &records))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic((route, content_type) in all_routes(), bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        assert_agreement(route, content_type, &bytes);
    }

    #[test]
    fn gateway_and_processor_agree_on_any_json((route, content_type) in all_routes(), text in jsonish()) {
        assert_agreement(route, content_type, text.as_bytes());
    }

    #[test]
    fn gateway_and_processor_agree_on_cut_and_flipped_json(
        (route, content_type) in all_routes(), text in jsonish(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        assert_agreement(route, content_type, &bytes);
    }

    #[test]
    fn broken_element_among_good_ones_costs_only_itself(
        good in 1usize..6, at in any::<prop::sample::Index>(), bad in "\\{\"type\":\"log\",([a-z0-9:, ]|\"[a-z]{0,3}\"){0,8}\\}", lines in any::<bool>(),
    ) {
        let at = at.index(good + 1);
        let mut records: Vec<String> = (0..good).map(|n| format!(r#"{{"type":"log","id":"{n}"}}"#)).collect();
        records.insert(at, bad);
        let (text, content_type) = if lines {
            (records.join("\n"), "application/x-ndjson")
        } else {
            (format!("[{}]", records.join(",")), "application/json")
        };
        assert_agreement(Route::Events, content_type, text.as_bytes());
        let decoded = decode(&input(Route::Events, content_type, text.as_bytes(), &[])).unwrap();
        let survivors = decoded.events.iter().filter(|event| event.raw_index as usize != at).count();
        prop_assert_eq!(survivors, good);
    }

    #[test]
    fn broken_protobuf_record_costs_only_itself(bad in prop::collection::vec(any::<u8>(), 1..40), good in 0usize..4) {
        let record = LogRecord { time_unix_nano: 5, severity_text: "INFO".into(), ..LogRecord::default() };
        let mut records = vec![record.encode_to_vec(); good];
        records.insert(good / 2, bad);
        let body = logs_request(records);
        assert_agreement(Route::OtlpLogs, "application/x-protobuf", &body);
        let Ok(decoded) = decode(&input(Route::OtlpLogs, "application/x-protobuf", &body, &[])) else {
            // Alone it may be another signal's.
            prop_assert_eq!(good, 0);
            return Ok(());
        };
        prop_assert!(decoded.events.len() >= good);
        prop_assert_eq!(fates(&decoded).len(), good + 1);
    }

    #[test]
    fn mutated_real_requests_never_panic(
        which in 0usize..6, flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        const REAL: [(Route, &str, &[u8]); 6] = [
            (Route::OtlpTraces, "application/x-protobuf", include_bytes!("fixtures/otel-py-1.45/spans.pb")),
            (Route::OtlpLogs, "application/x-protobuf", include_bytes!("fixtures/otel-py-1.45/logs.pb")),
            (Route::OtlpMetrics, "application/x-protobuf", include_bytes!("fixtures/otel-py-1.45/metrics.pb")),
            (Route::OtlpTraces, "application/json", include_bytes!("fixtures/otel-py-1.45/spans.json")),
            (Route::OtlpLogs, "application/json", include_bytes!("fixtures/otel-py-1.45/logs.json")),
            (Route::OtlpMetrics, "application/json", include_bytes!("fixtures/otel-py-1.45/metrics.json")),
        ];
        let (route, content_type, bytes) = REAL[which];
        let mut bytes = bytes.to_vec();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        assert_agreement(route, content_type, &bytes);
    }
}

#[test]
fn one_bad_record_in_a_thousand_costs_that_record_only() {
    let mut records: Vec<String> = (0..1000).map(|n| format!(r#"{{"type":"log","id":"{n}"}}"#)).collect();
    records[417] = r#"{"type":"log","data":{"x":}"#.to_owned();
    for (text, content_type) in [
        (records.join("\n"), "application/x-ndjson"),
        (format!("[{}]", records.join(",")), "application/json"),
    ] {
        let decoded = decode(&input(Route::Events, content_type, text.as_bytes(), &[]));
        if content_type == "application/json" {
            // An unclosed brace swallows what follows it: only lines have ends that no record can hide.
            assert!(decoded.is_err());
            continue;
        }
        let decoded = decoded.unwrap();
        assert_eq!((decoded.events.len(), decoded.eventless.len()), (999, 1));
        assert_eq!(decoded.eventless[0].index, 417);
    }
}

#[test]
fn nesting_of_a_hundred_thousand_levels_does_not_overflow_the_stack() {
    let deep = "[".repeat(100_000);
    let bodies = [
        deep.clone(),
        format!("{{\"type\":\"log\",\"data\":{deep}"),
        format!("[{{\"type\":\"log\",\"data\":{deep}{}}}]", "]".repeat(100_000)),
        "{\"resourceLogs\":".repeat(100_000),
        format!(
            "{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{{\"body\":{}",
            "{\"arrayValue\":{\"values\":[".repeat(30_000)
        ),
    ];
    for body in bodies {
        for route in Route::ALL {
            assert_agreement(*route, "application/json", body.as_bytes());
        }
    }
}

#[test]
fn deep_protobuf_does_not_overflow_the_stack() {
    // AnyValue.array_value (5) holding ArrayValue.values (1), 20,000 times, as the body (5) of a log record.
    let mut body = Vec::new();
    for _ in 0..20_000 {
        let mut array = Vec::new();
        prost::encoding::bytes::encode(1, &body, &mut array);
        body.clear();
        prost::encoding::bytes::encode(5, &array, &mut body);
    }
    let mut record = Vec::new();
    prost::encoding::bytes::encode(5, &body, &mut record);
    let request = logs_request(vec![record]);
    let decoded = decode(&input(Route::OtlpLogs, "application/x-protobuf", &request, &[])).unwrap();
    assert_eq!((decoded.events.len(), decoded.eventless.len()), (0, 1));
}

#[test]
fn split_requests_hold_the_records_of_the_generated_messages() {
    let logs = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs: vec![
                ScopeLogs { log_records: vec![LogRecord::default(); 3], ..ScopeLogs::default() };
                2
            ],
            ..ResourceLogs::default()
        }],
    };
    let decoded =
        decode(&input(Route::OtlpLogs, "application/x-protobuf", &logs.encode_to_vec(), &[])).unwrap();
    assert_eq!(decoded.events.len(), 6);
    let span = Span { trace_id: vec![1; 16], span_id: vec![2; 8], ..Span::default() };
    let traces = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }],
    };
    let decoded =
        decode(&input(Route::OtlpTraces, "application/x-protobuf", &traces.encode_to_vec(), &[])).unwrap();
    assert_eq!(decoded.events[0].trace_id, "01".repeat(16));
}
