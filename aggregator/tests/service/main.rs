//! The aggregator on a real Kafka and a real ClickHouse engine.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests")]

mod again;
mod derivations;
mod outages;
mod recomputed;
mod refusals;

use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fleetlog_aggregator::{
    AggregatorConfig, AggregatorError, Config, Rederivation, Report, Repricings, rederive, reprice, run,
};
use fleetlog_engines::{
    ClickHouseNode, ClickHouseOptions, ClickHouseProgram, EngineCache, EngineError, KafkaNode, KafkaOptions,
    Progress,
};
use fleetlog_log::{Admin, KafkaConfig, Outgoing, Producer, Target};
use fleetlog_runtime::{Clock, Deps, Health, Secret, Shutdown, TelemetryConfig, init_telemetry};
use fleetlog_schemas::avro::{Published, to_single_object};
use fleetlog_schemas::ddl::{DatabaseName, TABLES, users_config_xml};
use fleetlog_schemas::event::{Channel, Status, TimestampSource, TokenBasis, UsageRole};
use fleetlog_schemas::id::{Key128, NanoUsd};
use fleetlog_schemas::record::{DeadReason, PieceCount};
use fleetlog_schemas::{AgentEvent, DeadLetter, EventBatch, EventType, Settlement, topic};
use fleetlog_store::derived::{DerivedGroup, GroupKey, Reflected, minute_of};
use fleetlog_store::row::Row;
use fleetlog_store::{Contribution, GroupKind, ReaderLimits, Session, Store, StoreConfig, UsageRow};
use tempfile::TempDir;
use tokio::task::JoinSet;

const DEADLINE: Duration = Duration::from_secs(60);
const PROJECT: &str = "p";

#[derive(Row, serde::Deserialize, Debug, PartialEq)]
#[clickhouse(crate = "fleetlog_store::row")]
struct Counted {
    n: u64,
}

struct System {
    config: Config,
    producer: Producer,
    store: Store,
    /// The embedded engine; `None` on a configured server, which is not ours to kill.
    clickhouse: Option<ClickHouseNode>,
    running: JoinSet<Result<(), AggregatorError>>,
    shutdown: Shutdown,
    health: Health,
    kafka: KafkaNode,
    folder: TempDir,
}

/// Both engines and the aggregator; `None`, said aloud, where the engines cannot be had.
async fn system() -> Option<System> {
    system_on(None).await
}

/// The server that `FLEETLOG_TEST_CLICKHOUSE_URL` names (`_USER`, `_PASSWORD`, `_CLUSTER`), with a database of its own.
fn configured_server() -> Option<StoreConfig> {
    let of = |name: &str| std::env::var(format!("FLEETLOG_TEST_CLICKHOUSE_{name}")).unwrap_or_default();
    let base = StoreConfig::default();
    (!of("URL").is_empty()).then(|| StoreConfig {
        url: of("URL"),
        user: Some(of("USER")).filter(|user| !user.is_empty()).unwrap_or(base.user.clone()),
        password: Secret::new(of("PASSWORD")),
        cluster: of("CLUSTER"),
        database: format!("fleetlog_aggregator_{}", std::process::id()),
        ..base
    })
}

