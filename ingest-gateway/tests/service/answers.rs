//! What is accepted, what is refused, and how each is said.

use std::io::Write;

use fleetlog_log::ControlWriter;
use fleetlog_schemas::control::Role;
use fleetlog_schemas::record::Route;
use serde_json::json;

use crate::harness::{answer, header, on_kafka, positions, refusal};

/// INV-1 and INV-7: what was answered with 202 is in the log, where the receipt says.
#[test]
fn a_receipt_names_the_positions_that_hold_the_very_bytes() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let body = zstd::encode_all(&b"{\"type\":\"log\"}\n{\"type\":\"span\"}\n"[..], 3).unwrap();
        let request = gateway
            .post("/v1/events")
            .header("content-type", "application/x-ndjson")
            .header("content-encoding", "zstd")
            .header("user-agent", "a-test/1")
            .header("idempotency-key", "once")
            .body(body.clone());
        let (status, said, request_id) = answer(request).await;
        assert_eq!((status, &said["accepted"], &said["rejected"]), (202, &json!(2), &json!([])));
        let [position] = positions(&said)[..] else { panic!("one position: {said}") };
        assert_eq!(said["receipt"], position.to_string());
        let stored = node.stored(position).await;
        assert_eq!(stored.payload.0, body);
        assert_eq!((stored.content_encoding.as_str(), stored.route), ("zstd", Route::Events));
        assert_eq!((stored.project_id.as_str(), stored.request_id), ("p1", request_id));
        assert_eq!((stored.record_count, stored.piece, stored.pieces), (2, 0, 1));
        assert_eq!((stored.user_agent.as_str(), stored.idempotency_key.as_str()), ("a-test/1", "once"));
        gateway.stop().await;
    });
}

#[test]
fn good_records_are_accepted_and_bad_ones_listed_by_index() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let bodies = [
            "[{\"type\":\"log\"},{\"type\":7},{\"type\":\"log\"}]",
            "{\"events\":[{\"type\":\"log\"},{\"type\":7},{\"type\":\"log\"}]}",
            "{\"type\":\"log\"}\n{\"type\":7}\n{\"type\":\"log\"}",
        ];
        for body in bodies {
            let (status, said, _) = answer(gateway.events(body)).await;
            assert_eq!((status, &said["accepted"]), (202, &json!(2)), "{said}");
            assert_eq!(
                (&said["rejected"][0]["index"], &said["rejected"][0]["code"]),
                (&json!(1), &json!("bad_type"))
            );
            let stored = node.stored(positions(&said)[0]).await;
            assert_eq!((stored.payload.0, stored.rejected), (body.as_bytes().to_vec(), vec![1]));
            assert_eq!(stored.record_count, 3);
        }
        let (status, said, request_id) = answer(gateway.events("[{\"type\":7},{}]")).await;
        assert_eq!((status, &said["error"]["code"]), (400, &json!("all_records_rejected")));
        assert_eq!(said["rejected"].as_array().unwrap().len(), 2);
        assert!(!node.holds(&request_id).await);
        gateway.stop().await;
    });
}

#[test]
fn a_malformed_request_is_refused_with_its_position_and_nothing_of_it_is_published() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let (status, said, request_id) = answer(gateway.events("[{\"type\":\"log\"}")).await;
        assert_eq!((status, &said["error"]["code"]), (400, &json!("malformed_json")));
        assert_eq!(said["error"]["position"], 15);
        assert!(!node.holds(&request_id).await);
        assert_eq!(refusal(node, gateway.events("")).await, (400, "empty_body".into()));
        let garbage = gateway.events("not gzip").header("content-encoding", "gzip");
        assert_eq!(refusal(node, garbage).await, (400, "bad_compression".into()));
        let foreign = gateway.events("{}").header("content-encoding", "lzma");
        assert_eq!(refusal(node, foreign).await, (415, "unsupported_content_encoding".into()));
        let image = gateway.post("/v1/events").header("content-type", "image/png").body("x");
        assert_eq!(refusal(node, image).await, (415, "unsupported_content_type".into()));
        assert_eq!(refusal(node, gateway.post("/v1/nothing").body("{}")).await, (404, "no_such_path".into()));
        let get = gateway.client.get(format!("{}/v1/events", gateway.url));
        assert_eq!(refusal(node, get).await, (405, "method_not_allowed".into()));
        let (status, ..) = answer(gateway.events("{\"type\":\"log\"}")).await;
        assert_eq!(status, 202, "and the stream goes on");
        gateway.stop().await;
    });
}

