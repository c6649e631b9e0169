//! A Kafka node that all tests share, gateways in front of it, keys, and the raw topic read back.

use std::future::Future;
use std::sync::LazyLock;
use std::time::Duration;

use fleetlog_engines::{EngineCache, KafkaNode, KafkaOptions, Progress};
use fleetlog_ingest_gateway::{Config, GatewayConfig, GatewayError, bind};
use fleetlog_log::{Admin, ControlWriter, From, Isolation, KafkaConfig, Tail, TailRead};
use fleetlog_runtime::{Clock, Deps, Health, Shutdown, TelemetryConfig, init_telemetry};
use fleetlog_schemas::avro::from_single_object;
use fleetlog_schemas::control::Role;
use fleetlog_schemas::id::Position;
use fleetlog_schemas::record::{RawBatch, Route};
use fleetlog_schemas::topic;
use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, Response};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// Longest that a test may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Outlives every test; the node dies with the process.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
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

    pub(crate) fn config(&self) -> KafkaConfig {
        KafkaConfig { brokers: self.kafka.bootstrap(), ..KafkaConfig::default() }
    }

    /// A key of a role within project `p1`.
    pub(crate) async fn key(&self, role: Role) -> String {
        let writer = ControlWriter::new(&self.config()).unwrap();
        writer.create_key("p1", role, "", 1).await.unwrap().text.expose().to_owned()
    }

    /// A gateway with the default limits.
    pub(crate) async fn gateway(&self) -> Gateway {
        self.gateway_with(GatewayConfig::default()).await
    }

    pub(crate) async fn gateway_with(&self, gateway: GatewayConfig) -> Gateway {
        let mut started = Gateway::start(Config { gateway, kafka: self.config() }).await;
        started.key = self.key(Role::Ingest).await;
        started.until_ready().await;
        started
    }

    /// What is stored at a position.
    pub(crate) async fn stored(&self, position: Position) -> RawBatch {
        let from = From::Offset(position.offset);
        let tail = Tail::open(&self.config(), topic::RAW, [(position.partition, from)], Isolation::Committed);
        let TailRead::Record(record) = tail.unwrap().next().await.unwrap() else { panic!("no record") };
        assert_eq!(record.position, position);
        from_single_object(&record.payload.unwrap()).unwrap()
    }

    /// Whether anything of a request is in the raw topic.
    pub(crate) async fn holds(&self, request_id: &str) -> bool {
        !self.published(request_id).await.is_empty()
    }

    /// What of a request is in the raw topic.
    pub(crate) async fn published(&self, request_id: &str) -> Vec<RawBatch> {
        self.raw().await.into_iter().filter(|batch| batch.request_id == request_id).collect()
    }

    /// What is in the raw topic, in the order of each partition.
    pub(crate) async fn raw(&self) -> Vec<RawBatch> {
        let all = (0..4).map(|partition| (partition, From::Beginning));
        let tail = Tail::open(&self.config(), topic::RAW, all, Isolation::Committed).unwrap();
        let (mut at_end, mut found) = (0, Vec::new());
        while at_end < 4 {
            match tail.next().await.unwrap() {
                TailRead::CaughtUp { .. } => at_end += 1,
                TailRead::Record(record) => {
                    found.push(from_single_object(&record.payload.unwrap()).unwrap());
                }
            }
        }
        found
    }
}

pub(crate) struct Gateway {
    pub(crate) url: String,
    /// Where the listener for gRPC is.
    pub(crate) grpc_url: String,
    pub(crate) key: String,
    pub(crate) shutdown: Shutdown,
    pub(crate) served: JoinHandle<Result<(), GatewayError>>,
    pub(crate) client: reqwest::Client,
}

impl Gateway {
    pub(crate) async fn start(config: Config) -> Self {
        Self::start_with(config, Clock::system()).await
    }

    pub(crate) async fn start_with(mut config: Config, clock: Clock) -> Self {
        config.gateway.listen = "127.0.0.1:0".to_owned();
        config.gateway.grpc_listen = "127.0.0.1:0".to_owned();
        let metrics = init_telemetry(&TelemetryConfig { log: "off".into(), ..TelemetryConfig::default() });
        let deps = Deps { clock, health: Health::new(), metrics: metrics.unwrap() };
        let shutdown = Shutdown::new();
        let bound = bind(config, deps).await.unwrap();
        let url = format!("http://{}", bound.local_addr());
        let grpc_url = format!("http://{}", bound.grpc_addr().unwrap());
        let served = RUNTIME.spawn(bound.serve(shutdown.clone()));
        Self { url, grpc_url, key: String::new(), shutdown, served, client: reqwest::Client::new() }
    }

    /// Waits until the gateway is ready and knows the key.
    async fn until_ready(&self) {
        loop {
            let response = self.events("[]").send().await.unwrap();
            if response.status() == 202 {
                return;
            }
            assert!([401, 503].contains(&response.status().as_u16()), "{response:?}");
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url)).bearer_auth(&self.key)
    }

    /// A request of universal events in JSON.
    pub(crate) fn events(&self, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.post("/v1/events").header("content-type", "application/json").body(body)
    }

    pub(crate) async fn stop(self) {
        self.shutdown.trigger();
        self.served.await.unwrap().unwrap();
    }
}

