//! Every code that a sender can be told, for the generated table: with each the status that goes with it, as the code
//! itself decides it.

use std::time::Duration;

use fleetlog_formats::BadBody;
use fleetlog_log::{AuthError, LogError};
use fleetlog_runtime::Classified;
use fleetlog_schemas::control::Role;

use crate::answer::again_after;
use crate::error::{LimitKind, Refusal, Whose};
use crate::grpc;
use crate::shape::Echo;

/// A reason for which a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode {
    /// The code.
    pub code: &'static str,
    /// The HTTP status.
    pub http: u16,
    /// The gRPC status.
    pub grpc: i32,
    /// Seconds after which it may be worth trying again, if ever, at the least: an answer says more where more is
    /// known, and up to half as much more (two seconds at least) so that not everyone comes back at once.
    pub retry_after_seconds: Option<i64>,
    /// What it means, and what to do about it.
    pub meaning: &'static str,
}

/// Why a single record is rejected while the others of its request are accepted: code and meaning.
pub const RECORD_CODES: &[(&str, &str)] = &[
    ("malformed_json", "It is not JSON."),
    ("too_deep", "It is nested too deeply."),
    ("invalid_utf8", "It is not UTF-8."),
    ("not_an_object", "It is not a JSON object."),
    ("missing_type", "An event without a `type`."),
    ("bad_type", "An event whose `type` is not a text."),
    ("project_mismatch", "Its `projectId` is not the key's project."),
    ("wrong_signal", "It is a record of another OTLP signal than its path's."),
    ("bad_ids", "A span whose trace or span id is not one."),
    ("missing_id", "A Langfuse envelope without an `id`."),
    ("malformed_part", "A part of a form whose head names no field."),
    ("record_too_large", "Even compressed it exceeds `gateway.message_max_bytes`."),
];

/// Why a request is refused as a whole.
pub fn error_codes() -> Vec<ErrorCode> {
    let code = |(refusal, meaning): (Refusal, &'static str)| ErrorCode {
        code: refusal.code(),
        http: refusal.status(),
        grpc: grpc::code(&refusal),
        retry_after_seconds: again_after(&refusal),
        meaning,
    };
    [sender(), requests(), bodies(), ours()].into_iter().flatten().map(code).collect()
}

fn sender() -> Vec<(Refusal, &'static str)> {
    vec![
        (Refusal::MissingKey, "No key was presented."),
        (Refusal::Auth(AuthError::Malformed), "What was presented is not a key."),
        (Refusal::Auth(AuthError::Unknown), "There is no such key."),
        (Refusal::Auth(AuthError::Revoked), "The key was revoked."),
        (Refusal::Role(Role::Viewer), "The key's role does not allow sending."),
    ]
}

fn requests() -> Vec<(Refusal, &'static str)> {
    vec![
        (Refusal::NoSuchPath, "There is no such path."),
        (Refusal::NoSuchMethod, "The path takes another method."),
        (Refusal::BadRequest(""), "A header or parameter makes no sense, or the key is given twice."),
        (Refusal::BadFrame(""), "The body of a gRPC call is not one message."),
        (Refusal::UnknownEncoding, "The body's encoding is not gzip, deflate, zstd, br or identity."),
        (Refusal::BodyTimeout(Duration::ZERO), "The body did not arrive within `gateway.body_timeout_ms`."),
        (Refusal::BodyAborted, "The body ended early."),
    ]
}

