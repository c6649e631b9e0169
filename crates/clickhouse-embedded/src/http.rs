//! ClickHouse's HTTP interface: routes, headers, and the way between the network and the engine's threads.
//!
//! `/` runs statements, `/ping` and `/replicas_status` say that the process lives, and `/fleetlog/running` tells which
//! requests are on their way, and `/metrics` how much was done. Every statement runs on a blocking thread, bounded by permits; what waits for a permit is
//! bounded too. A request that carries the origin of a foreign web page is refused: a page in a browser can reach a
//! loopback address.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body as HttpBody;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use bytes::Bytes;
use fleetlog_runtime::MetricsHandle;
use futures::StreamExt;
use futures::stream;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use crate::body::{BodySender, Piece, body_channel};
use crate::engine::{Canceller, Host};
use crate::error::{Code, ServerError};
use crate::ffi::Counters;
use crate::format::content_type;
use crate::metrics;
use crate::reply::{Head, Outgoing, ReplyWriter};
use crate::request::{Reply, Request};
use crate::running::Running;
use crate::statement::{self, Interest, Limits};

/// A sender that pauses longer than this in the middle of a body is given up.
const BODY_PAUSE: Duration = Duration::from_secs(120);

/// How long a request waits for its turn.
const QUEUE_WAIT: Duration = Duration::from_secs(5);

/// Requests that may wait, per request that may run.
const WAITING_PER_RUNNING: usize = 4;

/// Largest multipart form: a statement and its parameters.
const MAX_FORM_BYTES: usize = 16 << 20;

/// Largest field of a form: what a server has for `http_max_field_value_size` unless it is configured, so that no
/// statement works here that a server refuses.
const MAX_FIELD_BYTES: u64 = 128 << 10;

/// After an early error this much of the body is still read, so that the sender gets to see the answer.
const DRAIN_BYTES: usize = 64 << 20;

/// What every request shares.
#[derive(Clone)]
pub(crate) struct Server {
    host: Arc<Host>,
    limits: Arc<Limits>,
    running: Running,
    canceller: Canceller,
    metrics: MetricsHandle,
    concurrent: usize,
    permits: Arc<Semaphore>,
    queue: Arc<Semaphore>,
}

impl Server {
    /// Shares an engine among requests, `concurrent` at a time.
    pub(crate) fn new(
        host: Arc<Host>,
        limits: Limits,
        canceller: Canceller,
        metrics: MetricsHandle,
        concurrent: usize,
    ) -> Self {
        Self {
            host,
            limits: Arc::new(limits),
            running: Running::default(),
            canceller,
            metrics,
            concurrent,
            permits: Arc::new(Semaphore::new(concurrent)),
            queue: Arc::new(Semaphore::new(concurrent * (1 + WAITING_PER_RUNNING))),
        }
    }

    /// The interface's routes.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/", any(run))
            .route("/ping", get(|| async { "Ok.\n" }))
            .route("/replicas_status", get(|| async { "Ok.\n" }))
            .route("/fleetlog/running", get(running))
            .route("/metrics", get(show_metrics))
            .fallback(unknown_path)
            .with_state(self)
    }

    /// Waits until no statement runs.
    ///
    /// # Cancellation
    /// Safe to drop; nothing is changed.
    pub(crate) async fn idle(&self) {
        let all = u32::try_from(self.concurrent).unwrap_or(u32::MAX);
        // Fails only when the semaphore is closed, which it never is.
        drop(self.permits.acquire_many(all).await);
    }

    async fn admit(&self) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), ServerError> {
        let busy = || {
            metrics::BUSY.add(1);
            ServerError::new(Code::TooManySimultaneousQueries, "Too many simultaneous queries")
        };
        let queued = Arc::clone(&self.queue).try_acquire_owned().map_err(|_| busy())?;
        match timeout(QUEUE_WAIT, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok((queued, permit)),
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }

    /// Answers with an exception.
    fn exception(&self, error: &ServerError, query_id: &str) -> Response {
        let mut response = (error.status(), error.body(self.host.version())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
        headers.insert("x-clickhouse-exception-code", HeaderValue::from(error.code()));
        if error.status() == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if error.status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"ClickHouse\""));
        }
        common_headers(headers, query_id);
        response
    }
}

async fn unknown_path(uri: axum::http::Uri) -> (StatusCode, String) {
    (StatusCode::NOT_FOUND, format!("There is no handle {}\n\nUse / or /ping.\n", uri.path()))
}

async fn show_metrics(State(server): State<Server>) -> String {
    metrics::RUNNING.set((server.concurrent - server.permits.available_permits()) as f64);
    server.metrics.render()
}

