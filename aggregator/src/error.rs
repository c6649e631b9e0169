//! What ends the aggregator. An outage never does: it waits, and Kafka holds the backlog.

use fleetlog_log::LogError;
use fleetlog_runtime::{Classified, ErrorClass, SettingsError, TaskFailure};
use fleetlog_store::StoreError;
use thiserror::Error;

use crate::once::BadNote;

/// What ends the aggregator.
#[derive(Debug, Error)]
pub enum AggregatorError {
    /// What the configuration names, such as the price table, cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// More would not fit the memory of the aggregators.
    #[error("{known} repricings are recorded already, and no more can be")]
    TooManyRepricings {
        /// How many there are.
        known: u64,
    },
    /// A group has more sightings than may be held, and nothing is of use without it.
    #[error("a group has more than {most} sightings: aggregator.derive_max_group_sightings allows no more")]
    GroupTooLarge {
        /// How many may be held.
        most: u64,
    },
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was committed with an offset cannot be understood.
    #[error(transparent)]
    Note(#[from] BadNote),
    /// A task failed.
    #[error(transparent)]
    Task(#[from] TaskFailure),
}

impl Classified for AggregatorError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Settings(_) | Self::TooManyRepricings { .. } => ErrorClass::BadInput,
            Self::GroupTooLarge { .. } => ErrorClass::TooLarge,
            Self::Log(e) => e.class(),
            Self::Store(e) => e.class(),
            Self::Note(_) => ErrorClass::Corrupt,
            Self::Task(_) => ErrorClass::Bug,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Settings(_) => "bad_configuration",
            Self::TooManyRepricings { .. } => "too_many_repricings",
            Self::GroupTooLarge { .. } => "group_too_large",
            Self::Log(e) => e.code(),
            Self::Store(e) => e.code(),
            Self::Note(_) => "commit_note",
            Self::Task(_) => "task_failed",
        }
    }
}
