//! One assigned partition: gather a range, store it, commit it, hand on what it touched.
//!
//! | killed | then |
//! |---|---|
//! | before or during the insert | the next owner reads from the committed offset; nothing was settled |
//! | between insert and commit | the next owner reads the range again; the same range under the same token is stored once |
//! | between commit and recomputation | what lies beyond the recorded progress is touched again on assignment |
//!
//! The range is chosen anew by the next owner, and another range has another token: recording it with the commit
//! before the insert, and reading its positions back, has its place in [`store`] (INV-4).

use std::time::{Duration, Instant};

use fleetlog_log::{AssignedPartition, Lease, LogError, Outgoing, Producer, Read, Record, Start, Target};
use fleetlog_runtime::{Classified, Clock, ErrorClass, Readiness, Shutdown};
use fleetlog_schemas::avro::{Blob, to_single_object};
use fleetlog_schemas::record::DeadReason;
use fleetlog_schemas::{DeadLetter, topic};
use fleetlog_store::{Attempt, FactRange, Store, StoreError};

use crate::batch::{Batcher, Closed, Limits};
use crate::deriver::Deriver;
use crate::error::AggregatorError;
use crate::facts::Facts;
use crate::metrics;

/// How long after an attempt was prepared ClickHouse may still start it (INV-4.1).
const INSERT_WINDOW_MS: i64 = 30_000;
const BACKOFF_START: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// ClickHouse refuses the data: repeating it is for the operator who looks, and for what bisects it (INV-8).
const BACKOFF_REFUSED: Duration = Duration::from_secs(30);

/// What every partition of a topic needs.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) producer: Producer,
    pub(crate) deriver: Deriver,
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    pub(crate) ready: Readiness,
    pub(crate) shutdown: Shutdown,
}

