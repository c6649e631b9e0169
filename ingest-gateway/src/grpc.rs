//! OTLP over gRPC: the same requests in another dress.
//!
//! A unary call is one HTTP/2 POST whose body is one message behind five bytes, answered by one message likewise and a
//! status in the trailers (gRPC over HTTP/2, "Requests", "Responses"). The message is what is published, untouched and
//! as compressed as it came, so it is never decoded into a library's types: the frame is taken off, and from there on
//! the call is a request like any other, under the same authentication, bounds and listener. Which codes a sender tries
//! again stands in the OTLP specification ("OTLP/gRPC Response").

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use fleetlog_formats::Rejected;
use fleetlog_formats::compression::Encoding;
use fleetlog_runtime::{Classified, ErrorClass};
use fleetlog_schemas::record::Route;
use http_body_util::{BodyExt, Full};
use prost::Message;
use serde::Serialize;

use crate::answer::{Dialect, ExportResponse, partial_success};
use crate::endpoints::serve;
use crate::error::Refusal;
use crate::pipeline::{Accepted, Door, Gateway};

/// What precedes a message: whether it is compressed, and its length.
pub(crate) const PREFIX_BYTES: usize = 5;
/// How a message is compressed, if its prefix says that it is.
pub(crate) const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const MEDIA: HeaderValue = HeaderValue::from_static("application/grpc");

const OK: i32 = 0;
const UNIMPLEMENTED: i32 = 12;

const EXPORTS: &[(&str, Route)] = &[
    ("/opentelemetry.proto.collector.logs.v1.LogsService/Export", Route::OtlpLogs),
    ("/opentelemetry.proto.collector.trace.v1.TraceService/Export", Route::OtlpTraces),
    ("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", Route::OtlpMetrics),
];

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Status {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
}

/// `google.rpc.BadRequest`.
#[derive(Clone, PartialEq, Message)]
struct BadRequest {
    #[prost(message, repeated, tag = "1")]
    field_violations: Vec<Violation>,
}

/// `google.rpc.BadRequest.FieldViolation`.
#[derive(Clone, PartialEq, Message, Serialize)]
pub(crate) struct Violation {
    #[prost(string, tag = "1")]
    field: String,
    #[prost(string, tag = "2")]
    description: String,
    #[prost(string, tag = "3")]
    reason: String,
}

pub(crate) const BAD_REQUEST: &str = "type.googleapis.com/google.rpc.BadRequest";
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
/// Rejected records that are named in a call's trailers: clients take few kilobytes of them.
const TRAILER_VIOLATIONS: usize = 20;

/// What is wrong with each of the records, up to so many of them.
pub(crate) fn violations(refusal: &Refusal, most: usize) -> Vec<Violation> {
    let violation = |rejected: &Rejected| Violation {
        field: format!("record {}", rejected.index),
        description: rejected.message.clone(),
        reason: rejected.code.to_owned(),
    };
    refusal.rejected().iter().take(most).map(violation).collect()
}

impl Status {
    /// A refusal, with the seconds after which to come back if that may help, and what is wrong with up to `most` records.
    pub(crate) fn of(code: i32, refusal: &Refusal, retry: Option<i64>, most: usize) -> Self {
        let retry = retry.map(|seconds| {
            let info = RetryInfo { retry_delay: Some(Delay { seconds }) };
            Detail { type_url: RETRY_INFO.into(), value: info.encode_to_vec() }
        });
        let field_violations = violations(refusal, most);
        let bad = (!field_violations.is_empty()).then(|| Detail {
            type_url: BAD_REQUEST.into(),
            value: BadRequest { field_violations }.encode_to_vec(),
        });
        let message = format!("{}: {refusal}", refusal.code());
        Self { code, message, details: retry.into_iter().chain(bad).collect() }
    }
}

/// The services' paths.
pub(crate) fn router() -> Router<Arc<Gateway>> {
    let exports = EXPORTS.iter().copied().fold(Router::new(), |router, (path, route)| {
        let export = async move |State(gateway): State<Arc<Gateway>>, request: Request| {
            if !is_grpc(request.headers()) {
                return not_grpc();
            }
            let door = Door { route, framed: true, ..Door::default() };
            serve(&gateway, Dialect::Grpc, Ok(door), request).await
        };
        router.route(path, post(export))
    });
    exports.route("/grpc.health.v1.Health/Check", post(health))
}

/// Whether a request is a call.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(MEDIA.as_bytes()))
}

fn not_grpc() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

/// `grpc.health.v1.Health/Check`: serving once the keys are loaded.
async fn health(State(gateway): State<Arc<Gateway>>) -> Response<Body> {
    #[derive(Clone, PartialEq, Message)]
    struct HealthCheckResponse {
        #[prost(int32, tag = "1")]
        status: i32,
    }
    let status = if gateway.log.get().is_some() { 1 } else { 2 };
    message(&HealthCheckResponse { status })
}

