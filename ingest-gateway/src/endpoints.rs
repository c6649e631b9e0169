//! The paths of the ingest surface.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, Response};
use axum::routing::{MethodRouter, post};
use fleetlog_log::Principal;
use fleetlog_runtime::Classified;
use fleetlog_schemas::record::{Route, StreamContext};
use serde::Deserialize;
use uuid::{ContextV7, Timestamp, Uuid};

use crate::answer::{self, Dialect, Said};
use crate::drop_in;
use crate::error::Refusal;
use crate::grpc;
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
        // Helicone's clients send OTLP traces there.
        .route("/v1/trace/log-python", post(post_to(Route::OtlpTraces)))
        .route("/v1/raw", post(axum::routing::post(raw_unnamed)))
        .route("/v1/raw/{format}", post(axum::routing::post(raw)))
        .merge(drop_in::router())
        .merge(grpc::router())
        .fallback(elsewhere)
        .with_state(gateway)
}

pub(crate) fn post_to(route: Route) -> MethodRouter<Arc<Gateway>> {
    post(move |State(gateway): State<Arc<Gateway>>, request: Request| async move {
        serve(&gateway, dialect_of(route, &request), Ok(Door { route, ..Door::default() }), request).await
    })
}

fn dialect_of(route: Route, request: &Request) -> Dialect {
    match route {
        Route::OtlpLogs | Route::OtlpTraces | Route::OtlpMetrics => {
            Dialect::otlp(route, request.headers().get(CONTENT_TYPE))
        }
        Route::Events | Route::Raw => Dialect::Native,
    }
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
    serve(&gateway, Dialect::Native, Ok(Door::default()), request).await
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
    Ok(Door { format_hint: format, stream, ..Door::default() })
}

/// A path that is not listed: OTLP under a prefix of somebody's, else none of ours.
async fn elsewhere(State(gateway): State<Arc<Gateway>>, request: Request) -> Response<Body> {
    if grpc::is_grpc(request.headers()) {
        return serve(&gateway, Dialect::Grpc, Err(Refusal::NoSuchPath), request).await;
    }
    let path = request.uri().path();
    let signals = [
        ("/v1/traces", Route::OtlpTraces),
        ("/v1/logs", Route::OtlpLogs),
        ("/v1/metrics", Route::OtlpMetrics),
    ];
    let otlp = signals.into_iter().find(|(suffix, _)| path.ends_with(suffix)).map(|(_, route)| route);
    let (dialect, door) = match otlp {
        Some(route) if request.method() == Method::POST => {
            (dialect_of(route, &request), Ok(Door { route, ..Door::default() }))
        }
        Some(route) => (dialect_of(route, &request), Err(Refusal::NoSuchMethod)),
        None => match drop_in::owner_of(path) {
            Some(foreign) => (Dialect::Foreign(foreign), Err(Refusal::NotOffered)),
            None => (Dialect::Native, Err(Refusal::NoSuchPath)),
        },
    };
    serve(&gateway, dialect, door, request).await
}

async fn no_such_method(State(gateway): State<Arc<Gateway>>, request: Request) -> Response<Body> {
    serve(&gateway, Dialect::Native, Err(Refusal::NoSuchMethod), request).await
}

/// Answers a question for which only the key's project is needed.
pub(crate) fn tell(
    gateway: &Gateway,
    dialect: Dialect,
    headers: &HeaderMap,
    say: fn(&Principal) -> Said,
) -> Response<Body> {
    let request_id = request_id(gateway);
    match gateway.identify(headers) {
        Ok(principal) => say(&principal).respond(&request_id),
        Err(refusal) => refuse(gateway, dialect, &refusal, &request_id),
    }
}

/// Answers a question that a small body asks; nothing of it is kept.
pub(crate) async fn reply(
    gateway: &Gateway,
    dialect: Dialect,
    request: Request,
    say: fn(&[u8]) -> Result<Said, Refusal>,
) -> Response<Body> {
    let request_id = request_id(gateway);
    let (parts, body) = request.into_parts();
    match gateway.hear(&parts.headers, body).await.and_then(|body| say(&body)) {
        Ok(said) => said.respond(&request_id),
        Err(refusal) => refuse(gateway, dialect, &refusal, &request_id),
    }
}

/// Takes a request through the pipeline and answers it in its dialect.
pub(crate) async fn serve(
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
        Err(refusal) => refuse(gateway, dialect, refusal, &request_id),
    };
    gateway.meters.answered(began.elapsed());
    response
}

fn refuse(gateway: &Gateway, dialect: Dialect, refusal: &Refusal, request_id: &str) -> Response<Body> {
    gateway.meters.refused(refusal.code());
    gateway.refusals.write(&gateway.clock, refusal, request_id);
    answer::refused(dialect, refusal, request_id)
}

/// A version 7 UUID, whose time is the gateway's clock.
fn request_id(gateway: &Gateway) -> String {
    let now = gateway.clock.now_ns();
    let seconds = u64::try_from(now / 1_000_000_000).unwrap_or(0);
    let nanos = u32::try_from(now % 1_000_000_000).unwrap_or(0);
    Uuid::new_v7(Timestamp::from_unix(ContextV7::new(), seconds, nanos)).to_string()
}
