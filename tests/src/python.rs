//! Python with pinned packages: ClickHouse's own client, for a look at the tables past every line of Fleetlog's code,
//! and the client libraries whose APIs Fleetlog takes in.
//!
//! An environment is made once for its list of packages, and kept beside the other tools in the user's cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use fleetlog_schemas::id::Key128;

/// A Python interpreter that has what `load-tests/requirements.txt` names, or why there is none on this machine.
///
/// # Errors
/// When Python is there and its environment cannot be made for another reason than the network.
pub fn clickhouse_connect() -> Result<Result<PathBuf, String>> {
    environment("verify", &repository().join("load-tests/requirements.txt"))
}

/// A Python interpreter that has the client library pinned in `tests/sdks/requirements/{name}.txt`, or why there is
/// none on this machine.
///
/// # Errors
/// As [`clickhouse_connect`].
pub fn client_library(name: &str) -> Result<Result<PathBuf, String>> {
    environment(name, &sdks().join("requirements").join(name).with_added_extension("txt"))
}

/// The folder of the scripts that use client libraries.
pub fn sdks() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sdks")
}

fn repository() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

fn environment(name: &str, requirements: &Path) -> Result<Result<PathBuf, String>> {
    let pins = std::fs::read(requirements).with_context(|| format!("reading {}", requirements.display()))?;
    // The name changes with the pinned versions.
    let folder = cache()?.join("fleetlog/tools").join(format!("{name}-{}", Key128::of([pins.as_slice()])));
    let python = folder.join("bin/python");
    let complete = folder.join("complete");
    if complete.exists() {
        return Ok(Ok(python));
    }
    match Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder).output() {
        Ok(made) if made.status.success() => {}
        Ok(made) => return Ok(Err(format!("no venv: {}", String::from_utf8_lossy(&made.stderr)))),
        Err(e) => return Ok(Err(format!("no python3: {e}"))),
    }
    let installed = Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--requirement"])
        .arg(requirements)
        .output()
        .context("running pip")?;
    let complaint = String::from_utf8_lossy(&installed.stderr);
    // A registry that is reached lists the versions that it has.
    if !installed.status.success() && complaint.contains("from versions: none") {
        return Ok(Err(format!("the package registry is not reached: {complaint}")));
    }
    ensure!(installed.status.success(), "pip: {complaint}");
    std::fs::write(&complete, "")?;
    Ok(Ok(python))
}

/// Where tools are kept.
pub(crate) fn cache() -> Result<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = named("FLEETLOG_CACHE").or_else(|| named("XDG_CACHE_HOME"));
    cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache"))).context("no home folder")
}
