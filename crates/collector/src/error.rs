//! What keeps a file from being shipped.

use std::path::PathBuf;

use thiserror::Error;

/// Why shipping a file stopped. What was acknowledged before stays acknowledged.
#[derive(Debug, Error)]
pub enum ShipError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The checkpoint cannot be written, so the run could not be resumed.
    #[error("cannot remember the progress in {path}: {source}")]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The gateway refuses the key or the role.
    #[error("the gateway refuses the key: {0}")]
    Denied(String),
    /// The gateway's address is wrong, or something else answers there.
    #[error("the gateway cannot be used: {0}")]
    Unusable(String),
    /// A file that cannot be cut is larger than may be sent.
    #[error(
        "{path}: it cannot be cut and is larger than {limit} bytes; raise the limit with --max-bytes, up to the \
         gateway's own"
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// More files than are kept in sight.
    #[error("{path} holds more than {limit} files")]
    TooMany {
        /// The folder.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// The run was interrupted.
    #[error("interrupted; the same command continues where it stopped")]
    Interrupted,
}
