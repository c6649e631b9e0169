//! The OpenAPI description, made from the code: paths, parameters and answers come from the handlers' own types.

use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi as Document, SecurityRequirement};
use utoipa::{Modify, OpenApi};

use crate::endpoints::{
    calls, completeness, dead_letters, events, explain, formats, sessions, timeline, traces, usage,
};
use crate::error::ErrorBody;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Fleetlog query API",
        description = "Read-only answers over the events of AI agent fleets.\n\n\
            The API key decides the project; nothing else in a request does. Every list has a time range \
            (`from`, `to`) and cursor pages (`limit`, `cursor`). A parameter that an endpoint does not list is \
            an error. Times are RFC 3339 in UTC with nanoseconds, money is US dollars exact to the ninth digit. \
            Events have the camelCase form in which they can be sent; everything else is named as the column in \
            the tables. Every answer says up to when it is complete (`complete_through`), and every question can wait \
            for what was just sent (`wait_for`). Errors are `{\"error\": {\"code\", \"message\"}}`.",
    ),
    paths(
        sessions::list,
        sessions::one,
        timeline::timeline,
        calls::llm,
        calls::tools,
        events::list,
        events::one,
        traces::list,
        traces::one,
        traces::scores,
        usage::list,
        explain::explain,
        formats::list,
        dead_letters::list,
        completeness::list,
    ),
    components(schemas(ErrorBody)),
    tags(
        (name = "sessions", description = "Sessions, their totals, their timelines and their calls."),
        (name = "events", description = "Stored events."),
        (name = "traces", description = "Traces, what they consist of, and scores."),
        (name = "usage", description = "Calls, tokens and cost over time, and how a number came about."),
        (name = "operation", description = "What did not become an event, and how well formats are understood."),
    ),
    modifiers(&Keys)
)]
struct Description;

/// The ways to present a key.
struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut Document) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API key, fl_<id>_<secret>."))
            .build();
        let header = ApiKey::Header(ApiKeyValue::new("x-api-key"));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        components.add_security_scheme("x-api-key", SecurityScheme::ApiKey(header));
        document.security =
            Some(["bearer", "x-api-key"].map(|name| SecurityRequirement::new(name, [""; 0])).to_vec());
    }
}

/// The description of this version.
pub(crate) fn document() -> Document {
    Description::openapi()
}
