//! Hooks of coding agents that post what happens as it happens.
//!
//! Contract: the hook documentation of Claude Code, Cursor and Gemini CLI. An agent waits for the answer and reads
//! directions from it: `{}` has none, so the agent goes on as if there were no hook. Any other status than 2xx is an
//! error that the agents report and do not stop for.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::MethodFilter;
use fleetlog_formats::Hint;
use fleetlog_runtime::Classified;
use serde_json::json;

use super::{Intake, take};
use crate::answer::{Foreign, Said, status};
use crate::error::Refusal;
use crate::pipeline::{Accepted, Gateway};

const API: Foreign = Foreign { accepted: go_on, refused };

const HOOKS: &[(&str, Hint)] = &[
    ("/hooks/claude", Hint::CLAUDE_HOOKS),
    ("/hooks/cursor", Hint::CURSOR_HOOKS),
    ("/hooks/gemini", Hint::GEMINI_HOOKS),
    ("/hooks/goose", Hint::GOOSE_HOOKS),
];

pub(super) fn router() -> Router<Arc<Gateway>> {
    HOOKS.iter().fold(Router::new(), |router, (path, hint)| {
        router.route(path, take(MethodFilter::POST, Intake::json(*hint, API)))
    })
}

fn go_on(_: &Accepted, _: &str) -> Said {
    Said::new(StatusCode::OK, json!({}))
}

/// Members that no agent reads as directions.
fn refused(refusal: &Refusal) -> Said {
    let error = json!({"code": refusal.code(), "message": refusal.to_string()});
    Said::new(status(refusal), json!({"error": error}))
}
