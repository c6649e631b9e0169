//! LangSmith: runs one by one, in batches and as forms, feedback, and what its clients ask first.
//!
//! Contract: the public OpenAPI document of the server and the clients langsmith-python 0.15 and langsmith-js 0.12. A
//! run has a POST and later a PATCH; both carry its id, the PATCH in its path. 408, 425, 429 and 5xx are sent again
//! after `Retry-After`; anything else is dropped by the client.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::MethodFilter;
use fleetlog_formats::Hint;
use fleetlog_runtime::Classified;
use fleetlog_schemas::topic;
use serde_json::json;

use super::{Intake, public, take};
use crate::answer::{Foreign, Said, status};
use crate::error::Refusal;
use crate::pipeline::Gateway;
use crate::shape::Shape;

pub(super) const API: Foreign = Foreign { accepted: super::message_accepted, refused };

/// Paths stand at the host's root, or under these, depending on how the server is deployed.
const PREFIXES: &[&str] = &["", "/api", "/api/v1"];

/// Where the server has what is not answered here, by the first part of its paths.
const ELSEWHERE: &[&str] = &[
    "annotation-queues",
    "commits",
    "datasets",
    "examples",
    "feedback",
    "feedback-configs",
    "likes",
    "platform",
    "public",
    "repos",
    "runs",
    "sessions",
    "settings",
    "workspaces",
];

/// Whether a path that is not answered here is the server's.
pub(super) fn owns(path: &str) -> bool {
    let below = path.strip_prefix("/api").unwrap_or(path);
    let first = below.split('/').nth(1).unwrap_or_default();
    path.starts_with("/api/v1/") || path.starts_with("/v1/platform/") || ELSEWHERE.contains(&first)
}

/// What a client puts into one request; below a message's size, since a form cannot be split.
const BATCH_MAX_BYTES: usize = topic::RAW_MAX_MESSAGE_BYTES - topic::RAW_MAX_MESSAGE_BYTES / 8;

const FORM: Intake =
    Intake { hint: Hint::LANGSMITH_FORM, shape: Shape::Form, body_max_bytes: None, foreign: API };

pub(super) fn router() -> Router<Arc<Gateway>> {
    let runs = Intake::json(Hint::LANGSMITH_RUNS, API);
    let patch = Intake::json(Hint::LANGSMITH_RUN_PATCH, API);
    let feedback = Intake::json(Hint::LANGSMITH_FEEDBACK, API);
    let feedback_patch = Intake::json(Hint::LANGSMITH_FEEDBACK_PATCH, API);
    PREFIXES.iter().fold(Router::new(), |router, prefix| {
        router
            .route(&format!("{prefix}/info"), public(API, info))
            .route(&format!("{prefix}/runs"), take(MethodFilter::POST, runs))
            .route(&format!("{prefix}/runs/batch"), take(MethodFilter::POST, runs))
            .route(&format!("{prefix}/runs/multipart"), take(MethodFilter::POST, FORM))
            .route(&format!("{prefix}/runs/{{id}}"), take(MethodFilter::PATCH, patch))
            .route(&format!("{prefix}/feedback"), take(MethodFilter::POST, feedback))
            .route(&format!("{prefix}/feedback/{{id}}"), take(MethodFilter::PATCH, feedback_patch))
    })
}

/// Clients read from it how to send: as forms, compressed, and how much at once. The version is that of the server
/// whose contract is kept; clients compare it.
fn info() -> Said {
    let batches = json!({
        "use_multipart_endpoint": true,
        "size_limit": 100,
        "size_limit_bytes": BATCH_MAX_BYTES,
        "scale_up_nthreads_limit": 16,
        "scale_up_qsize_trigger": 1000,
        "scale_down_nempty_trigger": 4,
    });
    let flags = json!({"zstd_compression_enabled": true, "gzip_body_enabled": true});
    Said::new(
        StatusCode::OK,
        json!({"version": "0.10.0", "batch_ingest_config": batches, "instance_flags": flags}),
    )
}

fn refused(refusal: &Refusal) -> Said {
    Said::new(status(refusal), json!({"detail": refusal.to_string(), "error": refusal.code()}))
}
