//! OTLP over HTTP, in both encodings, with the answers its exporters expect.

use fleetlog_schemas::record::Route;
use prost::Message;
use serde_json::{Value, json};

use crate::harness::{header, on_kafka};

/// The part of `google.rpc.Status` that is used.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

const LOGS: &str = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}}]}]}]}"#;
const SPANS: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"x"}]}]}]}"#;
const METRICS: &str = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"x","gauge":{"dataPoints":[{"asInt":"1"}]}}]}]}]}"#;

/// `ResourceLogs{scope_logs{log_records{body{string_value}}}}` in protobuf, written by hand.
const LOGS_PROTOBUF: &[u8] = b"\x0a\x0b\x12\x09\x12\x07\x2a\x05\x0a\x03abc";

#[test]
fn every_signal_is_accepted_in_json() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        for (path, body) in [("/v1/logs", LOGS), ("/v1/traces", SPANS), ("/v1/metrics", METRICS)] {
            let request = gateway.post(path).header("content-type", "application/json").body(body);
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 200, "{path}: {response:?}");
            assert_eq!(header(&response, "content-type"), "application/json");
            let request_id = header(&response, "x-request-id");
            assert_eq!(response.json::<Value>().await.unwrap(), json!({}), "{path}");
            assert!(node.holds(&request_id).await);
        }
        gateway.stop().await;
    });
}

#[test]
fn otlp_is_known_by_the_end_of_its_path_wherever_a_client_was_pointed() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        for path in ["/otel/v1/traces", "/api/v1/private/otel/v1/traces", "/v1/trace/log-python"] {
            let request = gateway.post(path).header("content-type", "application/json").body(SPANS);
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 200, "{path}");
            let published = node.published(&header(&response, "x-request-id")).await;
            assert_eq!(published[0].route, Route::OtlpTraces, "{path}");
        }
        let stray = gateway.post("/otel/v1/traces").header("content-type", "application/json").body(LOGS);
        assert_eq!(stray.send().await.unwrap().status(), 400, "logs are no traces");
        let asked = gateway.client.get(format!("{}/otel/v1/traces", gateway.url));
        assert_eq!(asked.send().await.unwrap().status(), 405);
        gateway.stop().await;
    });
}

#[test]
fn protobuf_is_answered_in_protobuf_success_and_failure() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let post = |body: &'static [u8]| {
            gateway.post("/v1/logs").header("content-type", "application/x-protobuf").body(body).send()
        };
        let response = post(LOGS_PROTOBUF).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), header(&response, "content-type").as_str()),
            (200, "application/x-protobuf")
        );
        let request_id = header(&response, "x-request-id");
        assert!(response.bytes().await.unwrap().is_empty());
        assert!(node.holds(&request_id).await);

        let response = post(b"\x0a\xffgarbage").await.unwrap();
        assert_eq!(
            (response.status().as_u16(), header(&response, "content-type").as_str()),
            (400, "application/x-protobuf")
        );
        let status = Status::decode(response.bytes().await.unwrap()).unwrap();
        assert_eq!(status.code, 3);
        assert!(status.message.starts_with("malformed_protobuf"), "{}", status.message);
        gateway.stop().await;
    });
}

#[test]
fn a_json_failure_is_a_status_in_json() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let request = gateway.post("/v1/traces").header("content-type", "application/json").body("{");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 400);
        let said: Value = response.json().await.unwrap();
        assert_eq!(said["code"], 3);
        let bare = gateway.client.post(format!("{}/v1/logs", gateway.url)).body(LOGS);
        let response = bare.header("content-type", "application/json").send().await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(response.json::<Value>().await.unwrap()["code"], 16);
        gateway.stop().await;
    });
}

#[test]
fn a_request_of_which_nothing_can_be_taken_says_why_of_each_record() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let body = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"zz"},{"traceId":}]}]}]}"#;
        let request = gateway.post("/v1/traces").header("content-type", "application/json").body(body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 400);
        let said: Value = response.json().await.unwrap();
        assert_eq!(said["details"][0]["@type"], "type.googleapis.com/google.rpc.BadRequest", "{said}");
        let violations = said["details"][0]["fieldViolations"].as_array().unwrap();
        let seen: Vec<_> =
            violations.iter().map(|violation| (&violation["field"], &violation["reason"])).collect();
        let (first, second) = (json!("record 0"), json!("record 1"));
        assert_eq!(seen, [(&first, &json!("bad_ids")), (&second, &json!("malformed_json"))]);
        assert!(said["message"].as_str().unwrap().contains("bad_ids"), "{said}");

        // A span with neither id, in protobuf.
        let body: &[u8] = b"\x0a\x07\x12\x05\x12\x03\x2a\x01n";
        let request = gateway.post("/v1/traces").header("content-type", "application/x-protobuf").body(body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 400);
        let status = Status::decode(response.bytes().await.unwrap()).unwrap();
        assert!(status.message.contains("bad_ids"), "{}", status.message);
        gateway.stop().await;
    });
}

#[test]
fn spans_in_protobuf_sent_as_logs_are_refused_and_not_stored() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        // Trace id, span id, start.
        let span = [&b"\x0a\x10"[..], &[7; 16], b"\x12\x08", &[7; 8], b"\x39", &[1; 8]].concat();
        let length = span.len() as u8;
        let body = [&[0x0a, length + 4, 0x12, length + 2, 0x12, length][..], &span].concat();
        for (path, status) in [("/v1/logs", 400), ("/v1/metrics", 400), ("/v1/traces", 200)] {
            let request = gateway.post(path).header("content-type", "application/x-protobuf");
            let response = request.body(body.clone()).send().await.unwrap();
            assert_eq!(response.status(), status, "{path}");
            let holds = node.holds(&header(&response, "x-request-id")).await;
            assert_eq!(holds, status == 200, "{path}");
        }
        gateway.stop().await;
    });
}

#[test]
fn a_partial_success_counts_what_was_rejected() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let body = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[
            {"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"x"},
            {"traceId":"zz","spanId":"eee19b7ec3c1b174","name":"x"}]}]}]}"#;
        let request = gateway.post("/v1/traces").header("content-type", "application/json").body(body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let said: Value = response.json().await.unwrap();
        assert_eq!(said["partialSuccess"]["rejectedSpans"], "1", "{said}");
        gateway.stop().await;
    });
}
