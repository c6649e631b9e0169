//! Groups: starting positions, commits, rebalances.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fleetlog_log::{
    AssignedPartition, Committed, Consumer, ConsumerOptions, KafkaConfig, LogError, Read, Start,
};
use fleetlog_schemas::id::Position;
use rdkafka::TopicPartitionList;
use rdkafka::admin::AdminOptions;
use rdkafka::topic_partition_list::Offset;
use tokio::task::JoinSet;

use crate::node::{Node, on_kafka};

fn member(node: &Node, topic: &str) -> Consumer {
    Consumer::start(&node.config(), ConsumerOptions::new(format!("group-of-{topic}"), topic)).unwrap()
}

async fn take(consumer: &mut Consumer) -> AssignedPartition {
    consumer.next_assignment().await.unwrap().expect("an assignment")
}

/// Reads until the end of the log.
async fn read_all(partition: &mut AssignedPartition) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(Read::Record(record)) = partition.next().await.unwrap() {
        seen.push(String::from_utf8(record.payload.unwrap().to_vec()).unwrap());
    }
    seen
}

#[test]
fn a_new_group_starts_at_the_beginning_and_its_successor_where_it_stopped() {
    on_kafka(|node| async move {
        let topic = node.topic(1).await;
        node.append(&topic, 0, &["a", "b", "c"]).await;

        let mut first = member(node, &topic);
        let mut partition = take(&mut first).await;
        assert_eq!(partition.assignment().start, Start::Fresh);
        assert_eq!(read_all(&mut partition).await, ["a", "b", "c"]);
        partition.lease().commit(2, "{\"attempt\":1}").await.unwrap();
        drop(partition);
        first.close().await;

        let mut second = member(node, &topic);
        let mut partition = take(&mut second).await;
        let committed = Committed { offset: 2, metadata: "{\"attempt\":1}".to_owned() };
        assert_eq!(partition.assignment().start, Start::Resumed);
        assert_eq!(partition.assignment().committed, Some(committed));
        assert_eq!(read_all(&mut partition).await, ["c"]);
        assert_eq!(partition.lease().log_range().await.unwrap(), 0..3);
        drop(partition);
        second.close().await;
    });
}

#[test]
fn a_reader_at_the_end_gets_what_is_written_later() {
    on_kafka(|node| async move {
        let topic = node.topic(1).await;
        let mut consumer = member(node, &topic);
        let mut partition = take(&mut consumer).await;
        assert_eq!(partition.next().await.unwrap(), Some(Read::CaughtUp));
        node.append(&topic, 0, &["late"]).await;
        assert_eq!(read_all(&mut partition).await, ["late"]);
        drop(partition);
        consumer.close().await;
    });
}

#[test]
fn records_deleted_before_they_were_settled_are_reported_as_lost() {
    on_kafka(|node| async move {
        let topic = node.topic(1).await;
        node.append(&topic, 0, &["a", "b", "c"]).await;
        let mut consumer = member(node, &topic);
        let partition = take(&mut consumer).await;
        partition.lease().commit(1, "").await.unwrap();
        drop(partition);
        consumer.close().await;

        let mut until = TopicPartitionList::new();
        until.add_partition_offset(&topic, 0, Offset::Offset(2)).unwrap();
        node.admin().delete_records(&until, &AdminOptions::new()).await.unwrap();

        let mut consumer = member(node, &topic);
        let mut partition = take(&mut consumer).await;
        assert_eq!(partition.assignment().start, Start::Lost { from: 1, to: 2 });
        assert_eq!(read_all(&mut partition).await, ["c"]);
        drop(partition);
        consumer.close().await;
    });
}

/// INV-4.4: no partition is worked on by two members.
#[test]
fn a_partition_moves_only_after_its_work_has_stopped_and_committed() {
    on_kafka(|node| async move {
        let topic = node.topic(2).await;
        for partition in [0, 1] {
            node.append(&topic, partition, &["a", "b"]).await;
        }
        let mut first = member(node, &topic);
        let stopped: Arc<[AtomicBool; 2]> = Arc::default();
        for _ in 0..2 {
            let mut partition = take(&mut first).await;
            let stopped = Arc::clone(&stopped);
            node.spawn(async move {
                while partition.next().await.unwrap().is_some() {}
                // What the work still has to do when the partition is taken away.
                partition.lease().commit(2, "").await.unwrap();
                let index = usize::try_from(partition.assignment().partition).unwrap();
                stopped[index].store(true, Ordering::SeqCst);
            });
        }

        let mut second = member(node, &topic);
        let moved = take(&mut second).await;
        let index = usize::try_from(moved.assignment().partition).unwrap();
        assert!(stopped[index].load(Ordering::SeqCst), "moved while being worked on");
        assert!(!stopped[1 - index].load(Ordering::SeqCst), "the other partition must not be disturbed");
        assert_eq!(moved.assignment().offset, 2);
        drop(moved);
        second.close().await;
        first.close().await;
    });
}

