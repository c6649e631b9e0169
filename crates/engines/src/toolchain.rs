//! The tools that the engines need from the machine: Java, Maven, npm.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{EngineError, Result};

const JAVA_REMEDY: &str = "Install a Java runtime of version 17 or later, or set JAVA_HOME to one";
/// Kafka 4's brokers need it.
const JAVA_NEEDED: u32 = 17;

/// Finds Java: `JAVA_HOME` first, then the PATH.
///
/// The version is not asked here (a JVM start costs 100 ms): [`too_old`] recognises it when a start fails.
pub(crate) fn java() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("JAVA_HOME") {
        let java = Path::new(&home).join("bin/java");
        if java.is_file() {
            return Ok(java);
        }
    }
    on_path("java", std::env::var_os("PATH").as_deref()).ok_or(EngineError::MissingTool {
        tool: "java",
        purpose: "to run Kafka",
        remedy: JAVA_REMEDY,
    })
}

/// Finds Java and checks its version; for the fetch, so that 45 MB are not loaded in vain.
pub(crate) fn java_checked() -> Result<PathBuf> {
    let java = java()?;
    let printed =
        Command::new(&java).arg("-version").output().map(|output| output.stderr).unwrap_or_default();
    match java_major(&String::from_utf8_lossy(&printed)) {
        Some(major) if major < JAVA_NEEDED => Err(EngineError::ToolTooOld {
            tool: "java",
            found: major.to_string(),
            needed: JAVA_NEEDED,
            remedy: JAVA_REMEDY,
        }),
        // An unreadable version line is no reason to refuse: Java itself refuses classes that are too new for it.
        Some(_) | None => Ok(java),
    }
}

/// Finds Maven.
pub(crate) fn maven() -> Result<PathBuf> {
    on_path("mvn", std::env::var_os("PATH").as_deref()).ok_or(EngineError::MissingTool {
        tool: "mvn",
        purpose: "to fetch Kafka",
        remedy: "Install Apache Maven 3.6.3 or later",
    })
}

/// Finds npm.
pub(crate) fn npm() -> Result<PathBuf> {
    on_path("npm", std::env::var_os("PATH").as_deref()).ok_or(EngineError::MissingTool {
        tool: "npm",
        purpose: "to fetch the ClickHouse library",
        remedy: "Install Node.js with npm; or set `clickhouse.url` to a ClickHouse server, or put a `clickhouse` \
                 binary on the PATH",
    })
}

/// The error for a Java that printed that Kafka's classes are too new for it.
pub(crate) fn too_old(log_tail: &str) -> Option<EngineError> {
    log_tail.contains("UnsupportedClassVersionError").then(|| EngineError::ToolTooOld {
        tool: "java",
        found: "older".to_owned(),
        needed: JAVA_NEEDED,
        remedy: JAVA_REMEDY,
    })
}

/// Fails where the pinned ClickHouse library cannot be loaded.
pub(crate) fn check_platform() -> Result<()> {
    if cfg!(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")) {
        return Ok(());
    }
    let libc = if cfg!(target_env = "musl") { " (musl)" } else { "" };
    let found = format!("{} on {}{libc}", std::env::consts::OS, std::env::consts::ARCH);
    Err(EngineError::UnsupportedPlatform { found })
}

/// Looks a program up in the folders of a PATH.
pub(crate) fn on_path(program: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(path?).map(|folder| folder.join(program)).find(|candidate| is_executable(candidate))
}

fn is_executable(candidate: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    candidate.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The major version in the first line of `java -version`; before Java 9 it was written `1.8`.
fn java_major(printed: &str) -> Option<u32> {
    let quoted = printed.split('"').nth(1)?;
    let mut parts = quoted.split(['.', '-', '+', '_']);
    match parts.next()?.parse().ok()? {
        1 => parts.next()?.parse().ok(),
        major => Some(major),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_versions_of_every_age_are_read() {
        assert_eq!(java_major("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK …"), Some(17));
        assert_eq!(java_major("openjdk version \"25\" 2025-09-16"), Some(25));
        assert_eq!(java_major("java version \"1.8.0_392\""), Some(8));
        assert_eq!(java_major("openjdk version \"24-ea\" 2025-03-18"), Some(24));
        assert_eq!(java_major("command failed"), None);
    }

    #[test]
    fn only_executable_files_count_as_programs_on_the_path() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("clickhouse"), "").unwrap();
        std::fs::create_dir(dir.path().join("npm")).unwrap();
        assert_eq!(on_path("clickhouse", Some(dir.path().as_os_str())), None);
        assert_eq!(on_path("npm", Some(dir.path().as_os_str())), None);
        assert!(on_path("sh", Some(OsStr::new("/nowhere:/bin:/usr/bin"))).is_some());
        assert_eq!(on_path("sh", None), None);
    }
}
