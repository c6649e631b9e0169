//! What a sender may send: rates and daily quotas, and how every API is told.

use std::str::FromStr;
use std::time::Duration;

use fleetlog_ingest_gateway::{Config, GatewayConfig};
use fleetlog_log::ControlWriter;
use fleetlog_runtime::Clock;
use fleetlog_schemas::control::{PresentedKey, Role, SendLimits};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use reqwest::header::RETRY_AFTER;
use serde_json::{Value, json};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use crate::grpc::{connect, retry_after_seconds};
use crate::harness::{Exchange, Gateway, Node, answer, on_kafka};

const EVENT: &str = "{\"type\":\"log\"}";

/// Whether a refusal is in its API's own words.
type Says = fn(&Value) -> bool;

fn events(count: usize) -> String {
    vec![EVENT; count].join("\n")
}

/// The code of what is refused of this request, of which nothing is published, and after how many seconds to come back.
async fn refused(node: &Node, gateway: &Gateway, body: String) -> (u16, Value, u64) {
    let exchange = Exchange::of(node, gateway.events(body)).await;
    let again = exchange.headers[RETRY_AFTER].to_str().unwrap().parse().unwrap();
    (exchange.refused(), exchange.said["error"].clone(), again)
}

/// INV-9.
#[test]
fn who_sends_too_fast_is_told_the_limit_and_when_to_come_back_in_the_words_of_every_api() {
    on_kafka(|node| async move {
        // Of 60 records at one a second, a second's worth is saved up: a minute of debt, less one.
        let slow =
            GatewayConfig { key_records_per_second: 1, rate_burst_ms: 1_000, ..GatewayConfig::default() };
        let mut gateway = node.gateway_with(slow).await;
        let (status, said, _) = answer(gateway.events(events(60))).await;
        assert_eq!(
            (status, &said["accepted"]),
            (202, &json!(60)),
            "more than the burst is not refused for ever"
        );

        let (status, error, again) = refused(node, &gateway, events(1)).await;
        assert_eq!((status, &error["code"], &error["limit"]), (429, &json!("rate_limited"), &json!(1)));
        assert!(error["message"].as_str().unwrap().contains("key may send 1 records a second"), "{error}");
        assert!((40..=90).contains(&again), "about a minute: {again}");

        let mut call = Request::new(ExportLogsServiceRequest::default());
        let key = MetadataValue::from_str(&format!("Bearer {}", gateway.key)).unwrap();
        call.metadata_mut().insert("authorization", key);
        let status = LogsServiceClient::new(connect(&gateway.grpc_url).await).export(call).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!((40..=90).contains(&retry_after_seconds(&status).unwrap()), "{status:?}");

        let apis: [(&str, Says); 4] = [
            ("/v1/traces", |said| said["code"] == 8),
            ("/api/public/ingestion", |said| said["error"] == "TooManyRequestsError"),
            ("/api/v1/runs/batch", |said| said["detail"].is_string()),
            ("/api/v1/private/traces/batch", |said| said["reason"] == "rate_limited"),
        ];
        for (path, is_theirs) in apis {
            let sent = gateway.post(path).header("content-type", "application/json").body("{}");
            let exchange = Exchange::of(node, sent).await;
            assert_eq!(exchange.refused(), 429, "{path}");
            assert!(
                is_theirs(&exchange.said) && exchange.headers.contains_key(RETRY_AFTER),
                "{}",
                exchange.said
            );
        }

        // Another key of the same project has a rate of its own.
        gateway.key = node.key(Role::Ingest).await;
        assert_eq!(first_answer(&gateway).await, (202, Value::Null));
        gateway.stop().await;
    });
}

/// INV-9: it was read and inspected like any other.
#[test]
fn what_is_refused_for_its_contents_counts_against_the_rate_of_bytes_too() {
    on_kafka(|node| async move {
        let slow =
            GatewayConfig { key_bytes_per_second: 10, rate_burst_ms: 1_000, ..GatewayConfig::default() };
        let gateway = node.gateway_with(slow).await;
        let nonsense = "[".repeat(1_000);
        let exchange = Exchange::of(node, gateway.events(nonsense.clone())).await;
        assert_eq!(exchange.refused(), 400, "{}", exchange.said);
        let (status, error, again) = refused(node, &gateway, nonsense).await;
        assert_eq!((status, &error["limit"]), (429, &json!(10)), "{error}");
        assert!((50..=160).contains(&again), "about a hundred seconds: {again}");
        gateway.stop().await;
    });
}

