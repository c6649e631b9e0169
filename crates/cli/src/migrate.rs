//! `fleetlog migrate`: Kafka's topics and ClickHouse's tables, created or brought up to date.

use anyhow::Context;
use clap::Args;
use fleetlog_log::{Admin, KafkaConfig};
use fleetlog_runtime::Settings;
use fleetlog_store::{Store, StoreConfig};

use crate::ConfigArgs;
use crate::output::note;

/// Creates or updates Kafka's topics and ClickHouse's tables.
///
/// Safe to repeat, and when several run at once. The services do the same at start; this command is for deployments
/// that want it as a step of its own.
#[derive(Debug, Args)]
pub(crate) struct Migrate {
    #[command(flatten)]
    config: ConfigArgs,
}

impl Migrate {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        migrate(&self.config.load()?).await?;
        note("topics and tables are up to date");
        Ok(())
    }
}

/// Brings topics and tables up to date.
pub(crate) async fn migrate(settings: &Settings) -> anyhow::Result<()> {
    let kafka: KafkaConfig = settings.section(KafkaConfig::SECTION)?;
    let store: StoreConfig = settings.section(StoreConfig::SECTION)?;
    Admin::new(&kafka)?.ensure_topics().await.with_context(|| format!("Kafka at {}", kafka.brokers))?;
    let url = store.url.clone();
    Store::new(&store)?.migrate().await.with_context(|| format!("ClickHouse at {url}"))?;
    Ok(())
}
