//! The paths of the ingest surface.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::Response;
use axum::http::header::CONTENT_TYPE;
use axum::routing::{MethodRouter, post};
use fleetlog_runtime::Classified;
use fleetlog_schemas::record::{Route, StreamContext};
use serde::Deserialize;
use uuid::{ContextV7, Timestamp, Uuid};

use crate::answer::{self, Dialect};
use crate::error::Refusal;
use crate::pipeline::{Accepted, Door, Gateway};

const FORMAT_MAX_BYTES: usize = 64;

/// Every path but those for operation.
pub(crate) fn router(gateway: Arc<Gateway>) -> Router {
    let post = |handler: MethodRouter<Arc<Gateway>>| handler.fallback(no_such_method);
    Router::new()
        .route("/v1/events", post(post_to(Route::Events)))
        .route("/v1/logs", post(post_to(Route::OtlpLogs)))
        .route("/v1/traces", post(post_to(Route::OtlpTraces)))
        .route("/v1/metrics", post(post_to(Route::OtlpMetrics)))
        .route("/v1/raw", post(axum::routing::post(raw_unnamed)))
        .route("/v1/raw/{format}", post(axum::routing::post(raw)))
        .fallback(no_such_path)
        .with_state(gateway)
}

fn post_to(route: Route) -> MethodRouter<Arc<Gateway>> {
    post(move |State(gateway): State<Arc<Gateway>>, request: Request| async move {
        let dialect = match route {
            Route::OtlpLogs | Route::OtlpTraces | Route::OtlpMetrics => {
                Dialect::otlp(route, request.headers().get(CONTENT_TYPE))
            }
            Route::Events | Route::Raw => Dialect::Native,
        };
        let door = Door { route, format_hint: String::new(), stream: None };
        serve(&gateway, dialect, Ok(door), request).await
    })
}

/// Where a chunk of a line format belongs, and what the stream said before it, as its sender says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StreamQuery {
    stream: Option<String>,
    line: i64,
    session: String,
    model: String,
    cwd: String,
    turn: String,
    provider: String,
    source: String,
    version: String,
    agent: String,
    noted: String,
}

async fn raw(
    State(gateway): State<Arc<Gateway>>,
    Path(format): Path<String>,
    query: Result<Query<StreamQuery>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Response<Body> {
    let door = match query {
        Ok(Query(query)) => raw_door(format, query),
        Err(_) => Err(Refusal::BadRequest("the query's `line` must be a number")),
    };
    serve(&gateway, Dialect::Native, door, request).await
}

async fn raw_unnamed(State(gateway): State<Arc<Gateway>>, request: Request) -> Response<Body> {
    let door = Door { route: Route::Raw, format_hint: String::new(), stream: None };
    serve(&gateway, Dialect::Native, Ok(door), request).await
}

fn raw_door(format: String, query: StreamQuery) -> Result<Door, Refusal> {
    let named = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
    if format.len() > FORMAT_MAX_BYTES || !format.bytes().all(named) {
        return Err(Refusal::BadRequest("a format's name has lower-case letters, digits, `.`, `_` and `-`"));
    }
    if query.line < 0 {
        return Err(Refusal::BadRequest("the query's `line` counts from 0"));
    }
    let stream = query.stream.map(|stream_id| StreamContext {
        format: format.clone(),
        stream_id,
        first_line: query.line,
        session_id: query.session,
        model: query.model,
        cwd: query.cwd,
        turn_id: query.turn,
        provider: query.provider,
        source: query.source,
        version: query.version,
        agent_id: query.agent,
        noted: query.noted,
    });
    Ok(Door { route: Route::Raw, format_hint: format, stream })
}

async fn no_such_path(State(gateway): State<Arc<Gateway>>, request: Request) -> Response<Body> {
    serve(&gateway, Dialect::Native, Err(Refusal::NoSuchPath), request).await
}

async fn no_such_method(State(gateway): State<Arc<Gateway>>, request: Request) -> Response<Body> {
    serve(&gateway, Dialect::Native, Err(Refusal::NoSuchMethod), request).await
}

/// Takes a request through the pipeline and answers it in its dialect.
async fn serve(
    gateway: &Gateway,
    dialect: Dialect,
    door: Result<Door, Refusal>,
    request: Request,
) -> Response<Body> {
    let began = Instant::now();
    let request_id = request_id(gateway);
    let outcome: Result<Accepted, Refusal> = match door {
        Ok(door) => {
            let (parts, body) = request.into_parts();
            gateway.accept(&request_id, door, &parts.headers, body).await
        }
        Err(refusal) => Err(refusal),
    };
    let response = match &outcome {
        Ok(accepted) => answer::accepted(dialect, accepted, &request_id),
        Err(refusal) => {
            gateway.meters.refused(refusal.code());
            gateway.refusals.write(&gateway.clock, refusal, &request_id);
            answer::refused(dialect, refusal, &request_id)
        }
    };
    gateway.meters.answered(began.elapsed());
    response
}

/// A version 7 UUID, whose time is the gateway's clock.
fn request_id(gateway: &Gateway) -> String {
    let now = gateway.clock.now_ns();
    let seconds = u64::try_from(now / 1_000_000_000).unwrap_or(0);
    let nanos = u32::try_from(now % 1_000_000_000).unwrap_or(0);
    Uuid::new_v7(Timestamp::from_unix(ContextV7::new(), seconds, nanos)).to_string()
}
