//! The reader of one assigned partition.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::Notify;

use super::group::Group;
use super::{Assignment, Lease};
use crate::{LogError, Record};

/// What a partition gives next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// A record.
    Record(Record),
    /// Everything that was in the log has been read; said again each time the end is reached.
    CaughtUp,
}

/// One partition of the group, as this member reads it.
///
/// Dropping it gives up its lease but not the partition, which is not read until the next rebalance: a service
/// that cannot go on should end.
pub struct AssignedPartition {
    // Before the lease: the queue must be gone when the rebalance goes on.
    queue: PartitionQueue<Group>,
    nonempty: Arc<Notify>,
    assignment: Assignment,
    lease: Lease,
}

impl AssignedPartition {
    pub(super) fn new(
        queue: PartitionQueue<Group>,
        nonempty: Arc<Notify>,
        assignment: Assignment,
        lease: Lease,
    ) -> Self {
        Self { queue, nonempty, assignment, lease }
    }

    /// How it was assigned: where reading starts, what was committed, what was lost.
    pub fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    /// A lease for a task of this partition.
    pub fn lease(&self) -> Lease {
        self.lease.clone()
    }

    /// The next record in offset order; `None` once the partition is being taken away.
    ///
    /// # Errors
    /// [`LogError::PositionGone`] when retention overtook the reader.
    ///
    /// # Cancellation
    /// Safe to drop and to call again: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Read>, LogError> {
        loop {
            if !self.lease.is_active() {
                return Ok(None);
            }
            // A busy queue must not keep the other tasks of this worker thread from running.
            tokio::task::coop::consume_budget().await;
            match self.queue.poll(Duration::ZERO) {
                Some(Ok(message)) => return Ok(Some(Read::Record(Record::copy_of(&message)))),
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(Some(Read::CaughtUp)),
                Some(Err(e)) => self.judge(&e)?,
                None => tokio::select! {
                    () = self.nonempty.notified() => {}
                    () = self.lease.revoked() => {}
                },
            }
        }
    }

    fn judge(&self, error: &KafkaError) -> Result<(), LogError> {
        let gone = [RDKafkaErrorCode::AutoOffsetReset, RDKafkaErrorCode::OffsetOutOfRange];
        if error.rdkafka_error_code().is_some_and(|code| gone.contains(&code)) {
            return Err(LogError::PositionGone {
                topic: self.assignment.topic.clone(),
                partition: self.assignment.partition,
            });
        }
        match LogError::from_kafka("consume", error) {
            fatal @ LogError::Fatal { .. } => Err(fatal),
            passing => {
                tracing::warn!(
                    topic = self.assignment.topic,
                    partition = self.assignment.partition,
                    error = %passing,
                    "consumer"
                );
                Ok(())
            }
        }
    }
}

impl std::fmt::Debug for AssignedPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AssignedPartition").field("assignment", &self.assignment).finish_non_exhaustive()
    }
}
