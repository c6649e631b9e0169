//! Node with pinned packages: the client libraries in JavaScript whose APIs Fleetlog takes in.
//!
//! As for Python, the packages of a library are installed once for its lock file, and kept beside the other tools in the
//! user's cache. The lock file names versions and hashes and no registry: npm asks the one that its user has set.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use fleetlog_schemas::id::Key128;
use tempfile::TempDir;

use crate::python::{cache, sdks};

/// What npm says when it is the network, not the package, that is missing.
const UNREACHED: &[&str] = &[
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ECONNRESET",
    "ETIMEDOUT",
    "ERR_SOCKET_TIMEOUT",
    "ENETUNREACH",
];

/// Node, and a folder of its own with the scripts of `tests/sdks` and the packages pinned in `tests/sdks/node/{name}`; or
/// why there are none on this machine.
///
/// # Errors
/// When npm is there and the packages cannot be installed for another reason than the network.
pub fn node_library(name: &str) -> Result<Result<(PathBuf, TempDir), String>> {
    let Some(node) = on_path("node") else { return Ok(Err("no node".to_owned())) };
    let packages = match packages(name)? {
        Ok(packages) => packages,
        Err(why) => return Ok(Err(why)),
    };
    // Node looks for packages beside a script, and finds them through a link.
    let folder = tempfile::tempdir()?;
    symlink(packages.join("node_modules"), folder.path().join("node_modules"))?;
    for entry in std::fs::read_dir(sdks())? {
        let script = entry?.path();
        if script.extension().is_some_and(|extension| extension == "mjs") {
            std::fs::copy(&script, folder.path().join(script.file_name().unwrap_or_default()))?;
        }
    }
    Ok(Ok((node, folder)))
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn packages(name: &str) -> Result<Result<PathBuf, String>> {
    let pins = sdks().join("node").join(name);
    let read = |file: &str| std::fs::read(pins.join(file)).with_context(|| format!("{}", pins.display()));
    let (package, lock) = (read("package.json")?, read("package-lock.json")?);
    let key = Key128::of([package.as_slice(), lock.as_slice()]);
    let folder = cache()?.join("fleetlog/tools").join(format!("{name}-{key}"));
    let complete = folder.join("complete");
    if complete.exists() {
        return Ok(Ok(folder));
    }
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("package.json"), package)?;
    std::fs::write(folder.join("package-lock.json"), lock)?;
    let installed = match npm(&folder) {
        Ok(installed) => installed,
        Err(e) => return Ok(Err(format!("no npm: {e}"))),
    };
    let complaint = String::from_utf8_lossy(&installed.stderr);
    if !installed.status.success() && UNREACHED.iter().any(|code| complaint.contains(code)) {
        return Ok(Err(format!("the package registry is not reached: {complaint}")));
    }
    ensure!(installed.status.success(), "npm: {complaint}");
    std::fs::write(&complete, "")?;
    Ok(Ok(folder))
}

fn npm(folder: &Path) -> std::io::Result<std::process::Output> {
    let quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"];
    Command::new("npm").arg("ci").args(quiet).current_dir(folder).output()
}
