//! Recorded request bodies of real clients.

use std::path::Path;

use anyhow::{Context, Result};

/// The bytes of a file below `tests/fixtures`.
///
/// # Errors
/// When there is no such file.
pub fn fixture(name: &str) -> Result<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}
