//! Recorded request bodies of real clients.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The bytes of a file below `tests/fixtures`.
///
/// # Errors
/// When there is no such file.
pub fn fixture(name: &str) -> Result<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// The folder of the recordings that the decoders are tested with.
pub fn recordings() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/formats/tests/fixtures")
}

/// The bytes of a recording that the decoders are tested with too.
///
/// # Errors
/// When there is no such file.
pub fn recording(name: &str) -> Result<Vec<u8>> {
    let path = recordings().join(name);
    std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}
