//! What ends the processor. Bad input never does: it becomes a dead letter.

use std::path::PathBuf;

use fleetlog_log::LogError;
use fleetlog_runtime::{Classified, ErrorClass, TaskFailure};
use fleetlog_schemas::avro::DecodeError;
use thiserror::Error;

use crate::pricing::PriceError;
use crate::redact::RuleError;

/// What ends the processor.
#[derive(Debug, Error)]
pub enum ProcessorError {
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The price table cannot be read.
    #[error("cannot read the price table {path}: {source}")]
    PricesUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The price table cannot be used.
    #[error(transparent)]
    Prices(#[from] PriceError),
    /// The redaction rules cannot be used.
    #[error(transparent)]
    Rules(#[from] RuleError),
    /// A published schema is broken.
    #[error("a published schema is broken: {0}")]
    Schema(#[from] DecodeError),
    /// The thread of a transformation died.
    #[error("a transformation was lost: {0}")]
    Lost(#[from] tokio::task::JoinError),
    /// A task failed.
    #[error(transparent)]
    Task(#[from] TaskFailure),
}

impl Classified for ProcessorError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Log(e) => e.class(),
            Self::PricesUnreadable { .. } | Self::Prices(_) => ErrorClass::BadInput,
            Self::Rules(_) | Self::Schema(_) | Self::Lost(_) | Self::Task(_) => ErrorClass::Bug,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Log(e) => e.code(),
            Self::PricesUnreadable { .. } => "prices_unreadable",
            Self::Prices(_) => "prices_malformed",
            Self::Rules(_) => "redaction_rules",
            Self::Schema(_) => "schema_broken",
            Self::Lost(_) => "transformation_lost",
            Self::Task(_) => "task_failed",
        }
    }
}
