//! Python with ClickHouse's own client, for a look at the tables past every line of Fleetlog's code.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A Python interpreter that has what `load-tests/requirements.txt` names, or why there is none on this machine.
///
/// It is made once and kept beside the other tools in the user's cache.
///
/// # Errors
/// When Python is there and its environment cannot be made for another reason than the network.
pub fn clickhouse_connect() -> Result<Result<PathBuf, String>> {
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("../load-tests/requirements.txt");
    let pins = std::fs::read_to_string(&requirements).context("reading load-tests/requirements.txt")?;
    let folder = cache()?.join("fleetlog/tools").join(format!("verify-{}", name_of(&pins)));
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
        .arg(&requirements)
        .output()
        .context("running pip")?;
    let complaint = String::from_utf8_lossy(&installed.stderr);
    if !installed.status.success() && complaint.contains("Could not find a version") {
        return Ok(Err(format!("PyPI is not reached: {complaint}")));
    }
    ensure!(installed.status.success(), "pip: {complaint}");
    std::fs::write(&complete, "")?;
    Ok(Ok(python))
}

fn cache() -> Result<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = named("FLEETLOG_CACHE").or_else(|| named("XDG_CACHE_HOME"));
    cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache"))).context("no home folder")
}

/// A name that changes with the pinned versions.
fn name_of(pins: &str) -> String {
    pins.split(|c: char| !c.is_ascii_alphanumeric() && c != '.')
        .filter(|w| !w.is_empty())
        .collect::<Vec<_>>()
        .join("-")
}
