//! Opik: traces, spans and feedback scores, and what its client asks at its start and while it waits.
//!
//! Contract: `rest_api/{traces,spans,check}/raw_client.py` of opik 2.2. A created one is answered with 201, everything
//! else with 204. The client keeps what it could not send only after 429 with `RateLimit-Reset` (seconds); any other
//! error is given up after three tries, so whatever is worth another try is answered so.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, StatusCode};
use axum::routing::{MethodFilter, MethodRouter};
use fleetlog_formats::Hint;
use fleetlog_log::Principal;
use fleetlog_runtime::Classified;
use serde_json::json;

use super::{Intake, also_take, keyed, public, take};
use crate::answer::{Foreign, Said, status};
use crate::error::Refusal;
use crate::pipeline::{Accepted, Gateway};

pub(super) const REFUSING: Foreign = Foreign { accepted: super::nothing, refused };
const CREATING: Foreign = Foreign { accepted: created, refused };

/// Where the API stands: behind its frontend, at the hosted service, or by itself.
const PREFIXES: &[&str] = &["", "/api", "/opik/api"];

const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// What there is two of, traces and spans, and its hints.
struct Kind {
    path: &'static str,
    hint: Hint,
    patch: Hint,
    scores: Hint,
}

const KINDS: &[Kind] = &[
    Kind {
        path: "traces",
        hint: Hint::OPIK_TRACES,
        patch: Hint::OPIK_TRACE_PATCH,
        scores: Hint::OPIK_FEEDBACK,
    },
    Kind {
        path: "spans",
        hint: Hint::OPIK_SPANS,
        patch: Hint::OPIK_SPAN_PATCH,
        scores: Hint::OPIK_SPAN_FEEDBACK,
    },
];

pub(super) fn router() -> Router<Arc<Gateway>> {
    let mut router = Router::new();
    for prefix in PREFIXES {
        let private = format!("{prefix}/v1/private");
        for kind in KINDS {
            let base = format!("{private}/{}", kind.path);
            let patch = Intake::json(kind.patch, REFUSING);
            let scores = put(kind.scores);
            router = router
                .route(&base, take(MethodFilter::POST, Intake::json(kind.hint, CREATING)))
                .route(&format!("{base}/batch"), batch(kind))
                .route(&format!("{base}/{{id}}"), take(MethodFilter::PATCH, patch))
                .route(&format!("{base}/feedback-scores"), scores.clone())
                .route(&format!("{base}/{{id}}/feedback-scores"), scores);
        }
        router = router
            .route(&format!("{private}/traces/threads/feedback-scores"), put(Hint::OPIK_THREAD_FEEDBACK))
            .route(&format!("{private}/auth"), keyed(MethodFilter::POST, REFUSING, |_| Said::nothing()))
            .route(&format!("{private}/auth/workspace"), keyed(MethodFilter::GET, REFUSING, workspace))
            .route(&format!("{prefix}/is-alive/ping"), public(REFUSING, alive))
            .route(&format!("{prefix}/is-alive/ver"), public(REFUSING, version));
    }
    router
}

/// New ones come by POST (older clients: PUT); a PATCH gives many the same change.
fn batch(kind: &Kind) -> MethodRouter<Arc<Gateway>> {
    let new = Intake::json(kind.hint, REFUSING);
    let post_or_put = MethodFilter::POST.or(MethodFilter::PUT);
    also_take(take(post_or_put, new), MethodFilter::PATCH, Intake::json(kind.patch, REFUSING))
}

fn put(hint: Hint) -> MethodRouter<Arc<Gateway>> {
    take(MethodFilter::PUT, Intake::json(hint, REFUSING))
}

fn created(_: &Accepted, _: &str) -> Said {
    Said { status: StatusCode::CREATED, body: None, again_in: None }
}

fn workspace(principal: &Principal) -> Said {
    Said::new(StatusCode::OK, json!({"workspaceName": principal.project_id.as_ref()}))
}

fn alive() -> Said {
    Said::new(StatusCode::OK, json!({"healthy": true}))
}

fn version() -> Said {
    Said::new(StatusCode::OK, json!({"version": env!("CARGO_PKG_VERSION")}))
}

fn refused(refusal: &Refusal) -> Said {
    let mut said = Said::new(status(refusal), json!({}));
    if refusal.class().is_retryable() {
        said.status = StatusCode::TOO_MANY_REQUESTS;
        said.again_in = Some(RESET);
    }
    let message = refusal.to_string();
    let errors = json!([message]);
    said.body = Some(
        json!({"code": said.status.as_u16(), "message": message, "errors": errors, "reason": refusal.code()}),
    );
    said
}
