//! What the commands print: results on stdout, everything else on stderr.

use std::io::Write as _;

use clap::Args;

/// How a list is printed.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Prints a result. When nobody reads any more (`… | head`), the command ends quietly.
pub(crate) fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    if writeln!(stdout, "{line}").and_then(|()| stdout.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Prints what is not a result: progress, hints.
#[expect(clippy::print_stderr, reason = "stdout is kept clean for results")]
pub(crate) fn note(line: &str) {
    eprintln!("{line}");
}

/// Prints an error.
pub(crate) fn complain(line: &str) {
    note(&format!("fleetlog: {line}"));
}