async fn system_on(server: Option<StoreConfig>) -> Option<System> {
    let engines = match EngineCache::of_user().unwrap().locate_or_fetch(&Progress::stderr()) {
        Ok(engines) => engines,
        Err(error @ (EngineError::MissingTool { .. } | EngineError::UnsupportedPlatform { .. })) => {
            println!("SKIPPED: {error}");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let users_config = folder.path().join("users.xml");
    std::fs::write(&users_config, users_config_xml(&DatabaseName::parse("fleetlog").unwrap())).unwrap();
    let program = ClickHouseProgram::Embedded { library: engines.libchdb, bridge: None };
    let clickhouse = ClickHouseOptions {
        users_config: Some(users_config),
        max_memory: 1_000_000_000,
        ..ClickHouseOptions::new(program, folder.path().join("clickhouse"))
    };
    let kafka = kafka_in(engines.kafka_lib, folder.path().join("kafka"));
    let embedded = async {
        if server.is_some() { None } else { Some(ClickHouseNode::start(clickhouse).await.unwrap()) }
    };
    let (clickhouse, kafka) = tokio::join!(embedded, KafkaNode::start(kafka));
    let kafka = kafka.unwrap();
    let stored_in = clickhouse
        .as_ref()
        .map(|node| StoreConfig { url: node.url(), ..StoreConfig::default() })
        .or(server)
        .unwrap();
    let config = Config {
        aggregator: AggregatorConfig {
            batch_wait_ms: 100,
            derive_interval_ms: 100,
            ..AggregatorConfig::default()
        },
        kafka: KafkaConfig { brokers: kafka.bootstrap(), events_partitions: 2, ..KafkaConfig::default() },
        clickhouse: stored_in,
        ..Config::default()
    };
    Admin::new(&config.kafka).unwrap().ensure_topics().await.unwrap();
    let producer = Producer::new(&config.kafka, topic::EVENTS_MAX_MESSAGE_BYTES).unwrap();
    let store = Store::new(&config.clickhouse).unwrap();
    let mut system = System {
        config,
        producer,
        store,
        clickhouse,
        running: JoinSet::new(),
        shutdown: Shutdown::new(),
        health: Health::new(),
        kafka,
        folder,
    };
    system.start();
    Some(system)
}

fn kafka_in(lib: PathBuf, folder: PathBuf) -> KafkaOptions {
    KafkaOptions { heap_mb: 256, ..KafkaOptions::new(lib, folder) }
}

impl System {
    /// Replaces Kafka by another one that knows of nothing; the aggregator is stopped.
    async fn renew_kafka(&mut self) {
        self.kafka.kill().await;
        let lib = EngineCache::of_user().unwrap().locate_or_fetch(&Progress::stderr()).unwrap().kafka_lib;
        self.kafka = KafkaNode::start(kafka_in(lib, self.folder.path().join("anew"))).await.unwrap();
        self.config.kafka.brokers = self.kafka.bootstrap();
        Admin::new(&self.config.kafka).unwrap().ensure_topics().await.unwrap();
        self.producer = Producer::new(&self.config.kafka, topic::EVENTS_MAX_MESSAGE_BYTES).unwrap();
    }

    fn start(&mut self) {
        let telemetry = TelemetryConfig { log: "warn".to_owned(), ..TelemetryConfig::default() };
        let metrics = init_telemetry(&telemetry).unwrap();
        self.health = Health::new();
        let deps = Deps { clock: Clock::system(), health: self.health.clone(), metrics };
        self.shutdown = Shutdown::new();
        self.running.spawn(run(self.config.clone(), deps, self.shutdown.clone()));
    }

    async fn stop(&mut self) {
        self.shutdown.trigger();
        self.running.join_next().await.unwrap().unwrap().unwrap();
    }

    async fn publish<R: Published>(&self, topic: &str, partition: i32, record: &R) {
        self.publish_bytes(topic, partition, &to_single_object(record).unwrap()).await;
    }

    async fn publish_bytes(&self, topic: &str, partition: i32, bytes: &[u8]) {
        let outgoing =
            Outgoing { topic, target: Target::Partition(partition), key: None, payload: Some(bytes) };
        self.producer.enqueue(outgoing).unwrap().await.unwrap();
    }

    async fn count(&self, from: &str) -> Option<u64> {
        let reader = self.store.reader(ReaderLimits::default()).await.ok()?.project(PROJECT).unwrap();
        let rows = reader.query(&format!("SELECT count() AS n FROM {from}")).fetch_all::<Counted>().await;
        rows.ok().map(|rows| rows[0].n)
    }

    /// Waits until as many rows are there, and not longer than the deadline.
    async fn becomes(&self, from: &str, wanted: u64) {
        let deadline = Instant::now() + DEADLINE;
        let mut last = None;
        while Instant::now() < deadline {
            last = self.count(from).await;
            if last == Some(wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{from}: {last:?} and not {wanted}");
    }

    /// Waits until every table is there.
    async fn migrated(&self) {
        for (table, _) in TABLES.iter().filter(|(table, _)| *table != "schema_migrations") {
            self.becomes(table, 0).await;
        }
    }

    /// Runs a statement as the engine's operator would.
    async fn operator(&self, sql: &str) {
        let url = &self.config.clickhouse.url;
        let answer = reqwest::Client::new().post(url).body(sql.to_owned()).send().await;
        let answer = answer.unwrap();
        let status = answer.status();
        assert!(status.is_success(), "{sql}: {}", answer.text().await.unwrap());
    }

    /// Recomputes everything, and writes nothing if it is a check.
    async fn rederived(&self, check: bool) -> Report {
        let what = Rederivation { check, ..Rederivation::default() };
        rederive(&self.config, &what, |_| ()).await.unwrap()
    }

    /// Waits until everything stored of the tests' project is reflected in the derivations.
    async fn derived(&self) {
        let now = Clock::system().now_ns();
        let deadline = Instant::now() + DEADLINE;
        while self.store.derived_through().await.is_ok_and(|through| through.of(PROJECT) < now) {
            assert!(Instant::now() < deadline, "the derivations do not catch up");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A call as a channel reports it.
fn call(session: &str, number: u32, channel: Channel, tokens: u64) -> AgentEvent {
    let now = Clock::system().now_ns();
    let identity = format!("{session}/{number}/{channel}");
    AgentEvent {
        event_id: identity.clone(),
        dedup_key: Key128::of([identity.as_bytes()]),
        project_id: PROJECT.to_owned(),
        channel,
        timestamp: now - 60_000_000_000,
        received_at: now,
        event_type: EventType::LlmRequest,
        status: Status::Ok,
        session_id: session.to_owned(),
        model: "m".to_owned(),
        in_uncached: tokens,
        out_visible: 1,
        usage_role: UsageRole::Call,
        token_basis: TokenBasis::AnthropicRaw,
        llm_call_key: format!("req_{number}"),
        cost_reported: (channel == Channel::AgentLog).then_some(NanoUsd(2_643_000)),
        raw_offset: i64::from(number),
        data: "{}".to_owned(),
        context: "{}".to_owned(),
        ..AgentEvent::default()
    }
}

fn batch(events: Vec<AgentEvent>) -> EventBatch {
    let settlement = Settlement {
        project_id: PROJECT.to_owned(),
        received_at: events[0].received_at,
        records: events.len() as u32,
        pieces: vec![PieceCount { partition: 0, records: events.len() as u32 }],
        ..Settlement::default()
    };
    EventBatch { events, settlements: vec![settlement] }
}

/// A full minute, the same for all spans however long the test takes: which of them is the earliest depends on it.
static SPANS_BEGIN: LazyLock<i64> =
    LazyLock::new(|| call("", 0, Channel::Span, 0).timestamp / 60_000_000_000 * 60_000_000_000);

/// A span's event: of a trace, and perhaps of a session.
fn span(trace: &str, session: &str, number: u32, second: i64) -> AgentEvent {
    AgentEvent {
        dedup_key: Key128::of([trace.as_bytes(), session.as_bytes(), &number.to_be_bytes()]),
        trace_id: trace.to_owned(),
        span_id: format!("{number:016x}"),
        name: format!("step {number}"),
        llm_call_key: format!("{trace}:{number}"),
        timestamp: *SPANS_BEGIN + second * 1_000_000_000,
        timestamp_source: TimestampSource::Event,
        ..call(session, number, Channel::Span, 7)
    }
}
