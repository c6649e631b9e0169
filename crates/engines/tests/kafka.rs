//! A real Kafka node: it starts, survives a kill, is alone on its data, and says what is wrong.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests")]

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleetlog_engines::{EngineCache, EngineError, KafkaNode, KafkaOptions, Progress, Stopped};
use fleetlog_log::{Admin, From, Isolation, KafkaConfig, Outgoing, Producer, Tail, TailRead, Target};
use fleetlog_schemas::topic::EVENTS;
use tokio::net::TcpStream;

const BUDGET: Duration = Duration::from_secs(30);
/// Longer than the session of a broker by Kafka's default.
const FROZEN: Duration = Duration::from_secs(11);

/// Kafka's jars; `None`, said aloud, on a machine without Java or Maven.
fn kafka_lib() -> Option<PathBuf> {
    match EngineCache::of_user().unwrap().kafka(&Progress::stderr()) {
        Ok(lib) => Some(lib),
        Err(error @ EngineError::MissingTool { .. }) => {
            println!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn options(lib: &Path, data_dir: &Path) -> KafkaOptions {
    KafkaOptions { heap_mb: 256, ..KafkaOptions::new(lib, data_dir) }
}

async fn serves(node: &KafkaNode) {
    TcpStream::connect(node.bootstrap()).await.unwrap();
}

fn client(node: &KafkaNode) -> KafkaConfig {
    KafkaConfig { brokers: node.bootstrap(), ..KafkaConfig::default() }
}

/// Publishes records and waits for the broker's acknowledgement of each.
async fn publish(node: &KafkaNode, payloads: &[String]) {
    Admin::new(&client(node)).unwrap().ensure_topics().await.unwrap();
    let producer = Producer::new(&client(node), 1 << 20).unwrap();
    let mut deliveries = Vec::new();
    for payload in payloads {
        let payload = Some(payload.as_bytes());
        let record = Outgoing { topic: EVENTS, target: Target::Partition(0), key: None, payload };
        deliveries.push(producer.enqueue(record).unwrap());
    }
    for delivery in deliveries {
        delivery.await.unwrap();
    }
}

/// Everything in the partition that [`publish`] writes to.
async fn stored(node: &KafkaNode) -> Vec<String> {
    let tail = Tail::open(&client(node), EVENTS, [(0, From::Beginning)], Isolation::Committed).unwrap();
    let mut payloads = Vec::new();
    while let TailRead::Record(record) = tail.next().await.unwrap() {
        payloads.push(String::from_utf8(record.payload.unwrap().to_vec()).unwrap());
    }
    payloads
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_comes_back_on_its_port_with_its_data() {
    let Some(lib) = kafka_lib() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut node = KafkaNode::start(options(&lib, dir.path())).await.unwrap();
    let (bootstrap, pid) = (node.bootstrap(), node.pid());
    let published: Vec<_> = (0..1000).map(|n| format!("event {n}")).collect();
    publish(&node, &published).await;

    node.kill().await;
    assert!(!node.wait().await.status.success());
    assert!(TcpStream::connect(&bootstrap).await.is_err());

    node.restart().await.unwrap();
    assert_ne!(node.pid(), pid);
    assert_eq!(node.bootstrap(), bootstrap);
    assert_eq!(stored(&node).await, published);
    assert_eq!(node.stop(BUDGET).await, Stopped::Cleanly);
    assert_eq!(node.stop(BUDGET).await, Stopped::AlreadyEnded);
}

/// Transactions that end while their partitions have no leader get no markers.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_keeps_the_lead_of_its_partitions_until_it_has_ended() {
    let Some(lib) = kafka_lib() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut node = KafkaNode::start(options(&lib, dir.path())).await.unwrap();
    let lost = || {
        let log = std::fs::read_to_string(dir.path().join("kafka.log")).unwrap();
        let took = ["handleBrokerFenced: changing", "handleBrokerInControlledShutdown: changing"];
        log.lines().filter(|line| took.iter().any(|took| line.contains(took))).count()
    };
    publish(&node, &["before".to_owned()]).await;
    node.pause();
    std::thread::sleep(FROZEN);
    node.resume();
    publish(&node, &["after".to_owned()]).await;
    assert_eq!(node.stop(BUDGET).await, Stopped::Cleanly);
    assert_eq!(lost(), 0);
    // It is the next start that ends what the run before has left.
    node.restart().await.unwrap();
    assert_eq!(lost(), 1);
    assert_eq!(stored(&node).await, ["before", "after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_on_the_same_data_is_refused() {
    let Some(lib) = kafka_lib() else { return };
    let dir = tempfile::tempdir().unwrap();
    let node = KafkaNode::start(options(&lib, dir.path())).await.unwrap();
    let refused = KafkaNode::start(options(&lib, dir.path())).await.err().unwrap();
    assert!(matches!(refused, EngineError::AlreadyRunning { .. }), "{refused}");
    assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
    // The refusal must not have harmed the one that runs.
    serves(&node).await;
    drop(node);
    // A drop is a kill; what it leaves is free at once.
    let again = KafkaNode::start(options(&lib, dir.path())).await.unwrap();
    serves(&again).await;
}

#[test]
fn a_node_outlives_the_thread_that_started_it() {
    let Some(lib) = kafka_lib() else { return };
    let dir = tempfile::tempdir().unwrap();
    let on_runtime = |work: &mut dyn FnMut(&tokio::runtime::Runtime)| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        work(&runtime);
    };
    let node = std::thread::scope(|scope| {
        let starter = scope.spawn(|| {
            let mut node = None;
            on_runtime(&mut |runtime| {
                node = Some(runtime.block_on(KafkaNode::start(options(&lib, dir.path()))).unwrap());
            });
            node.unwrap()
        });
        starter.join().unwrap()
    });
    // The parent-death signal comes at the thread's end, which has passed: a dead node would say AlreadyEnded.
    on_runtime(&mut |runtime| assert_eq!(runtime.block_on(node.stop(BUDGET)), Stopped::Cleanly));
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_setting_that_changes_it() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let options = KafkaOptions { port, ..options(Path::new("/nowhere"), dir.path()) };
    let message = KafkaNode::start(options).await.err().unwrap().to_string();
    assert!(message.contains(&format!("port {port}")) && message.contains("`--kafka-port`"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_start_is_quoted() {
    if kafka_lib().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let empty = tempfile::tempdir().unwrap();
    let error = KafkaNode::start(options(empty.path(), dir.path())).await.err().unwrap();
    assert!(matches!(error, EngineError::EndedEarly { .. }), "{error}");
    assert!(error.to_string().contains("ClassNotFoundException"), "{error}");
}
