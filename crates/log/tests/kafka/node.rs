//! The node, the runtime it lives in, and topics for one test alone.

use std::future::Future;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fleetlog_engines::{EngineCache, KafkaNode, KafkaOptions, Progress};
use fleetlog_log::{Admin, KafkaConfig, Outgoing, Producer, Target};
use fleetlog_schemas::id::Position;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// Longest that anything awaited here may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// Outlives every test; the node dies with the process.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
static NODE: LazyLock<Result<Node, String>> = LazyLock::new(|| RUNTIME.block_on(Node::start()));

pub(crate) struct Node {
    pub(crate) kafka: KafkaNode,
    _data: tempfile::TempDir,
}

impl Node {
    pub(crate) async fn start() -> Result<Self, String> {
        let lib = tokio::task::spawn_blocking(|| EngineCache::of_user()?.kafka(&Progress::quiet()))
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
        let data = tempfile::tempdir().map_err(|e| e.to_string())?;
        let kafka = KafkaNode::start(KafkaOptions { heap_mb: 256, ..KafkaOptions::new(lib, data.path()) })
            .await
            .map_err(|e| e.to_string())?;
        let node = Self { kafka, _data: data };
        Admin::new(&node.config()).unwrap().ensure_topics().await.map_err(|e| e.to_string())?;
        Ok(node)
    }

    /// How to reach the node, with quick group decisions.
    pub(crate) fn config(&self) -> KafkaConfig {
        KafkaConfig { brokers: self.kafka.bootstrap(), session_timeout_ms: 6_000, ..KafkaConfig::default() }
    }

    pub(crate) fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", self.kafka.bootstrap()).create().unwrap()
    }

    /// Runs a task beside the test.
    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        RUNTIME.spawn(task)
    }

    /// A topic of this test alone.
    pub(crate) async fn topic(&self, partitions: i32) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let new = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
        self.admin().create_topics(&[new], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
        Admin::new(&self.config()).unwrap().partitions(&name).await.unwrap();
        name
    }

    /// Appends records to one partition and returns where they are.
    pub(crate) async fn append(&self, topic: &str, partition: i32, payloads: &[&str]) -> Vec<Position> {
        let producer = Producer::new(&self.config(), 1_000_000).unwrap();
        let mut positions = Vec::new();
        for payload in payloads {
            let record = Outgoing {
                topic,
                target: Target::Partition(partition),
                key: None,
                payload: Some(payload.as_bytes()),
            };
            positions.push(producer.enqueue(record).unwrap().await.unwrap());
        }
        positions
    }
}

/// Runs a test on the node, or says why it is skipped.
pub(crate) fn on_kafka<F: Future<Output = ()>>(test: impl FnOnce(&'static Node) -> F) {
    match &*NODE {
        Ok(node) => run(test(node)),
        Err(why) => println!("skipped: Kafka cannot be had here: {why}"),
    }
}

/// Runs a test on a node of its own, which it may kill and freeze, or says why it is skipped.
pub(crate) fn on_own_kafka<F: Future<Output = ()>>(test: impl FnOnce(Node) -> F) {
    run(async {
        match Node::start().await {
            Ok(node) => test(node).await,
            Err(why) => println!("skipped: Kafka cannot be had here: {why}"),
        }
    });
}

/// Runs a test, for as long as anything may take.
fn run(test: impl Future<Output = ()>) {
    RUNTIME.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("the test takes too long") });
}
