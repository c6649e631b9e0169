//! `fleetlog-tether PARENT PROGRAM [ARG…]` becomes PROGRAM, which the kernel ends when PARENT ends.
//!
//! A front end that is killed with -9 cannot stop its engines. The kernel can: a process may ask for a signal at its
//! parent's death, and the wish survives exec. It must be asked for between fork and exec, which safe Rust
//! cannot do in the parent; so this program does it and then replaces itself.
//!
//! "Parent" means the thread that started this program, so it is started from a thread that lives as long as
//! its process.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

/// What a shell answers when it cannot execute a program.
const CANNOT_EXECUTE: u8 = 126;
/// The parent was gone before the tether was tied.
const PARENT_GONE: u8 = 125;
/// As in `sysexits.h`.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let parent = args.next().and_then(|pid| pid.to_str()?.parse::<i32>().ok());
    let (Some(parent), Some(program)) = (parent, args.next()) else {
        eprintln!("usage: fleetlog-tether PARENT PROGRAM [ARG…]");
        return ExitCode::from(USAGE);
    };
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
    {
        eprintln!("fleetlog-tether: cannot tie to process {parent}: {error}");
        return ExitCode::from(CANNOT_EXECUTE);
    }
    // The parent may have died before the tie; the signal would then never come.
    if rustix::process::getppid().map(rustix::process::Pid::as_raw_pid) != Some(parent) {
        return ExitCode::from(PARENT_GONE);
    }
    let error = Command::new(&program).args(args).exec();
    eprintln!("fleetlog-tether: cannot execute {}: {error}", program.display());
    ExitCode::from(CANNOT_EXECUTE)
}
