//! What senders are told: Fleetlog's own JSON, what an OTLP exporter expects, in the request's content type, or what
//! the client of a drop-in API expects.
//!
//! OTLP (specification, "OTLP/HTTP Response"): success is 200 with an `Export*ServiceResponse`, partial success
//! names the count of rejected items, failure is a `google.rpc.Status`; 429 and 503 are retried.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use fleetlog_formats::Rejected;
use fleetlog_runtime::Classified;
use fleetlog_schemas::api::SPOOLED_RECEIPT;
use fleetlog_schemas::record::Route;
use prost::Message;
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::Refusal;
use crate::grpc::{self, Status};
use crate::pipeline::Accepted;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Seconds after which a refused request may be tried again, if no more is known.
const AGAIN_AFTER: i64 = 1;
/// Most seconds that an answer says beyond what is known.
const JITTER_MAX: i64 = 60;
/// Rejected records that a refusal in OTLP names.
const VIOLATIONS: usize = 1_000;
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// The language an answer is given in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dialect {
    /// Fleetlog's own JSON.
    Native,
    /// OTLP in JSON, for this kind of item.
    OtlpJson(Route),
    /// OTLP in protobuf.
    OtlpProtobuf,
    /// OTLP over gRPC.
    Grpc,
    /// A drop-in API's.
    Foreign(Foreign),
}

/// How a drop-in API says yes and no.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Foreign {
    /// The answer to an accepted request with this id.
    pub(crate) accepted: fn(&Accepted, &str) -> Said,
    pub(crate) refused: fn(&Refusal) -> Said,
}

/// An answer in another API's words.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: StatusCode,
    /// JSON; nothing is sent without one.
    pub(crate) body: Option<Value>,
    /// A header in which this API says, beside `Retry-After`, when to come back.
    pub(crate) again_in: Option<HeaderName>,
}

impl Said {
    pub(crate) fn new(status: StatusCode, body: Value) -> Self {
        Self { status, body: Some(body), again_in: None }
    }

    pub(crate) fn nothing() -> Self {
        Self { status: StatusCode::NO_CONTENT, body: None, again_in: None }
    }

    pub(crate) fn respond(self, request_id: &str) -> Response<Body> {
        let body = self.body.map(|body| body.to_string().into_bytes());
        let is_empty = body.is_none();
        let mut response = respond(self.status, JSON, body.unwrap_or_default(), request_id);
        if is_empty {
            response.headers_mut().remove(CONTENT_TYPE);
        }
        response
    }
}

/// A refusal's status.
pub(crate) fn status(refusal: &Refusal) -> StatusCode {
    StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl Dialect {
    /// The language of an OTLP request of this content type; protobuf unless it says JSON.
    pub(crate) fn otlp(route: Route, content_type: Option<&HeaderValue>) -> Self {
        let text = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        if text.to_ascii_lowercase().contains("json") { Self::OtlpJson(route) } else { Self::OtlpProtobuf }
    }
}

/// `Export{Logs,Trace,Metrics}ServiceResponse`, which have one shape.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) partial_success: Option<PartialSuccess>,
}

/// `Export{Logs,Trace,Metrics}PartialSuccess`, which have one shape.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Receipt<'a> {
    accepted: u32,
    rejected: Vec<Complaint<'a>>,
    receipt: String,
    positions: &'a [fleetlog_schemas::id::Position],
    /// `spooled` where it is on the gateway's disk and has no positions yet; absent where it is in Kafka.
    #[serde(skip_serializing_if = "Option::is_none")]
    durability: Option<&'static str>,
    request_id: &'a str,
}

#[derive(Serialize)]
struct Complaint<'a> {
    index: u32,
    code: &'a str,
    message: &'a str,
}

fn complaints(rejected: &[Rejected]) -> Vec<Complaint<'_>> {
    rejected.iter().map(|r| Complaint { index: r.index, code: r.code, message: &r.message }).collect()
}

/// The answer to a request that is durably stored.
pub(crate) fn accepted(dialect: Dialect, accepted: &Accepted, request_id: &str) -> Response<Body> {
    let rejected = accepted.rejected.len();
    match dialect {
        Dialect::Native => {
            let positions: Vec<String> = accepted.positions.iter().map(ToString::to_string).collect();
            let receipt = Receipt {
                accepted: accepted.records.saturating_sub(u32::try_from(rejected).unwrap_or(u32::MAX)),
                rejected: complaints(&accepted.rejected),
                receipt: if accepted.is_spooled { SPOOLED_RECEIPT.to_owned() } else { positions.join(",") },
                positions: &accepted.positions,
                durability: accepted.is_spooled.then_some("spooled"),
                request_id,
            };
            let body = serde_json::to_vec(&receipt).unwrap_or_default();
            respond(StatusCode::ACCEPTED, JSON, body, request_id)
        }
        Dialect::OtlpJson(route) => {
            let body = match partial_success(&accepted.rejected) {
                None => json!({}),
                Some(partial) => json!({"partialSuccess": {
                    // 64-bit integers are strings in protobuf's JSON mapping.
                    rejected_items(route): partial.rejected.to_string(),
                    "errorMessage": partial.error_message,
                }}),
            };
            respond(StatusCode::OK, JSON, body.to_string().into_bytes(), request_id)
        }
        Dialect::OtlpProtobuf => {
            let body = ExportResponse { partial_success: partial_success(&accepted.rejected) };
            respond(StatusCode::OK, PROTOBUF, body.encode_to_vec(), request_id)
        }
        Dialect::Grpc => with_request_id(grpc::accepted(accepted), request_id),
        Dialect::Foreign(foreign) => (foreign.accepted)(accepted, request_id).respond(request_id),
    }
}

