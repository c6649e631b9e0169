//! One assigned partition: gather a range, store it, commit it, hand on what it touched.
//!
//! What a crash leaves of an insert is told by the committed offset's metadata, and proved before anything else
//! ([`crate::once`]); what is read a second time is held against what is stored; what a crash leaves of a recomputation is
//! touched again on assignment.

use std::time::{Duration, Instant};

use fleetlog_log::{
    AssignedPartition, Lease, LogError, Outgoing, Producer, Read, Record, Start, Target, Trimmer,
};
use fleetlog_runtime::{Classified, Clock, ErrorClass, Readiness, Shutdown};
use fleetlog_schemas::avro::{Blob, to_single_object};
use fleetlog_schemas::record::DeadReason;
use fleetlog_schemas::{DeadLetter, topic};
use fleetlog_store::{FactRange, Store, StoreError};

use crate::batch::{Batcher, Closed, Limits};
use crate::dedup::{Dedup, Recent};
use crate::deriver::Deriver;
use crate::error::AggregatorError;
use crate::facts::Facts;
use crate::metrics;
use crate::once::{Before, INSERT_WINDOW_MS, Inherited, Note};
use crate::settle::{LOOK_AGAIN, Settling, Unsettled};

const BACKOFF_START: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// What every partition of a topic needs.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) producer: Producer,
    pub(crate) deriver: Deriver,
    pub(crate) trimmer: Trimmer,
    pub(crate) limits: Limits,
    /// Memory of one partition for recognising repeats.
    pub(crate) dedup_bytes: usize,
    pub(crate) dedup_window_ns: i64,
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
    let mut settled = assignment.offset;
    let Some(stored_end) = look_ahead::<F>(&shared, &lease, settled, assignment.start).await else {
        return Ok(());
    };
    if F::TOPIC == topic::EVENTS {
        shared.deriver.assigned(lease.partition(), assignment.offset - 1);
    }
    let note = match &assignment.committed {
        Some(committed) => Note::parse(&committed.metadata)?,
        None => None,
    };
    if stored_end > note.map_or(settled, |note| settled.max(note.last + 1)) {
        let (topic, partition) = (F::TOPIC, lease.partition());
        tracing::warn!(
            topic,
            partition,
            settled,
            stored_end,
            "what is read may be stored: it is held against that"
        );
    }
    let inherited = Inherited::new(settled, assignment.start, note, stored_end);
    let Some(mut dedup) = remember::<F>(&shared, &lease).await else { return Ok(()) };
    if let Some(note) = inherited.noted
        && !replay::<F>(&shared, &mut partition, &mut dedup, &mut settled, &inherited, note).await?
    {
        shared.deriver.gone::<F>(lease.partition());
        return Ok(());
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
                    let Some(rows) = take(&shared, &lease, &mut facts, &record).await? else { break };
                    batcher.add(Instant::now(), record.position.offset, rows, bytes);
                }
            },
            () = until(due) => {}
            () = shared.shutdown.triggered() => break,
        }
        if let Some(closed) = batcher.close(Instant::now()) {
            let before = inherited.before(closed.first);
            let facts = std::mem::take(&mut facts);
            if !settle(&shared, &lease, facts, closed, &mut dedup, &mut settled, before).await? {
                break;
            }
        }
    }
    // Taken away: the rest is the next owner's. Told to stop: what is held is settled, so that nothing is read twice.
    if lease.is_active()
        && let Some(closed) = batcher.close_anyway(Instant::now())
    {
        let before = inherited.before(closed.first);
        settle(&shared, &lease, facts, closed, &mut dedup, &mut settled, before).await?;
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

/// Takes a record's facts and returns how many rows they are; one that does not decode becomes a dead letter and never
/// stops the partition (INV-8). `None`: the partition, or the service, is going away, and the record is the next owner's.
async fn take<F: Facts>(
    shared: &Shared,
    lease: &Lease,
    facts: &mut F,
    record: &Record,
) -> Result<Option<usize>, AggregatorError> {
    let Some(payload) = &record.payload else { return Ok(Some(0)) };
    let error = match facts.add(record.position, payload) {
        Ok(rows) => return Ok(Some(rows)),
        Err(error) => error,
    };
    metrics::UNDECODABLE.add_for("topic", F::TOPIC, 1);
    tracing::error!(topic = F::TOPIC, position = %record.position, %error, "a record does not decode");
    if F::TOPIC == topic::DEAD {
        // It is where dead letters end, and its bytes stay there.
        return Ok(Some(0));
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
    Ok(bury(shared, lease, letter).await?.then_some(0))
}

/// Writes a dead letter and waits until it is durable. Returns false when the partition, or the service, is going away
/// before it is known to be: the next owner writes it again.
pub(crate) async fn bury(
    shared: &Shared,
    lease: &Lease,
    mut letter: DeadLetter,
) -> Result<bool, AggregatorError> {
    let mut backoff = BACKOFF_START;
    loop {
        let bytes = to_single_object(&letter).map_err(|e| LogError::Control(e.to_string()))?;
        let outgoing =
            Outgoing { topic: topic::DEAD, target: Target::Spread, key: None, payload: Some(&bytes) };
        let delivered = match shared.producer.enqueue(outgoing) {
            Ok(delivery) => tokio::select! {
                delivered = delivery => delivered.map(|_| ()),
                // A rebalance of the whole group waits for us.
                () = lease.revoked() => return Ok(false),
            },
            Err(error) => Err(error),
        };
        match delivered {
            Ok(()) => return Ok(true),
            // The reason and the position are worth keeping even where the bytes are too many.
            Err(LogError::TooLarge { .. }) if !letter.payload.0.is_empty() => {
                letter.payload = Blob::default()
            }
            Err(error) if error.class() == ErrorClass::Unavailable => {
                tracing::warn!(%error, "a dead letter could not be written yet");
                tokio::select! {
                    () = tokio::time::sleep(backoff) => {}
                    () = lease.revoked() => return Ok(false),
                    () = shared.shutdown.triggered() => return Ok(false),
                }
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
    mut facts: F,
    closed: Closed,
    dedup: &mut Dedup,
    settled: &mut i64,
    before: Before,
) -> Result<bool, AggregatorError> {
    let range =
        FactRange { topic: F::TOPIC, partition: lease.partition(), first: closed.first, last: closed.last };
    let started = Instant::now();
    if !judge(shared, lease, &mut facts, dedup).await {
        return Ok(false);
    }
    match Settling::new(shared, lease, &mut facts, range, *settled).run(before).await {
        Ok(()) => {}
        Err(Unsettled::Abandoned) => return Ok(false),
        Err(Unsettled::Failed(error)) => return Err(error),
    }
    metrics::STORE_SECONDS.record(started.elapsed().as_secs_f64());
    metrics::ROWS.add_for("topic", F::TOPIC, closed.rows as u64);
    metrics::RANGES.add_for("topic", F::TOPIC, 1);
    if F::TOPIC == topic::EVENTS {
        shared.deriver.stored(range.partition, closed, facts.touched());
    }
    // Kafka's offsets name the next record, hence +1.
    *settled = range.last + 1;
    match lease.commit(*settled, "").await {
        Ok(()) => Ok(true),
        Err(LogError::NotOwner { .. }) => Ok(false),
        // The next note settles this range too; until then a crash proves it again.
        Err(error) if error.class() == ErrorClass::Unavailable => {
            tracing::warn!(%error, partition = range.partition, "not committed yet");
            Ok(true)
        }
        Err(error) => Err(error.into()),
    }
}

/// Takes out of a range what is stored already. Returns false when the partition, or the service, is going away.
async fn judge<F: Facts>(shared: &Shared, lease: &Lease, facts: &mut F, dedup: &mut Dedup) -> bool {
    let mut backoff = BACKOFF_START;
    raise_ceiling(shared, lease, dedup).await;
    loop {
        let error = match facts.judge(&shared.store, dedup, shared.clock.now_ns()).await {
            Ok(duplicates) => {
                metrics::DUPLICATES.add(duplicates as u64);
                metrics::DEDUP_HORIZON.set_for(
                    "partition",
                    lease.partition().to_string(),
                    dedup.recent.horizon() as f64 / 1e9,
                );
                metrics::DEDUP_UNTIMED_HORIZON.set_for(
                    "partition",
                    lease.partition().to_string(),
                    dedup.recent.untimed_horizon() as f64 / 1e9,
                );
                metrics::DEDUP_BYTES.set_for(
                    "partition",
                    lease.partition().to_string(),
                    dedup.recent.bytes() as f64,
                );
                return true;
            }
            Err(error) => error,
        };
        if !wait_out(shared, lease, &error, &mut backoff).await {
            return false;
        }
    }
}

/// The offset behind all that is stored of a partition from `settled` on. Where nothing is committed it is asked for once
/// no insert that somebody recorded before can start or run any more. `None`: the partition, or the service, is going away.
async fn look_ahead<F: Facts>(shared: &Shared, lease: &Lease, settled: i64, start: Start) -> Option<i64> {
    let (store, partition) = (&shared.store, lease.partition());
    let range = FactRange { topic: F::TOPIC, partition, first: settled, last: settled };
    let mut recorded_until = None;
    let mut backoff = BACKOFF_START;
    loop {
        let looked = async {
            let stored_end = store.stored_end(F::TABLES, partition, settled).await?;
            if start != Start::Fresh || stored_end == settled {
                return Ok(Some(stored_end));
            }
            let now = store.now_ms().await? - store.clock_skew_ms();
            if now <= *recorded_until.get_or_insert(now + store.clock_skew_ms() + INSERT_WINDOW_MS) {
                return Ok(None);
            }
            for table in F::TABLES {
                if store.is_inserting(*table, &range).await? {
                    return Ok(None);
                }
            }
            store.stored_end(F::TABLES, partition, settled).await.map(Some)
        };
        match looked.await {
            Ok(Some(stored_end)) => return Some(stored_end),
            Ok(None) => tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = lease.revoked() => return None,
                () = shared.shutdown.triggered() => return None,
            },
            Err(error) if wait_out(shared, lease, &error, &mut backoff).await => {}
            Err(_) => return None,
        }
    }
}

/// What a new owner must remember of what is stored: nothing before now, and everything later.
async fn remember<F: Facts>(shared: &Shared, lease: &Lease) -> Option<Dedup> {
    let now = shared.clock.now_ns();
    let mut dedup =
        Dedup { recent: Recent::since(now, shared.dedup_bytes), window_ns: shared.dedup_window_ns };
    if F::TOPIC != topic::EVENTS {
        return Some(dedup);
    }
    let since = now.saturating_sub(shared.dedup_window_ns);
    let mut backoff = BACKOFF_START;
    loop {
        let later = shared.store.later_keys(lease.partition(), now);
        let untimed = shared.store.untimed_keys(lease.partition(), since);
        match futures::try_join!(later, untimed) {
            Ok(((keys, complete_below), (untimed, complete_from))) => {
                dedup.recent.load(keys, complete_below, now);
                dedup.recent.load_untimed(untimed, complete_from);
                return Some(dedup);
            }
            Err(error) if wait_out(shared, lease, &error, &mut backoff).await => {}
            Err(_) => return None,
        }
    }
}

/// Loads what was too far ahead to be remembered, once the present comes near it. Without it, it is looked up.
async fn raise_ceiling(shared: &Shared, lease: &Lease, dedup: &mut Dedup) {
    let now = shared.clock.now_ns();
    let Some(ceiling) = dedup.recent.reaches_ceiling(now) else { return };
    match shared.store.later_keys(lease.partition(), ceiling).await {
        Ok((keys, complete_below)) => dedup.recent.load(keys, complete_below, now),
        Err(error) => tracing::warn!(%error, partition = lease.partition(), "later keys are not loaded"),
    }
}

/// Waits for the store; false when the partition, or the service, is going away.
async fn wait_out(shared: &Shared, lease: &Lease, error: &StoreError, backoff: &mut Duration) -> bool {
    metrics::STORE_RETRIES.add_for("code", error.code(), 1);
    tracing::warn!(%error, partition = lease.partition(), "waiting for the store");
    shared.ready.not_ready(error.to_string());
    tokio::select! {
        () = tokio::time::sleep(*backoff) => {}
        () = lease.revoked() => return false,
        () = shared.shutdown.triggered() => return false,
    }
    *backoff = (*backoff * 2).min(BACKOFF_MAX);
    true
}

/// Gathers the range that an earlier owner had on its way, as far as it is still there, and settles it first. Returns false
/// when it was abandoned.
async fn replay<F: Facts>(
    shared: &Shared,
    partition: &mut AssignedPartition,
    dedup: &mut Dedup,
    settled: &mut i64,
    inherited: &Inherited,
    note: Note,
) -> Result<bool, AggregatorError> {
    let lease = partition.lease();
    tracing::info!(
        topic = F::TOPIC,
        partition = lease.partition(),
        ?note,
        "an insert of an earlier owner is proved"
    );
    metrics::REPLAYED_RANGES.add_for("topic", F::TOPIC, 1);
    let mut facts = F::default();
    let mut rows = 0;
    let mut ends = None;
    loop {
        let read = tokio::select! {
            read = partition.next() => read?,
            () = shared.shutdown.triggered() => return Ok(false),
        };
        match read {
            None => return Ok(false),
            // A log that ends before the note does was truncated: what is left is proved, and only that is settled.
            Some(Read::CaughtUp) => break,
            Some(Read::Record(record)) => {
                let Some(taken) = take(shared, &lease, &mut facts, &record).await? else { return Ok(false) };
                rows += taken;
                let offset = record.position.offset;
                ends = Some((ends.map_or(offset, |(first, _)| first), offset));
                if offset >= note.last {
                    break;
                }
            }
        }
    }
    let Some((first, last)) = ends else { return Ok(true) };
    let before = inherited.before_noted(first, last);
    settle(shared, &lease, facts, Closed { first, last, rows }, dedup, settled, before).await
}
