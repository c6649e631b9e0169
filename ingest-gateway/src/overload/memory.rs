//! Memory: how much is used, how much there is, and whether new requests must wait.
//!
//! Inside a control group with a limit, that of the group counts, for it is what ends the process: the working set as
//! Kubernetes has it, memory without the file cache that can be given back at once. Groups lie within each other, as a
//! service of systemd does in a slice: the smallest limit counts. Else the process's resident set counts against the
//! machine's memory. All of it is read from the files that Linux keeps; elsewhere nothing is shed.

use std::fs;
use std::path::Path;

/// Below this share of the limit new requests are taken again.
const RESUME_PERCENT: u64 = 92;

/// What is used, and what there is, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) used: u64,
    pub(super) available: u64,
}

/// Whether memory is short, with hysteresis: what is freed by refusing must not let everyone in at once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pressure {
    is_high: bool,
}

impl Pressure {
    /// Looks at what is used; says whether new requests must wait. A limit of 0 is none.
    pub(super) fn look(&mut self, used: u64, limit: u64) -> bool {
        let threshold = if self.is_high { limit / 100 * RESUME_PERCENT } else { limit };
        self.is_high = limit > 0 && used > threshold;
        self.is_high
    }
}

/// What may be used: the smaller one of so many bytes and of a share of what there is; 0 for no limit.
pub(super) fn limit(available: u64, max_bytes: u64, share: f64) -> u64 {
    let shared = (available as f64 * share) as u64;
    match (max_bytes, shared) {
        (0, limit) | (limit, 0) => limit,
        (bytes, shared) => bytes.min(shared),
    }
}

/// Reads what is used and what there is.
pub(super) fn read() -> Option<Memory> {
    read_from(Path::new("/"))
}

fn read_from(root: &Path) -> Option<Memory> {
    let machine = field(&fs::read_to_string(root.join("proc/meminfo")).ok()?, "MemTotal:")? * 1024;
    let group = unified_group(root).or_else(|| separate_group(root));
    if let Some(group) = group.filter(|group| group.available < machine) {
        return Some(group);
    }
    let resident = field(&fs::read_to_string(root.join("proc/self/status")).ok()?, "VmRSS:")? * 1024;
    Some(Memory { used: resident, available: machine })
}

/// The number behind a name.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Of the process's control group of version 2 and those it lies in, the one with the smallest limit.
fn unified_group(root: &Path) -> Option<Memory> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    // A container sees its own group as the root, whatever path is said here.
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let mount = root.join("sys/fs/cgroup");
    let names = ["memory.max", "memory.current"];
    let upwards = Path::new(own).ancestors();
    upwards
        .filter_map(|folder| group(&mount.join(folder), names, "inactive_file "))
        .min_by_key(|group| group.available)
}

/// A control group of version 1.
fn separate_group(root: &Path) -> Option<Memory> {
    let names = ["memory.limit_in_bytes", "memory.usage_in_bytes"];
    group(&root.join("sys/fs/cgroup/memory"), names, "total_inactive_file ")
}

fn group(folder: &Path, [limit, usage]: [&str; 2], cache: &str) -> Option<Memory> {
    let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    // "max" is no number: no limit.
    let (available, used) = (number(limit)?, number(usage)?);
    let cache = field(&fs::read_to_string(folder.join("memory.stat")).ok()?, cache).unwrap_or(0);
    Some(Memory { used: used.saturating_sub(cache), available })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_freed_by_refusing_does_not_let_everyone_in_at_once() {
        let mut pressure = Pressure::default();
        let seen = [900, 1_001, 950, 921, 920, 999, 1_001].map(|used| pressure.look(used, 1_000));
        assert_eq!(seen, [false, true, true, true, false, false, true]);
        assert!(!pressure.look(u64::MAX, 0), "no limit");
    }

    #[test]
    fn the_smaller_limit_holds() {
        assert_eq!([limit(1_000, 0, 0.5), limit(1_000, 300, 0.5), limit(1_000, 700, 0.5)], [500, 300, 500]);
        assert_eq!([limit(1_000, 0, 0.0), limit(1_000, 300, 0.0)], [0, 300]);
    }

    /// A machine's files: 2000 KiB of memory, 100 KiB of them this process's.
    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/self")).unwrap();
        fs::write(root.path().join("proc/meminfo"), "MemTotal:    2000 kB\nMemFree: 1 kB\n").unwrap();
        fs::write(root.path().join("proc/self/status"), "Name:\tx\nVmRSS:\t     100 kB\n").unwrap();
        root
    }

    fn write_group(root: &Path, folder: &str, files: &[(&str, &str)]) {
        fs::create_dir_all(root.join(folder)).unwrap();
        for (name, text) in files {
            fs::write(root.join(folder).join(name), text).unwrap();
        }
    }

    #[test]
    fn the_group_counts_if_it_has_a_limit_and_the_process_else() {
        let alone = Memory { used: 102_400, available: 2_048_000 };
        let root = machine();
        assert_eq!(read_from(root.path()), Some(alone));
        let stat = ("memory.stat", "anon 5\ninactive_file 40\nactive_file 7\n");
        write_group(
            root.path(),
            "sys/fs/cgroup",
            &[("memory.max", "max\n"), ("memory.current", "90\n"), stat],
        );
        assert_eq!(read_from(root.path()), Some(alone));
        write_group(root.path(), "sys/fs/cgroup", &[("memory.max", "500\n")]);
        assert_eq!(read_from(root.path()), Some(Memory { used: 50, available: 500 }));

        // A container that is told a path of its host's.
        fs::write(root.path().join("proc/self/cgroup"), "0::/docker/c0ffee\n").unwrap();
        assert_eq!(read_from(root.path()), Some(Memory { used: 50, available: 500 }));

        let root = machine();
        let files = [
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.usage_in_bytes", "90\n"),
            ("memory.stat", "inactive_file 1\ntotal_inactive_file 30\n"),
        ];
        write_group(root.path(), "sys/fs/cgroup/memory", &files);
        assert_eq!(read_from(root.path()), Some(alone));
        write_group(root.path(), "sys/fs/cgroup/memory", &[("memory.limit_in_bytes", "600")]);
        assert_eq!(read_from(root.path()), Some(Memory { used: 60, available: 600 }));
    }

    #[test]
    fn the_smallest_limit_from_the_process_up_counts() {
        let root = machine();
        fs::write(
            root.path().join("proc/self/cgroup"),
            "1:name=systemd:/x\n0::/system.slice/fleetlog.service\n",
        )
        .unwrap();
        let limited = |folder: &str, limit: &str, used: &str| {
            let files =
                [("memory.max", limit), ("memory.current", used), ("memory.stat", "inactive_file 0\n")];
            write_group(root.path(), &format!("sys/fs/cgroup{folder}"), &files);
        };
        limited("/system.slice/fleetlog.service", "700\n", "70\n");
        limited("/system.slice", "max\n", "80\n");
        assert_eq!(read_from(root.path()), Some(Memory { used: 70, available: 700 }));
        limited("/system.slice", "600\n", "80\n");
        assert_eq!(read_from(root.path()), Some(Memory { used: 80, available: 600 }));
    }
}