pub(crate) fn partial_success(rejected: &[Rejected]) -> Option<PartialSuccess> {
    let first = rejected.first()?;
    let error_message = format!("{}: {} (first at index {})", first.code, first.message, first.index);
    Some(PartialSuccess { rejected: i64::try_from(rejected.len()).unwrap_or(i64::MAX), error_message })
}

const fn rejected_items(route: Route) -> &'static str {
    match route {
        Route::OtlpTraces => "rejectedSpans",
        Route::OtlpMetrics => "rejectedDataPoints",
        Route::OtlpLogs | Route::Events | Route::Raw => "rejectedLogRecords",
    }
}

/// The answer to a request of which nothing is acknowledged.
pub(crate) fn refused(dialect: Dialect, refusal: &Refusal, request_id: &str) -> Response<Body> {
    let status = status(refusal);
    let retry = retry_after(refusal, request_id);
    let mut response = match dialect {
        Dialect::Native => respond(status, JSON, native_error(refusal, request_id), request_id),
        Dialect::OtlpJson(_) => {
            let Status { code, message, .. } = rpc_status(refusal, retry);
            let mut body = json!({"code": code, "message": message});
            let violations = grpc::violations(refusal, VIOLATIONS);
            if !violations.is_empty() {
                body["details"] = json!([{"@type": grpc::BAD_REQUEST, "fieldViolations": violations}]);
            }
            respond(status, JSON, body.to_string().into_bytes(), request_id)
        }
        Dialect::OtlpProtobuf => {
            respond(status, PROTOBUF, rpc_status(refusal, retry).encode_to_vec(), request_id)
        }
        // The HTTP status says only that the call was understood.
        Dialect::Grpc => return with_request_id(grpc::refused(refusal, retry), request_id),
        Dialect::Foreign(foreign) => {
            let said = (foreign.refused)(refusal);
            let also = said.again_in.clone();
            let mut response = said.respond(request_id);
            if let Some((name, seconds)) = also.zip(retry) {
                response.headers_mut().insert(name, HeaderValue::from(seconds));
            }
            response
        }
    };
    if let Some(seconds) = retry {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Seconds after which a refused request may be worth sending again, as far as is known.
pub(crate) fn again_after(refusal: &Refusal) -> Option<i64> {
    let seconds = |wait: Duration| {
        i64::try_from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).unwrap_or(i64::MAX)
    };
    refusal.class().is_retryable().then(|| refusal.wait().map_or(AGAIN_AFTER, seconds).max(AGAIN_AFTER))
}

/// What an answer says: somewhat later for some, so that all who were refused at once do not come back at once. By the
/// request's id, which is random.
fn retry_after(refusal: &Refusal, request_id: &str) -> Option<i64> {
    let seconds = again_after(refusal)?;
    let spread = (seconds / 2).clamp(2, JITTER_MAX);
    let random = request_id.bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    Some(seconds + i64::from(random) % (spread + 1))
}

fn rpc_status(refusal: &Refusal, retry: Option<i64>) -> Status {
    Status::of(grpc::class_code(refusal.class()), refusal, retry, VIOLATIONS)
}

fn native_error(refusal: &Refusal, request_id: &str) -> Vec<u8> {
    let mut error = serde_json::Map::new();
    error.insert("code".into(), refusal.code().into());
    error.insert("message".into(), refusal.to_string().into());
    error.insert("requestId".into(), request_id.into());
    if let Some(position) = refusal.position() {
        error.insert("position".into(), position.into());
    }
    if let Some(limit) = refusal.limit() {
        error.insert("limit".into(), limit.into());
    }
    let mut body = json!({"error": error});
    if !refusal.rejected().is_empty() {
        let rejected = serde_json::to_value(complaints(refusal.rejected())).unwrap_or(Value::Null);
        body["rejected"] = rejected;
    }
    body.to_string().into_bytes()
}

fn respond(status: StatusCode, media: HeaderValue, body: Vec<u8>, request_id: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, media);
    with_request_id(response, request_id)
}

