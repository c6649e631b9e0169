//! What can go wrong with the service, and why a request is refused.

use std::time::Duration;

use fleetlog_formats::{BadBody, Rejected};
use fleetlog_log::{AuthError, LogError};
use fleetlog_runtime::{Classified, ErrorClass, TaskFailure};
use fleetlog_schemas::control::Role;
use thiserror::Error;

use crate::shape::Echo;
use crate::spool::SpoolFault;

/// Why the service cannot run.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// The listener's address cannot be bound.
    #[error("cannot listen on {address}: {source}; choose another address with {key}")]
    Bind {
        /// The configuration key that gave it.
        key: &'static str,
        /// The address.
        address: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The listener has no address of its own.
    #[error("the listener has no address: {0}")]
    Address(std::io::Error),
    /// Kafka cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The spool's folder cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolFault),
    /// The disk that is to be watched cannot be looked at.
    #[error("gateway.disk_watch_path {path}: {source}")]
    Disk {
        /// The configured path.
        path: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A part of the service failed.
    #[error(transparent)]
    Task(#[from] TaskFailure),
}

impl Classified for GatewayError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Bind { .. } | Self::Address(_) | Self::Spool(_) | Self::Disk { .. } => {
                ErrorClass::Unavailable
            }
            Self::Log(log) => log.class(),
            Self::Task(_) => ErrorClass::Bug,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Bind { .. } | Self::Address(_) => "cannot_listen",
            Self::Spool(_) => "spool_unusable",
            Self::Disk { .. } => "disk_unreadable",
            Self::Log(log) => log.code(),
            Self::Task(_) => "task_failed",
        }
    }
}

/// Why a request is refused; nothing of it is accepted.
#[derive(Debug, Error)]
pub(crate) enum Refusal {
    /// No key was presented.
    #[error("a key is needed: Authorization: Bearer, x-api-key, or Basic")]
    MissingKey,
    /// The key is not accepted.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The key's role does not allow it.
    #[error("a key of role {} may not send events", .0.as_str())]
    Role(Role),
    /// There is no such path.
    #[error("there is no such path")]
    NoSuchPath,
    /// A drop-in API has such a path elsewhere, and not here.
    #[error(
        "there is no such path here: what clients report is taken; prompts, datasets and evaluations are not there"
    )]
    NotOffered,
    /// The path exists and does not take this method.
    #[error("the path does not take this method")]
    NoSuchMethod,
    /// A header or parameter does not make sense.
    #[error("{0}")]
    BadRequest(&'static str),
    /// The body of a gRPC call is not one message.
    #[error("{0}")]
    BadFrame(&'static str),
    /// The body is longer than allowed.
    #[error("the body exceeds {limit} bytes")]
    BodyTooLarge {
        /// The limit.
        limit: usize,
    },
    /// The body is longer than allowed once decompressed.
    #[error("the decompressed body exceeds {limit} bytes")]
    DecodedTooLarge {
        /// The limit.
        limit: usize,
    },
    /// Too many records.
    #[error("the request holds more than {limit} records")]
    TooManyRecords {
        /// The limit.
        limit: u32,
    },
    /// It fits into no message, not even compressed, and cannot be split.
    #[error("the body exceeds the message size of {limit} bytes even compressed, and cannot be split")]
    Unsplittable {
        /// The limit.
        limit: usize,
    },
    /// The content encoding is not known.
    #[error("the content encoding is not supported; use gzip, deflate, zstd, br or identity")]
    UnknownEncoding,
    /// The body does not decompress.
    #[error("the body is not valid {0}")]
    BadCompression(&'static str),
    /// The body's structure is not sound.
    #[error(transparent)]
    Malformed(BadBody),
    /// Every record is bad.
    #[error("every record is rejected{}", first_of(.rejected))]
    AllRejected {
        /// Why each of them is.
        rejected: Vec<Rejected>,
        /// What the answer repeats of them.
        echo: Echo,
    },
    /// The body did not arrive in time.
    #[error("the body did not arrive within {0:?}")]
    BodyTimeout(Duration),
    /// The sender ended the body early.
    #[error("the body ended early")]
    BodyAborted,
    /// The sender has sent as fast as it may.
    #[error("the {} may send {limit} {}; try again in {wait:.1?}", .whose.as_str(), .kind.as_str())]
    RateLimited {
        /// Whose limit it is.
        whose: Whose,
        /// What is limited.
        kind: LimitKind,
        /// The limit.
        limit: u64,
        /// When something may be sent again.
        wait: Duration,
    },
    /// The sender has sent what it may today.
    #[error("the {} may send {limit} records a day; the next day (UTC) begins in {wait:.0?}", .whose.as_str())]
    QuotaExceeded {
        /// Whose quota it is.
        whose: Whose,
        /// The quota.
        limit: u64,
        /// When the next day begins.
        wait: Duration,
    },
    /// The project has more under way than its share of a busy gateway.
    #[error("the project has more under way than its share of a busy gateway; try again later")]
    ProjectShare,
    /// The process is short of memory.
    #[error("the gateway is short of memory; try again later")]
    Memory,
    /// Kafka has not acknowledged anything for too long.
    #[error("the log does not answer; try again later")]
    LogSilent {
        /// When it is tried again.
        wait: Duration,
    },
    /// The gateway holds as much as it may.
    #[error("the gateway is busy; try again later")]
    Busy,
    /// Kafka has not been reached since the start.
    #[error("the gateway is starting; try again later")]
    Starting,
    /// Kafka did not take it, or not all of it.
    #[error("the log does not accept records now; try again later")]
    NotPublished(#[source] LogError),
    /// Kafka does not take it, and the spool holds as much as it may.
    #[error("the log does not accept records now and the spool is full; try again later")]
    SpoolFull,
    /// Kafka does not take it, and the spool's disk does not either.
    #[error("the log does not accept records now and the spool cannot be written; try again later")]
    SpoolUnwritable(String),
    /// The disk that the log and the store are on is nearly full.
    #[error("the disk is nearly full; try again later")]
    DiskLow,
    /// An invariant of ours does not hold.
    #[error("internal error")]
    Internal(String),
}

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Whose {
    /// The key's.
    Key,
    /// The project's.
    Project,
}

impl Whose {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Project => "project",
        }
    }
}

/// What a rate limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitKind {
    /// Records.
    RecordsPerSecond,
    /// Bytes of bodies, as sent.
    BytesPerSecond,
}

