//! Exactly-once output: what is seen, by whom, and after which end of the writer (INV-3).

use std::time::Duration;

use fleetlog_log::{
    AssignedPartition, Consumer, ConsumerOptions, From, Isolation, KafkaConfig, LogError, Read, Start, Tail,
    TailRead, TransactionLog, Transactor, Unit, Write,
};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};

use crate::node::{Node, on_kafka, on_own_kafka};

/// Topics of a test: what is read and what is written, the latter named for as long as the program runs.
struct Topics {
    source: String,
    sink: &'static str,
}

impl Topics {
    async fn of(node: &Node) -> Self {
        let topics = Self { source: node.topic(1).await, sink: node.topic(2).await.leak() };
        node.append(&topics.source, 0, &["a", "b", "c"]).await;
        topics
    }

    fn group(&self) -> String {
        format!("group-of-{}", self.source)
    }

    /// A member whose only partition has been read to its end.
    async fn member(&self, config: &KafkaConfig, budget: Duration) -> (Consumer, AssignedPartition) {
        let options =
            ConsumerOptions { revocation_budget: budget, ..ConsumerOptions::new(self.group(), &self.source) };
        let mut consumer = Consumer::start(config, options).unwrap();
        let mut partition = consumer.next_assignment().await.unwrap().expect("an assignment");
        while let Some(Read::Record(_)) = partition.next().await.unwrap() {}
        (consumer, partition)
    }

    fn unit(&self, partition: &AssignedPartition, next_offset: i64, payload: &str) -> Unit {
        let write = |n| Write { topic: self.sink, partition: n, payload: payload.as_bytes().to_vec() };
        Unit { lease: partition.lease(), next_offset, writes: vec![write(0), write(1)] }
    }

    /// What a reader of committed records sees of the sink.
    async fn seen(&self, config: &KafkaConfig) -> Vec<String> {
        let from = [(0, From::Beginning), (1, From::Beginning)];
        let tail = Tail::open(config, self.sink, from, Isolation::Committed).unwrap();
        let (mut seen, mut ended) = (Vec::new(), [false; 2]);
        while ended.contains(&false) {
            match tail.next().await.unwrap() {
                TailRead::Record(record) => {
                    seen.push(String::from_utf8(record.payload.unwrap().to_vec()).unwrap());
                }
                TailRead::CaughtUp { partition } => ended[usize::try_from(partition).unwrap()] = true,
            }
        }
        seen
    }
}

const LONG: Duration = Duration::from_secs(30);

/// A transactor whose transactions run beside the test until it is dropped.
fn transactor(node: &Node, config: &KafkaConfig, topics: &Topics) -> Transactor {
    let (transactor, log) = TransactionLog::new(config, &topics.group(), 1_000_000);
    node.spawn(log.run());
    transactor
}

#[test]
fn records_and_the_offset_that_caused_them_are_committed_together() {
    on_kafka(|node| async move {
        let (topics, config) = (Topics::of(node).await, node.config());
        let (consumer, partition) = topics.member(&config, LONG).await;
        transactor(node, &config, &topics).commit(topics.unit(&partition, 2, "x")).await.unwrap();
        assert_eq!(topics.seen(&config).await, ["x", "x"]);
        drop(partition);
        consumer.close().await;

        let (consumer, partition) = topics.member(&config, LONG).await;
        assert_eq!((partition.assignment().start, partition.assignment().offset), (Start::Resumed, 2));
        drop(partition);
        consumer.close().await;
    });
}

#[test]
fn units_that_wait_together_are_all_committed_and_the_highest_offset_stands() {
    on_kafka(|node| async move {
        let (topics, config) = (Topics::of(node).await, node.config());
        let (consumer, partition) = topics.member(&config, LONG).await;
        let transactor = transactor(node, &config, &topics);
        let commits = (1..=3).map(|n| transactor.commit(topics.unit(&partition, n, &n.to_string())));
        for outcome in futures::future::join_all(commits).await {
            outcome.unwrap();
        }
        let mut seen = topics.seen(&config).await;
        seen.sort();
        assert_eq!(seen, ["1", "1", "2", "2", "3", "3"]);
        drop(partition);
        consumer.close().await;
        let (consumer, partition) = topics.member(&config, LONG).await;
        assert_eq!(partition.assignment().offset, 3);
        drop(partition);
        consumer.close().await;
    });
}

#[test]
fn what_a_killed_process_left_open_is_seen_by_nobody_and_holds_up_no_successor_of_its_name() {
    on_kafka(|node| async move {
        let topics = Topics::of(node).await;
        let config = KafkaConfig { instance_id: "one".to_owned(), ..node.config() };
        let killed: ThreadedProducer<_> = ClientConfig::new()
            .set("bootstrap.servers", &config.brokers)
            .set("transactional.id", format!("{}-one", topics.group()))
            .set("transaction.timeout.ms", "600000")
            .set("message.timeout.ms", "60000")
            .create()
            .unwrap();
        killed.init_transactions(LONG).unwrap();
        killed.begin_transaction().unwrap();
        killed
            .send(BaseRecord::<(), str>::to(topics.sink).partition(0).payload("ghost"))
            .map_err(|(e, _)| e)
            .unwrap();
        killed.flush(LONG).unwrap();

        let (consumer, partition) = topics.member(&config, LONG).await;
        transactor(node, &config, &topics).commit(topics.unit(&partition, 3, "real")).await.unwrap();
        // Ten minutes of the open transaction would be left; the successor has ended it.
        assert_eq!(topics.seen(&config).await, ["real", "real"]);
        assert!(killed.commit_transaction(LONG).is_err(), "the killed process is fenced");
        drop(partition);
        consumer.close().await;
    });
}

