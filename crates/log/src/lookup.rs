//! Looks at a topic from outside of any group: how far its partitions reach, and single records by their position.
//!
//! For what is done now and then and by hand: replays, and an administrator's look at a dead letter.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use fleetlog_schemas::id::Position;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;

use crate::tail::TailContext;
use crate::{From, Isolation, KafkaConfig, LogError, Record, Tail, TailRead};

const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers questions about one topic.
pub struct Lookup {
    topic: Arc<str>,
    tail: Arc<Tail>,
}

impl Lookup {
    /// A client that connects in the background.
    ///
    /// # Errors
    /// [`LogError::Config`] when librdkafka refuses the configuration.
    pub fn open(config: &KafkaConfig, topic: &str) -> Result<Self, LogError> {
        let tail = Tail::open(config, topic, [], Isolation::Committed)?;
        Ok(Self { topic: Arc::from(topic), tail: Arc::new(tail) })
    }

    /// The offsets of a partition's log: its first record, and the next one to be written among committed ones.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when the partition's leader does not answer.
    pub async fn log_range(&self, partition: i32) -> Result<Range<i64>, LogError> {
        self.query(move |topic, client| {
            let (first, end) = client.fetch_watermarks(topic, partition, QUERY_TIMEOUT)?;
            Ok(first..end)
        })
        .await
    }

    /// The offset of the first record written at or after a time (milliseconds UTC); `None` when there is none.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when the partition's leader does not answer.
    pub async fn offset_at_time(&self, partition: i32, timestamp_ms: i64) -> Result<Option<i64>, LogError> {
        self.query(move |topic, client| {
            let mut times = TopicPartitionList::new();
            times.add_partition_offset(topic, partition, Offset::Offset(timestamp_ms))?;
            let found = client.offsets_for_times(times, QUERY_TIMEOUT)?;
            Ok(found.elements().first().and_then(|element| match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            }))
        })
        .await
    }

    /// The committed record at a position; `None` when there is none: deleted, not written, or not a record of its own.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when it was not read in time; fatal errors of the client.
    ///
    /// # Cancellation
    /// Safe to drop and to call again.
    pub async fn record(&mut self, at: Position, within: Duration) -> Result<Option<Record>, LogError> {
        if !self.reach(at.partition).await?.is_some_and(|log| log.contains(&at.offset)) {
            return Ok(None);
        }
        self.tail.restart([(at.partition, From::Offset(at.offset))])?;
        let found = tokio::time::timeout(within, self.first(at)).await;
        // Nothing more is to be fetched ahead.
        self.tail.restart([])?;
        found.unwrap_or(Err(LogError::Unavailable {
            action: "read a record",
            reason: format!("not read within {within:?}"),
        }))
    }

    /// The offsets of a partition's log; `None` when there is no such partition.
    async fn reach(&self, partition: i32) -> Result<Option<Range<i64>>, LogError> {
        const NONE: [RDKafkaErrorCode; 2] =
            [RDKafkaErrorCode::UnknownPartition, RDKafkaErrorCode::UnknownTopicOrPartition];
        if partition < 0 {
            return Ok(None);
        }
        self.query(move |topic, client| match client.fetch_watermarks(topic, partition, QUERY_TIMEOUT) {
            Ok((first, end)) => Ok(Some(first..end)),
            Err(e) if e.rdkafka_error_code().is_some_and(|code| NONE.contains(&code)) => Ok(None),
            Err(e) => Err(e),
        })
        .await
    }

    async fn first(&self, at: Position) -> Result<Option<Record>, LogError> {
        loop {
            match self.tail.next().await {
                // Of a read before this one.
                Ok(TailRead::Record(record)) if record.position.partition != at.partition => {}
                Ok(TailRead::Record(record)) if record.position.offset < at.offset => {}
                Ok(TailRead::Record(record)) => return Ok((record.position == at).then_some(record)),
                Ok(TailRead::CaughtUp { partition }) if partition != at.partition => {}
                Ok(TailRead::CaughtUp { .. }) | Err(LogError::PositionGone { .. }) => return Ok(None),
                Err(e) => return Err(e),
            }
        }
    }

    async fn query<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&str, &StreamConsumer<TailContext>) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, LogError> {
        let (topic, tail) = (Arc::clone(&self.topic), Arc::clone(&self.tail));
        tokio::task::spawn_blocking(move || ask(&topic, tail.client()))
            .await
            .map_err(|_| LogError::Closed)?
            .map_err(|e| LogError::from_kafka("look up offsets", &e))
    }
}

impl std::fmt::Debug for Lookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lookup").field("topic", &self.topic).finish_non_exhaustive()
    }
}
