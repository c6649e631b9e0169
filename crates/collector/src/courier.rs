//! Sends one chunk at a time, again and again until it is answered for good.

use std::time::Duration;

use fleetlog_formats::inspect::inspect;
use fleetlog_formats::{Body, Inspection};
use fleetlog_runtime::Shutdown;
use fleetlog_schemas::record::{Route, StreamContext};
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::chunk::Chunk;
use crate::error::ShipError;
use crate::ship::{Options, Outcome, Progress};
use crate::sniff::{Framing, Target};

/// Longest pause between two tries.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// What both Fleetlog's and OTLP's answers can say.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    accepted: Option<u64>,
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

/// OTLP's answer to a request of which a part was refused; a count is a number or the text of one.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PartialSuccess {
    error_message: String,
    rejected_log_records: Value,
    rejected_spans: Value,
    rejected_data_points: Value,
}

impl PartialSuccess {
    fn rejected(&self) -> u64 {
        let count = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
        let counts = [&self.rejected_log_records, &self.rejected_spans, &self.rejected_data_points];
        // A warning is a message without a count.
        counts.into_iter().find_map(count).unwrap_or(0)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    message: String,
    rejected: Vec<Rejected>,
}

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
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

/// A chunk with what the gateway needs to know of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parcel<'a> {
    pub(crate) chunk: &'a Chunk,
    pub(crate) framing: Framing,
    pub(crate) target: Target,
    /// What the lines before it said.
    pub(crate) context: &'a StreamContext,
    /// The same for the same bytes of the same file.
    pub(crate) idempotency_key: &'a str,
}

impl Parcel<'_> {
    fn content_type(&self) -> &'static str {
        match self.framing {
            Framing::Protobuf => "application/x-protobuf",
            Framing::Lines => "application/x-ndjson",
            Framing::Whole | Framing::BodyPerLine => "application/json",
        }
    }

    /// Where the chunk stands in its stream, and what the stream has said, as the gateway's query takes it.
    fn query(&self) -> Vec<(&'static str, String)> {
        let context = self.context;
        let line = self.chunk.first_line.to_string();
        let said = [
            ("session", &context.session_id),
            ("model", &context.model),
            ("cwd", &context.cwd),
            ("turn", &context.turn_id),
            ("provider", &context.provider),
            ("source", &context.source),
            ("version", &context.version),
            ("agent", &context.agent_id),
            ("noted", &context.noted),
        ];
        let said = said.into_iter().filter(|(_, value)| !value.is_empty());
        [("stream", context.stream_id.clone()), ("line", line)]
            .into_iter()
            .chain(said.map(|(name, value)| (name, value.clone())))
            .collect()
    }

    /// Records in it, as the gateway counts them.
    fn records(&self) -> u64 {
        let route = match self.target {
            Target::Events => Route::Events,
            Target::OtlpLogs => Route::OtlpLogs,
            Target::OtlpTraces => Route::OtlpTraces,
            Target::OtlpMetrics => Route::OtlpMetrics,
            Target::Raw => Route::Raw,
        };
        let body =
            Body { route, content_type: self.content_type(), format_hint: "", bytes: &self.chunk.body };
        // Only an answer without a count asks; its body was sound, or it would not have been accepted.
        inspect(&body, "").map_or(1, |Inspection { records, .. }| u64::from(records))
    }
}

pub(crate) struct Courier<'a> {
    client: reqwest::Client,
    options: &'a Options,
    shutdown: &'a Shutdown,
}

impl<'a> Courier<'a> {
    pub(crate) fn new(options: &'a Options, shutdown: &'a Shutdown) -> Result<Self, ShipError> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build();
        let client = client.map_err(|e| ShipError::Unusable(e.to_string()))?;
        Ok(Self { client, options, shutdown })
    }

    /// Sends a chunk until the gateway has taken or refused it.
    pub(crate) async fn deliver(
        &self,
        parcel: Parcel<'_>,
        outcome: &mut Outcome,
        report: &mut impl FnMut(Progress),
    ) -> Result<Delivered, ShipError> {
        let mut pause = Duration::from_millis(200);
        loop {
            if self.shutdown.is_triggered() {
                return Err(ShipError::Interrupted);
            }
            let wait = match self.request(parcel).send().await {
                Ok(answer) => match self.judge(answer, parcel, outcome).await? {
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

    fn request(&self, parcel: Parcel<'_>) -> reqwest::RequestBuilder {
        let path = match (parcel.target, parcel.context.format.as_str()) {
            (Target::Raw, "") => "/v1/raw/auto".to_owned(),
            (Target::Raw, format) => format!("/v1/raw/{format}"),
            (target, _) => target.path().to_owned(),
        };
        let mut request = self
            .client
            .post(format!("{}{path}", self.options.url.trim_end_matches('/')))
            .bearer_auth(&self.options.key)
            .header("content-type", parcel.content_type())
            .header("idempotency-key", parcel.idempotency_key);
        if parcel.target == Target::Raw {
            request = request.query(&parcel.query());
        }
        request.body(parcel.chunk.body.clone())
    }

    async fn judge(
        &self,
        answer: reqwest::Response,
        parcel: Parcel<'_>,
        outcome: &mut Outcome,
    ) -> Result<Verdict, ShipError> {
        let (status, chunk) = (answer.status(), parcel.chunk);
        let retry_after =
            answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let text = answer.text().await.unwrap_or_default();
        let body: Answer = serde_json::from_str(&text).unwrap_or_default();
        let message = body.error.as_ref().map_or(&body.message, |error| &error.message).clone();
        match status {
            _ if status.is_success() => {
                accepted(parcel, body, outcome);
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
                if listed == 0 && chunk.lines > 1 && parcel.framing == Framing::Lines {
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

/// Counts what a gateway took. OTLP's answers say only what was refused; its records are counted here.
fn accepted(parcel: Parcel<'_>, body: Answer, outcome: &mut Outcome) {
    let refused = body.partial_success.rejected();
    outcome.accepted += body.accepted.unwrap_or_else(|| parcel.records().saturating_sub(refused));
    for rejected in body.rejected {
        let line = parcel.chunk.first_line + rejected.index + 1;
        outcome.reject(1, format!("record {} (line {line} or after): {}", rejected.index, rejected.message));
    }
    if refused > 0 || !body.partial_success.error_message.is_empty() {
        outcome.reject(refused, body.partial_success.error_message);
    }
}
