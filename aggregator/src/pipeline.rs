//! The whole way of a fact, on one screen:
//!
//! ```text
//! events topic ───▶ partition: gather a range ─▶ judge ─▶ insert events, pieces, settlements ─▶ commit ─▶ touched groups
//! dead letters ───▶ partition: gather a range ─▶ insert dead_letters ─▶ commit                        │
//!                   batch_max_rows, batch_max_bytes, batch_wait_ms                  derive_max_pending ▼
//!                         deriver: all facts of a group ─▶ calls, tools, session ─▶ one version ─▶ usage ─▶ progress
//! ```
//!
//! Partitions run side by side; within one, a range is settled before the next is stored, so what is in memory is one
//! range a partition, and not reading is the backpressure.

use std::sync::Arc;
use std::time::Duration;

use fleetlog_log::{Admin, AssignedPartition, Consumer, ConsumerOptions, KafkaConfig, Producer, Trimmer};
use fleetlog_runtime::{Classified, Deps, ErrorClass, Readiness, Shutdown, Supervisor, serve_admin};
use fleetlog_schemas::topic;
use fleetlog_store::Store;
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::batch::Limits;
use crate::config::Config;
use crate::derive::Prices;
use crate::deriver::{Deriver, run_deriver};
use crate::error::AggregatorError;
use crate::facts::{DeadFacts, EventFacts, Facts};
use crate::metrics;
use crate::partition::{Shared, run_partition};

const STORE_RETRY: Duration = Duration::from_millis(500);

/// Runs until shutdown.
///
/// # Errors
/// [`AggregatorError`] when it cannot start or cannot go on; an outage is never a reason.
pub(crate) async fn run(config: Config, deps: Deps, shutdown: Shutdown) -> Result<(), AggregatorError> {
    let ready = deps.health.component("aggregator");
    let stored = deps.health.component("clickhouse");
    let own = Arc::new(config.aggregator);
    let prices = Prices::new(config.prices.table()?);
    let store = Store::new(&config.clickhouse)?;
    if !wait_for_store(&store, own.migrate_at_start, &stored, &shutdown).await? {
        return Ok(());
    }
    let admin = Admin::new(&config.kafka)?;
    let Some(topics) = admin.wait_for_topics(&shutdown).await? else { return Ok(()) };
    let wait = own.batch_wait(topics.events);
    metrics::BATCH_WAIT.set(wait.as_secs_f64());
    let deriver = Deriver::new(&own);
    let shared = Shared {
        store: store.clone(),
        producer: Producer::new(&config.kafka, topic::EVENTS_MAX_MESSAGE_BYTES)?,
        deriver: deriver.clone(),
        trimmer: Trimmer::new(admin, deps.clock.clone(), config.kafka.events_keep_hours),
        limits: Limits { rows: own.batch_max_rows, bytes: own.batch_max_bytes, wait },
        dedup_bytes: own.dedup_max_bytes / topics.events.max(1) as usize,
        dedup_window_ns: i64::from(own.dedup_window_hours) * 3_600_000_000_000,
        clock: deps.clock.clone(),
        ready: stored,
        shutdown: shutdown.clone(),
    };
    let budget = own.shutdown_budget();
    let dead_group = format!("{}.dead", own.group);
    let mut tasks = Supervisor::new(shutdown.clone());
    tasks.spawn("admin", serve_admin(config.admin, deps, shutdown.clone()));
    tasks.spawn(
        "events",
        consume::<EventFacts>(config.kafka.clone(), own.group.clone(), shared.clone(), ready),
    );
    tasks.spawn("dead letters", consume::<DeadFacts>(config.kafka, dead_group, shared.clone(), shared.ready));
    tasks.spawn("deriver", run_deriver(deriver, store, prices, own, shutdown));
    Ok(tasks.join(budget).await?)
}

/// Waits until the store answers and is migrated; false when shutdown came first.
async fn wait_for_store(
    store: &Store,
    migrate: bool,
    ready: &Readiness,
    shutdown: &Shutdown,
) -> Result<bool, AggregatorError> {
    loop {
        let attempt = async {
            if migrate {
                return store.migrate().await.map(|_| ());
            }
            store.ping().await?;
            store.verify_cluster().await
        };
        let attempt = tokio::select! {
            attempt = attempt => attempt,
            () = shutdown.triggered() => return Ok(false),
        };
        match attempt {
            Ok(()) => {
                ready.ready();
                return Ok(true);
            }
            Err(error) if error.class() == ErrorClass::Unavailable => {
                tracing::warn!(%error, "waiting for clickhouse");
                ready.not_ready(error.to_string());
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(STORE_RETRY) => {}
            () = shutdown.triggered() => return Ok(false),
        }
    }
}

/// Runs a partition. The events topic is trimmed behind what is stored; dead letters are kept by their own retention.
async fn run_trimmed<F: Facts>(shared: Shared, partition: AssignedPartition) -> Result<(), AggregatorError> {
    let (trimmer, lease) = (shared.trimmer.clone(), partition.lease());
    let work = run_partition::<F>(shared, partition);
    if F::TOPIC == topic::EVENTS { trimmer.beside(lease, work).await } else { work.await }
}

/// Runs every assigned partition of a topic until shutdown, then gives all of them back.
async fn consume<F: Facts + 'static>(
    kafka: KafkaConfig,
    group: String,
    shared: Shared,
    ready: Readiness,
) -> Result<(), AggregatorError> {
    let mut consumer = Consumer::start(&kafka, ConsumerOptions::new(group, F::TOPIC))?;
    ready.ready();
    let mut partitions = FuturesUnordered::new();
    let mut ended = Ok(());
    while !shared.shutdown.is_triggered() && ended.is_ok() {
        tokio::select! {
            assigned = consumer.next_assignment() => match assigned {
                Ok(Some(partition)) => partitions.push(run_trimmed::<F>(shared.clone(), partition)),
                Ok(None) => break,
                Err(error) => ended = Err(error.into()),
            },
            Some(outcome) = partitions.next() => ended = outcome,
            () = shared.shutdown.triggered() => {}
        }
    }
    if ended.is_err() {
        // Ranges that nobody asked to end would be waited for in vain.
        shared.shutdown.trigger();
    }
    let drain = async {
        while let Some(outcome) = partitions.next().await {
            if let Err(error) = outcome {
                tracing::warn!(%error, topic = F::TOPIC, "a partition's last range was not settled and will be read again");
            }
        }
    };
    // Partitions settle what they hold while they are still ours, and only then are they given back.
    drain.await;
    consumer.close().await;
    ended
}
