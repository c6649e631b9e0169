//! LangSmith, as its Python and JavaScript clients speak to it.

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::harness::{Exchange, Gateway, on_kafka, refuses_as_all_do};

/// A request with the key as the clients send it.
fn request(gateway: &Gateway, method: reqwest::Method, path: &str) -> RequestBuilder {
    gateway.client.request(method, format!("{}{path}", gateway.url)).header("x-api-key", &gateway.key)
}

fn is_langsmith_error(said: &Value) -> bool {
    said["detail"].is_string()
}

#[test]
fn anyone_is_told_how_to_send_and_how_much_at_once() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        for path in ["/info", "/api/v1/info", "/api/info"] {
            let said = Exchange::of(node, gateway.client.get(format!("{}{path}", gateway.url))).await.said;
            assert_eq!(said["batch_ingest_config"]["use_multipart_endpoint"], true, "{path}");
            assert_eq!(said["instance_flags"]["zstd_compression_enabled"], true);
            let limit = said["batch_ingest_config"]["size_limit_bytes"].as_u64().unwrap();
            assert!(limit < fleetlog_schemas::topic::RAW_MAX_MESSAGE_BYTES as u64);
        }
        gateway.stop().await;
    });
}

#[test]
fn runs_come_one_by_one_in_batches_and_as_changes() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let body = r#"{"id":"01a1","name":"x","run_type":"llm"}"#;
        let cases = [
            (reqwest::Method::POST, "/runs", "langsmith.runs", None),
            (reqwest::Method::POST, "/api/v1/runs/batch", "langsmith.runs", None),
            (reqwest::Method::PATCH, "/runs/01a1", "langsmith.run.patch", Some("01a1")),
            (reqwest::Method::POST, "/feedback", "langsmith.feedback", None),
            (reqwest::Method::PATCH, "/api/v1/feedback/f1", "langsmith.feedback.patch", Some("f1")),
        ];
        for (method, path, hint, id) in cases {
            let sent = request(&gateway, method, path).header("content-type", "application/json").body(body);
            let exchange = Exchange::of(node, sent).await;
            let batch = exchange.only(hint, body.as_bytes());
            assert_eq!(batch.stream.as_ref().map(|stream| stream.stream_id.as_str()), id, "{path}");
            assert_eq!(exchange.status, 202);
            assert!(exchange.said["message"].is_string());
        }
        gateway.stop().await;
    });
}

#[test]
fn a_compressed_form_is_published_as_compressed_as_it_came() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let form = "--b1\r\nContent-Disposition: form-data; name=\"post.01a1\"\r\nContent-Type: application/json\r\n\r\n{}\r\n--b1--\r\n";
        let body = zstd::encode_all(form.as_bytes(), 3).unwrap();
        let typed = "multipart/form-data; boundary=b1";
        let send = |body: Vec<u8>| {
            let request = request(&gateway, reqwest::Method::POST, "/runs/multipart");
            request.header("content-type", typed).header("content-encoding", "zstd").body(body)
        };
        let exchange = Exchange::of(node, send(body.clone())).await;
        let batch = exchange.only("langsmith.multipart", &body);
        assert_eq!((batch.content_type.as_str(), batch.content_encoding.as_str()), (typed, "zstd"));
        assert_eq!(exchange.status, 202);

        let cut_short = zstd::encode_all(&form.as_bytes()[..form.len() - 10], 3).unwrap();
        let exchange = Exchange::of(node, send(cut_short)).await;
        assert_eq!((exchange.refused(), &exchange.said["error"]), (400, &json!("malformed_multipart")));
        gateway.stop().await;
    });
}

#[test]
fn what_is_not_offered_is_refused_in_its_words() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        for path in [
            "/sessions",
            "/api/datasets/d1",
            "/commits/-/x/latest",
            "/api/v1/anything",
            "/v1/platform/datasets/d",
        ] {
            let exchange = Exchange::of(node, request(&gateway, reqwest::Method::GET, path)).await;
            assert_eq!(exchange.refused(), 404, "{path}");
            assert!(exchange.said["detail"].as_str().unwrap().contains("datasets"), "{}", exchange.said);
        }
        let other = Exchange::of(node, request(&gateway, reqwest::Method::GET, "/v1/sessions")).await;
        assert_eq!((other.refused(), &other.said["error"]["code"]), (404, &json!("no_such_path")));
        gateway.stop().await;
    });
}

#[test]
fn what_is_refused_is_said_as_the_server_would() {
    on_kafka(|node| async move {
        refuses_as_all_do(node, "/api/v1/runs/batch", is_langsmith_error).await;
    });
}
