//! `/v1/dead-letters`: what could not be used, and why; and one of them with its original bytes, for administrators.

use axum::Json;
use axum::extract::{Path, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetlog_schemas::id::Position;
use fleetlog_schemas::record::{self, DeadReason};
use fleetlog_store::row::Row;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::answer::{Instant, One, Page};
use crate::auth::Caller;
use crate::error::{ErrorBody, QueryError};
use crate::params::{self, ListParams, ListQuery, NoParams, Params, WaitParams};
use crate::pipeline::{Api, Rests};
use crate::plan::Plan;
use crate::sql::{self, DeadLetterFilter, EventKey};

/// Something that could not be used. Its original bytes stay in the dead-letter topic, at the log position: read them
/// at `/v1/dead-letters/{log_partition}/{log_offset}`.
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
    /// Beginning of the original bytes as text, with secrets replaced; empty when they are no text.
    payload_preview: String,
    /// Dead letter (partition/offset) whose replay died again; empty when a gateway accepted it.
    replay_of: String,
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

/// A dead letter with its original bytes, which nothing has been replaced in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Original {
    /// Reason code.
    reason: &'static str,
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
    route: &'static str,
    /// Format named by the sender.
    format_hint: String,
    /// `Content-Type` of the bytes.
    content_type: String,
    /// Encoding of the bytes.
    content_encoding: String,
    /// Partition of the raw record.
    raw_partition: i32,
    /// Offset of the raw record.
    raw_offset: i64,
    /// Index of the record within the request; -1 for all of it.
    raw_index: i32,
    /// Dead letter (partition/offset) whose replay died again; empty when a gateway accepted it.
    replay_of: String,
    /// Size of the bytes.
    payload_size: u64,
    /// Whether less than all of them is shown.
    truncated: bool,
    /// The bytes, in base64.
    base64: String,
    /// The bytes as text; null when they are no UTF-8.
    text: Option<String>,
}

impl Original {
    fn of(letter: record::DeadLetter, most: usize) -> Self {
        let bytes = letter.payload.0.as_slice();
        let shown = bytes.get(..most).unwrap_or(bytes);
        let text = match std::str::from_utf8(shown) {
            Ok(text) => Some(text),
            // Cut within a character.
            Err(e) if e.error_len().is_none() && shown.len() < bytes.len() => {
                shown.get(..e.valid_up_to()).and_then(|valid| std::str::from_utf8(valid).ok())
            }
            Err(_) => None,
        };
        Self {
            payload_size: bytes.len() as u64,
            truncated: shown.len() < bytes.len(),
            base64: STANDARD.encode(shown),
            text: text.map(str::to_owned),
            replay_of: letter.replay_of().to_owned(),
            reason: letter.reason.as_str(),
            message: letter.message,
            stage: letter.stage,
            records: letter.records,
            received_at: Instant(letter.received_at),
            failed_at: Instant(letter.failed_at),
            request_id: letter.request_id,
            key_id: letter.key_id,
            route: letter.route.as_str(),
            format_hint: letter.format_hint,
            content_type: letter.content_type,
            content_encoding: letter.content_encoding,
            raw_partition: letter.raw_partition,
            raw_offset: letter.raw_offset,
            raw_index: letter.raw_index,
        }
    }
}

/// One dead letter with its original bytes, at its position in the dead-letter topic. For keys of role admin; nothing in
/// the bytes has been redacted.
#[utoipa::path(
    get,
    path = "/v1/dead-letters/{partition}/{offset}",
    operation_id = "get_dead_letter",
    tag = "operation",
    params(
        ("partition" = i32, Path, description = "`log_partition` of the list."),
        ("offset" = i64, Path, description = "`log_offset` of the list."),
        WaitParams,
    ),
    responses(
        (status = 200, body = One<Original>),
        (status = "4XX", body = ErrorBody),
        (status = 503, body = ErrorBody),
    )
)]
pub(crate) async fn one(
    State(api): State<Api>,
    caller: Caller,
    Path((partition, offset)): Path<(String, String)>,
    Params(NoParams {}, wait): Params<NoParams>,
) -> Result<Json<One<Original>>, QueryError> {
    caller.must_be_admin()?;
    let none = QueryError::NotFound { what: "dead letter" };
    let (Ok(partition), Ok(offset)) = (partition.parse(), offset.parse()) else { return Err(none) };
    let currency = api.current(&caller, &wait, Rests::Facts).await?;
    // Another project's is not there either: that there is one must not be told.
    let at = Position { partition, offset };
    let letter = api.originals().letter(at, caller.project_id()).await?.ok_or(none)?;
    let data = Original::of(letter, api.config().dead_letter_max_bytes);
    Ok(Json(One { data, currency }))
}

#[cfg(test)]
mod tests {
    use fleetlog_schemas::avro::Blob;

    use super::*;

    #[test]
    fn bytes_are_shown_as_text_where_they_are_one_and_no_further_than_the_bound() {
        let shown = |bytes: &[u8], most| {
            let letter =
                record::DeadLetter { payload: Blob(bytes.to_vec()), ..record::DeadLetter::default() };
            let original = Original::of(letter, most);
            (original.text, original.base64, original.truncated, original.payload_size)
        };
        assert_eq!(shown(b"abc", 10), (Some("abc".to_owned()), "YWJj".to_owned(), false, 3));
        assert_eq!(shown("aü".as_bytes(), 2), (Some("a".to_owned()), "YcM=".to_owned(), true, 3));
        assert_eq!(shown(&[0xff, 0xfe], 10), (None, "//4=".to_owned(), false, 2));
        assert_eq!(shown(&[b'a', 0xc3], 10).0, None, "not cut by us");
    }
}
