//! One cycle of one partition: read what is there, transform it, write it.
//!
//! What the records became and the offset that settles them go into one Kafka transaction (INV-3), so a crash repeats a
//! cycle and neither loses nor doubles anything: what an aborted transaction wrote is seen by no reader.

use std::sync::Arc;
use std::time::Instant;

use fleetlog_log::{
    AssignedPartition, ControlView, Lease, LogError, Read, Record, Transactor, Trimmer, Unit, Write,
};
use fleetlog_runtime::{Clock, Shutdown};
use futures::FutureExt;

use crate::config::ProcessorConfig;
use crate::error::ProcessorError;
use crate::metrics;
use crate::pack::{Partitions, pack};
use crate::tally::tally;
use crate::transform::{Transform, Transformed};

/// What the cycles of every partition share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) config: Arc<ProcessorConfig>,
    pub(crate) transform: Arc<Transform>,
    pub(crate) partitions: Partitions,
    pub(crate) transactor: Transactor,
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
    loop {
        let records = tokio::select! {
            records = shared.read(&mut partition) => records?,
            () = shared.shutdown.triggered() => return Ok(()),
        };
        let Some(records) = records else { return Ok(()) };
        let started = Instant::now();
        if shared.settle(&lease, records).await?.is_none() {
            return Ok(());
        }
        metrics::CYCLE_SECONDS.record(started.elapsed().as_secs_f64());
    }
}

impl Shared {
    /// Waits for a first record, then takes what has already arrived, up to the cycle's bounds; `None` at the end.
    ///
    /// # Cancellation
    /// Records taken are lost to this process and read again by the next owner: nothing is committed here.
    async fn read(&self, partition: &mut AssignedPartition) -> Result<Option<Vec<Record>>, LogError> {
        let mut records = loop {
            match partition.next().await? {
                Some(Read::Record(record)) => break vec![record],
                Some(Read::CaughtUp) => {}
                None => return Ok(None),
            }
        };
        let size = |record: &Record| record.payload.as_ref().map_or(0, |payload| payload.len());
        let mut bytes: usize = records.iter().map(size).sum();
        while records.len() < self.config.cycle_max_records && bytes < self.config.cycle_max_bytes {
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

    /// Transforms, writes and commits; `None` when the partition was taken away before.
    async fn settle(&self, lease: &Lease, records: Vec<Record>) -> Result<Option<()>, ProcessorError> {
        let Some(last) = records.last().map(|record| record.position.offset) else { return Ok(Some(())) };
        let writes = self.transform(records).await?;
        // Kafka's offsets name the next record, hence +1.
        let unit = Unit { lease: lease.clone(), next_offset: last + 1, writes };
        match self.transactor.commit(unit).await {
            Ok(()) => Ok(Some(())),
            // Another instance owns the partition by now and repeats the cycle.
            Err(LogError::NotOwner { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    async fn transform(&self, records: Vec<Record>) -> Result<Vec<Write>, ProcessorError> {
        let (transform, control) = (Arc::clone(&self.transform), self.control.clone());
        let (now_ns, partitions) = (self.clock.now_ns(), self.partitions);
        let target = self.config.message_target_bytes;
        let started = Instant::now();
        // Decoding is CPU work of milliseconds: on a worker thread it would hold up every other partition.
        let packed = tokio::task::spawn_blocking(move || {
            let redacts = |project: &str| control.project(project).is_none_or(|project| project.redaction);
            let done: Vec<Transformed> = records
                .iter()
                .map(|record| {
                    let payload = record.payload.as_deref().unwrap_or_default();
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
