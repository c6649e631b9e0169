//! A reader outside of any group: it commits nothing and shares nothing.
//!
//! For what every instance must read in full (the control topic), for the live tail, and for looking at what is
//! stored at a position.

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{Consumer as _, ConsumerContext, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;
use rdkafka::{ClientContext, TopicPartitionList};

use crate::context::{log_error, log_line};
use crate::{Isolation, KafkaConfig, LogError, Record};

const OPEN: &str = "open a tail";

/// Where a tail starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the log's first record.
    Beginning,
    /// After the log's last record.
    End,
    /// At this offset.
    Offset(i64),
}

/// What a tail gives next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TailRead {
    /// A record.
    Record(Record),
    /// Everything that was in this partition has been read; said again each time its end is reached.
    CaughtUp {
        /// The partition.
        partition: i32,
    },
}

/// Reads partitions of one topic from given places on.
pub struct Tail {
    topic: String,
    client: StreamConsumer<TailContext>,
}

impl Tail {
    /// Starts reading; connects in the background.
    ///
    /// # Errors
    /// [`LogError::Config`] when librdkafka refuses the configuration.
    pub fn open(
        config: &KafkaConfig,
        topic: &str,
        partitions: impl IntoIterator<Item = (i32, From)>,
        isolation: Isolation,
    ) -> Result<Self, LogError> {
        // librdkafka wants a group's name even from a reader that never joins one.
        let properties = config.consumer("fleetlog.tail", isolation.as_str());
        let client = StreamConsumer::from_config_and_context(&properties, TailContext)
            .map_err(|e| LogError::from_kafka(OPEN, &e))?;
        let tail = Self { topic: topic.to_owned(), client };
        tail.restart(partitions)?;
        Ok(tail)
    }

    /// Goes on with these partitions only, from these places on.
    pub(crate) fn restart(&self, partitions: impl IntoIterator<Item = (i32, From)>) -> Result<(), LogError> {
        let failed = |e: KafkaError| LogError::from_kafka(OPEN, &e);
        let mut list = TopicPartitionList::new();
        for (partition, from) in partitions {
            let offset = match from {
                From::Beginning => Offset::Beginning,
                From::End => Offset::End,
                From::Offset(offset) => Offset::Offset(offset),
            };
            list.add_partition_offset(&self.topic, partition, offset).map_err(failed)?;
        }
        self.client.assign(&list).map_err(failed)
    }

    /// For questions about the topic beside the reading.
    pub(crate) const fn client(&self) -> &StreamConsumer<TailContext> {
        &self.client
    }

    /// The next record of any of the partitions, in offset order within each.
    ///
    /// # Errors
    /// [`LogError::PositionGone`] when the wanted offset is not in the log; fatal errors of the client. Passing
    /// ones are logged and waited out.
    ///
    /// # Cancellation
    /// Safe to drop and to call again.
    pub async fn next(&self) -> Result<TailRead, LogError> {
        loop {
            let error = match self.client.recv().await {
                Ok(message) => return Ok(TailRead::Record(Record::copy_of(&message))),
                Err(KafkaError::PartitionEOF(partition)) => return Ok(TailRead::CaughtUp { partition }),
                Err(e) => e,
            };
            let gone = [RDKafkaErrorCode::AutoOffsetReset, RDKafkaErrorCode::OffsetOutOfRange];
            if error.rdkafka_error_code().is_some_and(|code| gone.contains(&code)) {
                // librdkafka does not say of which partition; a tail has few.
                return Err(LogError::PositionGone { topic: self.topic.clone(), partition: -1 });
            }
            match LogError::from_kafka("consume", &error) {
                fatal @ LogError::Fatal { .. } => return Err(fatal),
                passing => tracing::warn!(topic = self.topic, error = %passing, "tail"),
            }
        }
    }
}

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tail").field("topic", &self.topic).finish_non_exhaustive()
    }
}

pub(crate) struct TailContext;

impl ClientContext for TailContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for TailContext {}
