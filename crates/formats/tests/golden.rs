//! Real captures in, events out: every fixture under `fixtures/` is what a real client sent.

#![cfg(test)]

mod support;

use fleetlog_formats::{Body, inspect};
use fleetlog_schemas::event::{AgentEvent, EventType, Status, TokenBasis, UsageRole};
use fleetlog_schemas::id::NanoUsd;
use fleetlog_schemas::record::Route;
use support::{decoded, fixture, input, view};

#[test]
fn claude_logs() {
    insta::assert_json_snapshot!(view(&decoded(Route::OtlpLogs, "claude-code-2.1/logs.json")));
}

#[test]
fn claude_spans() {
    insta::assert_json_snapshot!(view(&decoded(Route::OtlpTraces, "claude-code-2.1/spans.json")));
}

#[test]
fn claude_metrics() {
    insta::assert_json_snapshot!(view(&decoded(Route::OtlpMetrics, "claude-code-2.1/metrics.json")));
}

#[test]
fn otel_python_spans_and_logs_and_metrics_in_protobuf() {
    let all = [
        (Route::OtlpTraces, "otel-py-1.45/spans.pb"),
        (Route::OtlpLogs, "otel-py-1.45/logs.pb"),
        (Route::OtlpMetrics, "otel-py-1.45/metrics.pb"),
    ];
    let events: Vec<_> = all.iter().flat_map(|(route, name)| decoded(*route, name)).collect();
    insta::assert_json_snapshot!(view(&events));
}

#[test]
fn vercel_ai_sdk_spans() {
    insta::assert_json_snapshot!(view(&decoded(Route::OtlpTraces, "vercel-aisdk-6/spans.json")));
}

#[test]
fn both_encodings_of_one_request_give_the_same_events() {
    for (route, name) in
        [(Route::OtlpTraces, "spans"), (Route::OtlpLogs, "logs"), (Route::OtlpMetrics, "metrics")]
    {
        let strip = |events: Vec<AgentEvent>| -> Vec<AgentEvent> {
            // The identity of a log or point covers its bytes, and those differ.
            events
                .into_iter()
                .map(|event| AgentEvent { event_id: String::new(), dedup_key: Default::default(), ..event })
                .collect()
        };
        let json = strip(decoded(route, &format!("otel-py-1.45/{name}.json")));
        let protobuf = strip(decoded(route, &format!("otel-py-1.45/{name}.pb")));
        similar_asserts::assert_eq!(view(&json), view(&protobuf));
    }
}

/// What the recorded session is known to contain, whichever channel reports it.
fn assert_session_totals(events: &[AgentEvent], with_cost: bool) {
    let calls: Vec<_> = events.iter().filter(|event| event.usage_role == UsageRole::Call).collect();
    assert_eq!(calls.len(), 8);
    let sum = |bucket: fn(&AgentEvent) -> u64| calls.iter().map(|call| bucket(call)).sum::<u64>();
    assert_eq!(sum(|call| call.in_uncached), 168);
    assert_eq!(sum(|call| call.out_visible), 136);
    assert_eq!(sum(|call| call.cache_read), 32_000);
    assert_eq!(sum(|call| call.cache_write_5m), 2_400);
    assert!(calls.iter().all(|call| call.token_basis == TokenBasis::AnthropicRaw));
    let cost: i64 = calls.iter().filter_map(|call| call.cost_reported).map(|cost| cost.0).sum();
    assert_eq!(NanoUsd(cost), NanoUsd(if with_cost { 21_144_000 } else { 0 }));
    let keys: std::collections::BTreeSet<_> = calls.iter().map(|call| &call.llm_call_key).collect();
    assert_eq!(keys.len(), 8);
    let tools: std::collections::BTreeMap<_, _> = events
        .iter()
        .filter(|event| event.event_type.is_tool() && event.status != Status::Unset)
        .map(|event| (&event.tool_call_id, event.status))
        .collect();
    assert_eq!(tools.len(), 6);
    assert_eq!(tools.values().filter(|status| **status == Status::Error).count(), 2);
}

