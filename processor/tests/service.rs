//! The processor as a service, on a real Kafka node: what goes into the raw topic comes out once, balanced, a second run
//! goes on where the first one stopped, and a record that ends the process does so a bounded number of times.
#![cfg(test)]

use std::collections::BTreeMap;
use std::time::Duration;

use fleetlog_engines::{EngineCache, KafkaNode, KafkaOptions, Progress};
use fleetlog_log::{Admin, From, Isolation, KafkaConfig, Outgoing, Producer, Tail, TailRead, Target};
use fleetlog_processor::{Config, ProcessorConfig, run, run_watched};
use fleetlog_runtime::{Clock, Deps, Health, Shutdown, TelemetryConfig, init_telemetry};
use fleetlog_schemas::avro::{Blob, from_single_object, to_single_object};
use fleetlog_schemas::event::{AgentEvent, EventType, UsageRole};
use fleetlog_schemas::id::{NanoUsd, Position};
use fleetlog_schemas::record::{DeadLetter, DeadReason, EventBatch, RawBatch, Route, Settlement};
use fleetlog_schemas::topic;

/// Longest that anything awaited here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const CLAUDE_LOGS: &[u8] = include_bytes!("../../crates/formats/tests/fixtures/claude-code-2.1/logs.json");
/// Never a real one: pieced together so that no scanner takes it for such.
const SECRET: &str = concat!("sk-", "ant-", "a1B2c3D4e5F6g7H8i9J0");

fn raw(route: Route, records: u32, payload: Vec<u8>) -> RawBatch {
    RawBatch {
        project_id: "p1".into(),
        request_id: "r1".into(),
        received_at: 1_800_000_000_000_000_000,
        route,
        content_type: "application/json".into(),
        record_count: records,
        pieces: 1,
        payload: Blob(payload),
        ..RawBatch::default()
    }
}

