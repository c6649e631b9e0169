//! One cycle of one partition: read what is there, transform it, write it.
//!
//! What the records became and the offset that settles them go into one Kafka transaction (INV-3), so a crash repeats a
//! cycle and neither loses nor doubles anything: what an aborted transaction wrote is seen by no reader. A record that
//! ends the process each time is found by what the cycles note about themselves ([`crate::suspicion`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetlog_log::{
    AssignedPartition, ControlView, Lease, LogError, Read, Record, Start, Transactor, Trimmer, Unit, Write,
};
use fleetlog_runtime::{Classified, Clock, ErrorClass, Shutdown};
use fleetlog_schemas::avro::DecodeError;
use fleetlog_schemas::id::Position;
use futures::FutureExt;

use crate::config::ProcessorConfig;
use crate::error::ProcessorError;
use crate::isolation::Isolation;
use crate::metrics;
use crate::pack::{Packer, Partitions};
use crate::suspicion::{Begin, Suspicion};
use crate::tally::Tally;
use crate::transform::{Transform, Transformed};

const NOTE_RETRY: Duration = Duration::from_millis(500);

/// What the cycles of every partition share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) config: Arc<ProcessorConfig>,
    pub(crate) transform: Arc<Transform>,
    pub(crate) partitions: Partitions,
    pub(crate) transactor: Transactor,
    pub(crate) isolation: Arc<Isolation>,
    /// Shown every record before it is decoded.
    pub(crate) witness: fn(&[u8]),
    pub(crate) trimmer: Trimmer,
    pub(crate) control: ControlView,
    pub(crate) clock: Clock,
    pub(crate) shutdown: Shutdown,
}

/// Runs cycles until the partition is taken away or the service is to end.
///
/// # Errors
/// What ends the processor; the cycle under way is then not committed and will be repeated.
pub(crate) async fn run_partition(
    shared: Shared,
    mut partition: AssignedPartition,
) -> Result<(), ProcessorError> {
    let lease = partition.lease();
    let mut suspicion = shared.suspicion(&partition);
    let mut left = Vec::new();
    loop {
        let records = if left.is_empty() {
            let most = if suspicion.isolates() { 1 } else { shared.config.cycle_max_records };
            let read = tokio::select! {
                records = shared.read(&mut partition, most) => records?,
                () = shared.shutdown.triggered() => return Ok(()),
            };
            let Some(records) = read else { return Ok(()) };
            records
        } else {
            left
        };
        let started = Instant::now();
        let Some(settled) = shared.settle(&lease, records, &suspicion).await? else { return Ok(()) };
        suspicion.settled(settled.next_offset);
        left = settled.left;
        metrics::CYCLE_SECONDS.record(started.elapsed().as_secs_f64());
    }
}

/// What the first of some records became.
struct Made {
    writes: Vec<Write>,
    /// The records behind them: what was made has reached its bound.
    left: Vec<Record>,
}

/// What a cycle settled.
struct Settled {
    /// Everything below is settled.
    next_offset: i64,
    /// Read, and left to the next cycle.
    left: Vec<Record>,
}

impl Shared {
    /// What the partition's earlier owners did not survive.
    fn suspicion(&self, partition: &AssignedPartition) -> Suspicion {
        let assignment = partition.assignment();
        let noted = assignment.committed.as_ref().filter(|_| assignment.start == Start::Resumed);
        let metadata = noted.map_or("", |committed| &committed.metadata);
        let suspicion = Suspicion::found(assignment.offset, metadata, self.config.poison_tries);
        if suspicion.isolates() {
            let (partition, offset) = (assignment.partition, assignment.offset);
            tracing::warn!(partition, offset, note = metadata, "an earlier owner did not get past here");
        }
        suspicion
    }

