//! Whatever is away or killed, each fact is stored once (INV-4).

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_store_delays_and_loses_nothing() {
    let Some(mut system) = system().await else { return };
    system.publish(topic::EVENTS, 0, &batch(vec![call("a", 0, Channel::Api, 1)])).await;
    system.becomes("events", 1).await;
    let clickhouse = system.clickhouse.as_ref().unwrap();
    clickhouse.kill().await;
    for number in 1..=20 {
        system.publish(topic::EVENTS, 0, &batch(vec![call("a", number, Channel::Api, 1)])).await;
    }
    system.clickhouse.as_mut().unwrap().restart().await.unwrap();
    system.becomes("events", 21).await;
    // An outage is no poison: nothing was stored in another form.
    system.becomes("events WHERE type = 'llm.request' AND unknown_reason = ''", 21).await;
    system.becomes("sessions WHERE llm_call_count = 21", 1).await;

    // Killed without a word: the next one goes on from what is committed and derived.
    system.running.abort_all();
    while system.running.join_next().await.is_some() {}
    system.publish(topic::EVENTS, 0, &batch(vec![call("a", 21, Channel::Api, 1)])).await;
    system.start();
    system.becomes("sessions WHERE llm_call_count = 22", 1).await;
    system.becomes("events", 22).await;
    system.derived().await;
    system.stop().await;

    // How far it had come is recorded, and the next one goes on from there.
    let recorded = system.store.progress().await.unwrap();
    assert_eq!(recorded[&0], Reflected::up_to(21), "{recorded:?}");
    system.publish(topic::EVENTS, 0, &batch(vec![call("b", 22, Channel::Api, 1)])).await;
    system.start();
    system.becomes("sessions", 2).await;
    system.becomes("llm_calls", 23).await;
    system.stop().await;
}

/// INV-4: whatever is killed, and whenever, each fact is stored exactly once.
#[tokio::test(flavor = "multi_thread")]
async fn kills_of_the_aggregator_and_of_the_store_at_any_moment_leave_each_fact_once() {
    let Some(system) = system().await else { return };
    kills_leave_each_fact_once(system).await;
}

/// The same on a configured server, replicated tables or not; it is not killed.
#[tokio::test(flavor = "multi_thread")]
async fn kills_of_the_aggregator_leave_each_fact_once_on_a_configured_server() {
    let Some(server) = configured_server() else {
        println!("SKIPPED: FLEETLOG_TEST_CLICKHOUSE_URL names no server; replicated tables are not proved");
        return;
    };
    let Some(system) = system_on(Some(server)).await else { return };
    kills_leave_each_fact_once(system).await;
}

async fn kills_leave_each_fact_once(mut system: System) {
    const KILLS: u32 = 12;
    system.becomes("events", 0).await;
    let mut sent = 0;
    for kill in 0..KILLS {
        for _ in 0..10 {
            system
                .publish(topic::EVENTS, (sent % 2) as i32, &batch(vec![call("k", sent, Channel::Api, 1)]))
                .await;
            sent += 1;
        }
        // Ranges are closed 20 ms after their first record and inserted within some milliseconds more: the moments of the
        // kills are spread over that way.
        tokio::time::sleep(Duration::from_millis(u64::from(kill) * 7)).await;
        if let (3, Some(clickhouse)) = (kill % 4, &mut system.clickhouse) {
            clickhouse.kill().await;
            clickhouse.restart().await.unwrap();
        } else {
            system.running.abort_all();
            while system.running.join_next().await.is_some() {}
            system.start();
        }
    }
    let facts =
        format!("uniqExact(event_id) AS e, count() AS c FROM events HAVING e = {sent} AND c = {sent}");
    system.becomes(&format!("(SELECT {facts})"), 1).await;
    system.becomes("settlements", sent.into()).await;
    system.becomes("piece_settlements", sent.into()).await;
    system.becomes(&format!("sessions WHERE llm_call_count = {sent}"), 1).await;
    system.stop().await;
}
