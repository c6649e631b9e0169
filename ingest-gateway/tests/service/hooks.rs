//! Hooks of coding agents.

use serde_json::json;

use crate::harness::{Exchange, on_kafka, refuses_as_all_do};

#[test]
fn a_hook_is_published_under_its_agents_name_and_told_nothing() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let body = r#"{"session_id":"s","hook_event_name":"Stop"}"#;
        for agent in ["claude", "cursor", "gemini"] {
            let request = gateway.post(&format!("/hooks/{agent}")).header("content-type", "application/json");
            let exchange = Exchange::of(node, request.body(body)).await;
            let batch = exchange.only(&format!("{agent}.hooks"), body.as_bytes());
            assert_eq!((exchange.status, &exchange.said), (200, &json!({})));
            assert_eq!((batch.record_count, &batch.stream), (1, &None));
        }
        gateway.stop().await;
    });
}

#[test]
fn a_refused_hook_is_told_nothing_that_could_steer_its_agent() {
    on_kafka(|node| async move {
        let steers = ["decision", "continue", "permission", "hookSpecificOutput"];
        let plain = |said: &serde_json::Value| {
            said["error"]["code"].is_string() && steers.iter().all(|member| said.get(member).is_none())
        };
        refuses_as_all_do(node, "/hooks/claude", plain).await;
    });
}
