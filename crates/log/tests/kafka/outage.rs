//! The broker killed or frozen, and back again, under a consumer and a producer that stay.

use std::time::Duration;

use fleetlog_log::{
    Committed, Consumer, ConsumerOptions, KafkaConfig, LogError, Outgoing, Producer, Read, Target,
};
use fleetlog_schemas::topic;

use crate::node::{Node, on_own_kafka};

fn record(payload: &[u8]) -> Outgoing<'_> {
    Outgoing { topic: topic::RAW, target: Target::Partition(0), key: None, payload: Some(payload) }
}

#[test]
fn what_was_acknowledged_survives_a_kill_and_commits_wait_it_out() {
    on_own_kafka(|mut node| async move {
        // An outage longer than the session would end the assignment instead.
        let config = KafkaConfig { delivery_timeout_ms: 60_000, session_timeout_ms: 60_000, ..node.config() };
        let producer = Producer::new(&config, topic::RAW_MAX_MESSAGE_BYTES).unwrap();
        producer.enqueue(record(b"before")).unwrap().await.unwrap();
        let options = ConsumerOptions {
            commit_budget: Duration::from_secs(60),
            ..ConsumerOptions::new("outage", topic::RAW)
        };
        let mut consumer = Consumer::start(&config, options).unwrap();
        let mut others = Vec::new();
        let mut partition = loop {
            let partition = consumer.next_assignment().await.unwrap().unwrap();
            if partition.assignment().partition == 0 {
                break partition;
            }
            others.push(partition);
        };
        let Some(Read::Record(first)) = partition.next().await.unwrap() else { panic!("a record") };
        assert_eq!(first.payload.as_deref(), Some(&b"before"[..]));

        node.kafka.kill().await;
        let during = producer.enqueue(record(b"during")).unwrap();
        let lease = partition.lease();
        let committed = node.spawn(async move { lease.commit(1, "").await });
        node.kafka.restart().await.unwrap();

        assert_eq!(during.await.unwrap().offset, 1);
        committed.await.unwrap().unwrap();
        let second = loop {
            match partition.next().await.unwrap() {
                Some(Read::Record(record)) => break record,
                Some(Read::CaughtUp) => {}
                None => panic!("the partition was taken away"),
            }
        };
        assert_eq!(second.payload.as_deref(), Some(&b"during"[..]));
        drop((partition, others));
        consumer.close().await;
    });
}

#[test]
fn an_outage_longer_than_the_session_ends_the_assignment_and_a_new_one_replays() {
    on_own_kafka(|mut node| async move {
        let topic = node.topic(1).await;
        node.append(&topic, 0, &["a", "b"]).await;
        let mut consumer = Consumer::start(&node.config(), ConsumerOptions::new("outage", &topic)).unwrap();
        let mut first = consumer.next_assignment().await.unwrap().unwrap();
        first.lease().commit(1, "").await.unwrap();

        node.kafka.kill().await;
        while first.next().await.unwrap().is_some() {}
        let (late, epoch) = (first.lease(), first.assignment().epoch);
        assert!(matches!(late.commit(2, "").await, Err(LogError::NotOwner { .. })));
        drop((first, late));

        node.kafka.restart().await.unwrap();
        let mut second = consumer.next_assignment().await.unwrap().unwrap();
        assert!(second.assignment().epoch > epoch);
        let Some(Read::Record(record)) = second.next().await.unwrap() else { panic!("a record") };
        assert_eq!((record.position.offset, record.payload.as_deref()), (1, Some(&b"b"[..])));
        drop(second);
        consumer.close().await;
    });
}

/// A member that waits for a commit's answer for two seconds, and whose session outlives the silence: nothing else ends the
/// wait.
fn impatient(node: &Node, group: &str, topic: &str) -> (KafkaConfig, ConsumerOptions) {
    let config = KafkaConfig { session_timeout_ms: 30_000, ..node.config() };
    let options =
        ConsumerOptions { commit_budget: Duration::from_secs(2), ..ConsumerOptions::new(group, topic) };
    (config, options)
}

/// INV-4: an unanswered commit is taken neither for done nor for not done.
#[test]
fn nothing_is_committed_behind_a_commit_that_is_not_answered() {
    on_own_kafka(|node| async move {
        let topic = node.topic(1).await;
        node.append(&topic, 0, &["a", "b", "c"]).await;
        let (config, options) = impatient(&node, "frozen", &topic);
        let mut consumer = Consumer::start(&config, options.clone()).unwrap();
        let partition = consumer.next_assignment().await.unwrap().unwrap();
        let lease = partition.lease();
        lease.commit(1, "").await.unwrap();

        node.kafka.pause();
        for (offset, note) in [(2, "a note"), (3, "behind it")] {
            let unknown = lease.commit(offset, note).await;
            assert!(matches!(unknown, Err(LogError::Unavailable { .. })), "{unknown:?}");
        }
        assert!(lease.is_active(), "the partition stays with its owner");
        node.kafka.resume();

        // One connection carries both in order: had the second been sent, it would have been carried out by now.
        let settled = loop {
            match lease.settled().await {
                Ok(settled) => break settled,
                Err(error) => println!("asked again: {error}"),
            }
        };
        assert_eq!(settled, Some(2));
        let lost = lease.commit(1, "").await;
        assert!(matches!(lost, Err(LogError::CommitBackwards { asked: 1, committed: 2 })), "{lost:?}");
        lease.commit(3, "later").await.unwrap();
        drop((partition, lease));
        consumer.close().await;

        let mut next = Consumer::start(&config, options).unwrap();
        let partition = next.next_assignment().await.unwrap().unwrap();
        let committed = Committed { offset: 3, metadata: "later".to_owned() };
        assert_eq!(partition.assignment().committed, Some(committed));
        drop(partition);
        next.close().await;
    });
}

/// The cluster stays silent: whoever gives its partition up is not held back, and its late commit harms nobody.
#[test]
fn a_partition_with_an_unanswered_commit_can_be_given_up() {
    on_own_kafka(|node| async move {
        let topic = node.topic(1).await;
        node.append(&topic, 0, &["a", "b", "c"]).await;
        let (config, options) = impatient(&node, "given-up", &topic);
        let mut consumer = Consumer::start(&config, options.clone()).unwrap();
        let partition = consumer.next_assignment().await.unwrap().unwrap();
        let lease = partition.lease();

        node.kafka.pause();
        assert!(matches!(lease.commit(2, "a note").await, Err(LogError::Unavailable { .. })));
        let closing = node.spawn(consumer.close());
        lease.revoked().await;
        // It may still be carried out, so none may come after it, and the rebalance is not kept waiting a second time.
        assert!(matches!(lease.commit(3, "").await, Err(LogError::NotOwner { .. })));
        drop((partition, lease));
        node.kafka.resume();
        closing.await.unwrap();

        let mut next = Consumer::start(&config, options.clone()).unwrap();
        let partition = next.next_assignment().await.unwrap().unwrap();
        let note = Committed { offset: 2, metadata: "a note".to_owned() };
        let found = &partition.assignment().committed;
        assert!(found.as_ref().is_none_or(|found| *found == note), "{found:?}");
        partition.lease().commit(3, "later").await.unwrap();
        drop(partition);
        next.close().await;

        // Whatever the next owner found, nothing has come behind its back since.
        let mut last = Consumer::start(&config, options).unwrap();
        let partition = last.next_assignment().await.unwrap().unwrap();
        let later = Committed { offset: 3, metadata: "later".to_owned() };
        assert_eq!(partition.assignment().committed, Some(later));
        drop(partition);
        last.close().await;
    });
}