fn bodies() -> Vec<(Refusal, &'static str)> {
    let malformed = |code| Refusal::Malformed(BadBody { code, message: String::new(), position: None });
    vec![
        (
            Refusal::BodyTooLarge { limit: 0 },
            "The body exceeds `gateway.body_max_bytes`, or its API's limit.",
        ),
        (Refusal::DecodedTooLarge { limit: 0 }, "Decompressed it exceeds `gateway.decoded_max_bytes`."),
        (Refusal::TooManyRecords { limit: 0 }, "It holds more than `gateway.records_max` records."),
        (
            Refusal::Unsplittable { limit: 0 },
            "It exceeds `gateway.message_max_bytes`, cannot be split, and is too long even compressed.",
        ),
        (Refusal::BadCompression(""), "It does not decompress."),
        (malformed("unsupported_content_type"), "The path takes bodies of another content type."),
        (malformed("empty_body"), "It holds nothing."),
        (malformed("malformed_json"), "Its JSON is broken so that no record can be told from the next."),
        (malformed("malformed_protobuf"), "It is not the protobuf message of its path."),
        (malformed("malformed_multipart"), "The parts of the form cannot be told apart."),
        (malformed("wrong_signal"), "It holds another OTLP signal than its path's."),
        (malformed("too_deep"), "It is nested too deeply."),
        (malformed("invalid_utf8"), "It is not UTF-8."),
        (
            Refusal::AllRejected { rejected: Vec::new(), echo: Echo::Nothing },
            "Every record is rejected; the answer lists why.",
        ),
    ]
}

fn ours() -> Vec<(Refusal, &'static str)> {
    let no_log = LogError::NotAcknowledged(Duration::ZERO);
    let gone = LogError::Unavailable { action: "", reason: String::new() };
    vec![
        (
            Refusal::RateLimited {
                whose: Whose::Key,
                kind: LimitKind::RecordsPerSecond,
                limit: 0,
                wait: Duration::ZERO,
            },
            "The key or its project has sent as many records or bytes a second as it may; the answer names the limit and \
             when something may be sent again.",
        ),
        (
            Refusal::QuotaExceeded { whose: Whose::Key, limit: 0, wait: Duration::ZERO },
            "The key or its project has sent as many records as it may on one day (UTC); the answer names the quota and \
             when the next day begins.",
        ),
        (
            Refusal::ProjectShare,
            "The project has more bytes or requests under way than its share of a busy gateway.",
        ),
        (Refusal::Busy, "The gateway has as much under way as it may, or as it can do in time."),
        (
            Refusal::Memory,
            "The process is short of memory (`gateway.memory_max_bytes`, `gateway.memory_share`).",
        ),
        (
            Refusal::LogSilent { wait: Duration::ZERO },
            "Kafka has acknowledged nothing for `gateway.circuit_patience_ms`, or the queue to it was full; nothing of \
             the request was published.",
        ),
        (Refusal::Starting, "Kafka has not been reached since the start."),
        (Refusal::Auth(AuthError::NotReady), "The keys are still being loaded."),
        (Refusal::NotPublished(LogError::QueueFull), "The queue to Kafka is full."),
        (
            Refusal::NotPublished(no_log),
            "Kafka did not acknowledge it; part of it may be stored, and a repeat is recognised.",
        ),
        (
            Refusal::NotPublished(gone),
            "Kafka cannot be reached or refuses; part of it may be stored, and a repeat is recognised.",
        ),
        (Refusal::SpoolFull, "Kafka does not take it, and the spool holds as much as it may."),
        (
            Refusal::SpoolUnwritable(String::new()),
            "Kafka does not take it, and the spool's disk does not either; the log says why.",
        ),
        (Refusal::DiskLow, "The disk below `gateway.disk_watch_path` is nearly full."),
        (Refusal::Internal(String::new()), "A defect of ours; the log has the details."),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_code_means_one_thing_and_only_what_may_pass_is_tried_again() {
        let codes = error_codes();
        assert_eq!(codes.iter().map(|code| code.code).collect::<BTreeSet<_>>().len(), codes.len());
        for code in codes {
            let retried = matches!(code.http, 429 | 503);
            assert_eq!(code.retry_after_seconds.is_some(), retried, "{code:?}");
            assert_eq!(matches!(code.grpc, 8 | 14), retried, "{code:?}");
        }
    }
}
