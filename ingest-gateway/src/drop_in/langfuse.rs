//! Langfuse: ingestion, scores, OTLP, and what its clients ask at their start.
//!
//! Contract: the server's routes `web/src/pages/api/public/*` and the clients langfuse-python 2, 3, 5 and langfuse-js
//! 3, 5. A batch is answered with 207 and an entry for each envelope. The clients send a whole batch again on 429, on 5xx,
//! and, up to version 3, when 207 lists an error; the repeat of what was taken is then recognised (INV-5).

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::MethodFilter;
use fleetlog_formats::Hint;
use fleetlog_formats::langfuse::Entry;
use fleetlog_log::Principal;
use fleetlog_runtime::{Classified, ErrorClass};
use fleetlog_schemas::record::Route;
use serde_json::json;

use super::{Intake, keyed, public, take};
use crate::answer::{Foreign, Said, status};
use crate::endpoints::post_to;
use crate::error::Refusal;
use crate::pipeline::{Accepted, Gateway};
use crate::shape::{Echo, Shape};

/// The limit that the server documents for ingestion, and that its clients stay below.
const BODY_MAX_BYTES: usize = 4_500_000;

/// For answers that are refusals in any case.
pub(super) const REFUSING: Foreign = Foreign { accepted: super::nothing, refused };

const INGESTION: Intake = Intake {
    hint: Hint::LANGFUSE_INGESTION,
    shape: Shape::LangfuseBatch,
    body_max_bytes: Some(BODY_MAX_BYTES),
    foreign: Foreign { accepted: entries, refused: refused_batch },
};
const SCORES: Intake = Intake {
    hint: Hint::LANGFUSE_SCORES,
    shape: Shape::LangfuseScores,
    body_max_bytes: Some(BODY_MAX_BYTES),
    foreign: Foreign { accepted: scored, refused },
};

pub(super) fn router() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/api/public/ingestion", take(MethodFilter::POST, INGESTION))
        .route("/api/public/scores", take(MethodFilter::POST, SCORES))
        .route("/api/public/otel/v1/traces", post_to(Route::OtlpTraces))
        .route("/api/public/otel/v1/metrics", post_to(Route::OtlpMetrics))
        .route("/api/public/projects", keyed(MethodFilter::GET, REFUSING, projects))
        .route("/api/public/health", public(REFUSING, health))
}

/// One entry for each envelope: taken, or why not.
fn entries(accepted: &Accepted, _: &str) -> Said {
    answered(&accepted.echo)
}

/// A batch of which nothing can be taken is answered like any other: the clients look for the reasons there alone.
fn refused_batch(refusal: &Refusal) -> Said {
    match refusal {
        Refusal::AllRejected { echo, .. } => answered(echo),
        other => refused(other),
    }
}

fn answered(echo: &Echo) -> Said {
    let entries = match echo {
        Echo::Batch(entries) => entries.as_slice(),
        Echo::Id(_) | Echo::Nothing => &[],
    };
    let (mut successes, mut errors) = (Vec::new(), Vec::new());
    for Entry { id, complaint } in entries {
        match complaint {
            None => successes.push(json!({"id": id, "status": 201})),
            Some(bad) => errors.push(
                json!({"id": id, "status": 400, "message": bad.message, "error": "InvalidRequestError"}),
            ),
        }
    }
    Said::new(StatusCode::MULTI_STATUS, json!({"successes": successes, "errors": errors}))
}

/// One score is answered with its id, several (clients from 5 on) with a word.
fn scored(accepted: &Accepted, request_id: &str) -> Said {
    match &accepted.echo {
        Echo::Id(id) => Said::new(StatusCode::OK, json!({"id": id.as_deref().unwrap_or(request_id)})),
        Echo::Batch(_) | Echo::Nothing => Said::new(StatusCode::ACCEPTED, json!({"message": "Accepted"})),
    }
}

/// The only project of a key, with every member that the newest client insists on.
fn projects(principal: &Principal) -> Said {
    let id = principal.project_id.as_ref();
    let organization = json!({"id": "fleetlog", "name": "Fleetlog"});
    let project = json!({"id": id, "name": id, "organization": organization, "metadata": {}});
    Said::new(StatusCode::OK, json!({"data": [project]}))
}

fn health() -> Said {
    Said::new(StatusCode::OK, json!({"status": "OK", "version": env!("CARGO_PKG_VERSION")}))
}

fn refused(refusal: &Refusal) -> Said {
    let error = match refusal.class() {
        ErrorClass::Unauthenticated => "UnauthorizedError",
        ErrorClass::Forbidden => "ForbiddenError",
        ErrorClass::NotFound => "LangfuseNotFoundError",
        ErrorClass::BadInput | ErrorClass::Unsupported | ErrorClass::TooLarge => "InvalidRequestError",
        ErrorClass::Conflict => "LangfuseConflictError",
        ErrorClass::Overloaded => "TooManyRequestsError",
        ErrorClass::Unavailable => "ServiceUnavailableError",
        ErrorClass::Corrupt | ErrorClass::Bug => "InternalServerError",
    };
    Said::new(
        status(refusal),
        json!({"message": refusal.to_string(), "error": error, "code": refusal.code()}),
    )
}