/// `GET /fleetlog/running?query_id_prefix=…`: the requests on their way, as `{"running":[{query_id,kind,elapsed_ms}]}`.
async fn running(State(server): State<Server>, Query(pairs): Query<Vec<(String, String)>>) -> Response {
    let prefix =
        pairs.iter().find(|(name, _)| name == "query_id_prefix").map_or("", |(_, value)| value.as_str());
    let list: Vec<_> = server
        .running
        .with_prefix(prefix)
        .into_iter()
        .map(|one| json!({"query_id": one.query_id, "kind": one.kind, "elapsed_ms": one.elapsed_ms as u64}))
        .collect();
    axum::Json(json!({ "running": list })).into_response()
}

async fn run(
    State(server): State<Server>,
    Query(pairs): Query<Vec<(String, String)>>,
    request: axum::extract::Request,
) -> Response {
    let (parts, body) = request.into_parts();
    if is_foreign_page(&parts.headers) {
        let error =
            ServerError::new(Code::AccessDenied, "Requests of web pages from elsewhere are not served");
        return server.exception(&error, "");
    }
    let empty = pairs.iter().all(|(name, _)| name != "query");
    if parts.method == Method::GET && empty {
        return "Ok.\n".into_response();
    }
    let mut query_id = String::new();
    match serve(&server, &parts.method, pairs, &parts.headers, body, &mut query_id).await {
        Ok(response) => response,
        Err(error) => server.exception(&error, &query_id),
    }
}

fn is_foreign_page(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let host = origin.to_str().unwrap_or_default();
    let host = host.split_once("://").map_or(host, |(_, host)| host);
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    !matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

async fn serve(
    server: &Server,
    method: &Method,
    pairs: Vec<(String, String)>,
    headers: &HeaderMap,
    body: HttpBody,
    query_id: &mut String,
) -> Result<Response, ServerError> {
    let mut request = Request::parse(method, pairs, headers)?;
    query_id.clone_from(&request.query_id);
    let form = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| multer::parse_boundary(value).ok());
    let body = match form {
        Some(boundary) => {
            read_form(&mut request, boundary, body).await?;
            query_id.clone_from(&request.query_id);
            HttpBody::empty()
        }
        None => body,
    };
    let ticket = server.running.enter(&request.query_id)?;
    let permits = server.admit().await?;
    let tag: String = uuid::Uuid::new_v4().simple().to_string().chars().take(16).collect();
    let (sender, raw_body) = body_channel();
    let (reply, mut outgoing) =
        ReplyWriter::channel(request.reply, tag.clone(), request.wait_end, server.limits.max_result_bytes);
    let interest = Arc::new(Interest::new(format!("fleetlog:{}", uuid::Uuid::new_v4().simple())));
    let guard = InterestGuard { interest: Arc::clone(&interest), canceller: Some(server.canceller.clone()) };
    let reply_as = request.reply;
    let worker = {
        let (host, limits) = (Arc::clone(&server.host), Arc::clone(&server.limits));
        move || {
            let _permits = permits;
            statement::run(&host, &limits, &request, raw_body, &interest, &ticket, reply);
        }
    };
    drop(tokio::task::spawn_blocking(worker));
    let (_, first) = tokio::join!(pump(body, sender), outgoing.recv());
    match first {
        Some(Outgoing::Head(Ok(head))) => respond(&head, reply_as, query_id, &tag, outgoing, guard).await,
        Some(Outgoing::Head(Err(error))) => Err(guard.settled(error)),
        Some(Outgoing::Data(_) | Outgoing::End) | None => Err(guard.settled(ServerError::no_answer())),
    }
}

/// Reads a form's fields into the request.
async fn read_form(request: &mut Request, boundary: String, body: HttpBody) -> Result<(), ServerError> {
    let malformed = |error: multer::Error| match error {
        multer::Error::FieldSizeExceeded { .. } => ServerError::field_too_long(),
        error => {
            ServerError::new(Code::BadArguments, format_args!("The multipart form cannot be read: {error}"))
        }
    };
    let limits = multer::SizeLimit::new().whole_stream(MAX_FORM_BYTES as u64).per_field(MAX_FIELD_BYTES);
    let constraints = multer::Constraints::new().size_limit(limits);
    let mut form = multer::Multipart::with_constraints(body.into_data_stream(), boundary, constraints);
    loop {
        let field = timeout(BODY_PAUSE, form.next_field()).await.map_err(|_| paused())?.map_err(malformed)?;
        let Some(field) = field else { return Ok(()) };
        let name = field.name().unwrap_or_default().to_owned();
        if field.file_name().is_some() {
            return Err(ServerError::new(
                Code::NotImplemented,
                format_args!("External data ({name:?}) is not supported by the embedded engine"),
            ));
        }
        let value = timeout(BODY_PAUSE, field.text()).await.map_err(|_| paused())?.map_err(malformed)?;
        request.take(name, value)?;
    }
}

