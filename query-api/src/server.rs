//! Routes, the layers around them, and the tasks that keep keys and store at hand.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant as Stopwatch};

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use fleetlog_log::{Admin, AuthError, ControlView, KafkaConfig, LogError, Principal};
use fleetlog_runtime::{Deps, Readiness, Shutdown, admin_router};
use fleetlog_store::{Reader, ReaderLimits, Store, StoreError};
use tokio::sync::watch;
use tower_http::compression::CompressionLayer;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};
use utoipa_swagger_ui::SwaggerUi;

use crate::auth::Keys;
use crate::endpoints::{
    calls, completeness, dead_letters, events, explain, formats, sessions, timeline, traces, usage,
};
use crate::error::QueryError;
use crate::metrics;
use crate::openapi;
use crate::pipeline::Api;

/// How often the store is checked again once it was found in order.
const CHECK_EVERY: Duration = Duration::from_secs(10);
/// How often a store that is not in order is checked.
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// All routes.
pub(crate) fn router(api: Api, deps: &Deps) -> Router {
    let allowed_origins = api.config().allowed_origins.clone();
    Router::new()
        .route("/v1/sessions", get(sessions::list))
        .route("/v1/sessions/{id}", get(sessions::one))
        .route("/v1/sessions/{id}/timeline", get(timeline::timeline))
        .route("/v1/sessions/{id}/calls", get(calls::llm))
        .route("/v1/sessions/{id}/tools", get(calls::tools))
        .route("/v1/events", get(events::list))
        .route("/v1/events/{id}", get(events::one))
        .route("/v1/traces", get(traces::list))
        .route("/v1/traces/{id}", get(traces::one))
        .route("/v1/scores", get(traces::scores))
        .route("/v1/usage", get(usage::list))
        .route("/v1/usage/explain", get(explain::explain))
        .route("/v1/formats", get(formats::list))
        .route("/v1/dead-letters", get(dead_letters::list))
        .route("/v1/completeness", get(completeness::list))
        .with_state(api)
        .merge(SwaggerUi::new("/docs").url("/openapi.json", openapi::document()))
        .merge(admin_router(deps))
        .fallback(async || QueryError::NoEndpoint)
        .method_not_allowed_fallback(async || {
            (StatusCode::METHOD_NOT_ALLOWED, QueryError::NoEndpoint.into_response().into_body())
        })
        .layer(axum::middleware::from_fn(measured))
        .layer(CompressionLayer::new())
        .layer(cors(&allowed_origins))
}

async fn measured(request: Request, next: Next) -> Response {
    let asked = Stopwatch::now();
    let response = next.run(request).await;
    metrics::ANSWER_SECONDS.record(asked.elapsed().as_secs_f64());
    metrics::ANSWERS.add_for("status", response.status().as_str(), 1);
    response
}

/// Web pages of these origins may call the API; keys travel in headers, so no cookie is ever involved.
fn cors(origins: &str) -> CorsLayer {
    let origins: Vec<&str> = origins.split(',').map(str::trim).filter(|origin| !origin.is_empty()).collect();
    let allowed = if origins.contains(&"*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    CorsLayer::new().allow_origin(allowed).allow_methods([Method::GET]).allow_headers(Any)
}

/// Keys of the control topic, from the moment on at which it could be opened.
#[derive(Debug, Default)]
pub(crate) struct LateKeys(OnceLock<ControlView>);

impl Keys for LateKeys {
    fn authenticate(&self, text: &str) -> Result<Principal, AuthError> {
        self.0.get().ok_or(AuthError::NotReady)?.authenticate(text)
    }

    fn authenticate_pair(&self, key_id: &str, secret: &str) -> Result<Principal, AuthError> {
        self.0.get().ok_or(AuthError::NotReady)?.authenticate_pair(key_id, secret)
    }
}

/// Waits for Kafka, then follows the control topic until shutdown.
pub(crate) async fn follow_keys(
    keys: Arc<LateKeys>,
    kafka: KafkaConfig,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<(), LogError> {
    let Some(_topics) = Admin::new(&kafka)?.wait_for_topics(&shutdown).await? else { return Ok(()) };
    let (view, follower) = ControlView::open(&kafka)?;
    let view = keys.0.get_or_init(|| view);
    let told = async {
        view.caught_up().await;
        if view.is_caught_up() {
            readiness.ready();
        }
        shutdown.triggered().await;
        readiness.not_ready("shutting down");
    };
    // When following fails, the supervisor is to hear of it, and not to wait for the shutdown it would ask for.
    tokio::select! {
        followed = follower.follow(shutdown.clone()) => followed,
        () = told => Ok(()),
    }
}

/// Gives out the reader while every table is proved to be confined, and takes it back when one is not (INV-10).
pub(crate) async fn guard_reader(
    store: Store,
    limits: ReaderLimits,
    reader: watch::Sender<Option<Reader>>,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<(), StoreError> {
    loop {
        let wait = match store.reader(limits).await {
            Ok(proved) => {
                reader.send_replace(Some(proved));
                readiness.ready();
                CHECK_EVERY
            }
            Err(error) => {
                if matches!(error, StoreError::NotConfined { .. }) {
                    reader.send_replace(None);
                }
                // An outage takes nothing back: what was proved stays so, and statements say themselves that they fail.
                readiness.not_ready(error.to_string());
                RETRY_EVERY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.triggered() => {
                readiness.not_ready("shutting down");
                return Ok(());
            }
        }
    }
}
