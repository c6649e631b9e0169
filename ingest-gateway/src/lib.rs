//! The ingest gateway: turns requests into accepted log records.
//!
//! It authenticates, limits, checks structure, publishes the bytes as they came, and answers after the broker's
//! acknowledgement. It never touches ClickHouse and does not know what an event means. `pipeline.rs` shows the chain.
//!
//! Embedding: [`bind`] takes the addresses and says which it got (port 0 is any free one), [`Bound::serve`] runs until
//! shutdown; [`run`] is both. The listener answers from the start, with 503 and not ready until Kafka is reached.

mod admission;
mod allowance;
mod answer;
mod auth;
mod check;
mod codes;
mod config;
mod disk_watch;
mod drop_in;
mod encoding;
mod endpoints;
mod error;
mod grpc;
pub mod metrics;
mod overload;
mod pipeline;
mod publish;
mod receive;
mod shape;
mod split;
mod spool;
mod throttle;
mod usage;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fleetlog_log::{Admin, ControlView, LogError, Producer};
use fleetlog_runtime::{Deps, HttpBounds, Readiness, Shutdown, Supervisor, admin_router, serve_http};
use fleetlog_schemas::topic;
use tokio::net::TcpListener;
use tokio::sync::{SetOnce, watch};

pub use codes::{ErrorCode, RECORD_CODES, error_codes};
pub use config::{Config, GatewayConfig};
pub use error::GatewayError;
pub use spool::SpoolFault;

use crate::admission::{Admission, Bounds};
use crate::allowance::Allowances;
use crate::check::Limits;
use crate::disk_watch::DiskWatch;
use crate::metrics::Meters;
use crate::overload::Overload;
use crate::pipeline::{Gateway, Log};
use crate::receive::BodyBounds;
use crate::spool::Spool;
use crate::throttle::RefusalLog;

/// A gateway whose addresses are taken and that does not serve yet; connections wait meanwhile.
pub struct Bound {
    http: Listener,
    grpc: Option<Listener>,
    gateway: Arc<Gateway>,
    config: Config,
    deps: Deps,
}

struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    async fn bind(key: &'static str, address: &str) -> Result<Self, GatewayError> {
        let cannot = |source| GatewayError::Bind { key, address: address.to_owned(), source };
        let socket = TcpListener::bind(address).await.map_err(cannot)?;
        let address = socket.local_addr().map_err(GatewayError::Address)?;
        Ok(Self { socket, address })
    }
}

/// Runs the gateway until shutdown.
///
/// # Errors
/// [`GatewayError`] when it cannot listen, or when a part of it fails.
pub async fn run(config: Config, deps: Deps, shutdown: Shutdown) -> Result<(), GatewayError> {
    bind(config, deps).await?.serve(shutdown).await
}

/// Takes the addresses.
///
/// # Errors
/// [`GatewayError::Bind`] when one is taken; [`GatewayError::Log`] when librdkafka refuses the configuration;
/// [`GatewayError::Spool`] and [`GatewayError::Disk`] when a configured folder cannot be used.
pub async fn bind(config: Config, deps: Deps) -> Result<Bound, GatewayError> {
    let gateway = Arc::new(gateway(&config, &deps)?);
    let http = Listener::bind("gateway.listen", &config.gateway.listen).await?;
    let grpc = match config.gateway.grpc_listen.trim() {
        "" => None,
        address => Some(Listener::bind("gateway.grpc_listen", address).await?),
    };
    Ok(Bound { http, grpc, gateway, config, deps })
}

impl Bound {
    /// The address, with the port that was free if the configuration left it open.
    pub fn local_addr(&self) -> SocketAddr {
        self.http.address
    }

    /// The address of the listener for gRPC, if there is one.
    pub fn grpc_addr(&self) -> Option<SocketAddr> {
        self.grpc.as_ref().map(|listener| listener.address)
    }

