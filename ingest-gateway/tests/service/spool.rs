//! The spool in front of a real broker that freezes, on real disks that fill up; and the watched disk.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use fleetlog_ingest_gateway::{Config, GatewayConfig, bind};
use fleetlog_log::{KafkaConfig, SpoolReader};
use fleetlog_runtime::{Clock, Deps, Health, TelemetryConfig, init_telemetry};
use fleetlog_schemas::control::Role;
use fleetlog_schemas::record::{RawBatch, SpoolStanding};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{Gateway, Node, RUNTIME, answer, header, positions, run};

/// The gauges of a process are those of its last gateway with a spool.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A broker that these tests may freeze.
static NODE: LazyLock<Result<Node, String>> = LazyLock::new(|| RUNTIME.block_on(Node::start()));

fn alone<F: Future<Output = ()>>(test: impl FnOnce(&'static Node) -> F) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    match &*NODE {
        Ok(node) => {
            node.kafka.resume();
            run(test(node));
        }
        Err(why) => println!("skipped: Kafka cannot be had here: {why}"),
    }
}

fn spool(path: &Path) -> GatewayConfig {
    GatewayConfig {
        spool_path: path.display().to_string(),
        spool_after_ms: 300,
        spool_min_free_bytes: 0,
        shutdown_budget_ms: 500,
        ..GatewayConfig::default()
    }
}

async fn start(node: &Node, config: GatewayConfig) -> Gateway {
    let mut gateway = Gateway::start(Config { gateway: config, kafka: node.config() }).await;
    gateway.key = node.key(Role::Ingest).await;
    while answer(gateway.events("[]")).await.0 != 202 {}
    gateway
}

/// Sends one event of a session; its answer, and the id of its request.
async fn send(gateway: &Gateway, filler: usize) -> (u16, Value, String) {
    let body = json!({"type": "log", "data": {"text": "x".repeat(filler)}}).to_string();
    answer(gateway.events(body).header("x-fleetlog-session", "s")).await
}

/// Freezes the broker, which may still take something while it stops; the ids of requests, of which the last is spooled.
async fn freeze(node: &Node, gateway: &Gateway) -> Vec<String> {
    node.kafka.pause();
    let mut ids = Vec::new();
    loop {
        let (status, said, id) = send(gateway, 10).await;
        assert_eq!(status, 202, "{said}");
        ids.push(id);
        if said["durability"] == "spooled" {
            return ids;
        }
    }
}

/// The ids of spooled requests.
async fn send_to_spool(gateway: &Gateway, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let (status, said, id) = send(gateway, 10).await;
        assert_eq!((status, &said["durability"]), (202, &json!("spooled")), "{said}");
        assert_eq!((&said["receipt"], &said["positions"]), (&json!("spooled"), &json!([])));
        ids.push(id);
    }
    ids
}

/// Sends until a request goes straight to Kafka again, and returns the ids of all.
async fn until_direct(gateway: &Gateway) -> Vec<String> {
    let mut ids = Vec::new();
    loop {
        let (status, said, id) = send(gateway, 10).await;
        if status == 202 {
            ids.push(id);
            if said["durability"].is_null() {
                assert_eq!(positions(&said).len(), 1);
                return ids;
            }
        }
    }
}

async fn metric(gateway: &Gateway, name: &str) -> f64 {
    let text =
        gateway.client.get(format!("{}/metrics", gateway.url)).send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or("0");
    line.parse().unwrap()
}

/// What the raw topic holds of these requests, in the order of their partition.
async fn published(node: &Node, ids: &[String]) -> Vec<RawBatch> {
    node.raw().await.into_iter().filter(|batch| ids.contains(&batch.request_id)).collect()
}

fn ids_of(batches: &[RawBatch]) -> Vec<String> {
    batches.iter().map(|batch| batch.request_id.clone()).collect()
}

