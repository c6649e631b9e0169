//! What ends the processor. Bad input never does: it becomes a dead letter.

use fleetlog_log::LogError;
use fleetlog_runtime::{Classified, ErrorClass, SettingsError, TaskFailure};
use fleetlog_schemas::avro::DecodeError;
use thiserror::Error;

use crate::drift::FieldsError;

/// What ends the processor.
#[derive(Debug, Error)]
pub enum ProcessorError {
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What the configuration names, such as the price table, cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The shipped list of known fields is broken.
    #[error(transparent)]
    Fields(#[from] FieldsError),
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
            Self::Settings(_) => ErrorClass::BadInput,
            Self::Fields(_) | Self::Schema(_) | Self::Lost(_) | Self::Task(_) => ErrorClass::Bug,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Log(e) => e.code(),
            Self::Settings(_) => "bad_configuration",
            Self::Fields(_) => "fields_broken",
            Self::Schema(_) => "schema_broken",
            Self::Lost(_) => "transformation_lost",
            Self::Task(_) => "task_failed",
        }
    }
}
