//! OpenAI: the trace exporter of its Agents SDK.
//!
//! Contract: `agents/tracing/processors.py` of openai-agents 0.24. Any status below 300 is success; 408, 409, 429 and
//! 5xx are sent again, at most twice.

use std::sync::Arc;

use axum::Router;
use axum::routing::MethodFilter;
use fleetlog_formats::Hint;
use fleetlog_runtime::{Classified, ErrorClass};
use serde_json::json;

use super::{Intake, take};
use crate::answer::{Foreign, Said, status};
use crate::error::Refusal;
use crate::pipeline::Gateway;

const API: Foreign = Foreign { accepted: super::nothing, refused };

pub(super) fn router() -> Router<Arc<Gateway>> {
    let traces = Intake::json(Hint::OPENAI_TRACES, API);
    Router::new()
        .route("/v1/traces/ingest", take(MethodFilter::POST, traces))
        .route("/traces/ingest", take(MethodFilter::POST, traces))
}

fn refused(refusal: &Refusal) -> Said {
    let kind = match refusal.class() {
        ErrorClass::Unauthenticated => "authentication_error",
        ErrorClass::Forbidden => "permission_error",
        ErrorClass::Overloaded => "rate_limit_error",
        ErrorClass::Unavailable | ErrorClass::Corrupt | ErrorClass::Bug => "server_error",
        ErrorClass::BadInput
        | ErrorClass::TooLarge
        | ErrorClass::Unsupported
        | ErrorClass::NotFound
        | ErrorClass::Conflict => "invalid_request_error",
    };
    let error = json!({"message": refusal.to_string(), "type": kind, "param": null, "code": refusal.code()});
    Said::new(status(refusal), json!({"error": error}))
}
