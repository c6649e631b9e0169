//! Langfuse, as its Python and JavaScript clients speak to it.

use fleetlog_formats::{Input, decode};
use fleetlog_schemas::record::Route;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::harness::{Exchange, Gateway, header, on_kafka, refuses_as_all_do};

const BATCH: &str = r#"{"batch":[
    {"id":"e2","type":"generation-update","timestamp":"2026-11-21T12:00:01Z","body":{"id":"g"}},
    {"id":"e1","type":"trace-create","timestamp":"2026-11-21T12:00:00Z","body":{"id":"t"}}],"metadata":{}}"#;

/// A request with the key as the clients send it: public id and secret.
fn post(gateway: &Gateway, path: &str) -> RequestBuilder {
    let (id, secret) = gateway.key.strip_prefix("fl_").unwrap().split_once('_').unwrap();
    let request = gateway.client.post(format!("{}{path}", gateway.url)).basic_auth(id, Some(secret));
    request.header("content-type", "application/json")
}

fn is_langfuse_error(said: &Value) -> bool {
    said["message"].is_string() && said["error"].is_string()
}

#[test]
fn a_batch_is_answered_with_its_ids_in_order() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let exchange = Exchange::of(node, post(&gateway, "/api/public/ingestion").body(BATCH)).await;
        exchange.only("langfuse.ingestion", BATCH.as_bytes());
        let successes = json!([{"id": "e2", "status": 201}, {"id": "e1", "status": 201}]);
        assert_eq!(exchange.status, 207);
        assert_eq!(exchange.said, json!({"successes": successes, "errors": []}));
        gateway.stop().await;
    });
}

#[test]
fn an_envelope_that_cannot_be_taken_costs_itself_alone() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let batch = r#"{"batch":[{"id":"a","type":"trace-create","body":{}},{"id":"b","body":tru}]}"#;
        let exchange = Exchange::of(node, post(&gateway, "/api/public/ingestion").body(batch)).await;
        let message = exchange.only("langfuse.ingestion", batch.as_bytes());
        assert_eq!((message.record_count, &message.rejected[..]), (2, &[1][..]));
        assert_eq!(
            (exchange.status, &exchange.said["successes"]),
            (207, &json!([{"id": "a", "status": 201}]))
        );
        assert_eq!(
            (&exchange.said["errors"][0]["id"], &exchange.said["errors"][0]["status"]),
            (&json!("b"), &json!(400))
        );
        gateway.stop().await;
    });
}

#[test]
fn a_batch_of_which_nothing_can_be_taken_says_why_of_each_envelope() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let batch = r#"{"batch":[{"id":"a","body":tru},7,{"type":"trace-create","body":{}}]}"#;
        let exchange = Exchange::of(node, post(&gateway, "/api/public/ingestion").body(batch)).await;
        assert!(exchange.published.is_empty());
        assert_eq!((exchange.status, &exchange.said["successes"]), (207, &json!([])));
        let errors = exchange.said["errors"].as_array().unwrap();
        assert_eq!((errors.len(), &errors[0]["id"]), (3, &json!("a")));
        assert!(
            errors.iter().all(|error| error["status"] == 400 && error["message"].is_string()),
            "{errors:?}"
        );
        gateway.stop().await;
    });
}

#[test]
fn one_score_is_answered_with_its_id_and_several_with_a_word() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let path = "/api/public/scores";
        let one = r#"{"id":"s1","name":"quality","value":0.5,"traceId":"t"}"#;
        let exchange = Exchange::of(node, post(&gateway, path).body(one)).await;
        exchange.only("langfuse.scores", one.as_bytes());
        assert_eq!((exchange.status, &exchange.said), (200, &json!({"id": "s1"})));

        for key in ["", "again-and-again"] {
            let request = post(&gateway, path).header("idempotency-key", key);
            let unnamed = Exchange::of(node, request.body(r#"{"name":"quality","value":1}"#)).await;
            let [batch] = &unnamed.published[..] else { panic!("one message") };
            let decoded = decode(&Input::of(batch, &batch.payload.0, 0, 0)).unwrap();
            assert_eq!(unnamed.said["id"], decoded.events[0].event_id, "the id it is stored under");
        }

        let several = format!("[{one}]");
        let exchange = Exchange::of(node, post(&gateway, path).body(several.clone())).await;
        exchange.only("langfuse.scores", several.as_bytes());
        assert_eq!((exchange.status, &exchange.said), (202, &json!({"message": "Accepted"})));
        gateway.stop().await;
    });
}

