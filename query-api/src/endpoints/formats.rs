//! `/v1/formats`: what formats and clients send, and how well it is understood, hour by hour.

use axum::Json;
use axum::extract::State;
use fleetlog_store::row::Row;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::answer::{Instant, Page};
use crate::auth::Caller;
use crate::error::{ErrorBody, QueryError};
use crate::params::{ListParams, ListQuery, WaitParams};
use crate::pipeline::{Api, Rests};
use crate::plan::Plan;
use crate::sql::{self, FormatFilter, FormatKey};

/// What one version of one program sent in one format in one hour. A share that jumps is a format that has changed.
#[derive(Clone, Debug, Row, Serialize, Deserialize, ToSchema)]
#[clickhouse(crate = "fleetlog_store::row")]
pub(crate) struct FormatHour {
    /// Start of the hour, by the events' own time.
    hour: Instant,
    /// Format.
    format: String,
    /// Program that emitted the events.
    program: String,
    /// Its version.
    version: String,
    /// Events, repeats included.
    events: u64,
    /// Events that were not understood (`raw.unknown`).
    unknown: u64,
    /// Fields that none of the captures had from which the format was mapped.
    unknown_fields: u64,
    /// Events that have such a field.
    with_unknown_fields: u64,
    /// Events that state the usage of a call to a model.
    calls_with_usage: u64,
    /// Those of them that state no token at all.
    calls_without_tokens: u64,
    /// Events whose token convention had to be guessed.
    guessed_bases: u64,
    /// Events without a usable time of their own.
    without_time: u64,
    /// Why events were not understood, at most 20 reasons.
    unknown_reasons: Vec<String>,
}

/// Which formats.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct FormatParams {
    /// Only this format, for instance `claude.otlp.logs`.
    format: Option<String>,
    /// Only this program.
    source: Option<String>,
}

/// What formats and clients sent in a range of time and how much of it was understood, newest hour first.
#[utoipa::path(
    get,
    path = "/v1/formats",
    operation_id = "list_formats",
    tag = "operation",
    params(FormatParams, ListParams, WaitParams),
    responses(
        (status = 200, body = Page<FormatHour>),
        (status = "4XX", body = ErrorBody),
        (status = 503, body = ErrorBody),
    )
)]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    query: ListQuery<FormatParams>,
) -> Result<Json<Page<FormatHour>>, QueryError> {
    let plan: Plan<FormatKey> =
        api.plan(&caller, &query, api.config().list_ranges(), api.config().list_pages())?;
    let FormatParams { format, source } = query.filters;
    let filter = FormatFilter { format, source };
    let statement = sql::formats(caller.project_id(), plan.range, &filter, plan.after.as_ref(), plan.fetch());
    let currency = api.current(&caller, &query.wait, Rests::Facts).await?;
    let rows = api.rows::<FormatHour>(&caller, statement).await?;
    let key = |row: &FormatHour| (row.hour.0, row.format.clone(), row.program.clone(), row.version.clone());
    Ok(Json(plan.page(rows, key, currency)))
}