#[test]
fn claude_session_is_counted_right_from_logs_alone() {
    let events = decoded(Route::OtlpLogs, "claude-code-2.1/logs.json");
    assert_session_totals(&events, true);
    assert!(events.iter().all(|event| event.session_id == "ec31950f-465d-4586-9bf8-1990d065cae4"));
}

#[test]
fn claude_session_is_counted_right_from_spans_alone() {
    assert_session_totals(&decoded(Route::OtlpTraces, "claude-code-2.1/spans.json"), false);
}

#[test]
fn logs_and_spans_name_the_same_calls() {
    let keys = |route, name: &str| -> std::collections::BTreeSet<(String, String)> {
        let events = decoded(route, name);
        events
            .into_iter()
            .filter(|e| e.usage_role == UsageRole::Call)
            .map(|e| (e.llm_call_key, e.session_id))
            .collect()
    };
    let logs = keys(Route::OtlpLogs, "claude-code-2.1/logs.json");
    assert_eq!(logs, keys(Route::OtlpTraces, "claude-code-2.1/spans.json"));
}

#[test]
fn metric_points_are_never_usage() {
    for event in decoded(Route::OtlpMetrics, "claude-code-2.1/metrics.json") {
        assert_eq!((event.event_type, event.usage_role), (EventType::MetricPoint, UsageRole::None));
        assert_eq!((event.in_total() + event.out_total(), event.cost_reported), (0, None));
    }
}

#[test]
fn gateway_and_processor_count_the_same_records() {
    for (route, name) in [
        (Route::OtlpLogs, "claude-code-2.1/logs.json"),
        (Route::OtlpTraces, "claude-code-2.1/spans.json"),
        (Route::OtlpMetrics, "claude-code-2.1/metrics.json"),
        (Route::OtlpTraces, "otel-py-1.45/spans.pb"),
        (Route::OtlpLogs, "otel-py-1.45/logs.pb"),
        (Route::OtlpMetrics, "otel-py-1.45/metrics.pb"),
    ] {
        let bytes = fixture(name);
        let input = input(route, name, &bytes);
        let body = Body { route, content_type: input.content_type, format_hint: "", bytes: &bytes };
        let found = inspect::inspect(&body, "p1").unwrap();
        assert_eq!((found.records as usize, found.rejected), (decoded(route, name).len(), vec![]), "{name}");
    }
}

#[test]
fn what_is_sent_to_another_signals_path_is_refused_whatever_its_encoding() {
    let paths = [(Route::OtlpTraces, "spans"), (Route::OtlpLogs, "logs"), (Route::OtlpMetrics, "metrics")];
    for (encoding, content_type) in [("pb", "application/x-protobuf"), ("json", "application/json")] {
        for ((route, _), (own, signal)) in
            paths.iter().flat_map(|path| paths.iter().map(move |sent| (*path, *sent)))
        {
            let name = format!("otel-py-1.45/{signal}.{encoding}");
            let bytes = fixture(&name);
            let found = inspect::inspect(&Body { route, content_type, format_hint: "", bytes: &bytes }, "p1");
            let refused = match &found {
                Ok(found) => found.rejected.len() == found.records as usize,
                Err(bad) => bad.code == "wrong_signal",
            };
            assert_eq!(refused, route != own, "{name} to {route:?}: {found:?}");
        }
    }
}

#[test]
fn a_span_among_logs_costs_only_itself() {
    let bytes = [fixture("otel-py-1.45/logs.pb"), fixture("otel-py-1.45/spans.pb")].concat();
    let body = Body {
        route: Route::OtlpLogs,
        content_type: "application/x-protobuf",
        format_hint: "",
        bytes: &bytes,
    };
    let found = inspect::inspect(&body, "p1").unwrap();
    let rejected: Vec<_> = found.rejected.iter().map(|rejected| (rejected.index, rejected.code)).collect();
    assert_eq!(rejected.len() as u32 + 1, found.records);
    assert!(rejected.len() > 1 && rejected.iter().all(|(index, code)| *index > 0 && *code == "wrong_signal"));
}
