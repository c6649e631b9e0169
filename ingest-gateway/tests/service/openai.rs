//! The trace exporter of the OpenAI Agents SDK.

use serde_json::Value;

use crate::harness::{Exchange, on_kafka, refuses_as_all_do};

#[test]
fn traces_are_published_and_answered_with_nothing() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let body = r#"{"data":[{"object":"trace","id":"trace_1"},{"object":"trace.span","id":"span_1"}]}"#;
        let request = gateway.post("/v1/traces/ingest").header("openai-beta", "traces=v1");
        let exchange =
            Exchange::of(node, request.header("content-type", "application/json").body(body)).await;
        exchange.only("openai.traces", body.as_bytes());
        assert_eq!((exchange.status, exchange.said), (204, Value::Null));
        gateway.stop().await;
    });
}

#[test]
fn what_is_refused_is_said_as_the_server_would() {
    on_kafka(|node| async move {
        let is_openai_error =
            |said: &Value| said["error"]["message"].is_string() && said["error"]["type"].is_string();
        refuses_as_all_do(node, "/v1/traces/ingest", is_openai_error).await;
    });
}
