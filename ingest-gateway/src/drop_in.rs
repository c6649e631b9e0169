//! The paths of other observability APIs, so that their own clients work with only the URL and the key changed.
//!
//! One module an API: which paths are its, under which hint a body is published, and how its client is told yes and no.
//! What a body means is the decoders' business ([`fleetlog_formats`]); here its bytes are published untouched. Of an
//! API's reading side only that is answered which its client asks before or while it sends.

mod hooks;
mod langfuse;
mod langsmith;
mod openai;
mod opik;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{MethodFilter, MethodRouter};
use fleetlog_formats::Hint;
use fleetlog_log::Principal;
use fleetlog_schemas::record::{Route, StreamContext};
use serde_json::json;

use crate::answer::{Dialect, Foreign, Said};
use crate::endpoints::{reply, serve, tell};
use crate::error::Refusal;
use crate::pipeline::{Accepted, Door, Gateway};
use crate::shape::Shape;

/// Longest id in a path; the real ones are UUIDs and hashes.
const ID_MAX_BYTES: usize = 256;

type Routes = MethodRouter<Arc<Gateway>>;

/// Every path of every API.
pub(crate) fn router() -> Router<Arc<Gateway>> {
    langfuse::router()
        .merge(langsmith::router())
        .merge(openai::router())
        .merge(opik::router())
        .merge(hooks::router())
}

/// Whose a path is that is not answered here, and so in whose words to say that.
pub(crate) fn owner_of(path: &str) -> Option<Foreign> {
    if path.contains("/api/public/") {
        Some(langfuse::REFUSING)
    } else if path.contains("/v1/private/") {
        Some(opik::REFUSING)
    } else {
        langsmith::owns(path).then_some(langsmith::API)
    }
}

/// What is taken at a path, and how it is answered.
#[derive(Clone, Copy)]
struct Intake {
    hint: Hint,
    shape: Shape,
    body_max_bytes: Option<usize>,
    foreign: Foreign,
}

impl Intake {
    const fn json(hint: Hint, foreign: Foreign) -> Self {
        Self { hint, shape: Shape::Json, body_max_bytes: None, foreign }
    }

    /// The door of a request whose path named this id.
    fn door(self, id: Option<String>) -> Result<Door, Refusal> {
        if id.as_ref().is_some_and(|id| id.len() > ID_MAX_BYTES) {
            return Err(Refusal::BadRequest("the id in the path is too long"));
        }
        let stream = id.map(|id| StreamContext {
            format: self.hint.as_str().to_owned(),
            stream_id: id,
            ..StreamContext::default()
        });
        Ok(Door {
            route: Route::Raw,
            format_hint: self.hint.as_str().to_owned(),
            stream,
            shape: self.shape,
            body_max_bytes: self.body_max_bytes,
            ..Door::default()
        })
    }
}

/// Takes bodies by this method.
fn take(method: MethodFilter, intake: Intake) -> Routes {
    also_take(refusing(intake.foreign), method, intake)
}

/// Takes bodies by a further method.
fn also_take(routes: Routes, method: MethodFilter, intake: Intake) -> Routes {
    let handler =
        async move |State(gateway): State<Arc<Gateway>>, id: Option<Path<String>>, request: Request| {
            let door = intake.door(id.map(|Path(id)| id));
            serve(&gateway, Dialect::Foreign(intake.foreign), door, request).await
        };
    routes.on(method, handler)
}

/// Refuses every method.
fn refusing(foreign: Foreign) -> Routes {
    MethodRouter::new().fallback(async move |State(gateway): State<Arc<Gateway>>, request: Request| {
        serve(&gateway, Dialect::Foreign(foreign), Err(Refusal::NoSuchMethod), request).await
    })
}

/// Answers anyone, who asks by GET.
fn public(foreign: Foreign, say: fn() -> Said) -> Routes {
    refusing(foreign).get(async move || say().respond(""))
}

/// Answers whoever has a key, and asks by this method.
fn keyed(method: MethodFilter, foreign: Foreign, say: fn(&Principal) -> Said) -> Routes {
    let handler = async move |State(gateway): State<Arc<Gateway>>, headers: HeaderMap| {
        tell(&gateway, Dialect::Foreign(foreign), &headers, say)
    };
    refusing(foreign).on(method, handler)
}

/// Answers what a body asks, which comes by POST, whoever has a key.
fn asked(foreign: Foreign, say: fn(&[u8]) -> Result<Said, Refusal>) -> Routes {
    refusing(foreign).post(async move |State(gateway): State<Arc<Gateway>>, request: Request| {
        reply(&gateway, Dialect::Foreign(foreign), request, say).await
    })
}

/// 202 with a sentence, as several APIs say it.
fn message_accepted(_: &Accepted, _: &str) -> Said {
    Said::new(StatusCode::ACCEPTED, json!({"message": "accepted"}))
}

/// 204.
fn nothing(_: &Accepted, _: &str) -> Said {
    Said::nothing()
}
