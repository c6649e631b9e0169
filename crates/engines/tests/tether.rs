//! The tether: what it starts ends with its parent, also when the parent is killed.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const TETHER: &str = env!("CARGO_BIN_EXE_fleetlog-tether");

#[test]
fn a_child_ends_when_its_parent_is_killed() {
    // The shell is the parent; it tells its child's number and then waits to be killed.
    let script = format!("'{TETHER}' $$ sleep 1000 & echo $!; wait");
    let mut parent = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let child = PathBuf::from("/proc").join(line.trim());
    let command_line = || std::fs::read(child.join("cmdline")).unwrap_or_default();
    until("the tether has become its program", || command_line().starts_with(b"sleep\0"));

    parent.kill().unwrap();
    parent.wait().unwrap();
    // A zombie that nobody has waited for yet has no command line either.
    until("the child has ended", || command_line().is_empty());
}

#[test]
fn a_tether_whose_parent_is_gone_starts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let touched = dir.path().join("touched");
    // Process 1 is nobody's parent here but the kernel's.
    let status = Command::new(TETHER).args(["1", "touch"]).arg(&touched).status().unwrap();
    assert_eq!(status.code(), Some(125));
    assert!(!touched.exists());
}

#[test]
fn a_program_that_cannot_be_executed_is_named() {
    let parent = std::process::id().to_string();
    let output = Command::new(TETHER).args([&parent, "/nowhere/java"]).output().unwrap();
    assert_eq!(output.status.code(), Some(126));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/java"));
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        std::thread::yield_now();
    }
}
