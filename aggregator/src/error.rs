//! What ends the aggregator. An outage never does: it waits, and Kafka holds the backlog.

use fleetlog_log::LogError;
use fleetlog_runtime::{Classified, ErrorClass, TaskFailure};
use fleetlog_store::StoreError;
use thiserror::Error;

/// What ends the aggregator.
#[derive(Debug, Error)]
pub enum AggregatorError {
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A task failed.
    #[error(transparent)]
    Task(#[from] TaskFailure),
}

impl Classified for AggregatorError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Log(e) => e.class(),
            Self::Store(e) => e.class(),
            Self::Task(_) => ErrorClass::Bug,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Log(e) => e.code(),
            Self::Store(e) => e.code(),
            Self::Task(_) => "task_failed",
        }
    }
}
