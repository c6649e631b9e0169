//! Retention by the consumers: what is settled and old enough is deleted, and nothing else (design: topics).
//!
//! Kafka's own retention would delete by age alone, whether anybody has read it or not. So the raw and events topics keep
//! everything, and whoever works on a partition trims it now and then up to the lower of two offsets: what its group
//! has committed, and the first record that is younger than what is to be kept.

use std::time::Duration;

use fleetlog_runtime::Clock;
use rdkafka::TopicPartitionList;
use rdkafka::admin::AdminOptions;
use rdkafka::topic_partition_list::Offset;

use crate::{Admin, Lease, LogError, metrics};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Time between two looks at a partition.
const EVERY: Duration = Duration::from_secs(300);

/// Trims the partitions of a topic behind the work on them.
#[derive(Clone)]
pub struct Trimmer {
    admin: Admin,
    clock: Clock,
    keep: Duration,
}

impl Trimmer {
    /// Keeps settled records for so many hours.
    pub const fn new(admin: Admin, clock: Clock, keep_hours: u32) -> Self {
        Self { admin, clock, keep: Duration::from_secs(keep_hours as u64 * 3600) }
    }

    /// Trims a partition now and then for as long as the work on it goes on. A failure is reported and repeated.
    pub async fn beside<T>(&self, lease: Lease, work: impl Future<Output = T>) -> T {
        let trimming = async {
            loop {
                tokio::time::sleep(EVERY).await;
                self.look(&lease).await;
            }
        };
        tokio::select! {
            outcome = work => outcome,
            never = trimming => never,
        }
    }

    async fn look(&self, lease: &Lease) {
        let (topic, partition) = (lease.topic(), lease.partition());
        match self.trim(lease).await {
            Ok(0) => {}
            Ok(deleted) => {
                metrics::TRIMMED.add(deleted);
                tracing::info!(topic, partition, deleted, "trimmed");
            }
            Err(error) => {
                metrics::TRIM_FAILURES.add(1);
                tracing::warn!(%error, topic, partition, "not trimmed");
            }
        }
    }

    /// Deletes what is settled and older than what is to be kept; returns how many offsets that were.
    ///
    /// # Errors
    /// What Kafka said; nothing that is not settled is deleted in any case.
    pub async fn trim(&self, lease: &Lease) -> Result<u64, LogError> {
        let keep_ms = i64::try_from(self.keep.as_millis()).unwrap_or(i64::MAX);
        let oldest_ms = (self.clock.now_ns() / 1_000_000).saturating_sub(keep_ms);
        let Some(settled) = lease.settled().await? else { return Ok(0) };
        let log = lease.log_range().await?;
        // Without a younger record everything settled is old enough.
        let young = lease.offset_at_time(oldest_ms).await?.unwrap_or(i64::MAX);
        let until = settled.min(young).min(log.end);
        if until <= log.start {
            return Ok(0);
        }
        self.admin.delete_before(lease.topic(), lease.partition(), until).await?;
        Ok(u64::try_from(until - log.start).unwrap_or(0))
    }
}

impl Admin {
    /// Deletes a partition's records below an offset.
    async fn delete_before(&self, topic: &str, partition: i32, offset: i64) -> Result<(), LogError> {
        const ACTION: &str = "trim a topic";
        let failed = |e: rdkafka::error::KafkaError| LogError::from_kafka(ACTION, &e);
        let mut until = TopicPartitionList::new();
        until.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(failed)?;
        let options = AdminOptions::new()
            .request_timeout(Some(REQUEST_TIMEOUT))
            .operation_timeout(Some(REQUEST_TIMEOUT));
        let done = self.client.delete_records(&until, &options).await.map_err(failed)?;
        done.elements().iter().try_for_each(|element| element.error()).map_err(failed)
    }
}
