//! Langfuse: ingestion, scores, OTLP, and what its clients ask at their start.
//!
//! Contract: the server's routes `web/src/pages/api/public/*` and the clients langfuse-python 2, 3, 5 and langfuse-js
//! 3, 5. A batch is answered with 207 and an entry for each envelope. The clients send a whole batch again on 429, on 5xx,
//! and, up to version 3, when 207 lists an error; the repeat of what was taken is then recognised (INV-5).
//!
//! Media are not kept, only the references to them in the observations. A client asks first where to put them, and is
//! told what it is told of media that the server has: nowhere.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::MethodFilter;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use fleetlog_formats::Hint;
use fleetlog_formats::langfuse::Entry;
use fleetlog_log::Principal;
use fleetlog_runtime::{Classified, ErrorClass};
use fleetlog_schemas::record::Route;
use serde::Deserialize;
use serde_json::json;

use super::{Intake, asked, keyed, public, take};
use crate::answer::{Foreign, Said, status};
use crate::endpoints::post_to;
use crate::error::Refusal;
use crate::pipeline::{Accepted, Gateway};
use crate::shape::{Echo, Shape};

/// The limit that the server documents for ingestion, and that its clients stay below.
const BODY_MAX_BYTES: usize = 4_500_000;

/// So many characters of the hash are the id of media.
const MEDIA_ID_CHARS: usize = 22;

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
        .route("/api/public/media", asked(REFUSING, media))
        .route("/api/public/media/{id}", keyed(MethodFilter::PATCH, REFUSING, |_| Said::nothing()))
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

/// What a client says of media before it sends them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Media {
    /// SHA-256 of the content, in base64.
    sha256_hash: String,
}

/// The id that the client gives media in its references, and no place to put them.
fn media(body: &[u8]) -> Result<Said, Refusal> {
    const BAD: Refusal = Refusal::BadRequest("`sha256Hash` must be a SHA-256 in base64");
    let Media { sha256_hash } = serde_json::from_slice(body).map_err(|_| BAD)?;
    let hash = STANDARD.decode(sha256_hash).ok().filter(|hash| hash.len() == 32).ok_or(BAD)?;
    let mut id = URL_SAFE_NO_PAD.encode(hash);
    id.truncate(MEDIA_ID_CHARS);
    Ok(Said::new(StatusCode::OK, json!({"mediaId": id, "uploadUrl": null})))
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