#[test]
fn spans_come_by_its_otlp_path_and_are_answered_as_otlp() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let spans = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"x"}]}]}]}"#;
        let response = post(&gateway, "/api/public/otel/v1/traces").body(spans).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let published = node.published(&header(&response, "x-request-id")).await;
        assert_eq!((published[0].route, &published[0].payload.0[..]), (Route::OtlpTraces, spans.as_bytes()));
        gateway.stop().await;
    });
}

#[test]
fn a_client_finds_its_project_and_no_prompts() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let get = |path: &str| gateway.client.get(format!("{}{path}", gateway.url));
        let (id, secret) = gateway.key.strip_prefix("fl_").unwrap().split_once('_').unwrap();
        let projects = Exchange::of(node, get("/api/public/projects").basic_auth(id, Some(secret))).await;
        assert_eq!((projects.status, &projects.said["data"][0]["id"]), (200, &json!("p1")));
        assert!(projects.said["data"][0]["organization"]["id"].is_string());
        let stranger = Exchange::of(node, get("/api/public/projects").basic_auth(id, Some("x"))).await;
        assert_eq!((stranger.refused(), is_langfuse_error(&stranger.said)), (401, true), "{}", stranger.said);
        let health = Exchange::of(node, get("/api/public/health")).await;
        assert_eq!((health.status, &health.said["status"]), (200, &json!("OK")));
        let prompt = Exchange::of(node, get("/api/public/v2/prompts/x").bearer_auth(&gateway.key)).await;
        assert_eq!((prompt.refused(), &prompt.said["error"]), (404, &json!("LangfuseNotFoundError")));
        gateway.stop().await;
    });
}

#[test]
fn media_are_taken_for_uploaded_and_nothing_of_them_is_kept() {
    on_kafka(|node| async move {
        let gateway = node.gateway().await;
        let path = "/api/public/media";
        let asking = |hash: &str| {
            json!({"traceId": "t", "observationId": "o", "contentType": "image/png", "contentLength": 5,
                "sha256Hash": hash, "field": "input"})
            .to_string()
        };
        // What is no letter or digit is written as in an address.
        let hash = "+/AB0123456789abcdefghijklmnopqrstuvwxyzABE=";
        let told = Exchange::of(node, post(&gateway, path).body(asking(hash))).await;
        let expected = json!({"mediaId": "-_AB0123456789abcdefgh", "uploadUrl": null});
        assert_eq!((told.status, &told.said, told.published.len()), (200, &expected, 0));

        for body in [asking("short"), "{}".to_owned(), "[".to_owned()] {
            let bad = Exchange::of(node, post(&gateway, path).body(body)).await;
            assert_eq!((bad.refused(), is_langfuse_error(&bad.said)), (400, true), "{}", bad.said);
        }
        let long = Exchange::of(node, post(&gateway, path).body(" ".repeat(20_000))).await;
        assert_eq!((long.refused(), is_langfuse_error(&long.said)), (413, true), "{}", long.said);
        let stranger = gateway.client.post(format!("{}{path}", gateway.url)).body(asking(hash));
        assert_eq!(Exchange::of(node, stranger).await.refused(), 401);
        let done = gateway.client.patch(format!("{}{path}/m1", gateway.url));
        assert_eq!(Exchange::of(node, done.try_clone().unwrap()).await.refused(), 401);
        let done = Exchange::of(node, done.bearer_auth(&gateway.key).body("{}")).await;
        assert_eq!((done.status, done.published.len()), (204, 0));
        gateway.stop().await;
    });
}

#[test]
fn what_is_refused_is_said_as_the_server_would() {
    on_kafka(|node| async move {
        refuses_as_all_do(node, "/api/public/ingestion", is_langfuse_error).await;
        let gateway = node.gateway().await;
        let big = format!("{{\"batch\":[\"{}\"]}}", "x".repeat(4_500_000));
        let exchange = Exchange::of(node, post(&gateway, "/api/public/ingestion").body(big)).await;
        assert_eq!(exchange.refused(), 413);
        gateway.stop().await;
    });
}
