//! Read-only answers over the stored facts and derivations.
//!
//! The one place that builds SELECTs. A question walks through [`pipeline`](crate): the API key gives the project, the
//! parameters give a plan, [`sql`](crate) builds one statement with server-side parameters, admission lets it run, and
//! the store's reader runs it confined to the project by row filters (INV-10), read-only and limited (INV-9).
//! This service writes nothing, and it answers nothing before the confinement of every table has been proved. Beside
//! the questions it keeps a [`ledger`](crate) of what is stored of the raw log: how complete each answer is (INV-6, INV-7).
//!
//! [`run`] is the service; [`bind`] gives its address first, for whoever needs to know the port.

mod admission;
mod answer;
mod auth;
mod config;
mod cursor;
mod endpoints;
mod error;
mod ledger;
pub mod metrics;
mod openapi;
mod originals;
mod params;
mod pipeline;
mod plan;
mod server;
mod sql;
mod time_range;
mod wait;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fleetlog_runtime::{Deps, HttpBounds, Shutdown, Supervisor, serve_http};
use fleetlog_store::Store;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use auth::Keys;
pub use config::{Config, QueryConfig};
pub use cursor::CursorError;
pub use error::{QueryError, ServiceError};
pub use ledger::{Logs, Outlet, Pipeline, ReceiptError};
pub use time_range::RangeError;

use ledger::{Ledger, Sampler};
use originals::Originals;
use pipeline::Api;
use server::LateKeys;

/// The service with its listener bound and nothing started yet.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    store: Store,
    config: Config,
    deps: Deps,
    keys: Option<Arc<dyn Keys>>,
    logs: Option<Arc<dyn Logs>>,
}

/// Binds the listener; nothing is asked of Kafka or ClickHouse yet.
///
/// # Errors
/// [`ServiceError::Listen`] when the address cannot be had, [`ServiceError::Store`] when the store's configuration
/// cannot work.
pub async fn bind(config: Config, deps: Deps) -> Result<Bound, ServiceError> {
    let unheard = |source| ServiceError::Listen { address: config.query.listen.clone(), source };
    let listener = TcpListener::bind(&config.query.listen).await.map_err(unheard)?;
    let address = listener.local_addr().map_err(unheard)?;
    let store = Store::new(&config.store)?;
    Ok(Bound { listener, address, store, config, deps, keys: None, logs: None })
}

impl Bound {
    /// The address of the listener, with the port that the operating system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Takes these keys instead of the control topic's; Kafka is then needed for the bytes of dead letters only, and
    /// without [`with_logs`](Self::with_logs) nothing is known to be complete.
    #[must_use]
    pub fn with_keys(mut self, keys: Arc<dyn Keys>) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Keeps the ledger of these logs instead of Kafka's.
    #[must_use]
    pub fn with_logs(mut self, logs: Arc<dyn Logs>) -> Self {
        self.logs = Some(logs);
        self
    }

    /// Serves until shutdown, then lets the requests in flight end.
    ///
    /// # Errors
    /// The failure of a task; passing outages of Kafka or ClickHouse are waited out.
    pub async fn serve(self, shutdown: Shutdown) -> Result<(), ServiceError> {
        let Self { listener, address, store, config, deps, keys, logs } = self;
        let mut tasks = Supervisor::new(shutdown.clone());
        let within = Duration::from_millis(config.query.dead_letter_read_ms);
        let originals = Originals::new(config.kafka.clone(), within);
        let (ledger, shown) = Ledger::new();
        let sampler = Sampler::new(store.clone(), deps.clock.clone(), config.query.ledger_bounds(), shown);
        match logs {
            Some(logs) => tasks.spawn("query_ledger", sampler.run(logs, shutdown.clone())),
            None if keys.is_none() => {
                let (kafka, groups) = (config.kafka.clone(), config.query.ledger_groups());
                let sample = ledger::sample_kafka(sampler, kafka, groups, shutdown.clone());
                tasks.spawn("query_ledger", sample);
            }
            None => {}
        }
        let keys = match keys {
            Some(keys) => keys,
            None => {
                let late = Arc::new(LateKeys::default());
                let readiness = deps.health.component("query_keys");
                let follow =
                    server::follow_keys(Arc::clone(&late), config.kafka, readiness, shutdown.clone());
                tasks.spawn("query_keys", follow);
                late
            }
        };
        let (sender, reader) = watch::channel(None);
        let readiness = deps.health.component("query_store");
        let limits = config.query.statement_limits();
        tasks.spawn("query_store", server::guard_reader(store, limits, sender, readiness, shutdown.clone()));

        let bounds = HttpBounds {
            connections: usize::try_from(config.query.connections_max).unwrap_or(usize::MAX),
            header_timeout: Duration::from_millis(config.query.header_timeout_ms),
            drain: Duration::from_millis(config.query.drain_ms),
        };
        let api = Api::new(config.query, deps.clock.clone(), keys, reader, (ledger, originals));
        let router = server::router(api, &deps);
        tasks.spawn("query_http", serve_http(listener, router, bounds, metrics::CONNECTIONS, shutdown));
        tracing::info!(%address, "query API is listening");
        // The listener keeps the budget itself; the margin is for its own end.
        Ok(tasks.join(bounds.drain + Duration::from_secs(2)).await?)
    }
}

/// Runs the service until shutdown.
///
/// # Errors
/// What keeps it from starting, or the failure of a task.
pub async fn run(config: Config, deps: Deps, shutdown: Shutdown) -> Result<(), ServiceError> {
    bind(config, deps).await?.serve(shutdown).await
}
