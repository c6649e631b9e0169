//! Kafka away, frozen, and back; and the gateway's own end.

use fleetlog_ingest_gateway::{Config, GatewayConfig};
use fleetlog_log::KafkaConfig;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{Gateway, Node, again, answer, on_kafka, run};

const EVENT: &str = "{\"type\":\"log\"}";

#[test]
fn before_kafka_is_reached_the_gateway_is_alive_not_ready_and_says_later() {
    run(async {
        let kafka = KafkaConfig { brokers: "127.0.0.1:1".to_owned(), ..KafkaConfig::default() };
        let gateway = Gateway::start(Config { gateway: GatewayConfig::default(), kafka }).await;
        let get = |path: &str| gateway.client.get(format!("{}{path}", gateway.url)).send();
        assert_eq!(get("/healthz").await.unwrap().status(), 200);
        assert_eq!(get("/readyz").await.unwrap().status(), 503);
        let response = gateway.events(EVENT).send().await.unwrap();
        assert_eq!(response.status(), 503);
        assert!((1..=3).contains(&again(&response)));
        gateway.stop().await;
    });
}

/// INV-1: no acknowledgement, no 2xx; INV-9: the queue has a bound and says so.
#[test]
fn without_acknowledgements_the_answer_is_later_and_the_queue_is_bounded_until_kafka_is_back() {
    run(async {
        let node = match Node::start().await {
            Ok(node) => node,
            Err(why) => return println!("skipped: Kafka cannot be had here: {why}"),
        };
        let kafka = KafkaConfig { delivery_timeout_ms: 2_000, queue_max_records: 3, ..node.config() };
        // Without the circuit, which would answer before the queue does.
        let patient = GatewayConfig { circuit_patience_ms: 0, ..GatewayConfig::default() };
        let mut gateway = Gateway::start(Config { gateway: patient, kafka }).await;
        gateway.key = node.key(fleetlog_schemas::control::Role::Ingest).await;
        while answer(gateway.events(EVENT)).await.0 != 202 {}

        node.kafka.pause();
        let mut requests = JoinSet::new();
        for _ in 0..10 {
            requests.spawn(gateway.events(EVENT).send());
        }
        let mut codes = Vec::new();
        while let Some(response) = requests.join_next().await {
            let response = response.unwrap().unwrap();
            assert_eq!(response.status(), 503);
            assert!((1..=3).contains(&again(&response)));
            let said: Value = response.json().await.unwrap();
            codes.push(said["error"]["code"].as_str().unwrap().to_owned());
        }
        // What was within the bound waited for its time; what was not was told at once, so it ended first.
        assert_eq!(codes[..7], vec!["queue_full"; 7], "{codes:?}");
        assert_eq!(codes[7..], vec!["not_acknowledged"; 3], "{codes:?}");

        node.kafka.resume();
        while answer(gateway.events(EVENT)).await.0 != 202 {}
        gateway.stop().await;
    });
}

/// INV-9: requests under way have a bound.
#[test]
fn a_busy_gateway_says_later() {
    on_kafka(|node| async move {
        let none = GatewayConfig { in_flight_max_requests: 0, ..GatewayConfig::default() };
        let mut gateway = Gateway::start(Config { gateway: none, kafka: node.config() }).await;
        gateway.key = node.key(fleetlog_schemas::control::Role::Ingest).await;
        let busy = loop {
            let (status, said, _) = answer(gateway.events(EVENT)).await;
            if !["starting", "unknown_key"].iter().any(|code| said["error"]["code"] == *code) {
                break (status, said["error"]["code"].clone());
            }
        };
        assert_eq!(busy, (503, json!("busy")));
        gateway.stop().await;
    });
}

/// INV-1: shutdown breaks no promise that was given.
#[test]
fn shutdown_finishes_what_is_under_way_and_takes_nothing_new() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let mut under_way = JoinSet::new();
        for _ in 0..20 {
            under_way.spawn(answer(gateway.events(EVENT)));
        }
        let mut acknowledged = 0;
        gateway.shutdown.trigger();
        while let Some(ended) = under_way.join_next().await {
            // A connection refused is as good as 503: nothing was promised.
            if let Ok((202, _, request_id)) = ended {
                assert!(node.holds(&request_id).await, "acknowledged and not stored");
                acknowledged += 1;
            }
        }
        assert!(acknowledged <= 20);
        let (client, url) = (gateway.client.clone(), gateway.url.clone());
        gateway.served.await.unwrap().unwrap();
        assert!(client.get(url).send().await.is_err(), "still listening");
    });
}
