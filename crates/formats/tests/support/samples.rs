//! Third-party files, read where they lie.

use std::path::PathBuf;

/// A folder of files that others wrote; says why there is none.
pub(crate) fn folder(name: &str) -> Option<PathBuf> {
    let sibling = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/formats/samples");
    let samples = std::env::var_os("FLEETLOG_SAMPLES").map_or(sibling, PathBuf::from);
    if !samples.is_dir() {
        println!("skipped: no samples; FLEETLOG_SAMPLES names their folder");
        return None;
    }
    Some(samples.join(name))
}
