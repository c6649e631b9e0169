//! The whole way of a raw record through the processor, on one screen:
//!
//! ```text
//! raw topic ─▶ cycle of a partition: read ─▶ transform (decode, price, redact) ─▶ pack ─▶ one Kafka transaction
//!              bounds: cycle_max_records, cycle_max_bytes,    events and dead-letter topics, the raw offset
//!              cycle_max_output_bytes
//! ```
//!
//! Partitions run side by side; within one, a cycle ends before the next begins, so what is in memory is one cycle a
//! partition, and not reading is the backpressure.

use std::sync::Arc;

use fleetlog_log::{Admin, Consumer, ConsumerOptions, ControlView, TransactionLog, Trimmer};
use fleetlog_runtime::{Deps, Readiness, Shutdown, Supervisor, serve_admin};
use fleetlog_schemas::topic;
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::config::Config;
use crate::cycle::{Shared, run_partition};
use crate::error::ProcessorError;
use crate::pack::Partitions;
use crate::transform::Transform;

/// Runs until shutdown.
///
/// # Errors
/// [`ProcessorError`] when it cannot start or cannot go on; bad input is never a reason.
pub(crate) async fn run(
    config: Config,
    deps: Deps,
    shutdown: Shutdown,
    witness: fn(&[u8]),
) -> Result<(), ProcessorError> {
    let ready = deps.health.component("processor");
    let admin = Admin::new(&config.kafka)?;
    let Some(topics) = admin.wait_for_topics(&shutdown).await? else { return Ok(()) };
    let (transactor, transactions) =
        TransactionLog::new(&config.kafka, &config.processor.group, topic::EVENTS_MAX_MESSAGE_BYTES);
    let (control, follower) = ControlView::open(&config.kafka)?;
    let transform = Transform::configured(&config, topics.events)?;
    let budget = config.processor.shutdown_budget();
    let shared = Shared {
        config: Arc::new(config.processor),
        transform: Arc::new(transform),
        partitions: Partitions { events: topics.events, dead: topics.dead },
        transactor,
        isolation: Arc::default(),
        witness,
        trimmer: Trimmer::new(admin, deps.clock.clone(), config.kafka.raw_keep_hours),
        control,
        clock: deps.clock.clone(),
        shutdown: shutdown.clone(),
    };
    let consumer = Consumer::start(&config.kafka, ConsumerOptions::new(&shared.config.group, topic::RAW))?;
    let mut tasks = Supervisor::new(shutdown.clone());
    tasks.spawn("transactions", transactions.run());
    tasks.spawn("control", follower.follow(shutdown.clone()));
    tasks.spawn("admin", serve_admin(config.admin, deps, shutdown));
    tasks.spawn("partitions", run_partitions(consumer, shared, ready));
    Ok(tasks.join(budget).await?)
}

/// Runs every assigned partition until shutdown, then gives all of them back.
async fn run_partitions(
    mut consumer: Consumer,
    shared: Shared,
    ready: Readiness,
) -> Result<(), ProcessorError> {
    // Whether a project wants its secrets redacted must be known before its first event.
    tokio::select! {
        () = shared.control.caught_up() => {}
        () = shared.shutdown.triggered() => {}
    }
    ready.ready();
    let mut partitions = FuturesUnordered::new();
    let mut ended = Ok(());
    while !shared.shutdown.is_triggered() && ended.is_ok() {
        tokio::select! {
            assigned = consumer.next_assignment() => match assigned {
                Ok(Some(partition)) => {
                    let (shared, lease) = (shared.clone(), partition.lease());
                    partitions.push(async move {
                        shared.trimmer.clone().beside(lease, run_partition(shared, partition)).await
                    });
                },
                Ok(None) => break,
                Err(e) => ended = Err(e.into()),
            },
            Some(outcome) = partitions.next() => ended = outcome,
            () = shared.shutdown.triggered() => {}
        }
    }
    ready.not_ready("stopping");
    let drain = async {
        while let Some(outcome) = partitions.next().await {
            if let Err(e) = outcome {
                tracing::warn!(error = %e, "a partition's last cycle was not settled and will be repeated");
            }
        }
    };
    if ended.is_err() {
        // Cycles that nobody asked to end would be waited for in vain.
        shared.shutdown.trigger();
    }
    tokio::join!(consumer.close(), drain);
    ended
}