impl LimitKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::RecordsPerSecond => "records a second",
            Self::BytesPerSecond => "bytes a second",
        }
    }
}

/// Enough for whoever reads one line only.
fn first_of(rejected: &[Rejected]) -> String {
    let first = |first: &Rejected| format!(", the first because: {}: {}", first.code, first.message);
    rejected.first().map_or_else(String::new, first)
}

impl Refusal {
    /// After how long it is worth trying again, where that is known.
    pub(crate) fn wait(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { wait, .. } | Self::QuotaExceeded { wait, .. } | Self::LogSilent { wait } => {
                Some(*wait)
            }
            _ => None,
        }
    }

    /// The HTTP status: the class's, except where HTTP has a more exact one.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::BodyTimeout(_) => 408,
            Self::NoSuchMethod => 405,
            other => other.class().http_status(),
        }
    }

    /// Byte offset of the fault in the decompressed body.
    pub(crate) fn position(&self) -> Option<usize> {
        match self {
            Self::Malformed(bad) => bad.position,
            _ => None,
        }
    }

    /// The records that were rejected, when that is the reason.
    pub(crate) fn rejected(&self) -> &[Rejected] {
        match self {
            Self::AllRejected { rejected, .. } => rejected,
            _ => &[],
        }
    }

    /// The limit that was exceeded.
    pub(crate) fn limit(&self) -> Option<u64> {
        match self {
            Self::BodyTooLarge { limit } | Self::DecodedTooLarge { limit } | Self::Unsplittable { limit } => {
                u64::try_from(*limit).ok()
            }
            Self::TooManyRecords { limit } => Some(u64::from(*limit)),
            Self::RateLimited { limit, .. } | Self::QuotaExceeded { limit, .. } => Some(*limit),
            _ => None,
        }
    }
}

impl Classified for Refusal {
    fn class(&self) -> ErrorClass {
        match self {
            Self::MissingKey => ErrorClass::Unauthenticated,
            Self::Auth(auth) => auth.class(),
            Self::Role(_) => ErrorClass::Forbidden,
            Self::NoSuchPath | Self::NotOffered | Self::NoSuchMethod => ErrorClass::NotFound,
            Self::BodyTooLarge { .. }
            | Self::DecodedTooLarge { .. }
            | Self::TooManyRecords { .. }
            | Self::Unsplittable { .. } => ErrorClass::TooLarge,
            Self::UnknownEncoding => ErrorClass::Unsupported,
            Self::Malformed(bad) if bad.code == "unsupported_content_type" => ErrorClass::Unsupported,
            Self::BadRequest(_)
            | Self::BadFrame(_)
            | Self::BadCompression(_)
            | Self::Malformed(_)
            | Self::AllRejected { .. }
            | Self::BodyTimeout(_)
            | Self::BodyAborted => ErrorClass::BadInput,
            Self::RateLimited { .. } | Self::QuotaExceeded { .. } | Self::ProjectShare => {
                ErrorClass::Overloaded
            }
            Self::Memory | Self::LogSilent { .. } | Self::Busy | Self::Starting => ErrorClass::Unavailable,
            // Ours or Kafka's, but the sender can only try again.
            Self::NotPublished(_) | Self::SpoolFull | Self::SpoolUnwritable(_) | Self::DiskLow => {
                ErrorClass::Unavailable
            }
            Self::Internal(_) => ErrorClass::Bug,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::MissingKey => "missing_key",
            Self::Auth(auth) => auth.code(),
            Self::Role(_) => "role_may_not_ingest",
            Self::NoSuchPath | Self::NotOffered => "no_such_path",
            Self::NoSuchMethod => "method_not_allowed",
            Self::BadRequest(_) => "bad_request",
            Self::BadFrame(_) => "malformed_frame",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::DecodedTooLarge { .. } => "decompressed_too_large",
            Self::TooManyRecords { .. } => "too_many_records",
            Self::Unsplittable { .. } => "message_too_large",
            Self::UnknownEncoding => "unsupported_content_encoding",
            Self::BadCompression(_) => "bad_compression",
            Self::Malformed(bad) => bad.code,
            Self::AllRejected { .. } => "all_records_rejected",
            Self::BodyTimeout(_) => "body_timeout",
            Self::BodyAborted => "body_aborted",
            Self::RateLimited { .. } => "rate_limited",
            Self::QuotaExceeded { .. } => "quota_exceeded",
            Self::ProjectShare => "project_share_exceeded",
            Self::Memory => "memory",
            Self::LogSilent { .. } => "log_silent",
            Self::Busy => "busy",
            Self::Starting => "starting",
            Self::NotPublished(log) => match log {
                LogError::QueueFull => "queue_full",
                LogError::NotAcknowledged(_) => "not_acknowledged",
                _ => "log_unavailable",
            },
            Self::SpoolFull => "spool_full",
            Self::SpoolUnwritable(_) => "spool_unwritable",
            Self::DiskLow => "disk_low",
            Self::Internal(_) => "internal",
        }
    }
}
