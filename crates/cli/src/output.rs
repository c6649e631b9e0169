//! What the commands print: results on stdout, everything else on stderr.

/// Prints a result.
#[expect(clippy::print_stdout, reason = "a command's result belongs on stdout")]
pub(crate) fn say(line: &str) {
    println!("{line}");
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
