//! What ClickHouse refuses costs only itself (INV-8).

use super::*;

/// INV-8: what ClickHouse refuses costs only itself, keeps its place, and counts as stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_event_costs_only_itself_and_keeps_its_place() {
    let Some(mut system) = system().await else { return };
    system.migrated().await;
    let constraint =
        |name: &str, check: &str| format!("ALTER TABLE fleetlog.events ADD CONSTRAINT {name} CHECK {check}");
    system.operator(&constraint("known_model", "model != 'refused'")).await;
    system.operator(&constraint("speakable", "position(data, 'unspeakable') = 0")).await;
    let mut events: Vec<_> = (0..1000).map(|n| call("r", n, Channel::Api, 1)).collect();
    events[137].model = "refused".to_owned();
    events[500].data = r#"{"text":"unspeakable"}"#.to_owned();
    let sent = batch(events);
    system.publish(topic::EVENTS, 0, &sent).await;
    system.publish(topic::EVENTS, 0, &batch(vec![call("r", 1000, Channel::Api, 1)])).await;
    system.becomes("events", 1001).await;
    system.becomes("events WHERE type = 'llm.request'", 999).await;
    let refused =
        "events WHERE type = 'raw.unknown' AND unknown_reason = 'refused_by_store' AND log_offset = 0";
    let kept =
        "JSONExtractString(JSONExtractString(data, 'event'), 'model') = 'refused' AND session_id = 'r'";
    system.becomes(&format!("{refused} AND log_index = 137 AND raw_offset = 137 AND {kept}"), 1).await;
    // What cannot even be kept as text is kept in the dead-letter topic.
    system.becomes(&format!("{refused} AND log_index = 500 AND raw_offset = 500 AND data = '{{}}'"), 1).await;
    system
        .becomes("dead_letters WHERE reason = 'poison' AND raw_offset = 500 AND payload_size > 100", 1)
        .await;
    let places = "SELECT uniqExact(log_partition, log_offset, log_index) AS u, count() AS c FROM events";
    system.becomes(&format!("({places}) WHERE u = 1001 AND c = 1001"), 1).await;
    // The ledger balances: every record is stored.
    let pieces = "SELECT sum(stored) AS s, sum(duplicate) AS d FROM piece_settlements";
    system.becomes(&format!("({pieces}) WHERE s = 1001 AND d = 0"), 1).await;
    system.becomes("(SELECT sum(records) AS r FROM settlements) WHERE r = 1001", 1).await;
    system.derived().await;
    system
        .becomes("sessions WHERE session_id = 'r' AND llm_call_count = 999 AND event_count = 1000", 1)
        .await;
    // Its sender's retry is recognised; that of the other, which has lost its session, is refused and kept once more.
    system.publish(topic::EVENTS, 0, &sent).await;
    system.becomes(&format!("({pieces}) WHERE d = 999 AND s = 1002"), 1).await;
    system.becomes("events", 1002).await;
    system.stop().await;
}

/// A dead letter and a settlement are refused for their texts: what they count is stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_dead_letter_and_settlement_keep_what_they_count() {
    let Some(mut system) = system().await else { return };
    system.migrated().await;
    for (table, column) in [("dead_letters", "message"), ("settlements", "request_id")] {
        let check = format!("{column} != 'refused'");
        system.operator(&format!("ALTER TABLE fleetlog.{table} ADD CONSTRAINT said CHECK {check}")).await;
    }
    let now = Clock::system().now_ns();
    let letter = |message: &str| DeadLetter {
        project_id: PROJECT.to_owned(),
        reason: DeadReason::TooLarge,
        message: message.to_owned(),
        records: 3,
        failed_at: now,
        received_at: now,
        ..DeadLetter::default()
    };
    system.publish(topic::DEAD, 0, &letter("refused")).await;
    system.publish(topic::DEAD, 0, &letter("accepted")).await;
    let mut sent = batch(vec![call("s", 1, Channel::Api, 1)]);
    sent.settlements[0].request_id = "refused".to_owned();
    system.publish(topic::EVENTS, 0, &sent).await;
    system.becomes("dead_letters WHERE records = 3 AND reason = 'too_large'", 2).await;
    system.becomes("dead_letters WHERE message = 'refused_by_store' AND log_offset = 0", 1).await;
    system.becomes("settlements WHERE records = 1 AND request_id = ''", 1).await;
    system.becomes("events WHERE type = 'llm.request'", 1).await;
    system.stop().await;
}

/// INV-8: what the probe does not repeat is an outage, however definite it sounds.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_the_probe_does_not_repeat_changes_no_event() {
    let Some(mut system) = system().await else { return };
    system.migrated().await;
    // Somebody's view behind the table fails.
    system
        .operator(
            "CREATE MATERIALIZED VIEW fleetlog.broken ENGINE = Null AS \
             SELECT throwIf(in_uncached = 1) AS failed FROM fleetlog.events",
        )
        .await;
    system.publish(topic::EVENTS, 0, &batch(vec![call("a", 0, Channel::Api, 1)])).await;
    let deadline = Instant::now() + DEADLINE;
    while !system.health.obstacles().values().any(|why| why.contains("refuses")) {
        assert!(Instant::now() < deadline, "nothing says that the range waits");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    system.operator("DROP TABLE fleetlog.broken").await;
    system.becomes("settlements", 1).await;
    system.becomes("events", 1).await;
    system.becomes("events WHERE type = 'llm.request' AND unknown_reason = ''", 1).await;
    system.stop().await;
}