    /// Serves until shutdown: then it is not ready, accepts no more, lets requests under way finish, and flushes the
    /// producer, each within `gateway.shutdown_budget_ms`. What is spooled then stays for the next start.
    ///
    /// # Errors
    /// [`GatewayError`] when a part fails, or records were not acknowledged within the budget.
    pub async fn serve(self, shutdown: Shutdown) -> Result<(), GatewayError> {
        let Self { http, grpc, gateway, config, deps } = self;
        let budget = Duration::from_millis(config.gateway.shutdown_budget_ms);
        let bounds = HttpBounds {
            connections: config.gateway.connections_max,
            header_timeout: Duration::from_millis(config.gateway.header_timeout_ms),
            drain: budget,
        };
        let readiness = deps.health.component("gateway");
        let app = endpoints::router(Arc::clone(&gateway)).merge(admin_router(&deps));
        let mut tasks = Supervisor::new(shutdown.clone());
        for Listener { socket, address } in std::iter::once(http).chain(grpc) {
            tracing::info!(%address, "serving ingest");
            let served = serve_http(socket, app.clone(), bounds, metrics::CONNECTIONS, shutdown.clone());
            tasks.spawn("ingest listener", served);
        }
        let circuit = deps.health.component("gateway log");
        if let Some(disk) = gateway.disk.clone() {
            let shutdown = shutdown.clone();
            tasks.spawn("ingest disk", async move { disk.watch(shutdown).await });
        }
        if gateway.spool.is_some() {
            tasks.spawn("ingest spool", drain_spool(Arc::clone(&gateway), budget, shutdown.clone()));
            tasks.spawn("ingest spool standing", tell_of_spool(Arc::clone(&gateway), shutdown.clone()));
        }
        let following = follow_log(config, Arc::clone(&gateway), readiness, shutdown.clone());
        tasks.spawn("ingest keys", following);
        let watching = Arc::clone(&gateway);
        tasks.spawn("ingest overload", async move {
            watching.overload.watch(&watching.producer, circuit, &shutdown).await;
            Ok::<_, LogError>(())
        });
        // The listener keeps the budget itself and reports what overran; the margin is for its own end.
        tasks.join(budget + Duration::from_secs(2)).await?;
        // What was accepted to the very end counts; what cannot be told within the budget is forgotten, as in a crash.
        let counts = usage::tell_once(&gateway.producer, &gateway.allowances, gateway.now());
        let telling = async { tokio::join!(counts, last_word_of_spool(&gateway)) };
        let _told = tokio::time::timeout(budget, telling).await.is_ok();
        let flushed = gateway.producer.flush(budget).await;
        match &gateway.spool {
            // What it could not flush is in the spool, or was answered with "later".
            Some(spool) => {
                let records = spool.records();
                if records > 0 {
                    tracing::warn!(records, "the spool is not drained; it stays for the next start");
                }
                Ok(())
            }
            None => Ok(flushed?),
        }
    }
}

fn gateway(config: &Config, deps: &Deps) -> Result<Gateway, GatewayError> {
    let own = &config.gateway;
    let spool = Spool::open(own, deps.clock.clone())?;
    let disk = match own.disk_watch_path.trim() {
        "" => None,
        path => {
            let cannot = |source| GatewayError::Disk { path: path.to_owned(), source };
            Some(Arc::new(DiskWatch::start(own, &deps.health).map_err(cannot)?))
        }
    };
    let mut kafka = config.kafka.clone();
    if spool.is_some() {
        // The producer then tries for as long as it takes: a message of unknown outcome would be published again.
        kafka.delivery_timeout_ms = 0;
    }
    let meters = Meters::new();
    let bounds = Bounds {
        bytes: own.in_flight_max_bytes,
        requests: own.in_flight_max_requests,
        project_bytes: (own.in_flight_max_bytes as f64 * own.project_share) as usize,
    };
    let admission = Admission::new(bounds, meters.in_flight_bytes.clone(), meters.in_flight.clone());
    let id = match &spool {
        Some(spool) => spool.gateway_id().to_owned(),
        None if own.id.is_empty() => random_id(),
        None => own.id.clone(),
    };
    Ok(Gateway {
        id,
        spool,
        disk,
        clock: deps.clock.clone(),
        producer: Producer::new(&kafka, topic::RAW_MAX_MESSAGE_BYTES)?,
        log: SetOnce::new(),
        admission: Arc::new(admission),
        overload: Overload::new(own.overload()),
        allowances: Allowances::new(format!("gateway-{}", uuid::Uuid::new_v4().simple()), own.allowances()),
        body: BodyBounds { bytes: own.body_max_bytes, timeout: Duration::from_millis(own.body_timeout_ms) },
        limits: Limits {
            decoded_bytes: own.decoded_max_bytes,
            records: own.records_max,
            message_bytes: own.message_max_bytes,
        },
        meters,
        refusals: RefusalLog::default(),
    })
}

