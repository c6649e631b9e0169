//! What a process costs, read from the operating system's own accounting.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// CPU time and peak memory of one process.
#[derive(Clone, Debug)]
pub struct Usage {
    /// Name of the program.
    pub name: String,
    /// User and system time since it started.
    pub cpu: Duration,
    /// Resident set now, bytes.
    pub rss: u64,
    /// Largest resident set, bytes.
    pub peak_rss: u64,
}

/// The usage of a process and all of its descendants, largest first. Empty off Linux.
pub fn usage_of_tree(root: u32) -> Vec<Usage> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
            && let Some(parent) = stat(pid).map(|stat| stat.parent)
        {
            parents.push((pid, parent));
        }
    }
    let mut tree = vec![root];
    let mut at = 0;
    while let Some(&process) = tree.get(at) {
        tree.extend(parents.iter().filter(|(_, parent)| *parent == process).map(|(pid, _)| *pid));
        at += 1;
    }
    let mut usages: Vec<Usage> = tree.into_iter().filter_map(usage).collect();
    usages.sort_by_key(|usage| std::cmp::Reverse(usage.cpu));
    usages
}

struct Stat {
    name: String,
    parent: u32,
    ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The name stands in parentheses and may itself hold spaces and parentheses: see proc(5).
    let (before, after) = text.rsplit_once(')')?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        name: before.split_once('(')?.1.to_owned(),
        parent: fields.get(1)?.parse().ok()?,
        ticks: ticks(11)? + ticks(12)?,
    })
}

fn usage(pid: u32) -> Option<Usage> {
    let stat = stat(pid)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let bytes = |field: &str| {
        let text = status.lines().find_map(|line| line.strip_prefix(field))?;
        let kib: u64 = text.split_whitespace().next()?.parse().ok()?;
        Some(kib * 1024)
    };
    // USER_HZ is 100 on every Linux that Fleetlog runs on (proc(5), sysconf(_SC_CLK_TCK)).
    Some(Usage {
        name: stat.name,
        cpu: Duration::from_millis(stat.ticks * 10),
        rss: bytes("VmRSS:")?,
        peak_rss: bytes("VmHWM:")?,
    })
}
