//! `fleetlog check-config`: is the configuration right, and what could it say.

use clap::Args;
use fleetlog_standalone::{StandaloneConfig, config_keys};

use crate::ConfigArgs;
use crate::output::{note, say};

/// Checks the configuration of all services, without connecting to anything.
#[derive(Debug, Args)]
pub(crate) struct CheckConfig {
    #[command(flatten)]
    config: ConfigArgs,
    /// List every key with its default and what it does
    #[arg(long)]
    list: bool,
}

impl CheckConfig {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        if self.list {
            for key in config_keys() {
                say(&format!("{} = {}\n    {}", key.key, key.default, key.doc));
            }
            return Ok(());
        }
        StandaloneConfig::from_settings(&self.config.load()?)?;
        note("the configuration is fine");
        Ok(())
    }
}
