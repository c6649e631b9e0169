//! Limits of size, count and time, and what splitting does about the first.

use std::io::Write;
use std::time::Duration;

use fleetlog_ingest_gateway::GatewayConfig;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Gateway, Node, answer, on_kafka, positions, refusal};

/// Sends raw bytes and reads the status line, never waiting for permission to send.
async fn blurt(gateway: &Gateway, head: &str, body: &[u8]) -> String {
    let address = gateway.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{head}\r\n\r\n",
        gateway.key
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while !answer.windows(2).any(|two| two == b"\r\n") {
        let read = stream.read(&mut chunk).await.unwrap();
        assert!(read > 0, "closed without an answer");
        answer.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8_lossy(&answer).lines().next().unwrap().to_owned()
}

/// INV-9: bodies have a bound.
#[test]
fn a_body_of_100_mb_is_told_the_limit_however_it_is_sent() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let body = vec![b' '; 100_000_000];
        let (status, said, request_id) = answer(gateway.events(body.clone())).await;
        assert_eq!((status, &said["error"]["code"]), (413, &json!("body_too_large")));
        assert_eq!(said["error"]["limit"], 20 * 1024 * 1024);
        assert!(!node.holds(&request_id).await);

        let length = format!("content-length: {}", body.len());
        assert_eq!(blurt(&gateway, &length, &body).await, "HTTP/1.1 413 Payload Too Large");
        let chunked = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
        let status = blurt(&gateway, "transfer-encoding: chunked", &chunked).await;
        assert_eq!(status, "HTTP/1.1 413 Payload Too Large");
        assert_eq!(answer(gateway.events("{\"type\":\"log\"}")).await.0, 202, "and the stream goes on");
        gateway.stop().await;
    });
}

/// INV-9: decompression has a bound.
#[test]
fn a_gzip_bomb_is_told_the_limit() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let zeros = vec![b' '; 1_000_000];
        for _ in 0..200 {
            encoder.write_all(&zeros).unwrap();
        }
        let bomb = encoder.finish().unwrap();
        assert!(bomb.len() < 2_000_000, "small as sent");
        let request = gateway.events(bomb).header("content-encoding", "gzip");
        assert_eq!(refusal(node, request).await, (413, "decompressed_too_large".into()));
        gateway.stop().await;
    });
}

#[test]
fn too_many_records_and_too_many_requests_are_refused() {
    on_kafka(|node| async move {
        let few = GatewayConfig { records_max: 2, ..GatewayConfig::default() };
        let gateway = node.gateway_with(few).await;
        let three = "[{\"type\":\"log\"},{\"type\":\"log\"},{\"type\":\"log\"}]";
        assert_eq!(refusal(node, gateway.events(three)).await, (413, "too_many_records".into()));
        gateway.stop().await;
    });
}

#[test]
fn a_body_that_trickles_in_is_given_up() {
    on_kafka(|node| async move {
        let hasty = GatewayConfig { body_timeout_ms: 200, ..GatewayConfig::default() };
        let gateway = node.gateway_with(hasty).await;
        let status = blurt(&gateway, "content-length: 1000", b"[").await;
        assert_eq!(status, "HTTP/1.1 408 Request Timeout");
        gateway.stop().await;
    });
}

#[test]
fn headers_that_trickle_in_are_given_up() {
    on_kafka(|node| async move {
        let hasty = GatewayConfig { header_timeout_ms: 200, ..GatewayConfig::default() };
        let gateway = node.gateway_with(hasty).await;
        let mut stream = TcpStream::connect(gateway.url.strip_prefix("http://").unwrap()).await.unwrap();
        stream.write_all(b"POST /v1/events HTTP/1.1\r\nhost:").await.unwrap();
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "the connection stays open for ever");
        gateway.stop().await;
    });
}

async fn records_of(node: &Node, said: &serde_json::Value) -> (u32, Vec<u8>) {
    let (mut records, mut bytes) = (0, Vec::new());
    let positions = positions(said);
    for (number, position) in positions.iter().enumerate() {
        let stored = node.stored(*position).await;
        assert_eq!(usize::try_from(stored.piece).unwrap(), number);
        assert_eq!(usize::try_from(stored.pieces).unwrap(), positions.len());
        assert_eq!((stored.first_record, stored.content_encoding.as_str()), (records, "identity"));
        records += stored.record_count;
        bytes.extend(stored.payload.0);
    }
    (records, bytes)
}

#[test]
fn a_body_above_the_message_size_is_split_where_its_format_allows() {
    on_kafka(|node| async move {
        let small = GatewayConfig { message_max_bytes: 8_000, ..GatewayConfig::default() };
        let gateway = node.gateway_with(small).await;
        let event = format!("{{\"type\":\"log\",\"data\":{{\"x\":\"{}\"}}}}", "x".repeat(100));
        let lines = vec![event.as_str(); 100].join("\n");
        let (status, said, _) = answer(gateway.events(lines.clone())).await;
        assert_eq!((status, &said["accepted"]), (202, &json!(100)), "{said}");
        assert!(positions(&said).len() > 2);
        assert_eq!(records_of(node, &said).await, (100, lines.into_bytes()));

        let array = format!("[{}]", vec![event.as_str(); 100].join(","));
        let (status, said, _) = answer(gateway.events(array)).await;
        assert_eq!((status, records_of(node, &said).await.0), (202, 100), "{said}");

        let one = |text: &str| format!("{{\"type\":\"log\",\"data\":{{\"x\":\"{text}\"}}}}");
        let long = one(&"x".repeat(10_000));
        let (status, said, _) = answer(gateway.events(long.clone())).await;
        assert_eq!((status, &said["accepted"]), (202, &json!(1)), "{said}");
        let stored = node.stored(positions(&said)[0]).await;
        assert_eq!(stored.content_encoding, "zstd");
        assert_eq!(zstd::decode_all(&stored.payload.0[..]).unwrap(), long.as_bytes());

        let noise: String = (0..4_000).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect();
        let lines = [one("a"), one(&noise), one("b")].join("\n");
        let (status, said, _) = answer(gateway.events(lines)).await;
        assert_eq!((status, &said["accepted"], &said["rejected"][0]["index"]), (202, &json!(2), &json!(1)));
        assert_eq!(said["rejected"][0]["code"], "record_too_large");

        let (status, said, request_id) = answer(gateway.events(one(&noise))).await;
        assert_eq!((status, &said["error"]["code"]), (413, &json!("message_too_large")));
        assert_eq!(said["error"]["limit"], 8_000);
        assert!(!node.holds(&request_id).await);
        gateway.stop().await;
    });
}
