//! Sends the chunks of a file, one after the other, each until it is answered.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use fleetlog_runtime::Shutdown;
use reqwest::StatusCode;
use serde::Deserialize;

use crate::checkpoint::{Checkpoint, CheckpointStore, identify};
use crate::chunk::{Chunk, ChunkReader, Limits};
use crate::error::ShipError;
use crate::sniff::{Framing, Target, sniff};

/// Bytes of a file's beginning that are looked at.
const HEAD_BYTES: usize = 64 * 1024;
/// Longest pause between two tries.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Where and how to ship.
#[derive(Clone, Debug)]
pub struct Options {
    /// Base URL of the gateway.
    pub url: String,
    /// API key.
    pub key: String,
    /// Endpoint, when the file's bytes should not decide.
    pub target: Option<Target>,
    /// Bounds of a chunk.
    pub limits: Limits,
    /// Where progress is remembered; `None` to forget it.
    pub checkpoints: Option<CheckpointStore>,
    /// Ignore an earlier checkpoint and start from the beginning.
    pub restart: bool,
}

/// Progress of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The file's size and where this run begins.
    Started {
        /// Size in bytes.
        size: u64,
        /// Bytes acknowledged by an earlier run.
        offset: u64,
    },
    /// Everything up to here is acknowledged.
    Acknowledged {
        /// Bytes acknowledged.
        offset: u64,
    },
    /// The gateway asked for patience or does not answer.
    Waiting {
        /// How long until the next try.
        pause: Duration,
    },
}

/// What became of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Records accepted.
    pub accepted: u64,
    /// Records the gateway refused, with a message for the first few.
    pub rejected: u64,
    /// Where the refused ones are and why, at most ten.
    pub reasons: Vec<String>,
    /// Bytes that an earlier run had shipped already.
    pub resumed_at: u64,
    /// Records of that run that the gateway refused.
    pub refused_before: u64,
    /// Whether the bytes were recognised; what is not is kept as it is.
    pub recognised: bool,
}

impl Outcome {
    fn reject(&mut self, count: u64, reason: String) {
        self.rejected += count;
        if self.reasons.len() < 10 {
            self.reasons.push(reason);
        }
    }
}

/// Ships one file and returns when all of it is acknowledged or refused.
///
/// # Errors
/// [`ShipError`]; the acknowledged part is remembered and not sent again by the next run.
///
/// # Cancellation
/// Triggering `shutdown` stops before the next try or chunk with [`ShipError::Interrupted`].
pub async fn ship_file(
    path: &Path,
    options: &Options,
    shutdown: &Shutdown,
    mut report: impl FnMut(Progress),
) -> Result<Outcome, ShipError> {
    let unreadable = |source| ShipError::Read { path: path.to_owned(), source };
    let identity = path.canonicalize().map_err(unreadable)?;
    let mut file = File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let mut head = Vec::new();
    file.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(unreadable)?;
    let (framing, target) = sniff(&head, options.target);
    let (head_hash, head_len) = identify(&head);
    let fresh = Checkpoint { path: identity, head: head_hash, head_len, ..Checkpoint::default() };
    let mut checkpoint = match &options.checkpoints {
        Some(store) if !options.restart => store.load(&fresh.path, &options.url, &head).unwrap_or(fresh),
        _ => fresh,
    };
    file.seek(SeekFrom::Start(checkpoint.offset)).map_err(unreadable)?;
    report(Progress::Started { size, offset: checkpoint.offset });

    let courier = Courier { client: client()?, options, target, framing, shutdown };
    let mut outcome = Outcome {
        resumed_at: checkpoint.offset,
        refused_before: checkpoint.refused,
        recognised: target != Target::Raw || options.target.is_some(),
        ..Outcome::default()
    };
    let mut chunks =
        ChunkReader::new(BufReader::new(file), framing, options.limits, checkpoint.offset, checkpoint.line);
    loop {
        let chunk = chunks.next_chunk().map_err(|source| match source.kind() {
            std::io::ErrorKind::FileTooLarge => ShipError::TooLarge {
                path: path.to_owned(),
                what: format!("the body at line {} or after", checkpoint.line + 1),
                limit: options.limits.max_bytes,
            },
            _ => unreadable(source),
        })?;
        let Some(chunk) = chunk else { return Ok(outcome) };
        let mut open = vec![chunk.clone()];
        while let Some(part) = open.pop() {
            if courier.deliver(&part, &checkpoint, &mut outcome, &mut report).await? == Delivered::Divide {
                // The first half is to be sent first.
                open.extend(part.halves().into_iter().rev());
            }
        }
        checkpoint.offset = chunk.end;
        checkpoint.line = chunk.first_line + chunk.lines;
        checkpoint.refused = outcome.refused_before + outcome.rejected;
        if let Some(store) = &options.checkpoints {
            store.save(&options.url, &checkpoint).map_err(|source| ShipError::Checkpoint {
                path: store.file_of(&checkpoint.path, &options.url),
                source,
            })?;
        }
        report(Progress::Acknowledged { offset: chunk.end });
    }
}