fn with_request_id(mut response: Response<Body>, request_id: &str) -> Response<Body> {
    if let Ok(value) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use fleetlog_log::LogError;
    use fleetlog_schemas::id::Position;

    use super::*;

    async fn body(response: Response<Body>) -> Vec<u8> {
        axum::body::to_bytes(response.into_body(), 1_000_000).await.unwrap().to_vec()
    }

    fn stored(rejected: Vec<Rejected>) -> Accepted {
        let positions = vec![Position { partition: 1, offset: 7 }, Position { partition: 1, offset: 8 }];
        Accepted { records: 3, rejected, positions, is_spooled: false, echo: Default::default() }
    }

    fn one_rejected() -> Vec<Rejected> {
        vec![Rejected { index: 2, code: "bad_type", message: "no".into() }]
    }

    #[tokio::test]
    async fn a_receipt_lists_positions_and_what_was_rejected() {
        let response = accepted(Dialect::Native, &stored(one_rejected()), "r");
        assert_eq!(response.status(), 202);
        let said: Value = serde_json::from_slice(&body(response).await).unwrap();
        let expected = json!({
            "accepted": 2,
            "rejected": [{"index": 2, "code": "bad_type", "message": "no"}],
            "receipt": "1:7,1:8",
            "positions": [{"partition": 1, "offset": 7}, {"partition": 1, "offset": 8}],
            "requestId": "r",
        });
        assert_eq!(said, expected);
    }

    #[tokio::test]
    async fn a_spooled_request_is_told_so_and_has_no_positions() {
        let spooled = Accepted { positions: Vec::new(), is_spooled: true, ..stored(Vec::new()) };
        let said: Value =
            serde_json::from_slice(&body(accepted(Dialect::Native, &spooled, "r")).await).unwrap();
        let expected = json!({
            "accepted": 3, "rejected": [], "receipt": "spooled", "positions": [], "durability": "spooled", "requestId": "r",
        });
        assert_eq!(said, expected);
    }

    #[tokio::test]
    async fn otlp_is_answered_in_its_own_words() {
        let json = accepted(Dialect::OtlpJson(Route::OtlpTraces), &stored(one_rejected()), "r");
        let said: Value = serde_json::from_slice(&body(json).await).unwrap();
        assert_eq!(said["partialSuccess"]["rejectedSpans"], "1");
        let whole = accepted(Dialect::OtlpProtobuf, &stored(Vec::new()), "r");
        assert_eq!((whole.status(), body(whole).await), (StatusCode::OK, Vec::new()));
        let partial = accepted(Dialect::OtlpProtobuf, &stored(one_rejected()), "r");
        let partial = ExportResponse::decode(&body(partial).await[..]).unwrap();
        assert_eq!(partial.partial_success.unwrap().rejected, 1);
    }

    fn again(response: &Response<Body>) -> i64 {
        response.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap()
    }

    fn again_at_most_two_later(seconds: i64, request_id: &str) -> i64 {
        let said = retry_after(&Refusal::Busy, request_id).unwrap();
        assert!((seconds..=seconds + 2).contains(&said));
        said
    }

    #[test]
    fn not_everyone_who_is_refused_comes_back_at_once() {
        let said = |n: u32| retry_after(&Refusal::Busy, &format!("0192d3a0-7f2e-7bbb-8{n:03x}-aaaaaaaaaaaa"));
        let mut counts = [0; 3];
        for n in 0..300 {
            counts[usize::try_from(said(n).unwrap() - 1).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| *count > 50), "{counts:?}");
    }

    #[tokio::test]
    async fn what_may_be_retried_says_when() {
        let full = refused(Dialect::OtlpProtobuf, &Refusal::NotPublished(LogError::QueueFull), "r");
        assert_eq!((full.status().as_u16(), again(&full)), (503, again_at_most_two_later(1, "r")));
        assert_eq!(Status::decode(&body(full).await[..]).unwrap().code, 14);
        let share = refused(Dialect::Native, &Refusal::ProjectShare, "r");
        assert_eq!((share.status().as_u16(), again(&share)), (429, again_at_most_two_later(1, "r")));
        let wait = Duration::from_millis(90_500);
        let quota = Refusal::QuotaExceeded { whose: crate::error::Whose::Key, limit: 7, wait };
        let quota = refused(Dialect::Native, &quota, "r");
        assert!((91..=91 + 45).contains(&again(&quota)), "{quota:?}");
        let said: Value = serde_json::from_slice(&body(quota).await).unwrap();
        assert_eq!((&said["error"]["code"], &said["error"]["limit"]), (&json!("quota_exceeded"), &json!(7)));
        let bad = refused(Dialect::Native, &Refusal::BodyTooLarge { limit: 5 }, "r");
        assert!(!bad.headers().contains_key(RETRY_AFTER));
        let said: Value = serde_json::from_slice(&body(bad).await).unwrap();
        assert_eq!((&said["error"]["code"], &said["error"]["limit"]), (&json!("body_too_large"), &json!(5)));
    }
}
