//! Developer commands; no product code.
//!
//! `cargo xtask up` runs the whole system on this machine, `cargo xtask test` passes every test from a clean
//! checkout, `cargo xtask faults` lets things fail for as long as you like, `cargo xtask engines` fetches or verifies the
//! engines, `cargo xtask ci` does what CI does. All real work
//! is done by cargo and by the product's own programs; this crate only calls them in the right order, so
//! that it stays quick to compile.

mod programs;

use std::ffi::OsString;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::programs::{Profile, Programs};

/// Developer commands of Fleetlog.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything on this machine: Kafka, ClickHouse and all services.
    ///
    /// Builds the programs (in release mode unless told otherwise) and becomes `fleetlog up`.
    ///
    /// The first run compiles everything and fetches the engines; later ones start in seconds.
    /// Ctrl-C stops everything in its order, and the data stays.
    Up(Up),
    /// Run every test of the workspace, with the real engines.
    ///
    /// Builds the programs that the tests start, fetches the engines, then runs `cargo test --workspace`.
    ///
    /// Works from a clean checkout. Every test runs even when one fails.
    Test(Test),
    /// Fetch the pinned engines, or verify those that were fetched.
    ///
    /// The engines are kept in `fleetlog/engines` below `FLEETLOG_CACHE`, else `XDG_CACHE_HOME`, else `~/.cache`.
    Engines(Engines),
    /// Let things fail at random moments under a load that retries, and prove that nothing is lost or stored twice.
    ///
    /// Kills, freezes and doubles services, kills and freezes Kafka and ClickHouse. Prints the seed, which decides the
    /// faults and their order.
    Faults(Faults),
    /// Do what CI does: formatting, lints, docs, dependencies, compose file, tests.
    Ci,
}

#[derive(Args)]
struct Up {
    /// Build without optimisation: quicker to compile, slower to run
    #[arg(long)]
    debug_build: bool,
    /// Passed on to `fleetlog up`; see `cargo xtask up -- --help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

#[derive(Args)]
struct Test {
    /// Passed on to `cargo test` in place of `--workspace`: a package, a test's name
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

#[derive(Args)]
struct Faults {
    /// How long, in minutes
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Seed of an earlier run, to repeat its faults; the time of day by default
    #[arg(long)]
    seed: Option<u64>,
    /// Build with optimisations: more events pass in the same time
    #[arg(long)]
    release: bool,
}

#[derive(Args)]
struct Engines {
    /// Compare every byte in the cache with the pinned hashes, too
    #[arg(long)]
    verify: bool,
}

fn main() -> Result<()> {
    let programs = Programs::of_workspace()?;
    match Cli::parse().command {
        Command::Up(Up { debug_build, args }) => {
            let profile = if debug_build { Profile::Dev } else { Profile::Release };
            programs.build(profile, &["fleetlog", "fleetlog-clickhouse", "fleetlog-tether"])?;
            programs.become_program(profile, "fleetlog", ["up".into()].into_iter().chain(args))
        }
        Command::Test(Test { args }) => {
            programs.build_all(Profile::Dev)?;
            programs.run(Profile::Dev, "fleetlog-engines", &["fetch"])?;
            let selection = if args.is_empty() { vec!["--workspace".into()] } else { args };
            programs.cargo("test", ["--no-fail-fast".into()].into_iter().chain(selection))
        }
        Command::Faults(Faults { minutes, seed, release }) => {
            let profile = if release { Profile::Release } else { Profile::Dev };
            programs.build_all(profile)?;
            programs.run(profile, "fleetlog-engines", &["fetch"])?;
            let mut environment = vec![("FLEETLOG_FAULT_MINUTES", minutes.to_string())];
            environment.extend(seed.map(|seed| ("FLEETLOG_FAULT_SEED", seed.to_string())));
            let optimised = release.then_some("--release");
            let selection = ["-p", "fleetlog-tests", "--test", "faults", "--", "--nocapture"];
            let arguments = optimised.into_iter().chain(selection).map(OsString::from);
            programs.cargo_with("test", arguments, &environment)
        }
        Command::Engines(Engines { verify }) => {
            programs.build(Profile::Dev, &["fleetlog-engines"])?;
            programs.run(Profile::Dev, "fleetlog-engines", &[if verify { "verify" } else { "fetch" }])
        }
        Command::Ci => programs.become_script(".ci/run"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn unknown_flags_of_up_reach_fleetlog() {
        let cli = Cli::parse_from(["cargo xtask", "up", "--debug-build", "--ephemeral", "--data", "x"]);
        let Command::Up(up) = cli.command else { panic!("not up") };
        assert!(up.debug_build);
        assert_eq!(up.args, ["--ephemeral", "--data", "x"]);
    }

    #[test]
    fn a_test_run_can_be_narrowed() {
        let cli = Cli::parse_from(["cargo xtask", "test", "-p", "fleetlog-engines", "--", "--nocapture"]);
        let Command::Test(test) = cli.command else { panic!("not test") };
        assert_eq!(test.args, ["-p", "fleetlog-engines", "--", "--nocapture"]);
    }
}