/// INV-1 with the spool: 2xx means on this disk, and then in Kafka, in order and once.
#[test]
fn while_kafka_is_frozen_requests_are_spooled_and_then_published_in_order_each_once() {
    alone(|node| async move {
        let folder = tempfile::tempdir().unwrap();
        let gateway = start(node, spool(folder.path())).await;
        let mut ids = until_direct(&gateway).await;
        ids.extend(freeze(node, &gateway).await);
        ids.extend(send_to_spool(&gateway, 30).await);
        assert!(metric(&gateway, "fleetlog_gateway_spool_records").await >= 31.0);
        assert!(metric(&gateway, "fleetlog_gateway_spool_bytes").await > 3_000.0);
        assert!(metric(&gateway, "fleetlog_gateway_spool_oldest_seconds").await > 0.0);
        node.kafka.resume();
        ids.extend(until_direct(&gateway).await);
        let batches = published(node, &ids).await;
        assert_eq!(ids_of(&batches), ids, "out of order, lost, or twice");
        let sequences: Vec<i64> =
            batches.iter().map(|batch| batch.spool_sequence).filter(|n| *n > 0).collect();
        assert!(sequences.len() >= 30 && sequences.is_sorted(), "{sequences:?}");
        assert!(batches.iter().all(|batch| batch.gateway_id == batches[0].gateway_id));
        assert_eq!(metric(&gateway, "fleetlog_gateway_spool_records").await, 0.0);
        gateway.stop().await;
    });
}

/// What the senders of a load were told.
#[derive(Default)]
struct Load {
    ids: Mutex<Vec<String>>,
    direct: AtomicU64,
    stop: AtomicBool,
}

