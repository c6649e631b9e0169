//! How complete answers are, on a real engine, beside logs that stand where the test puts them.

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fleetlog_query_api::{Outlet, Pipeline, QueryConfig};
use fleetlog_schemas::Settlement;
use fleetlog_schemas::record::{PieceCount, SpoolStanding};
use serde_json::{Value, json};
use support::{
    NOON, S, Service, StillLogs, event, piece, service, service_with_idle_logs, service_with_logs, session,
    settlement, within_a_while,
};

const NOON_TEXT: &str = "2026-03-01T12:00:00.000000000Z";

async fn complete_through(service: &Service, path: &str) -> Value {
    service.ask("viewer-p", path).await.good()["complete_through"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_says_up_to_when_everything_acknowledged_is_stored() {
    let logs = Arc::new(StillLogs::default());
    logs.reach(0..0);
    let Some(service) = service_with_logs(&logs).await else { return };
    let lists = ["/v1/events", "/v1/sessions", "/v1/usage", "/v1/dead-letters", "/v1/completeness"];
    within_a_while(async || complete_through(&service, "/v1/events").await == NOON_TEXT).await;
    for list in lists {
        assert_eq!(complete_through(&service, list).await, NOON_TEXT, "{list}");
    }

    // Two requests are acknowledged; the second one's settlement is stored, and its piece, and then the first one's.
    logs.reach(0..2);
    service.deps.clock.set(NOON + 5 * S);
    let received = NOON + S;
    service.store_settlements(7, &[settlement("p", 1, received, 2), settlement("q", 0, received, 3)]).await;
    service.store_pieces(7, &[piece("p", 1, received, 1, 1)]).await;
    let in_flight = async || service.ask("viewer-p", "/v1/completeness").await.good()["partitions"][0].take();
    within_a_while(async || in_flight().await["in_flight"] == 1).await;
    assert_eq!(
        in_flight().await,
        json!({"partition": 0, "settled_below": 0, "log_start": 0, "log_end": 2, "in_flight": 1, "lost": 0})
    );
    assert_eq!(
        complete_through(&service, "/v1/events").await,
        NOON_TEXT,
        "another project's request is on its way"
    );
    service.store_pieces(8, &[piece("q", 0, received, 3, 0)]).await;
    let later = "2026-03-01T12:00:05.000000000Z";
    within_a_while(async || complete_through(&service, "/v1/events").await == later).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_a_spool_holds_back_what_is_complete_and_is_named() {
    let logs = Arc::new(StillLogs::default());
    logs.reach(0..1);
    let told = |as_of, records, oldest| SpoolStanding {
        gateway_id: "g".to_owned(),
        as_of,
        records,
        bytes: 10 * records,
        oldest,
    };
    *logs.spools.lock().unwrap() = vec![told(NOON - 2 * S, 0, None)];
    let Some(service) = service_with_logs(&logs).await else { return };
    service.store_settlements(0, &[settlement("p", 0, NOON - 60 * S, 1)]).await;
    service.store_pieces(0, &[piece("p", 0, NOON - 60 * S, 1, 0)]).await;
    let state = async || service.ask("viewer-p", "/v1/completeness").await.good();
    // It does not run, so what it has accepted since is not known.
    let before = "2026-03-01T11:59:58.000000000Z";
    within_a_while(async || state().await["complete_through"] == before).await;
    let answer = state().await;
    assert_eq!(answer["settled_through"], before);
    let spool = json!({"gateway": "g", "records": 0, "oldest": null, "as_of": before});
    assert_eq!(answer["spools"], json!([spool]));

    // It runs again and has something older: what was proved stays so, and nothing more is.
    service.deps.clock.set(NOON + 60 * S);
    *logs.spools.lock().unwrap() = vec![told(NOON + 59 * S, 3, Some(NOON - S))];
    within_a_while(async || state().await["spools"][0]["records"] == 3).await;
    let held = "2026-03-01T11:59:59.000000000Z";
    within_a_while(async || state().await["complete_through"] == held).await;
    assert_eq!(complete_through(&service, "/v1/events").await, held);
    assert_eq!(state().await["spools"][0]["oldest"], held);
    let metrics = service.ask_openly("/metrics").await.text;
    assert!(metrics.contains(r#"fleetlog_query_spool_records{gateway="g"} 3"#), "{metrics}");
    assert!(metrics.contains(r#"fleetlog_query_spool_lag_seconds{gateway="g"} 61"#), "{metrics}");

    // It is taken back.
    logs.spools.lock().unwrap().clear();
    let now = "2026-03-01T12:01:00.000000000Z";
    within_a_while(async || state().await["complete_through"] == now).await;
    assert_eq!(state().await["spools"], json!([]));
    let gone = async || service.ask_openly("/metrics").await.text;
    within_a_while(async || gone().await.contains(r#"fleetlog_query_spool_lag_seconds{gateway="g"} 0"#))
        .await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_logs_nothing_is_promised() {
    let Some(service) = service(QueryConfig::default()).await else { return };
    assert_eq!(complete_through(&service, "/v1/events").await, Value::Null);
    let answer = service.ask("viewer-p", "/v1/completeness").await.good();
    assert_eq!((&answer["settled_through"], &answer["partitions"]), (&Value::Null, &json!([])));
    let answer = service.ask("viewer-p", "/v1/events?wait_for=0:0&wait_timeout_ms=50").await;
    assert_eq!(answer.refused(503), "ledger_not_ready");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_waits_for_a_receipt_and_then_has_what_it_stands_for() {
    let logs = Arc::new(StillLogs::default());
    logs.reach(3..5);
    let Some(service) = service_with_idle_logs(&logs).await else { return };
    let ask = async |path: &str| service.ask("viewer-p", path).await;
    let early = ask("/v1/events?wait_for=0:4&wait_timeout_ms=200").await;
    assert_eq!(early.refused(503), "not_complete_yet");
    assert_eq!(ask("/v1/events?wait_for=0:5").await.refused(400), "unknown_receipt");
    assert_eq!(ask("/v1/events?wait_for=0:4,1:0").await.refused(400), "unknown_receipt");
    assert!(ask("/v1/events?wait_for=").await.good()["data"].is_array(), "a request without records");

    // Asked for before it is there; answered when it is, with it.
    let (waited, ()) = tokio::join!(ask("/v1/events?wait_for=0:4&wait_timeout_ms=30000"), async {
        // One may still be on behalf of who waited before.
        let looks = logs.looks.load(Ordering::Relaxed);
        within_a_while(async || logs.looks.load(Ordering::Relaxed) >= looks + 2).await;
        service.store_events(7, &[event("p", "s", 1)]).await;
        service.store_pieces(7, &[piece("p", 4, NOON, 1, 0)]).await;
        service.store_settlements(7, &[settlement("p", 4, NOON, 1)]).await;
    });
    assert_eq!(waited.good()["data"].as_array().unwrap().len(), 1);
    // Another project's key may wait for it too, and sees nothing of it.
    let answer = service.ask("viewer-q", "/v1/events?wait_for=0:4").await.good();
    assert_eq!(answer["data"], json!([]));
    // The neighbour is still on its way, and an answer that rests on derivations waits for them.
    assert_eq!(ask("/v1/events?wait_for=0:3,0:4&wait_timeout_ms=50").await.refused(503), "not_complete_yet");
    let early = ask("/v1/sessions/s?wait_for=0:4&wait_timeout_ms=200").await;
    assert_eq!(early.refused(503), "not_complete_yet");
    let (waited, ()) = tokio::join!(ask("/v1/sessions/s?wait_for=0:4"), async {
        service.derive(&[session("p", "s", NOON, &[], &[])], 7).await;
    });
    assert_eq!(waited.good()["data"]["session_id"], "s");
    // Older than what is looked at: looked up by itself.
    logs.reach(2..5);
    service.store_settlements(8, &[settlement("p", 2, NOON, 0)]).await;
    assert!(ask("/v1/events?wait_for=0:2").await.good()["data"].is_array());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_bounded_by_number() {
    let logs = Arc::new(StillLogs::default());
    logs.reach(0..1);
    let Some(service) = service_with_logs(&logs).await else { return };
    let known =
        async || service.ask("viewer-p", "/v1/completeness").await.good()["partitions"][0].is_object();
    within_a_while(known).await;
    let (url, client) = (service.url.clone(), reqwest::Client::new());
    let waiting = (0..QueryConfig::default().project_waits_max).map(|_| {
        let request = client.get(format!("{url}/v1/events?wait_for=0:0&wait_timeout_ms=60000"));
        let request = request.bearer_auth("viewer-p");
        // Again while a question of the test has the last place.
        async move { while request.try_clone().unwrap().send().await.is_ok() {} }
    });
    let waiting = tokio::task::JoinSet::from_iter(waiting);
    let one_more = async || service.ask("viewer-p", "/v1/events?wait_for=0:0&wait_timeout_ms=1").await;
    within_a_while(async || one_more().await.status == 429).await;
    assert_eq!(one_more().await.refused(429), "project_busy");
    let other = service.ask("viewer-q", "/v1/events?wait_for=0:0&wait_timeout_ms=1").await;
    assert_eq!(other.refused(503), "not_complete_yet");
    drop(waiting);
    within_a_while(async || one_more().await.status == 503).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_that_the_gateway_counted_has_one_fate() {
    let logs = Arc::new(StillLogs::default());
    // All of them are older than what is looked at.
    logs.reach(5..5);
    let Some(service) = service_with_logs(&logs).await else { return };
    let (first, second) = (NOON - 3_600 * S, NOON - 3_600 * S + 10 * S);
    let mixed = Settlement {
        records: 10,
        filtered: 1,
        dead: 2,
        context: 3,
        pieces: vec![PieceCount { partition: 0, records: 3 }, PieceCount { partition: 2, records: 1 }],
        ..settlement("p", 0, first, 0)
    };
    let settlements = [
        mixed,
        settlement("p", 1, first + 9 * S, 5),
        settlement("q", 2, first, 100),
        settlement("p", 3, second, 4),
    ];
    service.store_settlements(0, &settlements).await;
    let pieces = [
        piece("p", 0, first, 2, 1),
        piece("p", 0, first, 0, 1),
        piece("p", 1, first + 9 * S, 5, 0),
        piece("q", 2, first, 100, 0),
        piece("p", 3, second, 1, 0),
        // Its settlement is not there yet.
        piece("p", 4, second, 7, 0),
    ];
    service.store_pieces(0, &pieces).await;
    let fates = |rest: Value| {
        let mut fates = json!({
            "batches": 0, "records": 0, "stored": 0, "duplicate": 0, "filtered": 0, "dead": 0, "context": 0,
            "in_flight": 0, "lost": 0, "excess": 0, "unsettled_batches": 0,
        });
        fates.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        fates
    };
    // The newest window: three records of one request are missing, another one's count is not known.
    let newer = json!({
        "window": "2026-03-01T11:00:10.000000000Z", "complete": true, "balanced": false, "batches": 2, "records": 11,
        "stored": 8, "lost": 3, "unsettled_batches": 1,
    });
    let older = json!({
        "window": "2026-03-01T11:00:00.000000000Z", "complete": true, "balanced": true, "batches": 2, "records": 15,
        "stored": 7, "duplicate": 2, "filtered": 1, "dead": 2, "context": 3,
    });
    within_a_while(async || complete_through(&service, "/v1/completeness").await == NOON_TEXT).await;
    let rows = service.all("viewer-p", "/v1/completeness?limit=1").await;
    assert_eq!(rows, [fates(newer.clone()), fates(older)]);
    let answer = service.ask("viewer-p", "/v1/completeness").await.good();
    let totals = json!({
        "batches": 4, "records": 26, "stored": 15, "duplicate": 2, "filtered": 1, "dead": 2, "context": 3, "lost": 3,
        "unsettled_batches": 1,
    });
    assert_eq!((&answer["totals"], &answer["window_s"]), (&fates(totals), &10.into()));
    // The range is widened to whole windows, and another project has its own.
    let rows = service.all("viewer-p", "/v1/completeness?from=2026-03-01T11:00:12Z&limit=9").await;
    assert_eq!(rows, [fates(newer)]);
    assert_eq!(service.ask("viewer-q", "/v1/completeness").await.good()["totals"]["records"], 100);
    assert_eq!(service.ask("viewer-r", "/v1/completeness").await.good()["totals"], fates(json!({})));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_late_with_an_old_time_is_on_its_way_and_not_lost() {
    let logs = Arc::new(StillLogs::default());
    logs.reach(5..5);
    let Some(service) = service_with_logs(&logs).await else { return };
    let state = async || service.ask("viewer-p", "/v1/completeness").await.good();
    within_a_while(async || state().await["settled_through"] == NOON_TEXT).await;
    // A spool drains, an hour late: of one request a piece is stored, of another no settlement yet.
    logs.reach(5..7);
    let old = NOON - 3_600 * S;
    service.store_settlements(0, &[settlement("p", 5, old, 3)]).await;
    service.store_pieces(0, &[piece("p", 5, old, 1, 0), piece("p", 6, old + 10 * S, 1, 0)]).await;
    let windows = async || {
        let rows = state().await["data"].as_array().unwrap().clone();
        rows.iter().map(|row| json!([row["complete"], row["in_flight"], row["lost"]])).collect::<Vec<_>>()
    };
    assert_eq!(windows().await, [json!([false, 0, 0]), json!([false, 2, 0])]);
    // The rest comes.
    service.store_pieces(1, &[piece("p", 5, old, 2, 0)]).await;
    service.store_settlements(1, &[settlement("p", 6, old + 10 * S, 1)]).await;
    let settled = [json!([true, 0, 0]), json!([true, 0, 0])];
    within_a_while(async || windows().await == settled).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_pipeline_says_is_stored_and_is_not_is_lost_and_said_to_be() {
    let logs = Arc::new(StillLogs::default());
    logs.reach(0..3);
    let Some(service) = service_with_logs(&logs).await else { return };
    let late = NOON - 10 * S;
    service.store_settlements(0, &[settlement("p", 0, late, 1), settlement("p", 2, late, 2)]).await;
    service.store_pieces(0, &[piece("p", 0, late, 1, 0), piece("p", 2, late, 2, 0)]).await;
    let state = async || service.ask("viewer-p", "/v1/completeness").await.good();
    within_a_while(async || state().await["partitions"][0]["in_flight"] == 1).await;
    // It has been open for a minute; the processor has settled it, the aggregator is behind.
    service.deps.clock.set(NOON + 60 * S);
    let outlet = |stored| vec![Outlet { log: 0..10, stored }];
    *logs.pipeline.lock().unwrap() = Pipeline { raw: vec![Some(3)], outlets: outlet(8) };
    let waits = async || service.ask("viewer-p", "/v1/events?wait_for=0:1&wait_timeout_ms=2500").await;
    assert_eq!(waits().await.refused(503), "not_complete_yet");
    // And now it says that it has stored everything.
    *logs.pipeline.lock().unwrap() = Pipeline { raw: vec![Some(3)], outlets: outlet(10) };
    within_a_while(async || state().await["partitions"][0]["lost"] == 1).await;
    assert_eq!(waits().await.refused(500), "receipt_lost");
    let answer = state().await;
    assert_eq!(
        (&answer["complete_through"], &answer["partitions"][0]["settled_below"]),
        (&Value::Null, &3.into())
    );
    assert_eq!(answer["settled_through"], "2026-03-01T12:01:00.000000000Z");
    let metrics = service.ask_openly("/metrics").await.text;
    assert!(metrics.contains(r#"fleetlog_query_ledger_lost_records_total{partition="0"} 1"#), "{metrics}");
    // Whoever sends it again through other means makes it good.
    service.store_settlements(1, &[settlement("p", 1, late, 0)]).await;
    within_a_while(async || state().await["complete_through"] == answer["settled_through"]).await;
    assert_eq!(state().await["partitions"][0]["lost"], 0);
    service.stop().await;
}