#[test]
fn a_limit_set_on_a_key_takes_effect_at_running_gateways() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let key_id = PresentedKey::parse(&gateway.key).unwrap().key_id;
        let writer = ControlWriter::new(&node.config()).unwrap();
        let limits = SendLimits { bytes_per_second: Some(1), ..SendLimits::default() };
        writer.limit_key(key_id, |_| limits).await.unwrap().unwrap();
        let limited = loop {
            let (status, said, _) = answer(gateway.events(EVENT)).await;
            if status != 202 {
                break (status, said["error"]["message"].as_str().unwrap().contains("1 bytes a second"));
            }
        };
        assert_eq!(limited, (429, true));
        writer.limit_key(key_id, |_| SendLimits::default()).await.unwrap().unwrap();
        while answer(gateway.events(EVENT)).await.0 == 429 {}
        gateway.stop().await;
    });
}

/// A gateway with a quota of ten records a key and day.
fn with_quota(node: &Node, quota_publish_ms: u64) -> Config {
    let gateway = GatewayConfig { key_records_per_day: 10, quota_publish_ms, ..GatewayConfig::default() };
    Config { gateway, kafka: node.config() }
}

/// A clock that stands still: a quota's day does not end while a test looks at it.
fn still() -> Clock {
    Clock::manual(Clock::system().now_ns())
}

/// The first answer of a gateway that knows its keys.
async fn first_answer(gateway: &Gateway) -> (u16, Value) {
    loop {
        let (status, said, _) = answer(gateway.events(EVENT)).await;
        let code = &said["error"]["code"];
        if !["starting", "unknown_key", "keys_loading"].iter().any(|early| code == early) {
            return (status, code.clone());
        }
    }
}

#[test]
fn a_daily_quota_holds_over_gateways_and_their_restarts() {
    on_kafka(|node| async move {
        let (key, clock) = (node.key(Role::Ingest).await, still());
        let start = async || {
            let mut gateway = Gateway::start_with(with_quota(node, 20), clock.clone()).await;
            gateway.key = key.clone();
            assert_eq!(first_answer(&gateway).await, (202, Value::Null));
            gateway
        };
        let (one, other) = (start().await, start().await);
        assert_eq!(answer(one.events(events(7))).await.0, 202);
        // Nine are used: the one that is left is had by one of them, and then each hears of the other's.
        while answer(other.events(EVENT)).await.0 == 202 {}
        let (status, error, again) = refused(node, &other, events(1)).await;
        assert_eq!((status, &error["code"], &error["limit"]), (429, &json!("quota_exceeded"), &json!(10)));
        assert!(again <= 24 * 3600 + 60, "{again}");
        while answer(one.events("[]")).await.0 == 202 {}
        assert_eq!(refused(node, &one, events(1)).await.1["code"], "quota_exceeded");
        one.stop().await;
        other.stop().await;

        let mut again = Gateway::start_with(with_quota(node, 20), clock).await;
        again.key = key.clone();
        assert_eq!(first_answer(&again).await, (429, json!("quota_exceeded")));
        // Nobody else's.
        again.key = node.key(Role::Ingest).await;
        assert_eq!(first_answer(&again).await, (202, Value::Null));
        again.stop().await;
    });
}

#[test]
fn a_gateway_that_ends_tells_what_it_has_not_told_yet() {
    on_kafka(|node| async move {
        let never = Duration::from_secs(3600).as_millis() as u64;
        let clock = still();
        let mut gateway = Gateway::start_with(with_quota(node, never), clock.clone()).await;
        gateway.key = node.key(Role::Ingest).await;
        assert_eq!(first_answer(&gateway).await, (202, Value::Null));
        assert_eq!(answer(gateway.events(events(9))).await.0, 202);
        let key = gateway.key.clone();
        gateway.stop().await;

        let mut next = Gateway::start_with(with_quota(node, never), clock).await;
        next.key = key;
        assert_eq!(first_answer(&next).await, (429, json!("quota_exceeded")));
        next.stop().await;
    });
}
