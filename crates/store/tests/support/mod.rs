//! A ClickHouse engine of a test's own, and facts to fill it with.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests")]
#![allow(dead_code, unreachable_pub, reason = "every test file has its own copy and uses a part of it")]

use fleetlog_engines::{
    ClickHouseNode, ClickHouseOptions, ClickHouseProgram, EngineCache, EngineError, Progress,
};
use fleetlog_schemas::ddl::{DatabaseName, users_config_xml};
use fleetlog_schemas::event::TimestampSource;
use fleetlog_schemas::id::{Key128, NanoUsd};
use fleetlog_schemas::{AgentEvent, EventType, topic};
use fleetlog_store::{Attempt, FactRange, Located, Store, StoreConfig};
use tempfile::TempDir;

/// 2026-03-01 12:00:00 UTC, nanoseconds.
pub const NOON: i64 = 1_772_366_400 * 1_000_000_000;

/// A running engine and a store on it. Both end with the value.
pub struct Engine {
    pub store: Store,
    /// Address of the engine.
    pub url: String,
    _node: ClickHouseNode,
    _folder: TempDir,
}

/// An engine that confines readers of `fleetlog`; `None`, said aloud, where it cannot be had.
pub async fn engine() -> Option<Engine> {
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
    let node = ClickHouseNode::start(options).await.unwrap();
    let store = store_of(&node.url(), "fleetlog");
    Some(Engine { store, url: node.url(), _node: node, _folder: folder })
}

pub fn store_of(url: &str, database: &str) -> Store {
    Store::new(&config_of(url, database)).unwrap()
}

/// Keeps facts for decades: the events of the tests have fixed times.
pub fn config_of(url: &str, database: &str) -> StoreConfig {
    StoreConfig {
        url: url.to_owned(),
        database: database.to_owned(),
        retention_days: 10_000,
        derived_retention_days: 10_000,
        ..StoreConfig::default()
    }
}

/// An event with something in every column.
pub fn full_event(project: &str, session: &str, number: u32) -> AgentEvent {
    let name = format!("{project}-{session}-{number}");
    AgentEvent {
        event_id: name.clone(),
        dedup_key: Key128::of([name.as_bytes()]),
        project_id: project.to_owned(),
        source: "claude-code".to_owned(),
        source_format: "claude.otlp.logs".to_owned(),
        timestamp: NOON + i64::from(number) * 1_000_000_000,
        end_timestamp: Some(NOON + i64::from(number) * 1_000_000_000 + 5),
        timestamp_source: TimestampSource::Event,
        received_at: NOON + 1,
        event_type: EventType::LlmRequest,
        session_id: session.to_owned(),
        attempt: Some(2),
        duration_ms: Some(12.5),
        ttft_ms: Some(1.5),
        in_uncached: 21,
        cache_read: 4000,
        cache_write_5m: 300,
        out_visible: 17,
        llm_call_key: format!("req_{number}"),
        cost_reported: Some(NanoUsd(2_643_000)),
        cost_computed: Some(NanoUsd(2_643_000)),
        exit_code: Some(-1),
        lines_added: Some(3),
        lines_removed: Some(4),
        file_size: Some(5),
        bytes_in: Some(6),
        bytes_out: Some(7),
        context: r#"{"a":1}"#.to_owned(),
        data: r#"{"text":"Überraschung\u0000"}"#.to_owned(),
        raw_partition: 1,
        raw_offset: 2,
        raw_index: number,
        ..AgentEvent::default()
    }
}

pub fn range(first: i64, last: i64) -> FactRange {
    FactRange { topic: topic::EVENTS, partition: 0, first, last }
}

pub async fn attempt(store: &Store, number: u32) -> Attempt {
    Attempt { number, sends: 0, insert_before_ms: store.now_ms().await.unwrap() + 30_000 }
}

/// The events, all in the record at `offset`.
pub fn at(offset: i64, events: &[AgentEvent]) -> impl Iterator<Item = (Located, &AgentEvent)> + Send {
    events.iter().zip(0..).map(move |(event, index)| (Located { partition: 0, offset, index }, event))
}