/// The status, the answer's JSON, and the request's id.
pub(crate) async fn answer(request: RequestBuilder) -> (u16, Value, String) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let request_id = header(&response, "x-request-id");
    let body = response.bytes().await.unwrap();
    let json = serde_json::from_slice(&body).unwrap_or_else(|e| panic!("{e}: {body:?}"));
    (status, json, request_id)
}

/// A request's answer and what was published of it.
pub(crate) struct Exchange {
    pub(crate) status: u16,
    /// The answer's JSON; null without one.
    pub(crate) said: Value,
    pub(crate) headers: HeaderMap,
    pub(crate) published: Vec<RawBatch>,
}

impl Exchange {
    pub(crate) async fn of(node: &Node, request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let request_id = header(&response, "x-request-id");
        let body = response.bytes().await.unwrap();
        let said = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        let published = if request_id.is_empty() { Vec::new() } else { node.published(&request_id).await };
        Self { status, said, headers, published }
    }

    /// The only message of an accepted request: its bytes as sent, under this hint.
    pub(crate) fn only(&self, hint: &str, body: &[u8]) -> &RawBatch {
        assert!((200..300).contains(&self.status), "{}: {}", self.status, self.said);
        let [batch] = &self.published[..] else { panic!("one message: {:?}", self.published) };
        assert_eq!((batch.route, batch.format_hint.as_str()), (Route::Raw, hint));
        assert_eq!(batch.payload.0, body);
        assert_eq!(batch.project_id, "p1");
        batch
    }

    /// The status of a refused request, of which nothing may be published.
    pub(crate) fn refused(&self) -> u16 {
        assert!(self.status >= 400 && self.published.is_empty(), "{}: {}", self.status, self.said);
        self.status
    }
}

/// What every drop-in API refuses, however it says so: a missing key, a role that may not send, a foreign content
/// type, a broken document, a bomb, and another method.
pub(crate) async fn refuses_as_all_do(node: &Node, path: &str, speaks_foreign: impl Fn(&Value) -> bool) {
    let few = GatewayConfig { decoded_max_bytes: 1_000, ..GatewayConfig::default() };
    let mut gateway = node.gateway_with(few).await;
    let json = |request: RequestBuilder| request.header("content-type", "application/json");
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut bomb, &[b'['; 100_000]).unwrap();
    let bomb = bomb.finish().unwrap();
    let cases = [
        (401, json(gateway.client.post(format!("{}{path}", gateway.url)).body("{}"))),
        (415, gateway.post(path).header("content-type", "image/png").body("{}")),
        (415, json(gateway.post(path)).header("content-encoding", "lzma").body("{}")),
        (400, json(gateway.post(path)).body("{\"batch\":[")),
        (400, json(gateway.post(path)).body("")),
        (413, json(gateway.post(path)).header("content-encoding", "gzip").body(bomb)),
        (405, gateway.client.delete(format!("{}{path}", gateway.url)).bearer_auth(&gateway.key)),
    ];
    for (status, request) in cases {
        let exchange = Exchange::of(node, request).await;
        assert_eq!(exchange.refused(), status, "{}", exchange.said);
        assert!(speaks_foreign(&exchange.said), "{}", exchange.said);
    }
    gateway.key = node.key(Role::Viewer).await;
    let viewer = loop {
        let exchange = Exchange::of(node, json(gateway.post(path)).body("{}")).await;
        // The new key arrives by itself; until then it is unknown.
        if exchange.refused() != 401 {
            break exchange;
        }
    };
    assert_eq!(viewer.status, 403);
    assert!(speaks_foreign(&viewer.said), "{}", viewer.said);
    gateway.stop().await;
}

/// The status and the error's code; nothing of the request may be stored.
pub(crate) async fn refusal(node: &Node, request: RequestBuilder) -> (u16, String) {
    let (status, body, request_id) = answer(request).await;
    assert!(!request_id.is_empty() && !node.holds(&request_id).await, "something was published");
    (status, body["error"]["code"].as_str().unwrap().to_owned())
}

pub(crate) fn header(response: &Response, name: &str) -> String {
    response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

/// After how many seconds a refused request may be sent again.
pub(crate) fn again(response: &Response) -> u64 {
    header(response, "retry-after").parse().unwrap()
}

pub(crate) fn positions(answer: &Value) -> Vec<Position> {
    serde_json::from_value(answer["positions"].clone()).unwrap()
}

/// Runs a test in front of the shared node, or says why it is skipped.
pub(crate) fn on_kafka<F: Future<Output = ()>>(test: impl FnOnce(&'static Node) -> F) {
    match &*NODE {
        Ok(node) => run(test(node)),
        Err(why) => println!("skipped: Kafka cannot be had here: {why}"),
    }
}

/// Runs a test that needs no shared node.
pub(crate) fn run(test: impl Future<Output = ()>) {
    RUNTIME.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("the test takes too long") });
}
