//! A real ClickHouse engine behind its bridge: it starts, survives a kill, is alone on its data.
//!
//! The bridge is a program of another package: `cargo xtask test` builds it first, and so does
//! `cargo build --bin fleetlog-clickhouse`.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests")]

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleetlog_engines::{
    ClickHouseNode, ClickHouseOptions, ClickHouseProgram, EngineCache, EngineError, EngineSet, Progress,
    Stopped,
};

const BUDGET: Duration = Duration::from_secs(30);

/// The ClickHouse library; `None`, said aloud, on a machine without npm or of another platform.
fn library() -> Option<PathBuf> {
    match EngineCache::of_user().unwrap().libchdb(&Progress::stderr()) {
        Ok(library) => Some(library),
        Err(error @ (EngineError::MissingTool { .. } | EngineError::UnsupportedPlatform { .. })) => {
            println!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn options(library: PathBuf, data_dir: &Path) -> ClickHouseOptions {
    let program = ClickHouseProgram::Embedded { library, bridge: None };
    ClickHouseOptions { max_memory: 1_000_000_000, ..ClickHouseOptions::new(program, data_dir) }
}

async fn query(node: &ClickHouseNode, sql: &str) -> String {
    let answer = reqwest::Client::new().post(node.url()).body(sql.to_owned()).send().await.unwrap();
    let status = answer.status();
    let body = answer.text().await.unwrap();
    assert!(status.is_success(), "{sql}: {status} {body}");
    body.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_engine_comes_back_on_its_port_with_its_data() {
    let Some(library) = library() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut node = ClickHouseNode::start(options(library, dir.path())).await.unwrap();
    assert_eq!(query(&node, "SELECT version()").await, node.version());
    query(&node, "CREATE TABLE fleetlog.kept (n UInt32) ENGINE = MergeTree ORDER BY n").await;
    query(&node, "INSERT INTO fleetlog.kept SELECT number FROM numbers(1000)").await;
    let (url, pid) = (node.url(), node.pid());

    node.kill().await;
    assert!(!node.wait().await.status.success());
    node.restart().await.unwrap();
    assert_eq!(node.url(), url);
    assert_ne!(node.pid(), pid);
    assert_eq!(query(&node, "SELECT count(), sum(n) FROM fleetlog.kept").await, "1000\t499500");
    assert_eq!(node.stop(BUDGET).await, Stopped::Cleanly);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_engine_on_the_same_data_is_refused() {
    let Some(library) = library() else { return };
    let dir = tempfile::tempdir().unwrap();
    let node = ClickHouseNode::start(options(library.clone(), dir.path())).await.unwrap();
    let refused = ClickHouseNode::start(options(library, dir.path())).await.err().unwrap();
    assert!(matches!(refused, EngineError::AlreadyRunning { .. }), "{refused}");
    assert_eq!(query(&node, "SELECT 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_engine_can_still_be_stopped_and_its_end_is_seen() {
    let Some(library) = library() else { return };
    let dir = tempfile::tempdir().unwrap();
    let clickhouse = ClickHouseNode::start(options(library, dir.path())).await.unwrap();
    let set = EngineSet { kafka: None, clickhouse: Some(clickhouse) };
    set.clickhouse.as_ref().unwrap().pause();
    let (exit, stopped) = tokio::join!(set.wait_any(), set.stop(BUDGET));
    assert_eq!(stopped.iter().map(|(_, how)| *how).collect::<Vec<_>>(), [Stopped::Cleanly]);
    assert_eq!(exit.engine, fleetlog_engines::Engine::ClickHouse);
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_setting_that_changes_it() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let options = ClickHouseOptions { port, ..options(PathBuf::from("/nowhere"), dir.path()) };
    let message = ClickHouseNode::start(options).await.err().unwrap().to_string();
    assert!(
        message.contains(&format!("port {port}")) && message.contains("`--clickhouse-port`"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_cannot_start_is_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path().join("libmissing.so"), dir.path());
    let error = ClickHouseNode::start(options).await.err().unwrap();
    assert!(matches!(error, EngineError::EndedEarly { .. }), "{error}");
    assert!(error.to_string().contains("libmissing.so"), "{error}");
}