#[test]
fn only_a_valid_key_that_may_ingest_is_let_in_and_a_revocation_takes_effect_live() {
    on_kafka(|node| async move {
        let mut gateway = node.gateway().await;
        let body = "{\"type\":\"log\"}";
        let bare = || gateway.client.post(format!("{}/v1/events", gateway.url)).body(body);
        assert_eq!(refusal(node, bare()).await, (401, "missing_key".into()));
        assert_eq!(refusal(node, bare().bearer_auth("nonsense")).await, (401, "malformed_key".into()));
        assert_eq!(refusal(node, bare().bearer_auth("fl_a_b")).await, (401, "unknown_key".into()));
        assert_eq!(answer(bare().header("x-api-key", &gateway.key)).await.0, 202);
        let (id, secret) = gateway.key.strip_prefix("fl_").unwrap().split_once('_').unwrap();
        assert_eq!(answer(bare().basic_auth(id, Some(secret))).await.0, 202);

        gateway.key = node.key(Role::Viewer).await;
        let viewer = loop {
            // The new key arrives by itself; until then it is unknown.
            let said = refusal(node, gateway.events(body)).await;
            if said.0 != 401 {
                break said;
            }
        };
        assert_eq!(viewer, (403, "role_may_not_ingest".into()));

        let writer = ControlWriter::new(&node.config()).unwrap();
        let new = writer.create_key("p1", Role::Ingest, "", 1).await.unwrap();
        gateway.key = new.text.expose().to_owned();
        while answer(gateway.events(body)).await.0 != 202 {}
        writer.revoke_key(&new.key.key_id, 2).await.unwrap();
        let mut said = answer(gateway.events(body)).await;
        while said.0 == 202 {
            said = answer(gateway.events(body)).await;
        }
        assert_eq!((said.0, &said.1["error"]["code"]), (401, &json!("revoked_key")));
        gateway.stop().await;
    });
}

#[test]
fn every_encoding_is_understood() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let body = b"[{\"type\":\"log\"},{\"type\":\"log\"}]";
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(body).unwrap();
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        zlib.write_all(body).unwrap();
        let mut brotli = brotli::CompressorWriter::new(Vec::new(), 4096, 4, 20);
        brotli.write_all(body).unwrap();
        let bodies = [
            ("identity", body.to_vec()),
            ("gzip", gzip.finish().unwrap()),
            ("deflate", zlib.finish().unwrap()),
            ("br", brotli.into_inner()),
            ("zstd", zstd::encode_all(&body[..], 1).unwrap()),
        ];
        for (encoding, body) in bodies {
            let (status, said, _) = answer(gateway.events(body).header("content-encoding", encoding)).await;
            assert_eq!((status, &said["accepted"]), (202, &json!(2)), "{encoding}: {said}");
        }
        gateway.stop().await;
    });
}

#[test]
fn a_session_keeps_to_one_partition_and_a_raw_stream_keeps_its_context() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let mut partitions = Vec::new();
        for _ in 0..5 {
            let request = gateway.events("{\"type\":\"log\"}").header("x-fleetlog-session", "s1");
            partitions.push(positions(&answer(request).await.1)[0].partition);
        }
        partitions.dedup();
        assert_eq!(partitions.len(), 1);

        let path = "/v1/raw/codex.rollout?stream=f1&line=7&session=s&model=m&cwd=%2Fw&turn=t&agent=a";
        let (status, said, _) = answer(gateway.post(path).body("{\"a\":1}\n{\"b\":2}\n")).await;
        assert_eq!((status, &said["accepted"]), (202, &json!(2)), "{said}");
        let stored = node.stored(positions(&said)[0]).await;
        let stream = stored.stream.unwrap();
        assert_eq!((stored.route, stored.format_hint.as_str()), (Route::Raw, "codex.rollout"));
        assert_eq!((stream.stream_id.as_str(), stream.first_line, stream.cwd.as_str()), ("f1", 7, "/w"));
        assert_eq!((stream.turn_id.as_str(), stream.agent_id.as_str()), ("t", "a"));
        let bad = gateway.post("/v1/raw/codex.rollout?stream=f1&line=x").body("{}");
        assert_eq!(refusal(node, bad).await, (400, "bad_request".into()));
        gateway.stop().await;
    });
}

#[test]
fn operation_has_its_paths_on_the_same_port() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        for path in ["/healthz", "/readyz", "/metrics"] {
            let response = gateway.client.get(format!("{}{path}", gateway.url)).send().await.unwrap();
            assert_eq!(response.status(), 200, "{path}");
            assert!(header(&response, "x-request-id").is_empty());
        }
        gateway.stop().await;
    });
}
