//! What senders are told: Fleetlog's own JSON, or what an OTLP exporter expects, in the request's content type.
//!
//! OTLP (specification, "OTLP/HTTP Response"): success is 200 with an `Export*ServiceResponse`, partial success
//! names the count of rejected items, failure is a `google.rpc.Status`; 429 and 503 are retried.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use fleetlog_formats::Rejected;
use fleetlog_runtime::{Classified, ErrorClass};
use fleetlog_schemas::record::Route;
use prost::Message;
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::Refusal;
use crate::pipeline::Accepted;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// The language an answer is given in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Fleetlog's own JSON.
    Native,
    /// OTLP in JSON, for this kind of item.
    OtlpJson(Route),
    /// OTLP in protobuf.
    OtlpProtobuf,
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
struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

/// `Export{Logs,Trace,Metrics}PartialSuccess`, which have one shape.
#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// `google.rpc.Status`, without details.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Receipt<'a> {
    accepted: u32,
    rejected: Vec<Complaint<'a>>,
    receipt: String,
    positions: &'a [fleetlog_schemas::id::Position],
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
                receipt: positions.join(","),
                positions: &accepted.positions,
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
    }
}

fn partial_success(rejected: &[Rejected]) -> Option<PartialSuccess> {
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
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = match dialect {
        Dialect::Native => respond(status, JSON, native_error(refusal, request_id), request_id),
        Dialect::OtlpJson(_) => {
            let body = json!({"code": rpc_code(refusal), "message": rpc_message(refusal)});
            respond(status, JSON, body.to_string().into_bytes(), request_id)
        }
        Dialect::OtlpProtobuf => {
            let body = Status { code: rpc_code(refusal), message: rpc_message(refusal) };
            respond(status, PROTOBUF, body.encode_to_vec(), request_id)
        }
    };
    if refusal.class().is_retryable() {
        response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
    }
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
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

/// The code of gRPC (`google.rpc.Code`) with the class's meaning.
fn rpc_code(refusal: &Refusal) -> i32 {
    match refusal.class() {
        ErrorClass::BadInput | ErrorClass::TooLarge | ErrorClass::Unsupported => 3,
        ErrorClass::NotFound => 5,
        ErrorClass::Forbidden => 7,
        ErrorClass::Overloaded => 8,
        ErrorClass::Conflict => 10,
        ErrorClass::Corrupt | ErrorClass::Bug => 13,
        ErrorClass::Unavailable => 14,
        ErrorClass::Unauthenticated => 16,
    }
}

fn rpc_message(refusal: &Refusal) -> String {
    format!("{}: {refusal}", refusal.code())
}

fn respond(status: StatusCode, media: HeaderValue, body: Vec<u8>, request_id: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, media);
    if let Ok(value) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, value);
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
        Accepted { records: 3, rejected, positions }
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

    #[tokio::test]
    async fn what_may_be_retried_says_when() {
        let full = refused(Dialect::OtlpProtobuf, &Refusal::NotPublished(LogError::QueueFull), "r");
        assert_eq!((full.status().as_u16(), &full.headers()[RETRY_AFTER]), (503, &RETRY_AFTER_SECONDS));
        assert_eq!(Status::decode(&body(full).await[..]).unwrap().code, 14);
        let share = refused(Dialect::Native, &Refusal::ProjectShare, "r");
        assert_eq!((share.status().as_u16(), &share.headers()[RETRY_AFTER]), (429, &RETRY_AFTER_SECONDS));
        let bad = refused(Dialect::Native, &Refusal::BodyTooLarge { limit: 5 }, "r");
        assert!(!bad.headers().contains_key(RETRY_AFTER));
        let said: Value = serde_json::from_slice(&body(bad).await).unwrap();
        assert_eq!((&said["error"]["code"], &said["error"]["limit"]), (&json!("body_too_large"), &json!(5)));
    }
}
