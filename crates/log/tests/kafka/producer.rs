//! Publishing and reading back.

use std::time::{Duration, Instant};

use fleetlog_log::{
    Admin, From, Isolation, KafkaConfig, LogError, Outgoing, Producer, Tail, TailRead, Target,
};
use fleetlog_schemas::id::Position;
use fleetlog_schemas::topic;

use crate::node::on_kafka;

fn to<'a>(topic: &'a str, payload: &'a [u8]) -> Outgoing<'a> {
    Outgoing { topic, target: Target::Partition(0), key: None, payload: Some(payload) }
}

#[test]
fn topics_are_created_once_and_keep_their_partitions() {
    on_kafka(|node| async move {
        let more = KafkaConfig { events_partitions: 9, ..node.config() };
        let topics = Admin::new(&more).unwrap().ensure_topics().await.unwrap();
        assert_eq!((topics.raw, topics.events, topics.dead, topics.control), (4, 4, 4, 1));
    });
}

#[test]
fn a_delivered_record_is_at_its_position() {
    on_kafka(|node| async move {
        let topic = node.topic(2).await;
        node.append(&topic, 1, &["before"]).await;
        let positions = node.append(&topic, 1, &["this one"]).await;
        assert_eq!(positions, [Position { partition: 1, offset: 1 }]);
        let tail = Tail::open(&node.config(), &topic, [(1, From::Offset(1))], Isolation::Committed).unwrap();
        let TailRead::Record(record) = tail.next().await.unwrap() else { panic!("expected the record") };
        assert_eq!((record.position, record.payload.as_deref()), (positions[0], Some(&b"this one"[..])));
        assert_eq!(tail.next().await.unwrap(), TailRead::CaughtUp { partition: 1 });
    });
}

#[test]
fn a_position_that_is_not_in_the_log_is_an_error() {
    on_kafka(|node| async move {
        let topic = node.topic(1).await;
        let tail = Tail::open(&node.config(), &topic, [(0, From::Offset(5))], Isolation::Committed).unwrap();
        assert!(matches!(tail.next().await, Err(LogError::PositionGone { .. })));
    });
}

#[test]
fn a_message_above_the_limit_is_refused_before_it_is_queued() {
    on_kafka(|node| async move {
        let topic = node.topic(1).await;
        let producer = Producer::new(&node.config(), 1_000_000).unwrap();
        let refused = producer.enqueue(to(&topic, &vec![0; 2_000_000]));
        assert!(matches!(refused, Err(LogError::TooLarge { bytes: 2_000_000 })), "{refused:?}");
    });
}

#[test]
fn the_largest_event_record_travels_both_ways() {
    on_kafka(|node| async move {
        // Not compressible, so that no step gets away with less.
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let payload: Vec<u8> = (0..topic::EVENTS_MAX_MESSAGE_BYTES).map(|_| next()).collect();
        let producer = Producer::new(&node.config(), topic::EVENTS_MAX_MESSAGE_BYTES).unwrap();
        let position = producer.enqueue(to(topic::EVENTS, &payload)).unwrap().await.unwrap();
        let from = From::Offset(position.offset);
        let tail = Tail::open(&node.config(), topic::EVENTS, [(0, from)], Isolation::Committed).unwrap();
        let TailRead::Record(record) = tail.next().await.unwrap() else { panic!("expected the record") };
        assert!(record.payload.as_deref() == Some(&payload[..]), "the bytes differ");
    });
}

/// INV-9: the producer's queue has a bound and says so.
#[test]
fn a_full_queue_refuses_at_once_and_what_it_holds_fails_in_bounded_time() {
    on_kafka(|_| async move {
        let nowhere = KafkaConfig {
            brokers: "127.0.0.1:1".to_owned(),
            queue_max_records: 2,
            delivery_timeout_ms: 1_000,
            ..KafkaConfig::default()
        };
        let producer = Producer::new(&nowhere, 1_000_000).unwrap();
        let first = producer.enqueue(to("t", b"1")).unwrap();
        producer.enqueue(to("t", b"2")).unwrap();
        let asked = Instant::now();
        assert!(matches!(producer.enqueue(to("t", b"3")), Err(LogError::QueueFull)));
        assert!(asked.elapsed() < Duration::from_millis(500), "enqueue must not wait");
        assert!(matches!(first.await, Err(LogError::NotAcknowledged(_))));
        producer.flush(Duration::from_secs(10)).await.unwrap();
    });
}
