//! The kernel's fence around the process: the engine reaches its data and nothing else.
//!
//! Grants and the gate judge statements; code can hide where neither looks (a default expression inside of a string, a
//! format's template). So the process gives up, before its first thread starts, what it does not need: with Landlock
//! (Linux 5.13 and later) it can open only its data directory, the library and a few files of the system, start no
//! program, and (6.7 and later) open no connection. Without Landlock the other layers stand alone, and a warning says so.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, RulesetStatus,
};

use crate::config::Options;
use crate::error::StartError;

/// The rights of Landlock's fourth version; an older kernel enforces those it knows.
const RIGHTS: ABI = ABI::V4;

/// What the engine reads of the system: memory and processor figures, time zones, the loader's libraries. Not
/// `/proc/self` as a whole: it shows the environment.
const SYSTEM_READ: &[&str] = &[
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/lib",
    "/lib64",
    "/proc/cpuinfo",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/self/cgroup",
    "/proc/self/limits",
    "/proc/self/maps",
    "/proc/self/mountinfo",
    "/proc/self/mounts",
    "/proc/self/stat",
    "/proc/self/statm",
    "/proc/self/status",
    "/proc/stat",
    "/proc/sys",
    "/proc/uptime",
    "/sys/devices/system",
    "/sys/fs/cgroup",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/zoneinfo",
];

const DEVICES: &[&str] = &["/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero"];

/// Confines this process for good; must run before any other thread starts.
///
/// # Errors
/// The data directory cannot be made, or the kernel refuses what it says it can do.
pub fn confine(options: &Options) -> Result<(), StartError> {
    std::fs::create_dir_all(&options.data)
        .map_err(|source| StartError::Data { path: options.data.clone(), source })?;
    match restrict(options).map_err(|error| StartError::Sandbox(error.to_string()))? {
        RulesetStatus::FullyEnforced => tracing::debug!("confined to the data directory"),
        RulesetStatus::PartiallyEnforced => {
            tracing::warn!(
                "this kernel confines files but not connections: those rest on grants and the gate"
            );
        }
        RulesetStatus::NotEnforced => {
            tracing::warn!("this kernel has no Landlock: what statements reach rests on grants and the gate");
        }
    }
    Ok(())
}

fn restrict(options: &Options) -> Result<RulesetStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let given = [Some(&options.library), options.users_config.as_ref(), options.config_file.as_ref()];
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(RIGHTS))?
        .handle_access(AccessNet::ConnectTcp)?
        .create()?;
    for path in given.into_iter().flatten().map(PathBuf::as_path).chain(SYSTEM_READ.iter().map(Path::new)) {
        rules = allow(rules, path, read)?;
    }
    for path in DEVICES {
        rules = allow(rules, Path::new(path), AccessFs::ReadFile | AccessFs::WriteFile)?;
    }
    let everything = AccessFs::from_all(RIGHTS) & !AccessFs::Execute;
    rules = allow(rules, &options.data, everything)?;
    Ok(rules.restrict_self()?.ruleset)
}

/// Allows access beneath a path; one that does not exist needs no rule.
fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    let Ok(descriptor) = PathFd::new(path) else { return Ok(rules) };
    // Rights to directories on a plain file would be refused.
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(RIGHTS) };
    let rules = rules.add_rule(PathBeneath::new(&descriptor, access))?;
    // Kept open for good: a rule holds for an inode, and those under /proc are made anew when nobody holds them.
    std::mem::forget(descriptor);
    Ok(rules)
}
