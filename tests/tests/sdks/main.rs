//! The official client libraries, used as their users use them with only the URL and the key changed: they finish
//! without an error or a retry, and what they sent is found.
//!
//! They run in Python and in Node. The scripts and the pinned packages are in `tests/sdks`. A library is skipped, with a
//! message, where its interpreter or the package registry cannot be reached.

mod library;

use std::process::ExitCode;

use fleetlog_tests::Suite;
use library::{LIBRARIES, keeps_its_promise};

fn main() -> anyhow::Result<ExitCode> {
    let suite = LIBRARIES.iter().fold(Suite::new()?, |suite, library| {
        let name = format!("{}_finishes_without_an_error_and_what_it_sent_is_found", library.name);
        suite.promise(&name.replace('-', "_"), |system| keeps_its_promise(system, library))
    });
    Ok(suite.run())
}