/// INV-4.4: the generation alone would not refuse it.
#[test]
fn a_unit_whose_assignment_has_ended_is_refused_and_writes_nothing() {
    on_kafka(|node| async move {
        let (topics, config) = (Topics::of(node).await, node.config());
        let (consumer, partition) = topics.member(&config, Duration::from_millis(1)).await;
        // Its work does not stop within the budget, so the partition is given back without it.
        consumer.close().await;
        let refused = transactor(node, &config, &topics).commit(topics.unit(&partition, 3, "late")).await;
        assert!(matches!(refused, Err(LogError::NotOwner { .. })), "{refused:?}");
        assert_eq!(topics.seen(&config).await, [""; 0]);
        drop(partition);

        let (consumer, partition) = topics.member(&config, LONG).await;
        assert_eq!(partition.assignment().start, Start::Fresh);
        drop(partition);
        consumer.close().await;
    });
}

#[test]
fn a_message_above_the_bound_is_refused_without_harm_to_others() {
    on_kafka(|node| async move {
        let (topics, config) = (Topics::of(node).await, node.config());
        let (consumer, partition) = topics.member(&config, LONG).await;
        let transactor = transactor(node, &config, &topics);
        let large = topics.unit(&partition, 1, &"x".repeat(1_000_001));
        assert!(matches!(transactor.commit(large).await, Err(LogError::TooLarge { bytes: 1_000_001 })));
        transactor.commit(topics.unit(&partition, 1, "small")).await.unwrap();
        assert_eq!(topics.seen(&config).await, ["small", "small"]);
        drop(partition);
        consumer.close().await;
    });
}

/// A silent cluster must not make a member overrun what a rebalance grants it: nobody would get the partition.
#[test]
fn a_cluster_that_falls_silent_keeps_no_rebalance_waiting() {
    on_own_kafka(|node| async move {
        let topics = Topics::of(&node).await;
        let config =
            KafkaConfig { session_timeout_ms: 60_000, transaction_timeout_ms: 4_000, ..node.config() };
        let (consumer, partition) = topics.member(&config, LONG).await;
        let transactor = transactor(&node, &config, &topics);
        transactor.commit(topics.unit(&partition, 1, "before")).await.unwrap();
        let (another, noted) = Topics::of(&node).await.member(&config, LONG).await;

        node.kafka.pause();
        let waiting = node.spawn({
            let (transactor, unit) = (transactor.clone(), topics.unit(&partition, 2, "during"));
            async move { transactor.commit(unit).await }
        });
        let noting = node.spawn(async move { noted.lease().commit(1, "a note").await });
        drop(partition);
        let asked = std::time::Instant::now();
        let closing = [node.spawn(consumer.close()), node.spawn(another.close())];
        let left = waiting.await.unwrap();
        assert!(matches!(left, Err(LogError::NotOwner { .. })), "{left:?}");
        assert!(noting.await.unwrap().is_err());
        assert!(asked.elapsed() < LONG, "the work stops within what the rebalance grants");
        node.kafka.resume();
        futures::future::join_all(closing).await;

        let (consumer, partition) = topics.member(&config, LONG).await;
        transactor.commit(topics.unit(&partition, 3, "after")).await.unwrap();
        let offset = partition.assignment().offset;
        let seen = topics.seen(&config).await;
        let during = seen.iter().filter(|payload| *payload == "during").count();
        assert_eq!(during, if offset == 2 { 2 } else { 0 }, "both or neither: offset {offset}, {seen:?}");
        drop(partition);
        consumer.close().await;
    });
}

/// The answer to a commit is lost, the commit is not: whoever repeats it blindly writes everything twice.
#[test]
fn a_commit_whose_outcome_is_unknown_is_not_repeated_when_it_has_happened() {
    const FREEZES: u64 = 6;
    on_own_kafka(|node| async move {
        let topics = Topics::of(&node).await;
        let config =
            KafkaConfig { session_timeout_ms: 60_000, transaction_timeout_ms: 2_000, ..node.config() };
        let (consumer, partition) = topics.member(&config, LONG).await;
        let transactor = transactor(&node, &config, &topics);
        let mut next = 1;
        for freeze in 0..FREEZES {
            // Each freeze meets the transactions at another of their steps.
            let frozen = async {
                tokio::time::sleep(Duration::from_millis(20 + 3 * freeze)).await;
                node.kafka.pause();
                tokio::time::sleep(Duration::from_secs(3)).await;
                node.kafka.resume();
            };
            tokio::pin!(frozen);
            let mut over = false;
            while !over {
                let commit = transactor.commit(topics.unit(&partition, next, &next.to_string()));
                tokio::pin!(commit);
                loop {
                    tokio::select! {
                        () = &mut frozen, if !over => over = true,
                        committed = &mut commit => break committed.unwrap(),
                    }
                }
                next += 1;
            }
        }
        let mut seen: Vec<i64> = topics.seen(&config).await.iter().map(|n| n.parse().unwrap()).collect();
        seen.sort_unstable();
        let twice: Vec<i64> = (1..next).flat_map(|n| [n, n]).collect();
        assert_eq!(seen, twice, "each is in both partitions once");
        assert_eq!(partition.lease().settled().await.unwrap(), Some(next - 1));
        drop(partition);
        consumer.close().await;
    });
}