/// INV-4.4: a commit is refused once its assignment has ended.
#[test]
fn work_that_ignores_a_revocation_can_commit_no_more() {
    on_kafka(|node| async move {
        let topic = node.topic(1).await;
        let options = ConsumerOptions {
            revocation_budget: Duration::from_millis(100),
            ..ConsumerOptions::new(format!("group-of-{topic}"), &topic)
        };
        let mut consumer = Consumer::start(&node.config(), options).unwrap();
        let lease = take(&mut consumer).await.lease();
        consumer.close().await;
        assert!(!lease.is_active());
        assert!(matches!(lease.commit(0, "").await, Err(LogError::NotOwner { .. })));
    });
}

#[test]
fn nothing_is_committed_backwards_nor_with_too_much_metadata() {
    on_kafka(|node| async move {
        let topic = node.topic(1).await;
        node.append(&topic, 0, &["a", "b", "c"]).await;
        let mut consumer = member(node, &topic);
        let partition = take(&mut consumer).await;
        let lease = partition.lease();
        lease.commit(2, &"m".repeat(4096)).await.unwrap();
        lease.commit(2, "again").await.unwrap();
        let back = lease.commit(1, "").await;
        assert!(matches!(back, Err(LogError::CommitBackwards { asked: 1, committed: 2 })), "{back:?}");
        let long = lease.commit(3, &"m".repeat(4097)).await;
        assert!(matches!(long, Err(LogError::MetadataTooLong(4097))), "{long:?}");
        drop((partition, lease));
        consumer.close().await;
    });
}

#[test]
fn an_unread_partition_does_not_hold_up_another() {
    on_kafka(|node| async move {
        let topic = node.topic(2).await;
        for partition in [0, 1] {
            node.append(&topic, partition, &["a"]).await;
        }
        let mut consumer = member(node, &topic);
        let stalled = take(&mut consumer).await;
        let mut read = take(&mut consumer).await;
        assert_eq!(read_all(&mut read).await, ["a"]);
        let end = node.append(&topic, read.assignment().partition, &["b"]).await;
        assert_eq!(end, [Position { partition: read.assignment().partition, offset: 1 }]);
        assert_eq!(read_all(&mut read).await, ["b"]);
        drop((stalled, read));
        consumer.close().await;
    });
}

/// Commits as fast as it can for as long as the partition is its own.
async fn commit_on(partition: AssignedPartition) {
    let lease = partition.lease();
    while lease.is_active() {
        match lease.commit(0, "").await {
            Ok(()) => {}
            Err(LogError::NotOwner { .. }) if !lease.is_active() => {}
            Err(error) => panic!("refused although the partition is still assigned: {error}"),
        }
    }
}

/// Others come and go: a partition that stays with its owner is never given up by mistake, or nobody would work on it.
#[test]
fn a_commit_is_refused_only_when_the_partition_really_goes() {
    on_kafka(|node| async move {
        let topic = node.topic(2).await;
        let mut owner = member(node, &topic);
        let first = take(&mut owner).await;
        let done = Arc::new(tokio::sync::Notify::new());
        let told = Arc::clone(&done);
        let working = node.spawn(async move {
            let mut workers = JoinSet::from_iter([commit_on(first)]);
            loop {
                tokio::select! {
                    assigned = owner.next_assignment() => {
                        workers.spawn(commit_on(assigned.unwrap().expect("an assignment")));
                    }
                    () = told.notified() => break,
                }
            }
            owner.close().await;
            while let Some(worked) = workers.join_next().await {
                worked.unwrap();
            }
        });
        for _ in 0..3 {
            let mut other = member(node, &topic);
            drop(take(&mut other).await);
            other.close().await;
        }
        done.notify_one();
        working.await.unwrap();
    });
}

/// Static membership: a restart moves no partition, neither its own nor another's.
#[test]
fn a_member_with_a_name_that_starts_again_gets_its_partition_back_and_disturbs_nobody() {
    on_kafka(|node| async move {
        let topic = node.topic(2).await;
        let named = |name: &str| {
            let options = ConsumerOptions::new(format!("group-of-{topic}"), &topic);
            let config = KafkaConfig {
                instance_id: name.to_owned(),
                // So long its partition would lie idle if the group had to notice that it is gone.
                session_timeout_ms: 60_000,
                ..node.config()
            };
            Consumer::start(&config, options).unwrap()
        };
        let mut one = named("one");
        let mut working = JoinSet::new();
        for _ in 0..2 {
            let mut partition = take(&mut one).await;
            working.spawn(async move { while partition.next().await.unwrap().is_some() {} });
        }
        let mut two = named("two");
        let kept = take(&mut two).await;
        one.close().await;
        while let Some(worked) = working.join_next().await {
            worked.unwrap();
        }

        let asked = Instant::now();
        let mut again = named("one");
        let back = take(&mut again).await;
        assert!(asked.elapsed() < Duration::from_secs(30), "waited for the session of the one before");
        assert_ne!(back.assignment().partition, kept.assignment().partition);
        assert!(kept.lease().is_active(), "the other keeps its own throughout");
        drop(back);
        again.close().await;
        drop(kept);
        two.close().await;
    });
}