/// Runs a partition until it is taken away or the service ends.
///
/// # Errors
/// What the log cannot recover from. An outage of the store is no error: it is waited for.
pub(crate) async fn run_partition<F: Facts>(
    shared: Shared,
    mut partition: AssignedPartition,
) -> Result<(), AggregatorError> {
    let lease = partition.lease();
    let assignment = partition.assignment();
    report_loss(F::TOPIC, &lease, assignment.start);
    if F::TOPIC == topic::EVENTS {
        shared.deriver.assigned(lease.partition(), assignment.offset - 1);
    }
    let mut batcher = Batcher::new(shared.limits);
    let mut facts = F::default();
    loop {
        let due = batcher.due();
        tokio::select! {
            read = partition.next() => match read? {
                None => break,
                Some(Read::CaughtUp) => {}
                Some(Read::Record(record)) => {
                    let bytes = record.payload.as_ref().map_or(0, |payload| payload.len());
                    let rows = take(&shared, &mut facts, &record).await?;
                    batcher.add(Instant::now(), record.position.offset, rows, bytes);
                }
            },
            () = until(due) => {}
            () = shared.shutdown.triggered() => break,
        }
        if let Some(closed) = batcher.close(Instant::now())
            && !settle(&shared, &lease, std::mem::take(&mut facts), closed).await?
        {
            break;
        }
    }
    // Taken away: the rest is the next owner's. Told to stop: what is held is settled, so that nothing is read twice.
    if lease.is_active()
        && let Some(closed) = batcher.close_anyway(Instant::now())
    {
        settle(&shared, &lease, facts, closed).await?;
    }
    shared.deriver.gone::<F>(lease.partition());
    Ok(())
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

fn report_loss(topic: &'static str, lease: &Lease, start: Start) {
    match start {
        Start::Fresh | Start::Resumed => {}
        Start::Lost { from, to } => {
            metrics::LOST.add_for("topic", topic, u64::try_from(to - from).unwrap_or(0));
            tracing::error!(
                topic,
                partition = lease.partition(),
                from,
                to,
                "retention deleted records before they were stored"
            );
        }
        Start::Ahead { committed, end } => {
            tracing::error!(
                topic,
                partition = lease.partition(),
                committed,
                end,
                "the log ends before the committed offset"
            );
        }
    }
}

/// Takes a record's facts; one that does not decode becomes a dead letter and never stops the partition (INV-8).
async fn take<F: Facts>(shared: &Shared, facts: &mut F, record: &Record) -> Result<usize, AggregatorError> {
    let Some(payload) = &record.payload else { return Ok(0) };
    let error = match facts.add(record.position, payload) {
        Ok(rows) => return Ok(rows),
        Err(error) => error,
    };
    metrics::UNDECODABLE.add_for("topic", F::TOPIC, 1);
    tracing::error!(topic = F::TOPIC, position = %record.position, %error, "a record does not decode");
    if F::TOPIC == topic::DEAD {
        // It is where dead letters end, and its bytes stay there.
        return Ok(0);
    }
    let now = shared.clock.now_ns();
    let letter = DeadLetter {
        reason: DeadReason::Undecodable,
        message: format!("events record {}: {error}", record.position),
        stage: "aggregator".to_owned(),
        raw_partition: -1,
        raw_offset: -1,
        raw_index: -1,
        received_at: now,
        failed_at: now,
        content_type: "avro/binary".to_owned(),
        payload: Blob(payload.to_vec()),
        ..DeadLetter::default()
    };
    bury(shared, letter).await?;
    Ok(0)
}

/// Writes a dead letter and waits until it is durable.
async fn bury(shared: &Shared, mut letter: DeadLetter) -> Result<(), AggregatorError> {
    let mut backoff = BACKOFF_START;
    loop {
        let bytes = to_single_object(&letter).map_err(|e| LogError::Control(e.to_string()))?;
        let outgoing =
            Outgoing { topic: topic::DEAD, target: Target::Spread, key: None, payload: Some(&bytes) };
        let delivered = match shared.producer.enqueue(outgoing) {
            Ok(delivery) => delivery.await.map(|_| ()),
            Err(error) => Err(error),
        };
        match delivered {
            Ok(()) => return Ok(()),
            // The reason and the position are worth keeping even where the bytes are too many.
            Err(LogError::TooLarge { .. }) if !letter.payload.0.is_empty() => {
                letter.payload = Blob::default()
            }
            Err(error) if error.class() == ErrorClass::Unavailable && !shared.shutdown.is_triggered() => {
                tracing::warn!(%error, "a dead letter could not be written yet");
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Stores a range and commits it. Returns false when it was abandoned: the partition is no longer ours to work on.
async fn settle<F: Facts>(
    shared: &Shared,
    lease: &Lease,
    facts: F,
    closed: Closed,
) -> Result<bool, AggregatorError> {
    let range =
        FactRange { topic: F::TOPIC, partition: lease.partition(), first: closed.first, last: closed.last };
    let started = Instant::now();
    if !store(shared, lease, &facts, &range).await {
        return Ok(false);
    }
    metrics::STORE_SECONDS.record(started.elapsed().as_secs_f64());
    metrics::ROWS.add_for("topic", F::TOPIC, closed.rows as u64);
    metrics::RANGES.add_for("topic", F::TOPIC, 1);
    if F::TOPIC == topic::EVENTS {
        shared.deriver.stored(range.partition, closed, facts.touched());
    }
    // Kafka commits name the next record, hence +1.
    match lease.commit(range.last + 1, "").await {
        Ok(()) => Ok(true),
        Err(LogError::NotOwner { .. }) => Ok(false),
        // The next commit settles this range too; until then a crash repeats it.
        Err(error) if error.class() == ErrorClass::Unavailable => {
            tracing::warn!(%error, partition = range.partition, "not committed yet");
            Ok(true)
        }
        Err(error) => Err(error.into()),
    }
}

/// Stores a range, for as long as it takes. Returns false when the partition was taken away, or the service ends, before
/// it was stored.
async fn store<F: Facts>(shared: &Shared, lease: &Lease, facts: &F, range: &FactRange) -> bool {
    let mut backoff = BACKOFF_START;
    for number in 1.. {
        // Recording the range and the attempt in the committed offset's metadata has its place here (INV-4.1).
        let error = match attempt(shared, facts, range, number).await {
            Ok(()) => {
                shared.ready.ready();
                return true;
            }
            Err(error) => error,
        };
        metrics::STORE_RETRIES.add_for("code", error.code(), 1);
        let wait = match error.class() {
            ErrorClass::Unavailable => backoff,
            _ => BACKOFF_REFUSED,
        };
        if error.class() == ErrorClass::Unavailable {
            tracing::warn!(%error, ?range, number, "the range is not stored yet");
        } else {
            tracing::error!(%error, ?range, number, "the range is refused; its partition waits");
        }
        shared.ready.not_ready(error.to_string());
        tokio::select! {
            // The insert is idempotent by token, so it is repeated until it is known to be stored.
            () = tokio::time::sleep(wait) => {}
            () = lease.revoked() => return false,
            () = shared.shutdown.triggered() => return false,
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
    false
}

async fn attempt<F: Facts>(
    shared: &Shared,
    facts: &F,
    range: &FactRange,
    number: u32,
) -> Result<(), StoreError> {
    let insert_before_ms = shared.store.now_ms().await? + INSERT_WINDOW_MS;
    facts.store(&shared.store, range, &Attempt { number, insert_before_ms }).await
}