impl Load {
    async fn send(self: Arc<Self>, gateway: Arc<Gateway>) {
        while !self.stop.load(Ordering::Relaxed) {
            let (status, said, id) = send(&gateway, 500).await;
            assert_eq!(status, 202, "{said}");
            self.ids.lock().unwrap().push(id);
            if said["durability"].is_null() {
                self.direct.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The drain must win against what arrives, or the spool would be used for ever.
#[test]
fn under_a_steady_load_the_spool_is_drained_and_requests_go_straight_to_kafka_again() {
    alone(|node| async move {
        let folder = tempfile::tempdir().unwrap();
        let gateway = Arc::new(start(node, spool(folder.path())).await);
        let (load, mut senders) = (Arc::new(Load::default()), JoinSet::new());
        for _ in 0..8 {
            senders.spawn(Arc::clone(&load).send(Arc::clone(&gateway)));
        }
        node.kafka.pause();
        while metric(&gateway, "fleetlog_gateway_spool_records").await < 200.0 {}
        node.kafka.resume();
        load.direct.store(0, Ordering::Relaxed);
        while load.direct.load(Ordering::Relaxed) < 100 {
            tokio::task::yield_now().await;
        }
        load.stop.store(true, Ordering::Relaxed);
        while let Some(sender) = senders.join_next().await {
            sender.unwrap();
        }
        let mut sent = std::mem::take(&mut *load.ids.lock().unwrap());
        let mut stored = ids_of(&published(node, &sent).await);
        sent.sort_unstable();
        stored.sort_unstable();
        assert!(sent.len() >= 300);
        assert_eq!(stored, sent, "lost or twice");
        Arc::into_inner(gateway).unwrap().stop().await;
    });
}

#[test]
fn what_a_stopped_gateway_left_in_its_spool_is_published_by_the_next_one_under_the_same_name() {
    alone(|node| async move {
        let folder = tempfile::tempdir().unwrap();
        let gateway = start(node, spool(folder.path())).await;
        let mut ids = freeze(node, &gateway).await;
        ids.drain(..ids.len() - 1);
        ids.extend(send_to_spool(&gateway, 20).await);
        gateway.stop().await;
        node.kafka.resume();
        let gateway = start(node, spool(folder.path())).await;
        until_direct(&gateway).await;
        let mut batches = published(node, &ids).await;
        let names: Vec<&str> = batches.iter().map(|batch| batch.gateway_id.as_str()).collect();
        assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
        // The first was handed to Kafka before it was spooled, and the stop left its outcome unknown.
        batches.retain(|batch| batch.spool_sequence > 0);
        assert_eq!(ids_of(&batches), ids);
        gateway.stop().await;
    });
}

/// What the gateway of this folder last told of its spool.
async fn told(reader: &SpoolReader, folder: &Path) -> Option<SpoolStanding> {
    let id = std::fs::read_to_string(folder.join("gateway-id")).unwrap();
    reader.standings().await.unwrap().into_iter().find(|word| word.gateway_id == id.trim())
}

#[test]
fn a_spool_is_known_before_anything_is_accepted_and_forgotten_at_an_end_with_nothing_held() {
    alone(|node| async move {
        let (folder, reader) = (tempfile::tempdir().unwrap(), SpoolReader::open(&node.config()).unwrap());
        let gateway = start(node, spool(folder.path())).await;
        let first = told(&reader, folder.path()).await.unwrap();
        assert_eq!((first.records, first.bytes, first.oldest), (0, 0, None));
        while told(&reader, folder.path()).await.unwrap().as_of <= first.as_of {}
        gateway.stop().await;
        assert_eq!(told(&reader, folder.path()).await, None);
    });
}

/// INV-1: the spool counts as in flight, whatever became of its gateway.
#[test]
fn what_a_gateway_told_last_lies_before_everything_that_it_holds() {
    alone(|node| async move {
        let (folder, reader) = (tempfile::tempdir().unwrap(), SpoolReader::open(&node.config()).unwrap());
        let gateway = start(node, spool(folder.path())).await;
        let mut ids = freeze(node, &gateway).await;
        ids.drain(..ids.len() - 1);
        ids.extend(send_to_spool(&gateway, 10).await);
        // Ends without having reached Kafka.
        gateway.stop().await;
        node.kafka.resume();
        let last = told(&reader, folder.path()).await.unwrap();
        let gateway = start(node, spool(folder.path())).await;
        until_direct(&gateway).await;
        let received: Vec<i64> = published(node, &ids).await.iter().map(|batch| batch.received_at).collect();
        let passes = last.oldest.map_or(last.as_of, |oldest| oldest.min(last.as_of));
        assert!(received.iter().all(|received_at| passes <= *received_at), "{last:?} {received:?}");
        // And once it is drained nothing is held back any more.
        let newest = received.into_iter().max().unwrap();
        loop {
            let word = told(&reader, folder.path()).await.unwrap();
            if word.as_of > newest && word.oldest.is_none() {
                assert_eq!((word.records, word.bytes), (0, 0));
                break;
            }
        }
        gateway.stop().await;
    });
}

/// INV-9: the spool is bounded, and a full one is 503.
#[test]
fn a_full_spool_says_later_and_loses_nothing_it_accepted() {
    alone(|node| async move {
        let folder = tempfile::tempdir().unwrap();
        let few = GatewayConfig { spool_max_bytes: 40_000, ..spool(folder.path()) };
        let gateway = start(node, few).await;
        let mut ids = freeze(node, &gateway).await;
        ids.extend(fill(&gateway, "spool_full").await);
        assert!((5..30).contains(&ids.len()), "{}", ids.len());
        assert!(metric(&gateway, "fleetlog_gateway_spool_bytes").await <= 40_000.0);
        node.kafka.resume();
        until_direct(&gateway).await;
        assert_eq!(ids_of(&published(node, &ids).await), ids);
        gateway.stop().await;
    });
}

/// Sends until it is refused for this reason; the ids of what was spooled.
async fn fill(gateway: &Gateway, code: &str) -> Vec<String> {
    let mut ids = Vec::new();
    loop {
        let (status, said, id) = send(gateway, 4_000).await;
        if status == 202 {
            assert_eq!(said["durability"], "spooled");
            ids.push(id);
        } else {
            assert_eq!((status, &said["error"]["code"]), (503, &json!(code)), "{said}");
            return ids;
        }
    }
}

/// A small file system of its own, or none where mounting is not permitted.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(bytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes},nr_inodes=40"), "tmpfs"])
            .arg(folder.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { folder }),
            why => {
                println!("skipped: a file system cannot be mounted here: {why:?}");
                None
            }
        }
    }

    /// Takes so many bytes of it.
    fn occupy(&self, bytes: usize) {
        std::fs::write(self.filler(), vec![0; bytes]).unwrap();
    }

    fn shrink(&self, bytes: u64) {
        std::fs::File::options().write(true).open(self.filler()).unwrap().set_len(bytes).unwrap();
    }

    /// Takes every file that there may be, so that no further one can be created; returns them.
    fn occupy_names(&self) -> Vec<PathBuf> {
        let path = |n: usize| self.folder.path().join(format!("name-{n}"));
        (0..).map(path).take_while(|path| std::fs::File::create(path).is_ok()).collect()
    }

    fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.folder.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the gateway's files may still be closing.
        let unmounted = Command::new("umount").arg("-l").arg(self.folder.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

#[test]
fn a_disk_that_is_really_full_refuses_and_works_again_when_there_is_room() {
    alone(|node| async move {
        let Some(disk) = SmallDisk::mount(1_000_000) else { return };
        // Segments of 10 KB, so that the next one is needed soon.
        let own = spool(&disk.folder.path().join("spool"));
        let gateway = start(node, GatewayConfig { spool_max_bytes: 80_000, ..own }).await;
        let mut ids = freeze(node, &gateway).await;
        disk.occupy(970_000);
        ids.extend(fill(&gateway, "spool_full").await);
        disk.free();
        ids.extend(send_to_spool(&gateway, 3).await);
        // What the operating system refuses with "no space left" only when it is tried.
        let names = disk.occupy_names();
        ids.extend(fill(&gateway, "spool_unwritable").await);
        assert!(metric(&gateway, "fleetlog_gateway_spool_refused_total{reason=\"unwritable\"}").await >= 1.0);
        names.iter().for_each(|name| std::fs::remove_file(name).unwrap());
        ids.extend(send_to_spool(&gateway, 3).await);
        node.kafka.resume();
        until_direct(&gateway).await;
        assert_eq!(ids_of(&published(node, &ids).await), ids);
        gateway.stop().await;
    });
}

/// Why a gateway with this configuration does not start.
async fn refusal_to_start(gateway: GatewayConfig) -> String {
    let local = "127.0.0.1:0".to_owned();
    let gateway = GatewayConfig { listen: local, grpc_listen: String::new(), ..gateway };
    let kafka = KafkaConfig { brokers: "127.0.0.1:1".to_owned(), ..KafkaConfig::default() };
    let metrics =
        init_telemetry(&TelemetryConfig { log: "off".into(), ..TelemetryConfig::default() }).unwrap();
    let deps = Deps { clock: Clock::system(), health: Health::new(), metrics };
    match bind(Config { gateway, kafka }, deps).await {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_spool_folder_has_one_gateway_and_one_that_cannot_be_used_is_an_error_at_the_start() {
    alone(|_| async move {
        let folder = tempfile::tempdir().unwrap();
        let kafka = KafkaConfig { brokers: "127.0.0.1:1".to_owned(), ..KafkaConfig::default() };
        let first = Gateway::start(Config { gateway: spool(folder.path()), kafka }).await;
        let said = refusal_to_start(spool(folder.path())).await;
        let holder = format!("used by process {}", std::process::id());
        assert!(said.contains(&holder) && said.contains("gateway.spool_path"), "{said}");
        first.stop().await;
        assert_eq!(refusal_to_start(spool(folder.path())).await, "");

        let file = folder.path().join("gateway-id");
        let said = refusal_to_start(spool(&file)).await;
        assert!(said.contains("cannot be used"), "{said}");
        let nowhere = folder.path().join("nowhere").display().to_string();
        let said =
            refusal_to_start(GatewayConfig { disk_watch_path: nowhere, ..GatewayConfig::default() }).await;
        assert!(said.contains("gateway.disk_watch_path"), "{said}");
    });
}

/// Ingest sheds before the disk of the log and the store is full.
#[test]
fn a_low_disk_sheds_until_there_is_clearly_more_room() {
    alone(|node| async move {
        let Some(disk) = SmallDisk::mount(10_000_000) else { return };
        let watched = GatewayConfig {
            disk_watch_path: disk.folder.path().display().to_string(),
            disk_min_free_percent: 50.0,
            ..GatewayConfig::default()
        };
        let gateway = start(node, watched).await;
        let ready = || async {
            let response = gateway.client.get(format!("{}/readyz", gateway.url)).send().await.unwrap();
            response.text().await.unwrap()
        };
        assert!(!ready().await.contains("disk"));

        disk.occupy(6_000_000);
        let refused = loop {
            let response = gateway.events("{\"type\":\"log\"}").send().await.unwrap();
            if response.status() != 202 {
                break response;
            }
        };
        assert_eq!(refused.status(), 503);
        assert!(header(&refused, "retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0));
        let said: Value = refused.json().await.unwrap();
        assert_eq!(said["error"]["code"], "disk_low");
        assert!(ready().await.contains("the disk of"), "{}", ready().await);
        assert_eq!(metric(&gateway, "fleetlog_gateway_disk_low").await, 1.0);

        // Above the low watermark and below the high one: seen, and still shed.
        disk.shrink(4_500_000);
        while metric(&gateway, "fleetlog_gateway_disk_free_bytes").await < 5_000_000.0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(send(&gateway, 1).await.0, 503);

        disk.free();
        while send(&gateway, 1).await.0 != 202 {}
        assert!(!ready().await.contains("disk"));
        gateway.stop().await;
    });
}