fn paused() -> ServerError {
    ServerError::new(Code::SocketTimeout, "The request's body paused for too long")
}

/// Moves the body to the statement's thread; stops early when that takes no more.
async fn pump(body: HttpBody, sender: BodySender) {
    let mut pieces = body.into_data_stream();
    let mut unwanted = 0;
    loop {
        match timeout(BODY_PAUSE, pieces.next()).await {
            // Dropping the sender without an end tells the reader that the body is cut.
            Err(_) | Ok(Some(Err(_))) => return,
            Ok(None) => {
                // The reader may be gone already, with the answer on its way.
                drop(sender.send(Piece::End).await);
                return;
            }
            Ok(Some(Ok(data))) => {
                let length = data.len();
                if sender.send(Piece::Data(data)).await.is_err() {
                    unwanted += length;
                    if unwanted > DRAIN_BYTES {
                        return;
                    }
                }
            }
        }
    }
}

/// Cancels a query when the client goes before its end.
struct InterestGuard {
    interest: Arc<Interest>,
    canceller: Option<Canceller>,
}

impl InterestGuard {
    /// The answer is complete: nothing is left to cancel.
    fn settle(&mut self) {
        self.canceller = None;
    }

    fn settled<T>(mut self, with: T) -> T {
        self.settle();
        with
    }
}

impl Drop for InterestGuard {
    fn drop(&mut self) {
        if let Some(canceller) = self.canceller.take()
            && let Some(mark) = self.interest.lose()
        {
            canceller.cancel(mark);
        }
    }
}

async fn respond(
    head: &Head,
    reply: Reply,
    query_id: &str,
    tag: &str,
    mut outgoing: mpsc::Receiver<Outgoing>,
    guard: InterestGuard,
) -> Result<Response, ServerError> {
    let body = match head.length {
        None => streamed(outgoing, guard),
        // A complete answer is one piece, which leaves in one packet with its head.
        Some(_) => match outgoing.recv().await {
            Some(Outgoing::Data(data)) => guard.settled(HttpBody::from(data)),
            Some(Outgoing::Head(_) | Outgoing::End) | None => {
                return Err(guard.settled(ServerError::no_answer()));
            }
        },
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(&head.format)));
    if let Reply::Http(encoding) = reply
        && let Some(name) = encoding.name()
        && head.length != Some(0)
    {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    insert_text(headers, "x-clickhouse-format", &head.format);
    insert_text(headers, "x-clickhouse-summary", &summary(&head.counters));
    insert_text(headers, "x-clickhouse-exception-tag", tag);
    common_headers(headers, query_id);
    Ok(response)
}

fn streamed(outgoing: mpsc::Receiver<Outgoing>, guard: InterestGuard) -> HttpBody {
    let pieces = stream::unfold(Some((outgoing, guard)), |state| async move {
        let (mut outgoing, guard) = state?;
        match outgoing.recv().await {
            Some(Outgoing::Data(data)) => Some((Ok::<Bytes, std::io::Error>(data), Some((outgoing, guard)))),
            Some(Outgoing::End) => guard.settled(None),
            // The statement's thread ended without a word: the client must not take this for the end.
            Some(Outgoing::Head(_)) | None => {
                Some((Err(std::io::Error::other("the answer was cut")), guard.settled(None)))
            }
        }
    });
    HttpBody::from_stream(pieces)
}

fn common_headers(headers: &mut HeaderMap, query_id: &str) {
    insert_text(headers, "x-clickhouse-query-id", query_id);
    headers.insert("x-clickhouse-timezone", HeaderValue::from_static("UTC"));
    headers.insert("x-clickhouse-server-display-name", HeaderValue::from_static("fleetlog"));
}

fn insert_text(headers: &mut HeaderMap, name: &'static str, value: &str) {
    // A query id is the client's text; one that no header can carry is left out.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn summary(counters: &Counters) -> String {
    let text = |number: u64| number.to_string();
    json!({
        "read_rows": text(counters.read_rows),
        "read_bytes": text(counters.read_bytes),
        "written_rows": text(counters.written_rows),
        "written_bytes": text(counters.written_bytes),
        "result_rows": text(counters.result_rows.max(counters.written_rows)),
    })
    .to_string()
}