/// Takes the only message out of a call's body, and says how it is compressed. `named` is the encoding of its headers.
///
/// # Errors
/// [`Refusal::BadFrame`] when the body is not exactly one message.
pub(crate) fn unframe(body: &Bytes, named: Option<Encoding>) -> Result<(Bytes, Encoding), Refusal> {
    let Some(([flag, length @ ..], message)) = body.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(Refusal::BadFrame("the body ends within the message's prefix"));
    };
    if usize::try_from(u32::from_be_bytes(*length)) != Ok(message.len()) {
        return Err(Refusal::BadFrame("the body is not one message of the length it states"));
    }
    let encoding = match flag {
        0 => Encoding::Identity,
        1 => {
            named.ok_or(Refusal::BadFrame("the message is compressed and grpc-encoding does not say how"))?
        }
        _ => return Err(Refusal::BadFrame("the message's flag is neither 0 nor 1")),
    };
    Ok((body.slice(PREFIX_BYTES..), encoding))
}

/// The answer to an accepted call.
pub(crate) fn accepted(accepted: &Accepted) -> Response<Body> {
    message(&ExportResponse { partial_success: partial_success(&accepted.rejected) })
}

fn message(message: &impl Message) -> Response<Body> {
    let encoded = message.encode_to_vec();
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + encoded.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(encoded.len()).unwrap_or(u32::MAX));
    framed.put_slice(&encoded);
    let trailers = HeaderMap::from_iter([(STATUS, HeaderValue::from(OK))]);
    let body = Full::new(framed.freeze()).with_trailers(std::future::ready(Some(Ok(trailers))));
    respond(Body::new(body))
}

/// The answer to a refused call: headers alone.
pub(crate) fn refused(refusal: &Refusal, retry: Option<i64>) -> Response<Body> {
    let status = Status::of(code(refusal), refusal, retry, TRAILER_VIOLATIONS);
    let mut response = respond(Body::empty());
    let headers = response.headers_mut();
    headers.insert(STATUS, HeaderValue::from(status.code));
    if let Ok(text) = HeaderValue::from_str(&percent_encoded(&status.message)) {
        headers.insert(MESSAGE, text);
    }
    if let Ok(details) = HeaderValue::from_str(&STANDARD_NO_PAD.encode(status.encode_to_vec())) {
        headers.insert(DETAILS, details);
    }
    if matches!(refusal, Refusal::UnknownEncoding) {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity,gzip,deflate,zstd,br"));
    }
    response
}

fn respond(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, MEDIA);
    response
}

/// The code of a refusal (`google.rpc.Code`).
pub(crate) fn code(refusal: &Refusal) -> i32 {
    match refusal {
        Refusal::BodyAborted => 1,
        Refusal::BodyTimeout(_) => 4,
        Refusal::NoSuchPath | Refusal::NotOffered | Refusal::NoSuchMethod | Refusal::UnknownEncoding => {
            UNIMPLEMENTED
        }
        other => class_code(other.class()),
    }
}

/// The code (`google.rpc.Code`) with a class's meaning.
pub(crate) fn class_code(class: ErrorClass) -> i32 {
    match class {
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

/// The form a status message has in a header.
fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b' '..=b'~' if byte != b'%' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::again_after;

    fn framed(flag: u8, length: u32, message: &[u8]) -> Bytes {
        Bytes::from([&[flag][..], &length.to_be_bytes(), message].concat())
    }

    #[test]
    fn the_message_is_taken_out_of_its_frame_as_compressed_as_it_is() {
        let gzip = Some(Encoding::Gzip);
        let plain = unframe(&framed(0, 3, b"abc"), gzip).unwrap();
        assert_eq!(plain, (Bytes::from_static(b"abc"), Encoding::Identity));
        let compressed = unframe(&framed(1, 3, b"abc"), gzip).unwrap();
        assert_eq!(compressed, (Bytes::from_static(b"abc"), Encoding::Gzip));
        assert!(unframe(&framed(0, 0, b""), None).unwrap().0.is_empty());
    }

    #[test]
    fn a_body_that_is_not_one_message_is_refused() {
        let two = [framed(0, 1, b"a"), framed(0, 1, b"b")].concat();
        let bodies = [
            Bytes::from_static(b"\0\0"),
            framed(0, 4, b"abc"),
            framed(2, 1, b"a"),
            framed(1, 1, b"a"),
            two.into(),
        ];
        for body in bodies {
            assert!(matches!(unframe(&body, None), Err(Refusal::BadFrame(_))), "{body:?}");
        }
    }

    #[test]
    fn each_refusal_has_the_code_that_senders_act_on() {
        use fleetlog_log::{AuthError, LogError};
        let retried = [Refusal::Busy, Refusal::Starting, Refusal::NotPublished(LogError::QueueFull)];
        assert_eq!(retried.each_ref().map(code), [14, 14, 14]);
        assert_eq!(code(&Refusal::ProjectShare), 8);
        for refusal in retried.iter().chain([&Refusal::ProjectShare]) {
            let retry = again_after(refusal);
            assert_eq!(Status::of(code(refusal), refusal, retry, 9).details.len(), 1, "{refusal}: says when");
        }
        assert_eq!(code(&Refusal::Auth(AuthError::Unknown)), 16);
        assert_eq!(code(&Refusal::Role(fleetlog_schemas::control::Role::Viewer)), 7);
        assert_eq!(code(&Refusal::BodyTooLarge { limit: 1 }), 3);
        let too_large = Refusal::BodyTooLarge { limit: 1 };
        assert!(Status::of(3, &too_large, again_after(&too_large), 9).details.is_empty());
    }

    #[test]
    fn a_message_in_a_header_is_percent_encoded() {
        assert_eq!(percent_encoded("a <b> 5% ü"), "a <b> 5%25 %C3%BC");
    }
}
