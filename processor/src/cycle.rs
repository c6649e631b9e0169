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
use futures::FutureExt;

use crate::config::ProcessorConfig;
use crate::error::ProcessorError;
use crate::isolation::Isolation;
use crate::metrics;
use crate::pack::{Partitions, pack};
use crate::suspicion::{Begin, Suspicion};
use crate::tally::tally;
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
    loop {
        let most = if suspicion.isolates() { 1 } else { shared.config.cycle_max_records };
        let records = tokio::select! {
            records = shared.read(&mut partition, most) => records?,
            () = shared.shutdown.triggered() => return Ok(()),
        };
        let Some(records) = records else { return Ok(()) };
        let started = Instant::now();
        let Some(next) = shared.settle(&lease, records, &suspicion).await? else { return Ok(()) };
        suspicion.settled(next);
        metrics::CYCLE_SECONDS.record(started.elapsed().as_secs_f64());
    }
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

    /// Transforms, writes and commits, and returns the next record's offset; `None` when the partition was taken away
    /// before.
    async fn settle(
        &self,
        lease: &Lease,
        records: Vec<Record>,
        suspicion: &Suspicion,
    ) -> Result<Option<i64>, ProcessorError> {
        let offset = |record: Option<&Record>| record.map_or(0, |record| record.position.offset);
        let (first, last) = (offset(records.first()), offset(records.last()));
        let writes = match suspicion.begin(first, last) {
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
                let writes = self.transform(records).await?;
                if !self.note(lease, first, "").await? {
                    return Ok(None);
                }
                writes
            }
            Begin::Bury(tries) => {
                tracing::error!(partition = lease.partition(), offset = first, tries, "a record is given up");
                let now_ns = self.clock.now_ns();
                let give_up = |record: &Record| {
                    let payload = record.payload.as_deref().unwrap_or_default();
                    self.transform.bury(record.position, payload, tries, now_ns)
                };
                let done: Vec<Transformed> = records.iter().map(give_up).collect();
                tally(&self.transform, &done);
                pack(done, self.partitions, self.config.message_target_bytes)?
            }
        };
        // Kafka's offsets name the next record, hence +1.
        let unit = Unit { lease: lease.clone(), next_offset: last + 1, writes };
        match self.transactor.commit(unit).await {
            Ok(()) => Ok(Some(last + 1)),
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

    async fn transform(&self, records: Vec<Record>) -> Result<Vec<Write>, ProcessorError> {
        let (transform, control) = (Arc::clone(&self.transform), self.control.clone());
        let (now_ns, partitions) = (self.clock.now_ns(), self.partitions);
        let (target, witness) = (self.config.message_target_bytes, self.witness);
        let started = Instant::now();
        // Decoding is CPU work of milliseconds: on a worker thread it would hold up every other partition.
        let packed = tokio::task::spawn_blocking(move || {
            let redacts = |project: &str| control.project(project).is_none_or(|project| project.redaction);
            let done: Vec<Transformed> = records
                .iter()
                .map(|record| {
                    let payload = record.payload.as_deref().unwrap_or_default();
                    witness(payload);
                    transform.apply(record.position, payload, redacts, now_ns)
                })
                .collect();
            tally(&transform, &done);
            pack(done, partitions, target)
        });
        let writes = packed.await??;
        metrics::TRANSFORM_SECONDS.record(started.elapsed().as_secs_f64());
        Ok(writes)
    }
}