/// What the raw topic is given, and how many records the gateway counted in all of it.
fn inputs() -> (Vec<Vec<u8>>, u32) {
    let zipped = zstd::encode_all(CLAUDE_LOGS, 3).unwrap();
    let claude = RawBatch { content_encoding: "zstd".into(), ..raw(Route::OtlpLogs, 30, zipped) };
    let secret = format!(r#"[{{"type":"log","data":{{"key":"{SECRET}"}}}},{{"type":7}},{{"type":"odd"}}]"#);
    let universal = RawBatch { rejected: vec![1], ..raw(Route::Events, 3, secret.into_bytes()) };
    let broken = RawBatch { content_encoding: "gzip".into(), ..raw(Route::Events, 5, b"no gzip".to_vec()) };
    let mut payloads: Vec<Vec<u8>> =
        [claude, universal, broken].iter().map(|batch| to_single_object(batch).unwrap()).collect();
    payloads.push(b"not even an envelope".to_vec());
    (payloads, 30 + 2 + 5)
}

async fn append(kafka: &KafkaConfig, payloads: &[Vec<u8>]) -> Vec<Position> {
    let producer = Producer::new(kafka, topic::RAW_MAX_MESSAGE_BYTES).unwrap();
    let mut positions = Vec::new();
    for (payload, partition) in payloads.iter().zip((0..4).cycle()) {
        let target = Target::Partition(partition);
        let record = Outgoing { topic: topic::RAW, target, key: None, payload: Some(payload) };
        positions.push(producer.enqueue(record).unwrap().await.unwrap());
    }
    positions
}

/// Everything the processor has written.
#[derive(Default)]
struct Output {
    events: Vec<AgentEvent>,
    settlements: BTreeMap<Position, Vec<Settlement>>,
    dead: Vec<DeadLetter>,
}

impl Output {
    /// Whether every position has its settlement, and every event that a settlement counts is there: they may lie in
    /// different partitions, which are read in any order.
    fn is_complete(&self, positions: &[Position]) -> bool {
        let counted: u32 = self.settlements.values().flatten().map(|settlement| settlement.events).sum();
        positions.iter().all(|position| self.settlements.contains_key(position))
            && self.events.len() >= counted as usize
    }

    /// Reads both topics until all of it is there, and all dead letters.
    async fn read(kafka: &KafkaConfig, positions: &[Position], letters: usize) -> Self {
        let mut output = Self::default();
        let all =
            |topic| Tail::open(kafka, topic, (0..4).map(|n| (n, From::Beginning)), Isolation::Committed);
        let events = all(topic::EVENTS).unwrap();
        while !output.is_complete(positions) {
            if let TailRead::Record(record) = events.next().await.unwrap() {
                let batch: EventBatch = from_single_object(record.payload.as_deref().unwrap()).unwrap();
                output.events.extend(batch.events);
                for settlement in batch.settlements {
                    output.settlements.entry(settlement.position()).or_default().push(settlement);
                }
            }
        }
        let dead = all(topic::DEAD).unwrap();
        while output.dead.len() < letters {
            if let TailRead::Record(record) = dead.next().await.unwrap() {
                output.dead.push(from_single_object(record.payload.as_deref().unwrap()).unwrap());
            }
        }
        output
    }
}

/// Runs the processor while `body` does, then stops it.
async fn with_processor<T>(kafka: &KafkaConfig, body: impl Future<Output = T>) -> T {
    with_cycles_of(ProcessorConfig::default().cycle_max_output_bytes, kafka, body).await
}

/// The same, with cycles that make no more than that many bytes, or one record's.
async fn with_cycles_of<T>(
    cycle_max_output_bytes: usize,
    kafka: &KafkaConfig,
    body: impl Future<Output = T>,
) -> T {
    let processor = ProcessorConfig { cycle_max_output_bytes, ..ProcessorConfig::default() };
    let config = Config { kafka: kafka.clone(), processor, ..Config::default() };
    let metrics = init_telemetry(&TelemetryConfig::default()).unwrap();
    let deps = Deps { clock: Clock::manual(7), health: Health::new(), metrics };
    let shutdown = Shutdown::new();
    let stop = shutdown.clone();
    let (ended, result) = tokio::join!(run(config, deps, shutdown), async {
        let result = tokio::time::timeout(PATIENCE, body).await;
        stop.trigger();
        result
    });
    ended.unwrap();
    result.expect("the processor takes too long")
}

fn assert_output(output: &Output, positions: &[Position], records: u32) {
    for position in positions {
        let settlements = &output.settlements[position];
        assert_eq!(settlements.len(), 1, "{position} is settled once");
        assert!(settlements[0].balances(), "{:?}", settlements[0]);
    }
    let settled: u32 = output.settlements.values().flatten().map(|settlement| settlement.records).sum();
    assert_eq!(settled, records);
    let calls: Vec<_> = output.events.iter().filter(|event| event.usage_role == UsageRole::Call).collect();
    assert_eq!(calls.len(), 8);
    let computed: i64 = calls.iter().filter_map(|call| call.cost_computed).map(|cost| cost.0).sum();
    let reported: i64 = calls.iter().filter_map(|call| call.cost_reported).map(|cost| cost.0).sum();
    assert_eq!((NanoUsd(computed), NanoUsd(reported)), (NanoUsd(21_144_000), NanoUsd(21_144_000)));
    assert!(output.events.iter().all(|event| !event.data.contains(SECRET)));
    assert_eq!(output.events.iter().map(|event| event.redactions).sum::<u32>(), 1);
    let unknown = output.events.iter().filter(|event| event.event_type == EventType::RawUnknown);
    assert_eq!(unknown.map(|event| event.name.as_str()).collect::<Vec<_>>(), ["odd"]);
    let mut reasons: Vec<_> = output.dead.iter().map(|dead| (dead.reason, dead.records)).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, [(DeadReason::BadCompression, 5), (DeadReason::BadEnvelope, 0)]);
}

/// Runs a test on a Kafka node of its own that has the topics; skips it where Kafka cannot be had.
fn on_kafka<F: Future<Output = ()>>(test: impl FnOnce(KafkaConfig) -> F) {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let lib = match EngineCache::of_user().and_then(|cache| cache.kafka(&Progress::quiet())) {
            Ok(lib) => lib,
            Err(why) => {
                println!("skipped: Kafka cannot be had here: {why}");
                return;
            }
        };
        let data = tempfile::tempdir().unwrap();
        let options = KafkaOptions { heap_mb: 256, ..KafkaOptions::new(lib, data.path()) };
        let node = KafkaNode::start(options).await.unwrap();
        let kafka =
            KafkaConfig { brokers: node.bootstrap(), session_timeout_ms: 6_000, ..KafkaConfig::default() };
        Admin::new(&kafka).unwrap().ensure_topics().await.unwrap();
        test(kafka).await;
        node.stop(PATIENCE).await;
    });
}

