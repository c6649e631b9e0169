//! `/healthz`, `/readyz` and `/metrics`, the same for every service.

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;

use crate::{Deps, Shutdown, config_section};

config_section! {
    /// The listener for operation, of services that have no other.
    pub struct AdminConfig, "admin" {
        /// Address of the listener; empty for none, port 0 for any free port.
        pub listen: String = String::new(),
    }
}

/// Routes for operation; services with a listener of their own merge them into it.
pub fn admin_router(deps: &Deps) -> Router {
    Router::new()
        .route("/healthz", get(|| async { Json(json!({"status": "ok"})) }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(|State(deps): State<Deps>| async move { deps.metrics.render() }))
        .with_state(deps.clone())
}

async fn readyz(State(deps): State<Deps>) -> Response {
    let obstacles = deps.health.obstacles();
    let ready = obstacles.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = if ready { "ready" } else { "not_ready" };
    (status, Json(json!({"status": word, "obstacles": obstacles}))).into_response()
}

/// Serves the routes for operation until shutdown; returns at once when no address is configured.
///
/// # Errors
/// The operating system's error when the address cannot be bound.
pub async fn serve_admin(config: AdminConfig, deps: Deps, shutdown: Shutdown) -> std::io::Result<()> {
    if config.listen.is_empty() {
        return Ok(());
    }
    let listener = TcpListener::bind(&config.listen).await?;
    tracing::info!(address = %listener.local_addr()?, "serving health and metrics");
    axum::serve(listener, admin_router(&deps))
        .with_graceful_shutdown(async move { shutdown.triggered().await })
        .await
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;
    use crate::{Clock, Health, TelemetryConfig, init_telemetry};

    #[tokio::test]
    async fn readiness_names_what_is_missing() {
        let metrics = init_telemetry(&TelemetryConfig::default()).unwrap();
        let deps = Deps { clock: Clock::system(), health: Health::new(), metrics };
        let kafka = deps.health.component("kafka");
        let ask = |deps: Deps| async move {
            let request = Request::get("/readyz").body(Body::empty()).unwrap();
            admin_router(&deps).oneshot(request).await.unwrap().status()
        };
        assert_eq!(ask(deps.clone()).await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(deps.health.obstacles()["kafka"], "starting");
        kafka.ready();
        assert_eq!(ask(deps).await, StatusCode::OK);
    }
}
