//! The service on a real engine, with keys of the test's own and facts to ask for.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests")]
#![allow(dead_code, unreachable_pub, reason = "every test file has its own copy and uses a part of it")]

use std::collections::BTreeSet;
use std::future::ready;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleetlog_engines::{
    ClickHouseNode, ClickHouseOptions, ClickHouseProgram, EngineCache, EngineError, Progress,
};
use fleetlog_log::{AuthError, LogError, Principal};
use fleetlog_query_api::{Config, Keys, Logs, Pipeline, QueryConfig, ServiceError, bind};
use fleetlog_runtime::{Clock, Deps, Health, Shutdown, TelemetryConfig, init_telemetry};
use fleetlog_schemas::control::Role;
use fleetlog_schemas::ddl::{DatabaseName, users_config_xml};
use fleetlog_schemas::id::{Key128, NanoUsd};
use fleetlog_schemas::record::{PieceCount, SpoolStanding};
use fleetlog_schemas::{AgentEvent, DeadLetter, EventType, Settlement, topic};
use fleetlog_store::derived::{DerivedGroup, GroupHour, GroupKey, Progress as Derived, Reflected};
use fleetlog_store::{
    Attempt, Call, Contribution, FactRange, GroupKind, Located, PieceRow, Session, Store, StoreConfig, Tool,
    UsageRow,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinSet;

pub const S: i64 = 1_000_000_000;
/// 2026-03-01 12:00:00 UTC, nanoseconds: the present of every test.
pub const NOON: i64 = 1_772_366_400 * S;

/// Keys by name: `<role>-<project>`.
struct NamedKeys;

impl Keys for NamedKeys {
    fn authenticate(&self, text: &str) -> Result<Principal, AuthError> {
        let (role, project) = text.split_once('-').ok_or(AuthError::Malformed)?;
        let role = Role::parse(role).ok_or(AuthError::Unknown)?;
        Ok(Principal { key_id: Arc::from("k"), project_id: Arc::from(project), role })
    }

    fn authenticate_pair(&self, key_id: &str, secret: &str) -> Result<Principal, AuthError> {
        self.authenticate(&format!("{key_id}-{secret}"))
    }
}

/// A running service on an engine of its own.
pub struct Service {
    pub url: String,
    pub store: Store,
    pub engine: ClickHouseNode,
    pub deps: Deps,
    client: reqwest::Client,
    shutdown: Shutdown,
    running: JoinSet<Result<(), ServiceError>>,
    _folder: TempDir,
}

/// An answer.
pub struct Answer {
    pub status: u16,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// The error's code, of an answer that has this status.
    pub fn refused(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text);
        self.json()["error"]["code"].as_str().unwrap().to_owned()
    }

    /// The body of a good answer.
    pub fn good(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()
    }
}

/// Logs that stand where a test puts them.
#[derive(Default)]
pub struct StillLogs {
    pub raw: Mutex<Vec<Range<i64>>>,
    pub pipeline: Mutex<Pipeline>,
    pub spools: Mutex<Vec<SpoolStanding>>,
    /// How often anybody has looked.
    pub looks: AtomicU64,
}

impl StillLogs {
    /// One partition of the raw log, which has these offsets.
    pub fn reach(&self, offsets: Range<i64>) {
        *self.raw.lock().unwrap() = vec![offsets];
    }
}

impl Logs for StillLogs {
    fn raw(&self) -> BoxFuture<'_, Result<Vec<Range<i64>>, LogError>> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        ready(Ok(self.raw.lock().unwrap().clone())).boxed()
    }

    fn spools(&self) -> BoxFuture<'_, Result<Vec<SpoolStanding>, LogError>> {
        ready(Ok(self.spools.lock().unwrap().clone())).boxed()
    }

    fn raw_since(&self, _: i64) -> BoxFuture<'_, Result<Vec<Option<i64>>, LogError>> {
        ready(Ok(self.raw.lock().unwrap().iter().map(|log| Some(log.start)).collect())).boxed()
    }

    fn pipeline(&self) -> BoxFuture<'_, Result<Pipeline, LogError>> {
        ready(Ok(self.pipeline.lock().unwrap().clone())).boxed()
    }
}