#[test]
fn raw_records_come_out_once_and_a_second_run_goes_on_where_the_first_stopped() {
    on_kafka(|kafka| async move {
        let (payloads, records) = inputs();
        let positions = append(&kafka, &payloads).await;
        let first = with_processor(&kafka, Output::read(&kafka, &positions, 2)).await;
        assert_output(&first, &positions, records);

        let later = append(
            &kafka,
            &[to_single_object(&raw(Route::Events, 1, br#"{"type":"log"}"#.to_vec())).unwrap()],
        )
        .await;
        let second = with_processor(&kafka, Output::read(&kafka, &later, 2)).await;
        assert_eq!(second.events.len(), first.events.len() + 1, "nothing is repeated after an orderly stop");
        assert_eq!(second.settlements.len(), positions.len() + 1);
        assert_eq!(second.dead.len(), first.dead.len());
    });
}

#[test]
fn records_that_one_cycle_leaves_are_settled_by_the_next_each_once() {
    on_kafka(|kafka| async move {
        let (payloads, records) = inputs();
        let positions = append(&kafka, &payloads).await;
        let output = with_cycles_of(1, &kafka, Output::read(&kafka, &positions, 2)).await;
        assert_output(&output, &positions, records);
    });
}

const BROKERS_OF_CHILD: &str = "TEST_BROKERS";
/// What a record holds that ends the process.
const POISON: &[u8] = b"swallow me";

/// As a decoder's stack overflow would: nothing catches it.
fn abort_on_poison(payload: &[u8]) {
    if payload.windows(POISON.len()).any(|window| window == POISON) {
        std::process::abort();
    }
}

/// Not a test of its own: the process that the next test starts, again and again.
#[test]
#[ignore = "run by the test of poison, as a process that may end"]
fn a_processor_that_poison_ends() {
    let Ok(brokers) = std::env::var(BROKERS_OF_CHILD) else { return };
    // A fixed name, as a supervisor gives it: a start takes over at once from the one that ended.
    let kafka = KafkaConfig {
        brokers,
        session_timeout_ms: 6_000,
        instance_id: "one".to_owned(),
        ..KafkaConfig::default()
    };
    let config = Config { kafka, ..Config::default() };
    let metrics = init_telemetry(&TelemetryConfig::default()).unwrap();
    let deps = Deps { clock: Clock::manual(7), health: Health::new(), metrics };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(run_watched(config, deps, Shutdown::new(), abort_on_poison)).unwrap();
}

/// Starts the process above; it is killed when it is dropped.
fn child(brokers: &str) -> tokio::process::Child {
    tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "a_processor_that_poison_ends"])
        .env(BROKERS_OF_CHILD, brokers)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// INV-8.
#[test]
fn a_record_that_ends_the_process_is_buried_after_three_tries_and_its_neighbours_are_not() {
    on_kafka(|kafka| async move {
        let good = raw(Route::Events, 1, br#"{"type":"log"}"#.to_vec());
        let poison = format!(r#"{{"type":"log","data":"{}"}}"#, String::from_utf8_lossy(POISON));
        let poison = raw(Route::Events, 1, poison.into_bytes());
        let payloads: Vec<Vec<u8>> = (0..24)
            // The partitions take turns, so it has neighbours before and behind it in its own.
            .map(|n| to_single_object(if n == 9 { &poison } else { &good }).unwrap())
            .collect();
        let positions = append(&kafka, &payloads).await;

        let deaths = std::cell::Cell::new(0);
        let dying = async {
            loop {
                let status = child(&kafka.brokers).wait().await.unwrap();
                assert!(!status.success() && deaths.get() < 10, "{status} after {} deaths", deaths.get());
                deaths.set(deaths.get() + 1);
            }
        };
        let read = tokio::time::timeout(PATIENCE, Output::read(&kafka, &positions, 1));
        let output: Output = tokio::select! {
            output = read => output.expect("the partition does not get past the record"),
            () = dying => unreachable!(),
        };

        // Once with the cycle it is in, then three times alone; and once more unnoticed, where it is not in the first.
        assert!((4..=5).contains(&deaths.get()), "{} deaths", deaths.get());
        for position in &positions {
            let [settlement] = &output.settlements[position][..] else { panic!("{position} settled twice") };
            let fate = (settlement.dead, settlement.events);
            assert_eq!(fate, if *position == positions[9] { (1, 0) } else { (0, 1) }, "{position}");
        }
        let [dead] = &output.dead[..] else { panic!("{} dead letters", output.dead.len()) };
        assert_eq!((dead.reason, dead.payload.clone()), (DeadReason::Poison, poison.payload));
    });
}
