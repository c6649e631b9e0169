//! A stand-in for the gateway's answers: the real one is met in the end-to-end tests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{Limits, Options};

/// What was sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) key: String,
    pub(crate) body: String,
    query: HashMap<String, String>,
}

impl Request {
    /// A member of the query, or nothing.
    pub(crate) fn get(&self, name: &str) -> String {
        self.query.get(name).cloned().unwrap_or_default()
    }
}

#[derive(Debug, Default)]
struct Seen {
    requests: Mutex<Vec<Request>>,
    came: Notify,
}

/// A listener that keeps what it is sent.
pub(crate) struct Gateway {
    url: String,
    seen: Arc<Seen>,
}

impl Gateway {
    pub(crate) async fn start() -> Self {
        Self::start_failing_at(usize::MAX).await
    }

    /// Answers the request of this number with 503 once.
    pub(crate) async fn start_failing_at(fail_at: usize) -> Self {
        let seen = Arc::new(Seen::default());
        let answer = move |State(seen): State<Arc<Seen>>,
                           uri: Uri,
                           Query(query): Query<HashMap<String, String>>,
                           headers: HeaderMap,
                           body: String| async move {
            let key = headers["idempotency-key"].to_str().unwrap().to_owned();
            let lines = body.lines().count();
            if body.contains("TOO LARGE") {
                return Err(StatusCode::PAYLOAD_TOO_LARGE);
            }
            let mut requests = seen.requests.lock().unwrap();
            let fails = requests.len() == fail_at;
            let body = if fails { String::new() } else { body };
            let path = uri.path().to_owned();
            let otlp = ["/v1/logs", "/v1/traces", "/v1/metrics"].contains(&&*path);
            requests.push(Request { path, key, body, query });
            seen.came.notify_one();
            match (fails, otlp) {
                (true, _) => Err(StatusCode::SERVICE_UNAVAILABLE),
                (false, true) => Ok(Json(json!({}))),
                (false, false) => Ok::<Json<Value>, _>(Json(json!({"accepted": lines, "rejected": []}))),
            }
        };
        let app = Router::new().fallback(answer).with_state(Arc::clone(&seen));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = axum::serve(listener, app).into_future();
        #[expect(clippy::disallowed_methods, reason = "a test's server ends with the test's runtime")]
        tokio::spawn(server);
        Self { url, seen }
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            url: self.url.clone(),
            key: "fl_a_b".into(),
            target: None,
            format: None,
            limits: Limits::default(),
            checkpoints: None,
            restart: false,
        }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// Waits for one more request than was waited for.
    pub(crate) async fn next_request(&self) {
        self.seen.came.notified().await;
    }
}