/// Starts engine and service, which knows no logs; `None`, said aloud, where the engine cannot be had.
pub async fn service(query: QueryConfig) -> Option<Service> {
    started(query, None).await
}

/// The same with these logs, which are looked at as often as can be.
pub async fn service_with_logs(logs: &Arc<StillLogs>) -> Option<Service> {
    let query = QueryConfig { ledger_interval_ms: 20, ..QueryConfig::default() };
    started(query, Some(Arc::clone(logs))).await
}

/// The same with these logs, which nobody looks at but for who waits.
pub async fn service_with_idle_logs(logs: &Arc<StillLogs>) -> Option<Service> {
    let query = QueryConfig { ledger_interval_ms: 600_000, ..QueryConfig::default() };
    started(query, Some(Arc::clone(logs))).await
}

async fn started(query: QueryConfig, logs: Option<Arc<StillLogs>>) -> Option<Service> {
    let library = match EngineCache::of_user().unwrap().libchdb(&Progress::stderr()) {
        Ok(library) => library,
        Err(error @ (EngineError::MissingTool { .. } | EngineError::UnsupportedPlatform { .. })) => {
            println!("SKIPPED: {error}");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let folder = tempfile::tempdir().unwrap();
    let users_config = folder.path().join("users.xml");
    std::fs::write(&users_config, users_config_xml(&DatabaseName::parse("fleetlog").unwrap())).unwrap();
    let program = ClickHouseProgram::Embedded { library, bridge: None };
    let options = ClickHouseOptions {
        users_config: Some(users_config),
        max_memory: 1_000_000_000,
        ..ClickHouseOptions::new(program, folder.path().join("engine"))
    };
    let engine = ClickHouseNode::start(options).await.unwrap();
    // Kept for thirty years: the facts of the tests have fixed times.
    let store = StoreConfig {
        url: engine.url(),
        retention_days: 10_950,
        derived_retention_days: 10_950,
        ..StoreConfig::default()
    };
    let config = Config {
        query: QueryConfig { listen: "127.0.0.1:0".to_owned(), ..query },
        store: store.clone(),
        ..Config::default()
    };
    let store = Store::new(&store).unwrap();
    store.migrate().await.unwrap();
    let metrics = init_telemetry(&TelemetryConfig::default()).unwrap();
    let deps = Deps { clock: Clock::manual(NOON), health: Health::new(), metrics };
    let mut bound = bind(config, deps.clone()).await.unwrap().with_keys(Arc::new(NamedKeys));
    if let Some(logs) = logs {
        bound = bound.with_logs(logs);
    }
    let url = format!("http://{}", bound.local_addr());
    let shutdown = Shutdown::new();
    let mut running = JoinSet::new();
    running.spawn(bound.serve(shutdown.clone()));
    let client = reqwest::Client::new();
    let service = Service { url, store, engine, deps, client, shutdown, running, _folder: folder };
    service.until_ready().await;
    Some(service)
}

impl Service {
    /// Asks with a key.
    pub async fn ask(&self, key: &str, path: &str) -> Answer {
        let request = self.client.get(format!("{}{path}", self.url)).bearer_auth(key);
        let response = request.send().await.unwrap();
        Answer { status: response.status().as_u16(), text: response.text().await.unwrap() }
    }

    /// Asks without a key.
    pub async fn ask_openly(&self, path: &str) -> Answer {
        let response = self.client.get(format!("{}{path}", self.url)).send().await.unwrap();
        Answer { status: response.status().as_u16(), text: response.text().await.unwrap() }
    }

    /// All rows of a list, page by page.
    pub async fn all(&self, key: &str, path: &str) -> Vec<Value> {
        let mut rows = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.ask(key, &format!("{path}{cursor}")).await.good();
            rows.extend(page["data"].as_array().unwrap().iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return rows,
            }
        }
    }

    pub async fn until_ready(&self) {
        within_a_while(async || self.ask_openly("/readyz").await.status == 200).await;
    }

    /// Stores events as the records `offset` of partition 0 and derives nothing.
    pub async fn store_events(&self, offset: i64, events: &[AgentEvent]) {
        let range = FactRange { topic: topic::EVENTS, partition: 0, first: offset, last: offset };
        let attempt =
            Attempt { number: 1, sends: 0, insert_before_ms: self.store.now_ms().await.unwrap() + 30_000 };
        let located =
            events.iter().zip(0..).map(|(event, index)| (Located { partition: 0, offset, index }, event));
        self.store.insert_events(&range, &attempt, located).await.unwrap();
    }

    /// Stores dead letters as the records of partition 0 from offset 0.
    pub async fn store_dead_letters(&self, letters: &[DeadLetter]) {
        let last = i64::try_from(letters.len()).unwrap() - 1;
        let range = FactRange { topic: topic::DEAD, partition: 0, first: 0, last };
        let attempt =
            Attempt { number: 1, sends: 0, insert_before_ms: self.store.now_ms().await.unwrap() + 30_000 };
        let located = letters
            .iter()
            .zip(0..)
            .map(|(letter, offset)| (Located { partition: 0, offset, index: 0 }, letter));
        self.store.insert_dead_letters(&range, &attempt, located).await.unwrap();
    }

    /// Stores settlements of raw records as record `offset` of partition 0 of the events topic.
    pub async fn store_settlements(&self, offset: i64, settlements: &[Settlement]) {
        let range = FactRange { topic: topic::EVENTS, partition: 0, first: offset, last: offset };
        let attempt =
            Attempt { number: 1, sends: 0, insert_before_ms: self.store.now_ms().await.unwrap() + 30_000 };
        let located = settlements.iter().zip(0..);
        let located = located.map(|(one, index)| (Located { partition: 0, offset, index }, one));
        self.store.insert_settlements(&range, &attempt, located).await.unwrap();
    }

    /// Stores what became of pieces that came as record `offset` of partition 0 of the events topic.
    pub async fn store_pieces(&self, offset: i64, pieces: &[PieceRow]) {
        let range = FactRange { topic: topic::EVENTS, partition: 0, first: offset, last: offset };
        let attempt =
            Attempt { number: 1, sends: 0, insert_before_ms: self.store.now_ms().await.unwrap() + 30_000 };
        let located =
            pieces.iter().zip(0..).map(|(one, index)| (Located { partition: 0, offset, index }, one));
        self.store.insert_pieces(&range, &attempt, located).await.unwrap();
    }

    /// Derives sessions as the aggregator would, and says that everything up to `offset` is derived.
    pub async fn derive(&self, groups: &[DerivedGroup], offset: i64) {
        let hours: Vec<GroupHour> = groups
            .iter()
            .map(|group| GroupHour {
                key: group.key.clone(),
                hour: i32::try_from(group.session.started_at.div_euclid(3_600 * S)).unwrap(),
                received_day: seconds(NOON) / 86_400 * 86_400,
            })
            .collect();
        self.store.add_group_hours(&hours).await.unwrap();
        let version = self.store.next_version().await.unwrap();
        self.store.write_groups(groups, version).await.unwrap();
        let minutes: BTreeSet<(String, u32)> = groups
            .iter()
            .flat_map(|group| {
                group.contributions.iter().map(|share| (group.key.project_id.clone(), share.minute))
            })
            .collect();
        self.store.recompute_usage(&minutes).await.unwrap();
        let progress = Derived { partition: 0, reflected: Reflected::up_to(offset), version };
        self.store.record_progress(&[progress]).await.unwrap();
    }

    /// Ends the service, which must end well.
    pub async fn stop(mut self) {
        self.shutdown.trigger();
        self.running.join_next().await.unwrap().unwrap().unwrap();
    }
}

pub fn seconds(ns: i64) -> u32 {
    u32::try_from(ns / S).unwrap()
}

/// An event of a session, `after_s` seconds before noon minus an hour.
pub fn event(project: &str, session: &str, number: u32) -> AgentEvent {
    let name = format!("{project}-{session}-{number}");
    AgentEvent {
        event_id: name.clone(),
        dedup_key: Key128::of([name.as_bytes()]),
        project_id: project.to_owned(),
        source: "claude-code".to_owned(),
        timestamp: NOON - 3_600 * S + i64::from(number) * S,
        received_at: NOON - 1_800 * S,
        event_type: EventType::LlmResponse,
        name: "api_request".to_owned(),
        session_id: session.to_owned(),
        agent_name: "main".to_owned(),
        model: "opus".to_owned(),
        in_uncached: 21,
        cost_reported: Some(NanoUsd(2_643_000)),
        context: r#"{"host":{"name":"box"}}"#.to_owned(),
        data: format!(r#"{{"text":"needle{number} in the Haystack"}}"#),
        raw_index: number,
        ..AgentEvent::default()
    }
}

/// The settlement of a raw record of partition 0 with so many records, all of which went to partition 0.
pub fn settlement(project: &str, raw_offset: i64, received_at: i64, records: u32) -> Settlement {
    Settlement {
        project_id: project.to_owned(),
        raw_offset,
        received_at,
        records,
        pieces: vec![PieceCount { partition: 0, records }],
        ..Settlement::default()
    }
}

/// What became of all pieces of a raw record of partition 0.
pub fn piece(project: &str, raw_offset: i64, received_at: i64, stored: u32, duplicate: u32) -> PieceRow {
    PieceRow {
        project_id: project.to_owned(),
        raw_partition: 0,
        raw_offset,
        received_at,
        first_index: 0,
        last_index: stored + duplicate,
        stored,
        duplicate,
        events: stored,
    }
}

/// A derived session with calls to a model and tool calls.
pub fn session(project: &str, id: &str, started_at: i64, calls: &[Call], tools: &[Tool]) -> DerivedGroup {
    let contributions = calls
        .iter()
        .map(|call| Contribution {
            minute: seconds(call.timestamp) / 60 * 60,
            usage: vec![UsageRow {
                source: call.source.clone(),
                provider: call.provider.clone(),
                model: call.model.clone(),
                agent_name: call.agent_name.clone(),
                user_id: call.user_id.clone(),
                calls: 1,
                errors: u64::from(call.status == "error"),
                in_uncached: call.in_uncached,
                cache_read: call.cache_read,
                out_visible: call.out_visible,
                cost_reported: call.cost_reported.unwrap_or(0),
                cost_reported_calls: u64::from(call.cost_reported.is_some()),
                ..UsageRow::default()
            }],
        })
        .collect();
    DerivedGroup {
        key: GroupKey { project_id: project.to_owned(), kind: GroupKind::Session, id: id.to_owned() },
        session: Session {
            started_at,
            ended_at: started_at + 600 * S,
            first_received_at: NOON,
            last_received_at: NOON,
            event_count: 3,
            agents: vec!["main".to_owned()],
            models: vec!["opus".to_owned()],
            users: vec!["ada".to_owned()],
            sources: vec!["claude-code".to_owned()],
            ..Session::default()
        },
        calls: calls.to_vec(),
        tools: tools.to_vec(),
        contributions,
        traces: Vec::new(),
    }
}

/// A call to a model.
pub fn call(key: &str, timestamp: i64, model: &str) -> Call {
    Call {
        call_key: key.to_owned(),
        timestamp,
        received_at: NOON,
        source: "claude-code".to_owned(),
        provider: "anthropic".to_owned(),
        model: model.to_owned(),
        agent_name: "main".to_owned(),
        user_id: "ada".to_owned(),
        status: "ok",
        in_uncached: 21,
        cache_read: 4_000,
        out_visible: 17,
        cost_reported: Some(2_643_000),
        sightings: 1,
        ..Call::default()
    }
}

/// A tool call.
pub fn tool(key: &str, timestamp: i64, status: &'static str) -> Tool {
    Tool {
        call_key: key.to_owned(),
        timestamp,
        received_at: NOON,
        status,
        event_type: "command.run",
        tool_name: "Bash".to_owned(),
        ..Tool::default()
    }
}

/// Waits for a condition, with a deadline.
pub async fn within_a_while(holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap();
}
