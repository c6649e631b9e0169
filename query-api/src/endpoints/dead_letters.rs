//! `/v1/dead-letters`: what could not be used, and why.

use axum::Json;
use axum::extract::State;
use fleetlog_schemas::record::DeadReason;
use fleetlog_store::row::Row;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::answer::{Instant, Page};
use crate::auth::Caller;
use crate::error::{ErrorBody, QueryError};
use crate::params::{self, ListParams, ListQuery, WaitParams};
use crate::pipeline::{Api, Rests};
use crate::plan::Plan;
use crate::sql::{self, DeadLetterFilter, EventKey};

/// Something that could not be used. Its original bytes stay in the dead-letter topic, at the log position.
#[derive(Clone, Debug, Row, Serialize, Deserialize, ToSchema)]
#[clickhouse(crate = "fleetlog_store::row")]
pub(crate) struct DeadLetter {
    /// Reason code.
    reason: String,
    /// What exactly went wrong.
    message: String,
    /// Stage that gave up: `processor` or `aggregator`.
    stage: String,
    /// Records lost with it, as the gateway counted them.
    records: u32,
    /// When the gateway accepted it.
    received_at: Instant,
    /// When it was given up.
    failed_at: Instant,
    /// The gateway's id of the request.
    request_id: String,
    /// Public id of the API key that sent it.
    key_id: String,
    /// Door it came in by.
    route: String,
    /// Format named by the sender.
    format_hint: String,
    /// `Content-Type` as sent.
    content_type: String,
    /// Encoding of the original bytes.
    content_encoding: String,
    /// Size of the original bytes.
    payload_size: u64,
    /// Partition of the raw record.
    raw_partition: i32,
    /// Offset of the raw record.
    raw_offset: i64,
    /// Index of the record within the request; -1 for all of it.
    raw_index: i32,
    /// Partition of the dead-letter topic.
    log_partition: i32,
    /// Offset in that partition.
    log_offset: i64,
    /// Index within that record.
    log_index: u32,
}

/// Which dead letters.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeadLetterParams {
    /// Only these reasons, separated by commas.
    reason: Option<String>,
    /// Only those of this request, as its receipt names it.
    request: Option<String>,
}

/// Dead letters given up in a range of time, newest first.
#[utoipa::path(
    get,
    path = "/v1/dead-letters",
    operation_id = "list_dead_letters",
    tag = "operation",
    params(DeadLetterParams, ListParams, WaitParams),
    responses(
        (status = 200, body = Page<DeadLetter>),
        (status = "4XX", body = ErrorBody),
        (status = 503, body = ErrorBody),
    )
)]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    query: ListQuery<DeadLetterParams>,
) -> Result<Json<Page<DeadLetter>>, QueryError> {
    let plan: Plan<EventKey> =
        api.plan(&caller, &query, api.config().list_ranges(), api.config().list_pages())?;
    let known: Vec<_> = DeadReason::ALL.iter().map(|reason| reason.as_str()).collect();
    let reasons = params::words("reason", query.filters.reason.as_deref(), &known)?;
    let filter = DeadLetterFilter {
        reasons: reasons.into_iter().map(str::to_owned).collect(),
        request: query.filters.request.clone(),
    };
    let statement = sql::dead_letters(caller.project_id(), plan.range, &filter, plan.after, plan.fetch());
    let currency = api.current(&caller, &query.wait, Rests::Facts).await?;
    let rows = api.rows::<DeadLetter>(&caller, statement).await?;
    let key = |row: &DeadLetter| EventKey(row.failed_at.0, row.log_partition, row.log_offset, row.log_index);
    Ok(Json(plan.page(rows, key, currency)))
}
