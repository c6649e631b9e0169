//! A log that is read again, or that is another one at the same offsets (INV-4).

use fleetlog_log::{Consumer, ConsumerOptions, Lease};

use super::*;

/// Sets what a stopped aggregator's group has committed for partition 0 of a topic.
async fn commit(system: &System, log: &str, offset: i64) {
    let group = &system.config.aggregator.group;
    let group = if log == topic::DEAD { format!("{group}.dead") } else { group.clone() };
    let options = || ConsumerOptions::new(group.clone(), log);
    // Beyond the log's end first: only from there an offset goes back.
    for offset in [1_000_000, offset] {
        let mut consumer = Consumer::start(&system.config.kafka, options()).unwrap();
        let lease: Lease = loop {
            let partition = consumer.next_assignment().await.unwrap().unwrap();
            if partition.lease().partition() == 0 {
                break partition.lease();
            }
        };
        lease.commit(offset, "").await.unwrap();
        drop(lease);
        consumer.close().await;
    }
}

fn letter(number: i64) -> DeadLetter {
    let now = Clock::system().now_ns();
    DeadLetter {
        project_id: PROJECT.to_owned(),
        reason: DeadReason::TooLarge,
        records: 1,
        raw_offset: number,
        failed_at: now,
        received_at: now,
        ..DeadLetter::default()
    }
}

/// Waits until each event and dead letter is there, and says what became of their records.
async fn holds(system: &System, events: u32, duplicates: u32, letters: u64) {
    system.becomes("dead_letters", letters).await;
    system.becomes("settlements", (events + duplicates).into()).await;
    let keys = "SELECT uniqExact(dedup_key) AS u, count() AS c FROM events";
    system.becomes(&format!("({keys}) WHERE u = {events} AND c = {events}"), 1).await;
    let pieces = "SELECT sum(stored) AS s, sum(duplicate) AS d, count() AS c FROM piece_settlements";
    let all = events + duplicates;
    system.becomes(&format!("({pieces}) WHERE s = {events} AND d = {duplicates} AND c = {all}"), 1).await;
}

/// Committed offsets that are lost, or lie beyond the end of the log or before what is stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_read_again_is_stored_once() {
    let Some(mut system) = system().await else { return };
    for number in 0..5 {
        system.publish(topic::EVENTS, 0, &batch(vec![call("a", number, Channel::Api, 1)])).await;
        system.publish(topic::DEAD, 0, &letter(number.into())).await;
        // Ranges of their own: read again, they are others.
        system.becomes("settlements", (number + 1).into()).await;
    }
    let sent = call("a", 5, Channel::Api, 1);
    let retried = AgentEvent { raw_offset: 6, received_at: sent.received_at + 1, ..sent.clone() };
    for event in [sent, retried] {
        system.publish(topic::EVENTS, 0, &batch(vec![event])).await;
    }
    holds(&system, 6, 1, 5).await;
    system.derived().await;
    for (round, committed) in [(0, Some(1_000_000)), (1, Some(2)), (2, None)] {
        system.stop().await;
        match committed {
            Some(offset) => {
                commit(&system, topic::EVENTS, offset).await;
                commit(&system, topic::DEAD, offset).await;
            }
            None => system.config.aggregator.group = "another".to_owned(),
        }
        // It is stored after everything before it is settled.
        system.publish(topic::EVENTS, 0, &batch(vec![call("a", 7 + round, Channel::Api, 1)])).await;
        system.publish(topic::DEAD, 0, &letter((7 + round).into())).await;
        system.start();
        holds(&system, 7 + round, 1, 6 + u64::from(round)).await;
        system.becomes(&format!("sessions WHERE llm_call_count = {}", 7 + round), 1).await;
    }
    system.stop().await;
}

/// Kafka's data is gone and ClickHouse's is not: the same offsets, and raw positions, are others' now.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_made_anew_is_stored_beside_the_old_one() {
    let Some(mut system) = system().await else { return };
    let first: Vec<_> = (0..3).map(|number| call("a", number, Channel::Api, 1)).collect();
    for (number, event) in (1..).zip(&first) {
        system.publish(topic::EVENTS, 0, &batch(vec![event.clone()])).await;
        system.publish(topic::DEAD, 0, &letter(number.into())).await;
        holds(&system, number, 0, number.into()).await;
    }
    system.stop().await;
    system.renew_kafka().await;
    system.start();
    let fresh = |number| call("b", number, Channel::Api, 1);
    system.publish(topic::EVENTS, 0, &batch(vec![fresh(0)])).await;
    system.publish(topic::DEAD, 0, &letter(1)).await;
    holds(&system, 4, 0, 4).await;
    // A sender's retry, and what it repeats lies further on in the old log than this in the new one.
    let retried = AgentEvent { received_at: first[2].received_at + 1, ..first[2].clone() };
    system.publish(topic::EVENTS, 0, &batch(vec![retried])).await;
    holds(&system, 4, 1, 4).await;
    // Up to where the old one ended, and beyond.
    for number in [2, 3] {
        system.publish(topic::EVENTS, 0, &batch(vec![fresh(number)])).await;
        system.publish(topic::DEAD, 0, &letter(number.into())).await;
    }
    holds(&system, 6, 1, 6).await;
    system.becomes("sessions WHERE session_id = 'b' AND llm_call_count = 3", 1).await;
    system.stop().await;
}