fn client() -> Result<reqwest::Client, ShipError> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build();
    client.map_err(|e| ShipError::Unusable(e.to_string()))
}

/// What both Fleetlog's and OTLP's answers can say.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    accepted: u64,
    rejected: Vec<Rejected>,
    #[serde(rename = "partialSuccess")]
    partial_success: PartialSuccess,
    error: Option<ErrorBody>,
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Rejected {
    index: u64,
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PartialSuccess {
    error_message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    message: String,
    rejected: Vec<Rejected>,
}

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivered {
    /// It was taken, or refused for good.
    Done,
    /// It was refused as a whole: one of its lines may be to blame, which its parts will show.
    Divide,
}

enum Verdict {
    Delivered(Delivered),
    /// Try again, after the pause the gateway asked for, if it did.
    Again(Option<Duration>),
}

struct Courier<'a> {
    client: reqwest::Client,
    options: &'a Options,
    target: Target,
    framing: Framing,
    shutdown: &'a Shutdown,
}

impl Courier<'_> {
    /// Sends a chunk until the gateway has taken or refused it.
    async fn deliver(
        &self,
        chunk: &Chunk,
        file: &Checkpoint,
        outcome: &mut Outcome,
        report: &mut impl FnMut(Progress),
    ) -> Result<Delivered, ShipError> {
        let mut pause = Duration::from_millis(200);
        loop {
            if self.shutdown.is_triggered() {
                return Err(ShipError::Interrupted);
            }
            let wait = match self.request(chunk, file).send().await {
                Ok(answer) => match self.judge(answer, chunk, outcome).await? {
                    Verdict::Delivered(delivered) => return Ok(delivered),
                    Verdict::Again(asked) => asked.unwrap_or(pause),
                },
                Err(e) if e.is_builder() => return Err(ShipError::Unusable(e.to_string())),
                Err(e) => {
                    tracing::debug!(error = %e, "the gateway did not answer");
                    pause
                }
            };
            report(Progress::Waiting { pause: wait });
            tokio::select! {
                () = tokio::time::sleep(wait.min(MAX_PAUSE)) => {}
                () = self.shutdown.triggered() => {}
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    fn request(&self, chunk: &Chunk, file: &Checkpoint) -> reqwest::RequestBuilder {
        let content_type = match (self.framing, self.target) {
            (Framing::Protobuf, _) => "application/x-protobuf",
            (Framing::Lines, _) => "application/x-ndjson",
            (Framing::Whole | Framing::BodyPerLine, _) => "application/json",
        };
        let stream = format!(
            "{:016x}",
            file.head ^ xxhash_rust::xxh3::xxh3_64(file.path.as_os_str().as_encoded_bytes())
        );
        let mut request = self
            .client
            .post(format!("{}{}", self.options.url.trim_end_matches('/'), self.target.path()))
            .bearer_auth(&self.options.key)
            .header("content-type", content_type)
            .header("idempotency-key", format!("{stream}-{}-{}", chunk.start, chunk.end));
        if self.target == Target::Raw {
            request = request.query(&[("stream", stream), ("line", chunk.first_line.to_string())]);
        }
        request.body(chunk.body.clone())
    }

    async fn judge(
        &self,
        answer: reqwest::Response,
        chunk: &Chunk,
        outcome: &mut Outcome,
    ) -> Result<Verdict, ShipError> {
        let status = answer.status();
        let retry_after =
            answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let text = answer.text().await.unwrap_or_default();
        let body: Answer = serde_json::from_str(&text).unwrap_or_default();
        let message = body.error.as_ref().map_or(&body.message, |error| &error.message).clone();
        match status {
            _ if status.is_success() => {
                outcome.accepted += if body.accepted > 0 { body.accepted } else { 1 };
                for rejected in body.rejected {
                    let line = chunk.first_line + rejected.index + 1;
                    outcome.reject(
                        1,
                        format!("record {} (line {line} or after): {}", rejected.index, rejected.message),
                    );
                }
                if !body.partial_success.error_message.is_empty() {
                    outcome.reject(1, body.partial_success.error_message);
                }
                Ok(Verdict::Delivered(Delivered::Done))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(ShipError::Denied(format!("{status}: {message}")))
            }
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Err(ShipError::Unusable(format!(
                "{} answered {status}: is this the gateway's address?",
                self.options.url
            ))),
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Ok(Verdict::Again(retry_after.map(Duration::from_secs))),
            _ => {
                let listed = body.error.as_ref().map_or(0, |error| error.rejected.len() as u64);
                if listed == 0 && chunk.lines > 1 && self.framing == Framing::Lines {
                    return Ok(Verdict::Delivered(Delivered::Divide));
                }
                // Sending it again cannot help: say so and go on with the rest of the file.
                let lines =
                    format!("lines {}–{}", chunk.first_line + 1, chunk.first_line + chunk.lines.max(1));
                outcome.reject(listed.max(chunk.lines.max(1)), format!("{lines}: {status}: {message}"));
                Ok(Verdict::Delivered(Delivered::Done))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::extract::State;
    use axum::http::HeaderMap;
    use axum::routing::post;
    use axum::{Json, Router};
    use serde_json::json;

    use super::*;

    type Requests = Arc<Mutex<Vec<(String, String)>>>;

    /// A stand-in for the gateway's answers: the real one is met in the end-to-end tests.
    async fn gateway(fail_at: usize) -> (String, Requests) {
        let requests = Requests::default();
        let answer = move |State(requests): State<Requests>, headers: HeaderMap, body: String| async move {
            let key = headers["idempotency-key"].to_str().unwrap().to_owned();
            let mut requests = requests.lock().unwrap();
            if requests.len() == fail_at && requests.last().is_none_or(|(last, _)| *last != key) {
                requests.push((key, String::new()));
                return Err(StatusCode::SERVICE_UNAVAILABLE.as_u16())
                    .map_err(|code| axum::http::StatusCode::from_u16(code).unwrap());
            }
            if body.contains("TOO LARGE") {
                return Err(StatusCode::PAYLOAD_TOO_LARGE);
            }
            let lines = body.lines().count();
            requests.push((key, body));
            Ok(Json(json!({"accepted": lines, "rejected": []})))
        };
        let app = Router::new().route("/v1/events", post(answer)).with_state(requests.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = axum::serve(listener, app).into_future();
        #[expect(clippy::disallowed_methods, reason = "a test's server ends with the test's runtime")]
        tokio::spawn(server);
        (url, requests)
    }

    fn options(url: String, state: &Path) -> Options {
        Options {
            url,
            key: "fl_a_b".into(),
            target: None,
            limits: Limits { lines: 1, ..Limits::default() },
            checkpoints: Some(CheckpointStore::new(state.to_owned())),
            restart: false,
        }
    }

    #[tokio::test]
    async fn a_second_run_sends_only_what_was_added() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.jsonl");
        std::fs::write(&file, "{\"type\":\"log\"}\n{\"type\":\"log\",\"id\":\"2\"}\n").unwrap();
        let (url, requests) = gateway(usize::MAX).await;
        let options = options(url, &folder.path().join("state"));
        let first = ship_file(&file, &options, &Shutdown::new(), |_| {}).await.unwrap();
        assert_eq!((first.accepted, first.rejected), (2, 0));
        std::fs::write(
            &file,
            "{\"type\":\"log\"}\n{\"type\":\"log\",\"id\":\"2\"}\n{\"type\":\"log\",\"id\":\"3\"}\n",
        )
        .unwrap();
        let second = ship_file(&file, &options, &Shutdown::new(), |_| {}).await.unwrap();
        assert_eq!(second.accepted, 1);
        let bodies: Vec<String> = requests.lock().unwrap().iter().map(|(_, body)| body.clone()).collect();
        assert_eq!(bodies.len(), 3);
        assert!(bodies[2].contains("\"3\""));
    }

    #[tokio::test]
    async fn a_line_that_is_refused_takes_none_of_its_neighbours_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.jsonl");
        let line = |n: usize| format!("{{\"type\":\"log\",\"id\":\"{n}\"}}\n");
        let text: String =
            (0..7).map(|n| if n == 4 { line(n).replace("log", "TOO LARGE") } else { line(n) }).collect();
        std::fs::write(&file, text).unwrap();
        let (url, requests) = gateway(usize::MAX).await;
        let options = Options { limits: Limits::default(), ..options(url, folder.path()) };
        let sent = ship_file(&file, &options, &Shutdown::new(), |_| {}).await.unwrap();
        assert_eq!((sent.accepted, sent.rejected), (6, 1));
        let stored: String = requests.lock().unwrap().iter().map(|(_, body)| body.clone()).collect();
        assert_eq!(stored.lines().count(), 6);
        assert!(sent.reasons[0].starts_with("lines 5–5: 413"), "{:?}", sent.reasons);
        let again = ship_file(&file, &options, &Shutdown::new(), |_| {}).await.unwrap();
        assert_eq!((again.accepted, again.refused_before), (0, 1), "a refusal is not forgotten");
    }

    #[tokio::test]
    async fn an_overloaded_gateway_gets_the_same_chunk_again_under_the_same_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.jsonl");
        std::fs::write(&file, "{\"type\":\"log\"}\n{\"type\":\"log\",\"id\":\"2\"}\n").unwrap();
        let (url, requests) = gateway(1).await;
        let (options, shutdown) = (options(url, folder.path()), Shutdown::new());
        let mut waits = 0;
        let sent = ship_file(&file, &options, &shutdown, |progress| {
            waits += usize::from(matches!(progress, Progress::Waiting { .. }));
        });
        assert_eq!(sent.await.unwrap().accepted, 2);
        let requests = requests.lock().unwrap();
        assert_eq!((waits, requests.len()), (1, 3));
        assert_eq!(requests[1].0, requests[2].0, "the retry carries the key of the first try");
    }
}
