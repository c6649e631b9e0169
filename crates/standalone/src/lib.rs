//! Wires the four services into one process; contains no logic.
//!
//! The services do not know that they share a process: they talk through Kafka and ClickHouse as in production. They end
//! in the order in which events flow, so that what one has accepted the next can still settle. Those behind the log run
//! on threads of their own.

mod background;
mod reference;

use std::net::SocketAddr;
use std::time::Duration;

use background::Background;
use fleetlog_runtime::{AdminConfig, Deps, Settings, SettingsError, Shutdown, Supervisor, TaskFailure};
use thiserror::Error;
use tokio::sync::oneshot;

pub use reference::{config_keys, reference};

/// How long the processor and the aggregator go on after the gateway has stopped, to settle what is in flight.
const DRAIN: Duration = Duration::from_secs(2);
/// What must be ready before the addresses are told.
const COMPONENTS: &[&str] = &["gateway", "processor", "aggregator", "query_keys", "query_store"];
/// What ending takes beside the services' own budgets.
const STOP_MARGIN: Duration = Duration::from_secs(2);
/// How long all services together may take to end, at least: gateway and query API keep their budgets themselves.
const STOP_BUDGET_MIN: Duration = Duration::from_secs(40);

/// The configuration of all four services.
#[derive(Clone, Debug)]
pub struct StandaloneConfig {
    gateway: fleetlog_ingest_gateway::Config,
    processor: fleetlog_processor::Config,
    aggregator: fleetlog_aggregator::Config,
    query: fleetlog_query_api::Config,
}

impl StandaloneConfig {
    /// Takes the sections of all services.
    ///
    /// # Errors
    /// [`SettingsError`] naming the key.
    pub fn from_settings(settings: &Settings) -> Result<Self, SettingsError> {
        let mut config = Self {
            gateway: fleetlog_ingest_gateway::Config::from_settings(settings)?,
            processor: fleetlog_processor::Config::from_settings(settings)?,
            aggregator: fleetlog_aggregator::Config::from_settings(settings)?,
            query: fleetlog_query_api::Config::from_settings(settings)?,
        };
        // Health and metrics of the whole process are served by the gateway and by the query API already.
        config.processor.admin = AdminConfig::default();
        config.aggregator.admin = AdminConfig::default();
        Ok(config)
    }

    /// How long all services together may take to end: those behind the log begin later, and have their budgets then.
    fn stop_budget(&self) -> Duration {
        let processor = self.processor.processor.shutdown_budget_ms;
        let aggregator = self.aggregator.aggregator.shutdown_budget_ms;
        let behind = Duration::from_millis(processor.max(aggregator));
        DRAIN.saturating_add(behind).saturating_add(STOP_MARGIN).max(STOP_BUDGET_MIN)
    }
}

/// Where the services are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The ingest gateway.
    pub ingest: SocketAddr,
    /// The ingest gateway's listener for gRPC, if it has one.
    pub grpc: Option<SocketAddr>,
    /// The query API.
    pub query: SocketAddr,
}

/// What keeps the services from starting or running.
#[derive(Debug, Error)]
pub enum StandaloneError {
    /// The ingest gateway cannot start.
    #[error("ingest-gateway: {0}")]
    Gateway(#[from] fleetlog_ingest_gateway::GatewayError),
    /// The query API cannot start.
    #[error("query-api: {0}")]
    Query(#[from] fleetlog_query_api::ServiceError),
    /// There are no threads for the services behind the log.
    #[error("no threads for processor and aggregator: {0}")]
    Threads(#[from] std::io::Error),
    /// A service failed.
    #[error(transparent)]
    Service(#[from] TaskFailure),
}

/// Runs the four services until shutdown; tells their addresses once all of them are ready.
///
/// # Errors
/// The first service's failure; the others are then stopped too.
pub async fn run(
    config: StandaloneConfig,
    deps: Deps,
    shutdown: Shutdown,
    ready: oneshot::Sender<Addresses>,
) -> Result<(), StandaloneError> {
    let stop_budget = config.stop_budget();
    let gateway = fleetlog_ingest_gateway::bind(config.gateway, deps.clone()).await?;
    let query = fleetlog_query_api::bind(config.query, deps.clone()).await?;
    let addresses =
        Addresses { ingest: gateway.local_addr(), grpc: gateway.grpc_addr(), query: query.local_addr() };
    let behind = Shutdown::new();
    let background = Background::start()?;
    let processor = fleetlog_processor::run(config.processor, deps.clone(), behind.clone());
    let aggregator = fleetlog_aggregator::run(config.aggregator, deps.clone(), behind.clone());
    let mut services = Supervisor::new(shutdown.clone());
    services.spawn("ingest-gateway", gateway.serve(shutdown.clone()));
    services.spawn("query-api", query.serve(shutdown.clone()));
    services.spawn("processor", background.run(processor));
    services.spawn("aggregator", background.run(aggregator));
    services.spawn("readiness", announce(deps, addresses, ready, shutdown.clone()));
    services.spawn("order of stopping", async move {
        shutdown.triggered().await;
        tokio::time::sleep(DRAIN).await;
        behind.trigger();
        Ok::<_, StandaloneError>(())
    });
    Ok(services.join(stop_budget).await?)
}

async fn announce(
    deps: Deps,
    addresses: Addresses,
    ready: oneshot::Sender<Addresses>,
    shutdown: Shutdown,
) -> Result<(), StandaloneError> {
    tokio::select! {
        () = deps.health.all_ready(COMPONENTS) => {
            let _nobody_asked = ready.send(addresses).is_err();
        }
        () = shutdown.triggered() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_stops_last_has_its_whole_budget() {
        for budget_ms in [1_000, 45_000, 90_000] {
            let mut config = StandaloneConfig::from_settings(&Settings::load(None, &[]).unwrap()).unwrap();
            config.aggregator.aggregator.shutdown_budget_ms = budget_ms;
            let left = config.stop_budget() - DRAIN;
            assert!(left > Duration::from_millis(budget_ms) && left >= Duration::from_secs(38), "{left:?}");
        }
    }
}
