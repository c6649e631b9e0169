//! Opik, as its Python client speaks to it.

use fleetlog_ingest_gateway::{Config, GatewayConfig};
use fleetlog_schemas::control::Role;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use crate::harness::{Exchange, Gateway, on_kafka, refuses_as_all_do};

/// A request with the bare key, as the client sends it.
fn request(gateway: &Gateway, method: Method, path: &str) -> RequestBuilder {
    let request = gateway.client.request(method, format!("{}{path}", gateway.url));
    request.header("authorization", &gateway.key).header("comet-workspace", "default")
}

#[test]
fn every_way_of_sending_is_published_and_answered_as_the_server_does() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let body = r#"{"traces":[{"id":"01a1","name":"x"}]}"#;
        let cases = [
            (Method::POST, "/api/v1/private/traces/batch", "opik.traces", None, 204),
            (Method::PUT, "/opik/api/v1/private/spans/batch", "opik.spans", None, 204),
            (Method::PATCH, "/v1/private/spans/batch", "opik.span.patch", None, 204),
            (Method::POST, "/v1/private/traces", "opik.traces", None, 201),
            (Method::POST, "/api/v1/private/spans", "opik.spans", None, 201),
            (Method::PATCH, "/api/v1/private/traces/01a1", "opik.trace.patch", Some("01a1"), 204),
            (Method::PATCH, "/api/v1/private/spans/01a2", "opik.span.patch", Some("01a2"), 204),
            (Method::PUT, "/api/v1/private/traces/feedback-scores", "opik.feedback", None, 204),
            (Method::PUT, "/api/v1/private/spans/s/feedback-scores", "opik.span.feedback", Some("s"), 204),
            (
                Method::PUT,
                "/api/v1/private/traces/threads/feedback-scores",
                "opik.thread.feedback",
                None,
                204,
            ),
        ];
        for (method, path, hint, id, status) in cases {
            let sent = request(&gateway, method, path).header("content-type", "application/json").body(body);
            let exchange = Exchange::of(node, sent).await;
            let batch = exchange.only(hint, body.as_bytes());
            assert_eq!(batch.stream.as_ref().map(|stream| stream.stream_id.as_str()), id, "{path}");
            assert_eq!(exchange.status, status, "{path}");
        }
        gateway.stop().await;
    });
}

#[test]
fn a_client_finds_the_server_alive_and_its_key_accepted() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let ping = gateway.client.get(format!("{}/opik/api/is-alive/ping", gateway.url));
        assert_eq!(Exchange::of(node, ping).await.status, 200);
        let access = request(&gateway, Method::POST, "/api/v1/private/auth").body("{}");
        assert_eq!(Exchange::of(node, access).await.status, 204);
        let workspace = request(&gateway, Method::GET, "/api/v1/private/auth/workspace");
        assert!(Exchange::of(node, workspace).await.said["workspaceName"].is_string());
        gateway.stop().await;
    });
}

/// The client keeps what it could not send only when it is told so.
#[test]
fn a_busy_gateway_tells_the_client_to_keep_what_it_has() {
    on_kafka(|node| async move {
        let none = GatewayConfig { in_flight_max_requests: 0, ..GatewayConfig::default() };
        let mut gateway = Gateway::start(Config { gateway: none, kafka: node.config() }).await;
        gateway.key = node.key(Role::Ingest).await;
        let busy = loop {
            let sent = request(&gateway, Method::POST, "/api/v1/private/traces/batch").body("{}");
            let exchange = Exchange::of(node, sent).await;
            if exchange.said["reason"] == "busy" {
                break exchange;
            }
        };
        assert_eq!(busy.refused(), 429);
        let [again, reset] =
            ["retry-after", "ratelimit-reset"].map(|name| busy.headers[name].to_str().unwrap());
        assert!(again == reset && ["1", "2", "3"].contains(&again), "{again} {reset}");
        gateway.stop().await;
    });
}

#[test]
fn what_is_refused_is_said_as_the_server_would() {
    on_kafka(|node| async move {
        let is_opik_error = |said: &Value| said["errors"].is_array() && said["message"].is_string();
        refuses_as_all_do(node, "/api/v1/private/traces/batch", is_opik_error).await;
    });
}
