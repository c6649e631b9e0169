//! More than the gateway can take: who gets through, and what the others are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fleetlog_ingest_gateway::{Config, GatewayConfig};
use fleetlog_log::{ControlWriter, KafkaConfig};
use fleetlog_schemas::control::Role;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{Gateway, Node, again, answer, on_kafka, run};

const EVENT: &str = "{\"type\":\"log\"}";

/// INV-9: one project's flood is refused, another's few requests are not.
#[test]
fn a_flood_is_refused_and_whoever_sends_little_gets_through() {
    on_kafka(|node| async move {
        let narrow = GatewayConfig {
            concurrency_min: 1,
            concurrency_max: 1,
            queue_max_requests: 4,
            queue_wait_ms: 60_000,
            queue_standing_wait_ms: 60_000,
            ..GatewayConfig::default()
        };
        let mut gateway = node.gateway_with(narrow).await;
        let is_over = Arc::new(AtomicBool::new(false));
        let mut flood = JoinSet::new();
        for _ in 0..32 {
            let request = gateway.events(EVENT);
            let is_over = Arc::clone(&is_over);
            flood.spawn(async move {
                let mut answers = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let response = request.try_clone().unwrap().send().await.unwrap();
                    let status = response.status().as_u16();
                    let again = if status == 202 { 0 } else { again(&response) };
                    let said: Value = response.json().await.unwrap();
                    answers.push((status, said["error"]["code"].clone(), again));
                }
                answers
            });
        }
        let writer = ControlWriter::new(&node.config()).unwrap();
        let polite = writer.create_key("p2", Role::Ingest, "", 1).await.unwrap();
        gateway.key = polite.text.expose().to_owned();
        while answer(gateway.events(EVENT)).await.0 == 401 {}
        for _ in 0..20 {
            let (status, said, _) = answer(gateway.events(EVENT)).await;
            assert_eq!(status, 202, "{said}");
        }
        is_over.store(true, Ordering::Relaxed);
        let mut refused = 0;
        for (status, code, again) in flood.join_all().await.into_iter().flatten() {
            match (status, code.as_str()) {
                (202, None) => {}
                (429, Some("project_share_exceeded")) | (503, Some("busy")) => {
                    assert!((1..=3).contains(&again));
                    refused += usize::from(status == 429);
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(refused > 0, "the flood was never refused for the other's sake");
        gateway.stop().await;
    });
}

/// INV-9: memory has a bound.
#[test]
fn a_gateway_short_of_memory_takes_nothing_new() {
    on_kafka(|node| async move {
        let tiny = GatewayConfig { memory_max_bytes: 1, ..GatewayConfig::default() };
        let mut gateway = Gateway::start(Config { gateway: tiny, kafka: node.config() }).await;
        gateway.key = node.key(Role::Ingest).await;
        let refusal = loop {
            let (status, said, request_id) = answer(gateway.events(EVENT)).await;
            if said["error"]["code"] == "memory" {
                break (status, node.holds(&request_id).await);
            }
            assert!([202, 401, 503].contains(&status), "{said}");
        };
        assert_eq!(refusal, (503, false));
        gateway.stop().await;
    });
}

/// INV-9: nobody waits for a timeout that everybody knows will come.
#[test]
fn while_kafka_is_silent_requests_are_refused_at_once_and_its_first_word_ends_that() {
    run(async {
        let node = match Node::start().await {
            Ok(node) => node,
            Err(why) => return println!("skipped: Kafka cannot be had here: {why}"),
        };
        // Whoever waited for the delivery, or for a probe, would overrun the test.
        let kafka = KafkaConfig { delivery_timeout_ms: 600_000, ..node.config() };
        let impatient =
            GatewayConfig { circuit_patience_ms: 300, circuit_pause_ms: 600_000, ..GatewayConfig::default() };
        let mut gateway = Gateway::start(Config { gateway: impatient, kafka }).await;
        gateway.key = node.key(Role::Ingest).await;
        while answer(gateway.events(EVENT)).await.0 != 202 {}
        let ready = async || {
            let response = gateway.client.get(format!("{}/readyz", gateway.url)).send().await.unwrap();
            response.status().as_u16()
        };
        while ready().await != 200 {}

        node.kafka.pause();
        let mut waiting = JoinSet::new();
        let refused = loop {
            // Those that come before it is known wait.
            waiting.spawn(gateway.events(EVENT).send());
            let one = tokio::time::timeout(Duration::from_millis(100), waiting.join_next()).await;
            if let Ok(Some(response)) = one {
                break response.unwrap().unwrap();
            }
        };
        assert_eq!(refused.status(), 503);
        assert!(again(&refused) >= 1);
        let said: Value = refused.json().await.unwrap();
        assert_eq!(said["error"]["code"], json!("log_silent"));
        while ready().await != 503 {}

        node.kafka.resume();
        let mut acknowledged = 0;
        while let Some(response) = waiting.join_next().await {
            acknowledged += usize::from(response.unwrap().unwrap().status() == 202);
        }
        assert!(acknowledged > 0, "what was waiting is acknowledged");
        while answer(gateway.events(EVENT)).await.0 != 202 {}
        while ready().await != 200 {}
        gateway.stop().await;
    });
}
