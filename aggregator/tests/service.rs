//! The aggregator on a real Kafka and a real ClickHouse engine.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests")]

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
use fleetlog_store::derived::{DerivedGroup, GroupKey, minute_of};
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
    _kafka: KafkaNode,
    _folder: TempDir,
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
    let kafka =
        KafkaOptions { heap_mb: 256, ..KafkaOptions::new(engines.kafka_lib, folder.path().join("kafka")) };
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
        _kafka: kafka,
        _folder: folder,
    };
    system.start();
    Some(system)
}

impl System {
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

    /// Waits until everything stored is reflected in the derivations.
    async fn derived(&self) {
        let now = Clock::system().now_ns();
        let deadline = Instant::now() + DEADLINE;
        while self.store.derived_through().await.is_ok_and(|through| through < now) {
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

#[tokio::test(flavor = "multi_thread")]
async fn facts_are_stored_and_calls_counted_once_however_often_they_are_reported() {
    let Some(mut system) = system().await else { return };
    let logs: Vec<_> = (0..8).map(|n| call("s", n, Channel::AgentLog, 21)).collect();
    let spans: Vec<_> = (0..8).map(|n| call("s", n, Channel::Span, 22)).collect();
    system.publish(topic::EVENTS, 0, &batch(spans.clone())).await;
    system.becomes("llm_calls WHERE in_uncached = 22", 8).await;
    // The better channel comes later, through another partition, and takes over.
    system.publish(topic::EVENTS, 1, &batch(logs.clone())).await;
    system.becomes("llm_calls WHERE in_uncached = 21 AND channel = 'agent_log' AND sightings = 2", 8).await;
    // A record that does not decode stops nothing.
    system.publish_bytes(topic::EVENTS, 0, b"not avro").await;
    let letter = DeadLetter {
        project_id: PROJECT.to_owned(),
        reason: DeadReason::Undecodable,
        failed_at: logs[0].received_at,
        received_at: logs[0].received_at,
        ..DeadLetter::default()
    };
    system.publish(topic::DEAD, 0, &letter).await;
    // The same again: counted as duplicates, and not stored (INV-5).
    system.publish(topic::EVENTS, 0, &batch(logs)).await;
    system.publish(topic::EVENTS, 1, &batch(spans)).await;
    system.becomes("(SELECT sum(duplicate) AS d FROM piece_settlements) WHERE d = 16", 1).await;
    system.becomes("events", 16).await;
    system.derived().await;
    let session = "sessions WHERE llm_call_count = 8 AND event_count = 16 AND in_uncached = 168 \
         AND cost_reported = 0.021144 AND models = ['m']";
    system.becomes(session, 1).await;
    system
        .becomes(
            "(SELECT sum(calls) AS c, sum(cost_reported) AS r FROM usage_1m) WHERE c = 8 AND r = 0.021144",
            1,
        )
        .await;
    system
        .becomes("(SELECT sum(calls) AS c, sum(in_uncached) AS i FROM usage_1h) WHERE c = 8 AND i = 168", 1)
        .await;
    system.becomes("settlements", 4).await;
    system.becomes("piece_settlements WHERE stored > 0 AND duplicate = 0", 2 * 8).await;
    system.becomes("dead_letters", 1).await;
    system.stop().await;
}

/// A full minute, the same for all spans however long the test takes: which of them is the earliest depends on it.
static SPANS_BEGIN: LazyLock<i64> =
    LazyLock::new(|| call("", 0, Channel::Span, 0).timestamp / 60_000_000_000 * 60_000_000_000);

/// A span's event: of a trace, and perhaps of a session.
/// INV-7: whoever waits for the derivations does not wait for an event that they do not need.
#[tokio::test(flavor = "multi_thread")]
async fn what_touches_no_group_is_reflected_as_soon_as_it_is_stored() {
    let Some(mut system) = system().await else { return };
    let alone = AgentEvent {
        event_type: EventType::Log,
        session_id: String::new(),
        usage_role: UsageRole::None,
        llm_call_key: String::new(),
        ..call("", 0, Channel::Api, 0)
    };
    system.publish(topic::EVENTS, 0, &batch(vec![alone])).await;
    system.becomes("events", 1).await;
    system.derived().await;
    system.stop().await;
}

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

#[tokio::test(flavor = "multi_thread")]
async fn a_spans_session_is_found_through_its_trace_whichever_arrives_first() {
    let Some(mut system) = system().await else { return };
    for (trace, session, spans_first) in [("t1", "s1", true), ("t2", "s2", false)] {
        // In another minute than the naming event, which alone stays when the trace changes hands.
        let unnamed: Vec<_> = (10..14).map(|n| span(trace, "", n, 70)).collect();
        let naming = vec![span(trace, session, 5, 1)];
        let (first, then) = if spans_first { (unnamed, naming) } else { (naming, unnamed) };
        let alone = first.len() as u64;
        system.publish(topic::EVENTS, 0, &batch(first)).await;
        system.becomes(&format!("llm_calls WHERE trace_id = '{trace}'"), alone).await;
        system.publish(topic::EVENTS, 1, &batch(then)).await;
        system.becomes(&format!("llm_calls WHERE session_id = '{session}'"), 5).await;
        system.derived().await;
        let calls = format!("llm_calls WHERE trace_id = '{trace}' AND group_kind = 'session'");
        system.becomes(&calls, 5).await;
        system.becomes(&format!("llm_calls WHERE trace_id = '{trace}'"), 5).await;
        let traces = format!(
            "traces WHERE trace_id = '{trace}' AND session_id = '{session}' AND llm_call_count = 5 \
             AND observation_count = 5 AND in_uncached = 35 AND event_count = 5 AND name = 'step 5'"
        );
        system.becomes(&traces, 1).await;
        system.becomes(&format!("sessions WHERE session_id = '{session}' AND event_count = 5"), 1).await;
    }
    system.becomes("sessions", 2).await;
    system.becomes("traces", 2).await;
    let sums = "(SELECT sum(calls) AS c, sum(in_uncached) AS i FROM usage_1m) WHERE c = 10 AND i = 70";
    system.becomes(sums, 1).await;

    // A judgement long after makes the trace no longer.
    let judged = AgentEvent {
        event_type: EventType::Score,
        llm_call_key: String::new(),
        ..span("t2", "s2", 30, 90_000)
    };
    system.publish(topic::EVENTS, 0, &batch(vec![judged])).await;
    let seconds = "dateDiff('second', started_at, ended_at)";
    system.becomes(&format!("traces WHERE trace_id = 't2' AND score_count = 1 AND {seconds} < 100"), 1).await;

    // An earlier event names another session: the trace's events are that one's.
    let mut earlier = span("t1", "s0", 1, 0);
    earlier.timestamp -= 1_000_000_000;
    system.publish(topic::EVENTS, 0, &batch(vec![earlier])).await;
    system.becomes("sessions WHERE session_id = 's0' AND llm_call_count = 5", 1).await;
    system.becomes("sessions WHERE session_id = 's1' AND llm_call_count = 1", 1).await;
    let trace =
        "traces WHERE trace_id = 't1' AND session_id = 's0' AND llm_call_count = 6 AND event_count = 6";
    system.becomes(trace, 1).await;
    system.becomes("llm_calls", 11).await;
    system.becomes("(SELECT sum(calls) AS c FROM usage_1h) WHERE c = 11", 1).await;

    // Nothing of it is kept in memory alone: a new process comes to the same.
    system.running.abort_all();
    while system.running.join_next().await.is_some() {}
    system.publish(topic::EVENTS, 1, &batch(vec![span("t1", "", 20, 3)])).await;
    system.start();
    system.becomes("sessions WHERE session_id = 's0' AND llm_call_count = 6", 1).await;
    system.becomes("llm_calls WHERE group_kind = 'session'", 12).await;
    system.derived().await;
    system.becomes("llm_calls", 12).await;
    let report = system.rederived(true).await;
    assert!(report.agrees() && report.waiting == 0 && report.groups == 5, "{report:?}");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rederiving_finds_what_is_wrong_and_makes_it_right_beside_a_running_aggregator() {
    let Some(mut system) = system().await else { return };
    let of_session =
        |session: &str| (0..8).map(|n| call(session, n, Channel::AgentLog, 21)).collect::<Vec<_>>();
    let one = of_session("one");
    let minute = minute_of(one[0].timestamp);
    system.publish(topic::EVENTS, 0, &batch([one, of_session("two"), of_session("")].concat())).await;
    system.becomes("llm_calls", 24).await;
    system.derived().await;
    let report = system.rederived(true).await;
    assert!(report.agrees() && report.waiting == 0, "{report:?}");
    let groups = report.groups;
    assert!((3..=4).contains(&groups), "two sessions, one or two loose minutes: {report:?}");

    // A version that no facts say: a session without its calls, that contributes to a minute of its own.
    let usage = vec![UsageRow { calls: 5, in_uncached: 500, ..UsageRow::default() }];
    let wrong = DerivedGroup {
        key: GroupKey { project_id: PROJECT.to_owned(), kind: GroupKind::Session, id: "two".to_owned() },
        session: Session {
            first_received_at: Clock::system().now_ns(),
            last_received_at: Clock::system().now_ns(),
            event_count: 1,
            ..Session::default()
        },
        calls: Vec::new(),
        tools: Vec::new(),
        contributions: vec![Contribution { minute: minute - 600, usage }],
        traces: Vec::new(),
    };
    let version = system.store.next_version().await.unwrap();
    system.store.write_groups(&[wrong], version).await.unwrap();
    system.becomes("llm_calls", 16).await;
    for _ in 0..2 {
        let report = system.rederived(true).await;
        let tables: Vec<_> = report.by_table.iter().map(|(table, n)| (*table, *n)).collect();
        let expected = [("session_groups", 1), ("usage_1m_groups", 1), ("usage_contributions", 1)];
        assert_eq!((report.groups, report.differing, tables.as_slice()), (groups, 1, &expected[..]));
        assert!(report.examples.iter().any(|example| example.contains("calls.call_key")), "{report:?}");
    }

    // Facts that arrive meanwhile are no difference, and nothing that is written hides them.
    let done = AtomicBool::new(false);
    let mended = async {
        let mended = system.rederived(false).await;
        let checked = system.rederived(true).await;
        done.store(true, Ordering::Relaxed);
        (mended, checked)
    };
    let busy = async {
        let mut number = 100;
        while !done.load(Ordering::Relaxed) {
            system.publish(topic::EVENTS, 1, &batch(vec![call("one", number, Channel::AgentLog, 21)])).await;
            number += 1;
        }
        number
    };
    let ((mended, checked), number) = tokio::join!(mended, busy);
    assert!(mended.by_table.contains_key("session_groups"), "{mended:?}");
    assert!(checked.agrees(), "{checked:?}");
    let calls = 24 + u64::from(number - 100);
    system.becomes("llm_calls", calls).await;
    system.derived().await;
    system.becomes(&format!("(SELECT sum(calls) AS c FROM usage_1m) WHERE c = {calls}"), 1).await;
    system.becomes(&format!("(SELECT sum(calls) AS c FROM usage_1h) WHERE c = {calls}"), 1).await;
    let report = system.rederived(true).await;
    assert!(report.agrees() && report.waiting == 0 && report.groups >= groups, "{report:?}");
    system.stop().await;
}

/// Design, retention: calls, tool calls, sessions and rollups outlive events.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_derived_outlives_its_events_and_counts_once() {
    const DAY: i64 = 86_400_000_000_000;
    let Some(mut system) = system().await else { return };
    let yesterday = |event: AgentEvent| AgentEvent {
        timestamp: *SPANS_BEGIN - DAY,
        received_at: event.received_at - DAY,
        timestamp_source: TimestampSource::Event,
        trace_id: "t".to_owned(),
        ..event
    };
    let mut old: Vec<_> = (0..4).map(|n| yesterday(call("s", n, Channel::AgentLog, 21))).collect();
    old.push(AgentEvent {
        event_type: EventType::CommandRun,
        usage_role: UsageRole::None,
        tool_call_id: "tool".to_owned(),
        tool_name: "Bash".to_owned(),
        llm_call_key: String::new(),
        cost_reported: None,
        ..yesterday(call("s", 4, Channel::AgentLog, 0))
    });
    let day = old[0].received_at / 1_000_000_000;
    // Of one of its calls something was received today as well.
    let both = AgentEvent { trace_id: "t".to_owned(), ..call("s", 3, Channel::Span, 22) };
    let timed =
        AgentEvent { timestamp_source: TimestampSource::Event, ..call("s", 10, Channel::AgentLog, 21) };
    let sent = [old, vec![both, timed]].concat();
    system.publish(topic::EVENTS, 0, &batch(sent)).await;
    // What is the session's through its trace, what stands for itself, and what belongs to nothing.
    let homeless =
        |number: u32| AgentEvent { trace_id: "u".to_owned(), ..call("", number, Channel::Span, 9) };
    let adopted = yesterday(call("", 20, Channel::Span, 5));
    let alone = AgentEvent { trace_id: "u".to_owned(), ..yesterday(homeless(40)) };
    let loose = call("", 21, Channel::AgentLog, 21);
    system.publish(topic::EVENTS, 1, &batch(vec![adopted, alone, loose])).await;
    system.becomes("llm_calls", 8).await;
    system.derived().await;
    let session = |calls: u64, tokens: u64, events: u64| {
        format!(
            "sessions WHERE session_id = 's' AND llm_call_count = {calls} AND in_uncached = {tokens} \
             AND tool_call_count = 1 AND event_count = {events} AND duration_ms > 86000000"
        )
    };
    system.becomes(&session(6, 110, 8), 1).await;

    let events = "ALTER TABLE fleetlog.events DROP PARTITION";
    system.operator(&format!("{events} tuple(toDate(toDateTime({day}, 'UTC'), 'UTC'))")).await;
    system.becomes("events", 3).await;
    // Nothing has been derived since, and what is stored is all that is known.
    let report = system.rederived(true).await;
    assert!(report.agrees() && report.expired > 0, "{report:?}");

    for round in 0..2 {
        // A later sighting of an old call, and a new call; then the same for a process that remembers nothing.
        let late = AgentEvent {
            timestamp: *SPANS_BEGIN - DAY,
            trace_id: "t".to_owned(),
            ..call("s", round, Channel::Transcript, 900)
        };
        let new = call("s", 30 + round, Channel::AgentLog, 21);
        system.publish(topic::EVENTS, 0, &batch(vec![late, new, homeless(50 + round)])).await;
        let more = u64::from(round) + 1;
        system.becomes(&session(6 + more, 110 + 21 * more, 8 + 2 * more), 1).await;
        let calls = 8 + 2 * more;
        system.becomes("llm_calls", calls).await;
        system.becomes("llm_calls WHERE channels = 'agent_log,span' AND in_uncached = 21", 1).await;
        system.becomes("tool_calls", 1).await;
        system.derived().await;
        let tokens = 110 + 21 * more + 9 * (1 + more) + 21;
        for usage in ["usage_1m", "usage_1h"] {
            let sums = format!("(SELECT sum(calls) AS c, sum(in_uncached) AS i FROM {usage})");
            system.becomes(&format!("{sums} WHERE c = {calls} AND i = {tokens}"), 1).await;
        }
        let trace = format!(
            "traces WHERE trace_id = 't' AND llm_call_count = 5 AND tool_call_count = 1 AND event_count = {}",
            7 + more
        );
        system.becomes(&trace, 1).await;
        let trace =
            format!("traces WHERE trace_id = 'u' AND llm_call_count = {0} AND event_count = {0}", 1 + more);
        system.becomes(&trace, 1).await;
        let report = system.rederived(true).await;
        assert!(report.agrees() && report.waiting == 0 && report.expired > 0, "{report:?}");
        system.running.abort_all();
        while system.running.join_next().await.is_some() {}
        system.start();
    }
    let report = system.rederived(false).await;
    assert!(report.agrees(), "nothing to mend: {report:?}");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repricing_changes_what_calls_cost_and_nothing_undoes_it() {
    let Some(mut system) = system().await else { return };
    let priced = |session: &str, number: u32| AgentEvent {
        model: "gpt-5".to_owned(),
        cost_computed: Some(NanoUsd(7_000)),
        price_version: "then".to_owned(),
        ..call(session, number, Channel::AgentLog, 100_000)
    };
    let other = AgentEvent { model: "o3".to_owned(), ..priced("one", 9) };
    let first = priced("one", 0);
    let start = first.timestamp - 600_000_000_000;
    system.publish(topic::EVENTS, 0, &batch(vec![first, priced("one", 1), other])).await;
    system.becomes("llm_calls WHERE price_version = 'then' AND cost_computed = 0.000007", 3).await;
    system.derived().await;

    let sheet = "version=\"contract\"\nsource=\"\"\nlicence=\"\"\n[[price]]\nmodel=\"gpt-5\"\ninput=1.0\noutput=0.0\n";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), sheet).unwrap();
    let mut config = system.config.clone();
    config.prices.file = file.path().to_owned();
    let which = Repricings {
        project_id: PROJECT.to_owned(),
        model: "gpt-*".to_owned(),
        from: start,
        until: start + 3_600_000_000_000,
    };
    let report = reprice(&config, &which, |_| ()).await.unwrap();
    assert_eq!((report.differing, report.by_table["session_groups"]), (1, 1), "{report:?}");
    let new = "llm_calls WHERE price_version = 'contract' AND cost_computed = 0.1";
    assert_eq!(system.count(new).await, Some(2));
    assert_eq!(system.count("llm_calls WHERE price_version = 'then'").await, Some(1));
    let sums = "(SELECT sum(cost_computed) AS c FROM usage_1m) WHERE c = 0.200007";
    assert_eq!(system.count(sums).await, Some(1));
    // The facts stay as they are.
    assert_eq!(system.count("events WHERE cost_computed = 0.000007").await, Some(3));

    // The running aggregator has another table, and derives the same; a call that arrives late costs the same too.
    system.publish(topic::EVENTS, 1, &batch(vec![priced("one", 2), priced("two", 3)])).await;
    system.becomes(new, 4).await;
    system.becomes("sessions WHERE session_id = 'one' AND cost_computed = 0.300007", 1).await;
    system.derived().await;
    let later = AgentEvent { timestamp: start + 3_600_000_000_000, ..priced("one", 4) };
    system.publish(topic::EVENTS, 1, &batch(vec![later])).await;
    system.becomes("llm_calls WHERE price_version = 'then'", 2).await;
    system.derived().await;
    let report = system.rederived(true).await;
    assert!(report.agrees() && report.waiting == 0, "{report:?}");
    system.stop().await;
}

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
    assert_eq!(recorded[&0], 21, "{recorded:?}");
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
