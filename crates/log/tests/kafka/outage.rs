//! The broker killed and started again, under a consumer and a producer that stay.

use fleetlog_log::{Consumer, ConsumerOptions, KafkaConfig, LogError, Outgoing, Producer, Read, Target};
use fleetlog_schemas::topic;

use crate::node::{Node, run};

fn record(payload: &[u8]) -> Outgoing<'_> {
    Outgoing { topic: topic::RAW, target: Target::Partition(0), key: None, payload: Some(payload) }
}

#[test]
fn what_was_acknowledged_survives_a_kill_and_commits_wait_it_out() {
    run(async {
        let mut node = match Node::start().await {
            Ok(node) => node,
            Err(why) => return println!("skipped: Kafka cannot be had here: {why}"),
        };
        // An outage longer than the session would end the assignment instead.
        let config = KafkaConfig { delivery_timeout_ms: 60_000, session_timeout_ms: 60_000, ..node.config() };
        let producer = Producer::new(&config, topic::RAW_MAX_MESSAGE_BYTES).unwrap();
        producer.enqueue(record(b"before")).unwrap().await.unwrap();
        let mut consumer = Consumer::start(&config, ConsumerOptions::new("outage", topic::RAW)).unwrap();
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
    run(async {
        let mut node = match Node::start().await {
            Ok(node) => node,
            Err(why) => return println!("skipped: Kafka cannot be had here: {why}"),
        };
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
