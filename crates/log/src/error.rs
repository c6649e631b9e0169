//! What can go wrong between a service and Kafka.

use std::time::Duration;

use fleetlog_runtime::{Classified, ErrorClass};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use thiserror::Error;

/// An error of the log.
#[derive(Clone, Debug, Error)]
pub enum LogError {
    /// librdkafka refuses the configuration.
    #[error("kafka configuration: {0}")]
    Config(String),
    /// The cluster cannot be reached or cannot do it now.
    #[error("{action}: {reason}")]
    Unavailable {
        /// What was attempted.
        action: &'static str,
        /// What Kafka said.
        reason: String,
    },
    /// The cluster refuses the credentials, or the principal may not do it.
    #[error("{action}: not allowed by the cluster: {reason}")]
    NotAllowed {
        /// What was attempted.
        action: &'static str,
        /// What Kafka said.
        reason: String,
    },
    /// The producer's bounded queue is full.
    #[error("the producer's queue is full")]
    QueueFull,
    /// The broker did not acknowledge in time; the record may or may not be stored.
    #[error("not acknowledged within {0:?}")]
    NotAcknowledged(Duration),
    /// The message exceeds what its topic takes.
    #[error("a message of {bytes} bytes exceeds the topic's limit")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// A topic does not exist and may not be created.
    #[error("topic {0} does not exist and kafka.create_topics is off")]
    TopicMissing(String),
    /// A position that was asked for is no longer, or not yet, in the log.
    #[error("{topic}[{partition}]: the wanted position is not in the log")]
    PositionGone {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
    },
    /// The partition is no longer this process's: whatever wanted to settle it must stop.
    #[error("{topic}[{partition}]: the assignment of epoch {epoch} has ended")]
    NotOwner {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// Epoch of the assignment that ended.
        epoch: u64,
    },
    /// Work on a revoked partition did not stop within its budget.
    #[error("{topic}[{partition}]: work did not stop within {budget:?} of the revocation")]
    WorkOverran {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// The budget.
        budget: Duration,
    },
    /// Metadata longer than Kafka stores with a commit.
    #[error("commit metadata of {0} bytes; Kafka stores at most 4096")]
    MetadataTooLong(usize),
    /// A commit would move the committed offset back.
    #[error("commit of offset {asked} after offset {committed}")]
    CommitBackwards {
        /// Offset asked for.
        asked: i64,
        /// Offset committed before.
        committed: i64,
    },
    /// The client has ended.
    #[error("the kafka client has ended")]
    Closed,
    /// librdkafka reports an error from which it does not recover.
    #[error("{action}: fatal: {reason}")]
    Fatal {
        /// What was attempted.
        action: &'static str,
        /// What Kafka said.
        reason: String,
    },
    /// A record of the control topic cannot be written or read.
    #[error("control record: {0}")]
    Control(String),
}

impl LogError {
    /// Sorts what rdkafka reports.
    pub(crate) fn from_kafka(action: &'static str, error: &KafkaError) -> Self {
        if let KafkaError::ClientConfig(_, description, key, _) = error {
            // The value is left out: it may be a password.
            return Self::Config(format!("{key}: {description}"));
        }
        if let KafkaError::MessageConsumptionFatal(_) = error {
            return Self::Fatal { action, reason: error.to_string() };
        }
        let Some(code) = error.rdkafka_error_code() else {
            return match error {
                KafkaError::ClientCreation(reason) => Self::Config(reason.clone()),
                KafkaError::Canceled => Self::Closed,
                other => Self::Unavailable { action, reason: other.to_string() },
            };
        };
        Self::from_code(action, code)
    }

    pub(crate) fn from_code(action: &'static str, code: RDKafkaErrorCode) -> Self {
        use RDKafkaErrorCode as Code;
        let reason = || code.to_string();
        match code {
            Code::QueueFull => Self::QueueFull,
            Code::Fatal | Code::Fenced | Code::ProducerFenced => Self::Fatal { action, reason: reason() },
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication => Self::NotAllowed { action, reason: reason() },
            _ => Self::Unavailable { action, reason: reason() },
        }
    }
}

impl Classified for LogError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Unavailable { .. }
            | Self::NotAllowed { .. }
            | Self::QueueFull
            | Self::NotAcknowledged(_)
            | Self::TopicMissing(_)
            | Self::Closed => ErrorClass::Unavailable,
            Self::TooLarge { .. } => ErrorClass::TooLarge,
            Self::NotOwner { .. } => ErrorClass::Conflict,
            Self::PositionGone { .. } | Self::Control(_) => ErrorClass::Corrupt,
            Self::Config(_)
            | Self::WorkOverran { .. }
            | Self::MetadataTooLong(_)
            | Self::CommitBackwards { .. }
            | Self::Fatal { .. } => ErrorClass::Bug,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "kafka_config",
            Self::Unavailable { .. } => "kafka_unavailable",
            Self::NotAllowed { .. } => "kafka_not_allowed",
            Self::QueueFull => "queue_full",
            Self::NotAcknowledged(_) => "not_acknowledged",
            Self::TooLarge { .. } => "message_too_large",
            Self::TopicMissing(_) => "topic_missing",
            Self::PositionGone { .. } => "position_gone",
            Self::NotOwner { .. } => "not_owner",
            Self::WorkOverran { .. } => "work_overran",
            Self::MetadataTooLong(_) => "commit_metadata_too_long",
            Self::CommitBackwards { .. } => "commit_backwards",
            Self::Closed => "log_closed",
            Self::Fatal { .. } => "kafka_fatal",
            Self::Control(_) => "control_record",
        }
    }
}