fn random_id() -> String {
    format!("gateway-{}", uuid::Uuid::new_v4().simple())
}

/// Drains the spool once Kafka has been reached.
async fn drain_spool(gateway: Arc<Gateway>, budget: Duration, shutdown: Shutdown) -> Result<(), LogError> {
    let Some(spool) = gateway.spool.clone() else { return Ok(()) };
    let partitions = tokio::select! {
        log = gateway.log.wait() => log.topics.raw,
        () = shutdown.triggered() => return Ok(()),
    };
    spool.drain(gateway.producer.clone(), partitions, budget, shutdown).await
}

/// Tells what the spool holds, from the first word on, which [`follow_log`] tells.
async fn tell_of_spool(gateway: Arc<Gateway>, shutdown: Shutdown) -> Result<(), LogError> {
    let Some(spool) = &gateway.spool else { return Ok(()) };
    tokio::select! {
        _log = gateway.log.wait() => spool.keep_telling(&gateway.producer, &shutdown).await,
        () = shutdown.triggered() => {}
    }
    Ok(())
}

/// Whether the others know of the spool, if there is one; `false` when shutdown came first.
async fn is_spool_known(gateway: &Gateway, shutdown: &Shutdown) -> bool {
    let Some(spool) = &gateway.spool else { return true };
    tokio::select! {
        () = spool.tell_first(&gateway.producer) => true,
        () = shutdown.triggered() => false,
    }
}

/// Tells what is left in the spool; a gateway that never came to accept anything has no word of its own.
async fn last_word_of_spool(gateway: &Gateway) {
    if let (Some(spool), Some(_)) = (&gateway.spool, gateway.log.get()) {
        spool.tell_last(&gateway.producer).await;
    }
}

/// Waits for the topics, loads the keys, and keeps following them.
async fn follow_log(
    config: Config,
    gateway: Arc<Gateway>,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<(), LogError> {
    let Some(topics) = Admin::new(&config.kafka)?.wait_for_topics(&shutdown).await? else { return Ok(()) };
    let (keys, follower) = ControlView::open(&config.kafka)?;
    let (counts_loaded, mut loaded_counts) = watch::channel(false);
    let counts = usage::follow(&config.kafka, &gateway.allowances, counts_loaded, &shutdown);
    let loaded = async {
        keys.caught_up().await;
        // Quotas hold from the first request on.
        let counts = loaded_counts.wait_for(|loaded| *loaded).await.is_ok();
        // And whatever is spooled is looked for.
        if keys.is_caught_up() && counts && is_spool_known(&gateway, &shutdown).await {
            // Set once: this function runs once.
            let _first = gateway.log.set(Log { topics, keys }).is_ok();
            readiness.ready();
        }
        shutdown.triggered().await;
        readiness.not_ready("shutting down");
    };
    let every = Duration::from_millis(config.gateway.quota_publish_ms);
    let telling = usage::tell(&gateway, every, &shutdown);
    // The first that fails ends the others, which would go on until shutdown.
    tokio::try_join!(follower.follow(shutdown.clone()), counts, async {
        tokio::join!(telling, loaded);
        Ok(())
    })?;
    Ok(())
}