    /// Waits for a first record, then takes what has already arrived, up to the cycle's bounds; `None` at the end.
    ///
    /// # Cancellation
    /// Records taken are lost to this process and read again by the next owner: nothing is committed here.
    async fn read(
        &self,
        partition: &mut AssignedPartition,
        most: usize,
    ) -> Result<Option<Vec<Record>>, LogError> {
        let mut records = loop {
            match partition.next().await? {
                Some(Read::Record(record)) => break vec![record],
                Some(Read::CaughtUp) => {}
                None => return Ok(None),
            }
        };
        let size = |record: &Record| record.payload.as_ref().map_or(0, |payload| payload.len());
        let mut bytes: usize = records.iter().map(size).sum();
        while records.len() < most && bytes < self.config.cycle_max_bytes {
            match partition.next().now_or_never().transpose()?.flatten() {
                Some(Read::Record(record)) => {
                    bytes += size(&record);
                    records.push(record);
                }
                Some(Read::CaughtUp) | None => break,
            }
        }
        Ok(Some(records))
    }

    /// Transforms, writes and commits as many of the records as the bound of what they make allows, at least one; `None`
    /// when the partition was taken away before.
    async fn settle(
        &self,
        lease: &Lease,
        records: Vec<Record>,
        suspicion: &Suspicion,
    ) -> Result<Option<Settled>, ProcessorError> {
        let offset = |record: Option<&Record>| record.map_or(0, |record| record.position.offset);
        let (first, last) = (offset(records.first()), offset(records.last()));
        let Made { writes, left } = match suspicion.begin(first, last) {
            Begin::Freely => {
                let ended = self.ended(lease);
                let Some(_beside) = self.isolation.beside_others(ended).await else { return Ok(None) };
                self.transform(records).await?
            }
            Begin::Noted(note) => {
                // Before it is noted: a note that is left behind would have the next owner go record by record.
                let ended = self.ended(lease);
                let Some(_beside) = self.isolation.beside_others(ended).await else { return Ok(None) };
                if !self.note(lease, first, &note.text()).await? {
                    return Ok(None);
                }
                self.transform(records).await?
            }
            Begin::Alone(note) => {
                let Some(_alone) = self.isolation.alone(self.ended(lease)).await else { return Ok(None) };
                if !self.note(lease, first, &note.text()).await? {
                    return Ok(None);
                }
                metrics::ISOLATED_RECORDS.add(1);
                let made = self.transform(records).await?;
                if !self.note(lease, first, "").await? {
                    return Ok(None);
                }
                made
            }
            Begin::Bury(tries) => {
                tracing::error!(partition = lease.partition(), offset = first, tries, "a record is given up");
                let now_ns = self.clock.now_ns();
                make(&self.transform, self.partitions, &self.config, records, |position, payload| {
                    self.transform.bury(position, payload, tries, now_ns)
                })?
            }
        };
        // Kafka's offsets name the next record, hence +1.
        let next_offset = left.first().map_or(last + 1, |record| record.position.offset);
        let unit = Unit { lease: lease.clone(), next_offset, writes };
        match self.transactor.commit(unit).await {
            Ok(()) => Ok(Some(Settled { next_offset, left })),
            // Another instance owns the partition by now and repeats the cycle.
            Err(LogError::NotOwner { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Waits until the partition is being taken away, or the service is to end.
    async fn ended(&self, lease: &Lease) {
        tokio::select! {
            () = lease.revoked() => {}
            () = self.shutdown.triggered() => {}
        }
    }

    /// Notes something beside the offset, and waits until Kafka has it; false when the partition was taken away before.
    async fn note(&self, lease: &Lease, offset: i64, note: &str) -> Result<bool, LogError> {
        loop {
            let error = match lease.commit(offset, note).await {
                Ok(()) => return Ok(true),
                Err(LogError::NotOwner { .. }) => return Ok(false),
                Err(error) => error,
            };
            if error.class() != ErrorClass::Unavailable || self.shutdown.is_triggered() {
                return Err(error);
            }
            tracing::warn!(%error, partition = lease.partition(), "what is begun cannot be noted yet");
            tokio::select! {
                () = tokio::time::sleep(NOTE_RETRY) => {}
                () = self.shutdown.triggered() => {}
                () = lease.revoked() => return Ok(false),
            }
        }
    }

    async fn transform(&self, records: Vec<Record>) -> Result<Made, ProcessorError> {
        let (transform, control) = (Arc::clone(&self.transform), self.control.clone());
        let (now_ns, partitions) = (self.clock.now_ns(), self.partitions);
        let (config, witness) = (Arc::clone(&self.config), self.witness);
        let started = Instant::now();
        // Decoding is CPU work of milliseconds: on a worker thread it would hold up every other partition.
        let made = tokio::task::spawn_blocking(move || {
            let redacts = |project: &str| control.project(project).is_none_or(|project| project.redaction);
            make(&transform, partitions, &config, records, |position, payload| {
                witness(payload);
                transform.apply(position, payload, redacts, now_ns)
            })
        });
        let made = made.await??;
        metrics::TRANSFORM_SECONDS.record(started.elapsed().as_secs_f64());
        Ok(made)
    }
}

/// Gives records their fates one after the other, until what was made reaches its bound: what a small record holds is not
/// known before, and any number of records from the first on can be settled.
fn make(
    transform: &Transform,
    partitions: Partitions,
    config: &ProcessorConfig,
    mut records: Vec<Record>,
    fate: impl Fn(Position, &[u8]) -> Transformed,
) -> Result<Made, DecodeError> {
    let (mut tally, mut packer) = (Tally::default(), Packer::new(partitions, config.message_target_bytes));
    let mut taken = 0;
    for record in &records {
        if packer.bytes() >= config.cycle_max_output_bytes {
            break;
        }
        let done = fate(record.position, record.payload.as_deref().unwrap_or_default());
        tally.add(transform, &done);
        packer.add(done)?;
        taken += 1;
    }
    let left = records.split_off(taken);
    tally.finish();
    Ok(Made { writes: packer.finish()?, left })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fleetlog_schemas::avro::from_single_object;
    use fleetlog_schemas::event::AgentEvent;
    use fleetlog_schemas::record::{EventBatch, Settlement};
    use fleetlog_schemas::topic;

    use super::*;
    use crate::config::Config;
    use crate::transform::encoded_len;

    /// One event a record.
    fn fate(position: Position, _payload: &[u8]) -> Transformed {
        Transformed {
            events: BTreeMap::from([(0, vec![AgentEvent::default()])]),
            settlement: Settlement { raw_offset: position.offset, ..Settlement::default() },
            ..Transformed::default()
        }
    }

    #[test]
    fn what_a_cycle_makes_is_bounded_and_the_rest_is_left_in_its_order() {
        let config = Config::default();
        let transform = Transform::configured(&config, 4).unwrap();
        let partitions = Partitions { events: 4, dead: 4 };
        let one = encoded_len(&AgentEvent::default());
        let record = |offset| Record {
            position: Position { partition: 0, offset },
            timestamp_ms: None,
            key: None,
            payload: None,
        };
        for (bound, expected) in [(1, vec![1; 5]), (one + 1, vec![2, 2, 1]), (usize::MAX, vec![5])] {
            let config = ProcessorConfig { cycle_max_output_bytes: bound, ..config.processor.clone() };
            let (mut left, mut cycles, mut settled) =
                ((10..15).map(record).collect(), Vec::new(), Vec::new());
            while !Vec::is_empty(&left) {
                let made = make(&transform, partitions, &config, left, fate).unwrap();
                let batches = made.writes.iter().filter(|write| write.topic == topic::EVENTS);
                let batches = batches.map(|write| from_single_object::<EventBatch>(&write.payload).unwrap());
                let offsets: Vec<i64> =
                    batches.flat_map(|batch| batch.settlements).map(|settled| settled.raw_offset).collect();
                cycles.push(offsets.len());
                settled.extend(offsets);
                left = made.left;
            }
            assert_eq!((cycles, settled), (expected, (10..15).collect()), "{bound}");
        }
    }
}
