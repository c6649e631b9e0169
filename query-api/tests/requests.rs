//! What is refused, described and survived.

mod support;

use std::time::Duration;

use fleetlog_query_api::QueryConfig;
use support::{NOON, S, event, service, within_a_while};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_silently_ignored() {
    let Some(service) = service(QueryConfig::default()).await else { return };
    for (path, code) in [
        ("/v1/events?sesion=s", "unknown_parameter"),
        ("/v1/sessions/x?from=now", "unknown_parameter"),
        ("/v1/sessions/x/calls?from=now", "unknown_parameter"),
        ("/v1/events?wait_for=r", "bad_receipt"),
        ("/v1/sessions/x?wait_for=0:1,", "bad_receipt"),
        ("/v1/usage?wait_for=spooled", "receipt_spooled"),
        ("/v1/events?wait_for=0:1&wait_timeout_ms=60001", "bad_parameter"),
        ("/v1/events?wait_timeout_ms=5", "bad_parameter"),
        ("/v1/completeness?session=s", "unknown_parameter"),
        ("/v1/completeness?from=now-8d", "bad_range"),
        ("/v1/events?model=a&model=b", "bad_parameter"),
        ("/v1/events?limit=0", "bad_parameter"),
        ("/v1/events?limit=1001", "bad_parameter"),
        ("/v1/events?limit=201&include=data", "bad_parameter"),
        ("/v1/events?type=llm.reqest", "bad_parameter"),
        ("/v1/events?search=%21%21", "bad_parameter"),
        ("/v1/events?include=everything", "bad_parameter"),
        ("/v1/sessions?status=running", "bad_parameter"),
        ("/v1/usage?step=10s", "bad_parameter"),
        ("/v1/usage?group_by=tool", "bad_parameter"),
        ("/v1/usage?step=1m&from=now-400d", "bad_parameter"),
        ("/v1/dead-letters?reason=bad", "bad_parameter"),
        ("/v1/dead-letters/0/0?wait=0:1", "unknown_parameter"),
        ("/v1/traces?status=ok", "bad_parameter"),
        ("/v1/scores?trace_id=x", "unknown_parameter"),
        ("/v1/traces?from=now-100d", "bad_range"),
        ("/v1/events?from=yesterday", "bad_range"),
        ("/v1/events?from=now&to=now-1h", "bad_range"),
        ("/v1/events?from=now-100d", "bad_range"),
        ("/v1/events?cursor=AAAA", "bad_cursor"),
    ] {
        assert_eq!(service.ask("viewer-p", path).await.refused(400), code, "{path}");
    }
    assert_eq!(service.ask("viewer-p", "/v1/nothing").await.refused(404), "no_such_endpoint");
    let client = reqwest::Client::new();
    let posted =
        client.post(format!("{}/v1/events", service.url)).bearer_auth("viewer-p").send().await.unwrap();
    assert_eq!(posted.status(), 405);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_names_exactly_what_is_served() {
    let Some(service) = service(QueryConfig::default()).await else { return };
    let description = service.ask_openly("/openapi.json").await.good();
    let mut listed = Vec::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        // Served, and not without a key.
        let concrete = path.replace("{id}", "x").replace("{partition}", "0").replace("{offset}", "0");
        assert_eq!(service.ask_openly(&concrete).await.refused(401), "no_key", "{path}");
        for (method, operation) in methods.as_object().unwrap() {
            let parameters = operation["parameters"].as_array();
            let names = parameters.into_iter().flatten().map(|parameter| parameter["name"].as_str().unwrap());
            let id = operation["operationId"].as_str().unwrap();
            listed.push(format!("{id}: {method} {path}({})", names.collect::<Vec<_>>().join(", ")));
        }
    }
    insta::assert_snapshot!(listed.join("\n"));
    let event = &description["components"]["schemas"]["Event"];
    assert_eq!(event["properties"]["metrics"]["properties"]["duration"]["type"], "number");
    assert!(service.ask_openly("/docs/").await.text.contains("swagger"));
    assert!(service.ask_openly("/metrics").await.text.contains("fleetlog_query_answers_total"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_store_is_said_and_outlived() {
    let Some(mut service) = service(QueryConfig::default()).await else { return };
    service.store_events(0, &[event("p", "s", 1)]).await;
    service.engine.kill().await;
    assert_eq!(service.ask("viewer-p", "/v1/events").await.refused(503), "store_unavailable");
    service.engine.restart().await.unwrap();
    assert_eq!(service.all("viewer-p", "/v1/events?limit=5").await.len(), 1);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_costs_too_much_is_refused_with_a_reason() {
    let query = QueryConfig { statement_max_rows: 10, ..QueryConfig::default() };
    let Some(service) = service(query).await else { return };
    let events: Vec<_> = (0..100).map(|number| event("p", "s", number)).collect();
    service.store_events(0, &events).await;
    let from = (NOON - 7_200 * S) / 1_000_000;
    let answer = service.ask("viewer-p", &format!("/v1/events?from={from}&limit=5")).await;
    assert_eq!(answer.refused(413), "query_limit");
    assert!(answer.text.contains("shorter range"), "{}", answer.text);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_gives_its_place_back() {
    let query = QueryConfig { project_statements_max: 1, project_queue_max: 1, ..QueryConfig::default() };
    let Some(service) = service(query).await else { return };
    service.engine.pause();
    let first = {
        let (url, client) = (service.url.clone(), reqwest::Client::new());
        let request = client.get(format!("{url}/v1/events")).bearer_auth("viewer-p");
        tokio::task::JoinSet::from_iter([async move { request.send().await.map(|_| ()) }])
    };
    let busy = async || service.ask("viewer-p", "/v1/events?limit=1").await.status == 429;
    within_a_while(async || tokio::time::timeout(BRIEFLY, busy()).await == Ok(true)).await;
    // Nothing but its caller's leaving can end the first: the engine stands still.
    drop(first);
    within_a_while(async || tokio::time::timeout(BRIEFLY, busy()).await != Ok(true)).await;
    service.engine.resume();
    within_a_while(async || service.ask("viewer-p", "/v1/events").await.status == 200).await;
    service.stop().await;
}

/// Longer than a refusal takes, and no measure of anything else.
const BRIEFLY: Duration = Duration::from_millis(500);
