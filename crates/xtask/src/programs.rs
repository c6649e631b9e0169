//! Builds and runs the workspace's own programs.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// How cargo builds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to compile; what tests use.
    Dev,
    /// Quick to run.
    Release,
}

/// The workspace and the folder that cargo builds into.
pub(crate) struct Programs {
    root: PathBuf,
    target: PathBuf,
    cargo: OsString,
}

impl Programs {
    /// The workspace that this program was built from.
    pub(crate) fn of_workspace() -> Result<Self> {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("no workspace above xtask")?;
        // Cargo put this program into target/debug, wherever target is configured to be.
        let this = std::env::current_exe().context("cannot find the running program")?;
        let target = this.ancestors().nth(2).context("no target folder above xtask")?.to_owned();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Ok(Self { root: root.to_owned(), target, cargo })
    }

    /// Builds the named programs, with cargo's own progress.
    pub(crate) fn build(&self, profile: Profile, programs: &[&str]) -> Result<()> {
        let selection = programs.iter().flat_map(|program| ["--bin".into(), program.into()]);
        self.cargo("build", profile.flags().chain(selection))
    }

    /// Builds every program.
    pub(crate) fn build_all(&self, profile: Profile) -> Result<()> {
        self.cargo("build", profile.flags().chain(["--workspace".into(), "--bins".into()]))
    }

    /// Runs a cargo command in the workspace.
    pub(crate) fn cargo(&self, command: &str, args: impl IntoIterator<Item = OsString>) -> Result<()> {
        self.cargo_with(command, args, &[])
    }

    /// Runs a cargo command in the workspace with variables in its environment.
    pub(crate) fn cargo_with(
        &self,
        command: &str,
        args: impl IntoIterator<Item = OsString>,
        environment: &[(&str, String)],
    ) -> Result<()> {
        let environment = environment.iter().map(|(name, value)| (name, value));
        succeed(Command::new(&self.cargo).current_dir(&self.root).arg(command).args(args).envs(environment))
    }

    /// Runs a built program to its end.
    pub(crate) fn run(&self, profile: Profile, program: &str, args: &[&str]) -> Result<()> {
        succeed(Command::new(self.path(profile, program)).args(args))
    }

    /// Becomes a built program, so that Ctrl-C and signals reach it alone. Returns only on failure.
    pub(crate) fn become_program(
        &self,
        profile: Profile,
        program: &str,
        args: impl IntoIterator<Item = OsString>,
    ) -> Result<()> {
        let path = self.path(profile, program);
        Err(Command::new(&path).args(args).exec()).with_context(|| format!("cannot run {}", path.display()))
    }

    /// Becomes a script of the workspace. Returns only on failure.
    pub(crate) fn become_script(&self, script: &str) -> Result<()> {
        let path = self.root.join(script);
        Err(Command::new(&path).current_dir(&self.root).exec())
            .with_context(|| format!("cannot run {}", path.display()))
    }

    fn path(&self, profile: Profile, program: &str) -> PathBuf {
        let folder = match profile {
            Profile::Dev => "debug",
            Profile::Release => "release",
        };
        self.target.join(folder).join(program)
    }
}

impl Profile {
    fn flags(self) -> impl Iterator<Item = OsString> {
        (self == Self::Release).then(|| "--release".into()).into_iter()
    }
}

fn succeed(command: &mut Command) -> Result<()> {
    let shown = [command.get_program()].into_iter().chain(command.get_args()).collect::<Vec<&OsStr>>();
    let shown = shown.join(OsStr::new(" "));
    let status = command.status().with_context(|| format!("cannot run `{}`", shown.display()))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown.display());
    }
    Ok(())
}
