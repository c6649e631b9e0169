//! Where a topic's partitions stand, for those who only look: no membership in a group, no record read.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset;

use crate::context::Logging;
use crate::{Isolation, KafkaConfig, LogError};

const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

impl ConsumerContext for Logging {}

/// Looks up offsets of one topic, and what a group has committed of it. Every answer lists all partitions in order.
pub struct Offsets {
    topic: String,
    partitions: i32,
    client: Arc<BaseConsumer<Logging>>,
}

impl Offsets {
    /// A client that connects on first use. With [`Isolation::Committed`] a log ends before its first open transaction,
    /// else behind its last record.
    ///
    /// # Errors
    /// [`LogError::Config`] when librdkafka refuses the configuration.
    pub fn open(
        config: &KafkaConfig,
        topic: &str,
        partitions: u32,
        group: &str,
        isolation: Isolation,
    ) -> Result<Self, LogError> {
        let properties = config.consumer(group, isolation.as_str());
        let client = BaseConsumer::from_config_and_context(&properties, Logging)
            .map_err(|e| LogError::from_kafka("look up offsets", &e))?;
        Ok(Self {
            topic: topic.to_owned(),
            partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
            client: Arc::new(client),
        })
    }

    /// The offsets of each log: its first record and the next one to be written.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when a partition's leader does not answer.
    pub async fn ranges(&self) -> Result<Vec<Range<i64>>, LogError> {
        self.ask(|topic, partitions, client| {
            (0..partitions)
                .map(|partition| {
                    let (first, end) = client.fetch_watermarks(topic, partition, QUERY_TIMEOUT)?;
                    Ok(first..end)
                })
                .collect()
        })
        .await
    }

    /// The offset of each partition's first record written at or after a time (milliseconds UTC), if there is one.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when a partition's leader does not answer.
    pub async fn at_time(&self, timestamp_ms: i64) -> Result<Vec<Option<i64>>, LogError> {
        self.ask(move |topic, partitions, client| {
            let mut times = TopicPartitionList::new();
            for partition in 0..partitions {
                times.add_partition_offset(topic, partition, Offset::Offset(timestamp_ms))?;
            }
            offsets_of(topic, partitions, &client.offsets_for_times(times, QUERY_TIMEOUT)?)
        })
        .await
    }

    /// The offset below which the group has settled everything, of each partition it ever committed.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when the group's coordinator does not answer.
    pub async fn committed(&self) -> Result<Vec<Option<i64>>, LogError> {
        self.ask(|topic, partitions, client| {
            let mut wanted = TopicPartitionList::new();
            for partition in 0..partitions {
                wanted.add_partition(topic, partition);
            }
            offsets_of(topic, partitions, &client.committed_offsets(wanted, QUERY_TIMEOUT)?)
        })
        .await
    }

    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&str, i32, &BaseConsumer<Logging>) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, LogError> {
        let (topic, partitions, client) = (self.topic.clone(), self.partitions, Arc::clone(&self.client));
        tokio::task::spawn_blocking(move || {
            // Nothing is assigned, so all that can wait here is news of errors, which would pile up.
            while client.poll(Duration::ZERO).is_some() {}
            ask(&topic, partitions, &client)
        })
        .await
        .map_err(|_| LogError::Closed)?
        .map_err(|e| LogError::from_kafka("look up offsets", &e))
    }
}

impl std::fmt::Debug for Offsets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offsets").field("topic", &self.topic).finish_non_exhaustive()
    }
}

fn offsets_of(
    topic: &str,
    partitions: i32,
    list: &TopicPartitionList,
) -> Result<Vec<Option<i64>>, KafkaError> {
    (0..partitions)
        .map(|partition| {
            let Some(element) = list.find_partition(topic, partition) else { return Ok(None) };
            element.error()?;
            Ok(match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            })
        })
        .collect()
}
