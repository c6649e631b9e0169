//! `/v1/sessions/{id}/calls` and `/v1/sessions/{id}/tools`: the calls of a session, each once.

use axum::Json;
use axum::extract::State;
use fleetlog_store::row::{Row, RowOwned, RowRead};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::answer::{Instant, Money, Page};
use crate::auth::Caller;
use crate::endpoints::sessions::NO_SESSION;
use crate::endpoints::timeline::bounds;
use crate::error::{ErrorBody, QueryError};
use crate::params::{Id, ListQuery, NoParams, PageParams, WaitParams};
use crate::pipeline::{Api, Rests};
use crate::plan::Plan;
use crate::sql;

/// A call to a model, counted once.
#[derive(Clone, Debug, Default, Row, Serialize, Deserialize, ToSchema)]
#[clickhouse(crate = "fleetlog_store::row")]
pub(crate) struct LlmCall {
    /// Session; empty when none is known.
    pub(crate) session_id: String,
    /// Identity of the call within its session.
    pub(crate) call_key: String,
    /// Event whose usage counts.
    pub(crate) event_id: String,
    /// Time of the call, as that event states it.
    pub(crate) timestamp: Instant,
    /// When it ended; null when not said.
    end_timestamp: Option<Instant>,
    /// Trace.
    pub(crate) trace_id: String,
    /// Span.
    span_id: String,
    /// Turn within the session.
    turn_id: String,
    /// The provider's or SDK's id of the request.
    request_id: String,
    /// Agent that called.
    agent_id: String,
    /// Name or type of that agent.
    agent_name: String,
    /// Person or account.
    user_id: String,
    /// Program that reported it.
    source: String,
    /// Provider of the model.
    provider: String,
    /// Model that answered.
    model: String,
    /// Model that was asked for.
    model_requested: String,
    /// Why the model stopped.
    finish_reason: String,
    /// `unset`, `ok`, `error`, `denied` or `cancelled`.
    status: String,
    /// Class of the error.
    error_type: String,
    /// Text of the error.
    error_message: String,
    /// Attempt number, from 1; null when not said.
    attempt: Option<u32>,
    /// Duration in milliseconds; null when not said.
    duration_ms: Option<f64>,
    /// Time to the first token in milliseconds; null when not said.
    ttft_ms: Option<f64>,
    /// Input tokens neither read from nor written to a cache. The six counts are disjoint.
    in_uncached: u64,
    /// Input tokens read from a cache.
    cache_read: u64,
    /// Input tokens written to a 5-minute cache.
    cache_write_5m: u64,
    /// Input tokens written to a 1-hour cache.
    cache_write_1h: u64,
    /// Output tokens that are not reasoning.
    out_visible: u64,
    /// Output tokens spent on reasoning.
    out_reasoning: u64,
    /// Convention the counts were converted from; `guessed` when it had to be guessed.
    token_basis: String,
    /// Cost as a sender reported it; null when none did.
    cost_reported: Option<Money>,
    /// Cost by the price table; null when the model or its price is unknown.
    cost_computed: Option<Money>,
    /// Version of the price table.
    price_version: String,
    /// Channel whose usage counts.
    channel: String,
    /// Format of the event that counts.
    source_format: String,
    /// Distinct events that report this call.
    pub(crate) sightings: u32,
    /// Channels that report it, most authoritative first, separated by commas.
    channels: String,
    /// Whether any part of how it was counted had to be guessed.
    guessed: bool,
    /// What was guessed, in words; empty when nothing was.
    guess: String,
    /// Events that report it, by time, the first 32 of them.
    pub(crate) event_ids: Vec<String>,
}

/// A tool call, counted once.
#[derive(Clone, Debug, Row, Serialize, Deserialize, ToSchema)]
#[clickhouse(crate = "fleetlog_store::row")]
pub(crate) struct ToolCall {
    /// Identity of the call within its session.
    call_key: String,
    /// Most authoritative event that reports it.
    event_id: String,
    /// Time of the call, as that event states it.
    timestamp: Instant,
    /// When it ended; null when not said.
    end_timestamp: Option<Instant>,
    /// Trace.
    trace_id: String,
    /// Span.
    span_id: String,
    /// Turn within the session.
    turn_id: String,
    /// Agent that called.
    agent_id: String,
    /// Name or type of that agent.
    agent_name: String,
    /// Person or account.
    user_id: String,
    /// Program that reported it.
    source: String,
    /// Finest type known, for instance `command.run`.
    r#type: String,
    /// Tool.
    tool_name: String,
    /// Kind of tool: `builtin`, `mcp`, `agent` or empty.
    tool_kind: String,
    /// MCP server of the tool.
    mcp_server: String,
    /// `unset`, `ok`, `error`, `denied` or `cancelled`.
    status: String,
    /// `accept` or `reject`, when a decision was reported.
    decision: String,
    /// Class of the error.
    error_type: String,
    /// Text of the error.
    error_message: String,
    /// Duration in milliseconds; null when not said.
    duration_ms: Option<f64>,
    /// Exit code of a command; null when not said.
    exit_code: Option<i32>,
    /// File it was about.
    file_path: String,
    /// Lines added; null when not said.
    lines_added: Option<u64>,
    /// Lines removed; null when not said.
    lines_removed: Option<u64>,
    /// Size of the file in bytes; null when not said.
    file_size: Option<u64>,
    /// Bytes of input; null when not said.
    bytes_in: Option<u64>,
    /// Bytes of output; null when not said.
    bytes_out: Option<u64>,
    /// Channel of the most authoritative event.
    channel: String,
    /// Distinct events that report this call.
    sightings: u32,
    /// Channels that report it, most authoritative first, separated by commas.
    channels: String,
    /// Whether any part of how it was counted had to be guessed.
    guessed: bool,
    /// What was guessed, in words; empty when nothing was.
    guess: String,
    /// Events that report it, by time, the first 32 of them.
    event_ids: Vec<String>,
}

/// The sort key of a call: its time and its identity.
type CallKey = (i64, String);

/// The calls to models of a session, oldest first.
#[utoipa::path(
    get,
    path = "/v1/sessions/{id}/calls",
    operation_id = "session_calls",
    tag = "sessions",
    params(("id" = String, Path, description = "The session's id."), PageParams, WaitParams),
    responses(
        (status = 200, body = Page<LlmCall>),
        (status = "4XX", body = ErrorBody),
        (status = 503, body = ErrorBody),
    )
)]
pub(crate) async fn llm(
    State(api): State<Api>,
    caller: Caller,
    Id(session_id): Id,
    query: ListQuery<NoParams, PageParams>,
) -> Result<Json<Page<LlmCall>>, QueryError> {
    of_session(&api, &caller, &session_id, &query, sql::llm_calls, |call: &LlmCall| {
        (call.timestamp.0, call.call_key.clone())
    })
    .await
}

/// The tool calls of a session, oldest first.
#[utoipa::path(
    get,
    path = "/v1/sessions/{id}/tools",
    operation_id = "session_tools",
    tag = "sessions",
    params(("id" = String, Path, description = "The session's id."), PageParams, WaitParams),
    responses(
        (status = 200, body = Page<ToolCall>),
        (status = "4XX", body = ErrorBody),
        (status = 503, body = ErrorBody),
    )
)]
pub(crate) async fn tools(
    State(api): State<Api>,
    caller: Caller,
    Id(session_id): Id,
    query: ListQuery<NoParams, PageParams>,
) -> Result<Json<Page<ToolCall>>, QueryError> {
    of_session(&api, &caller, &session_id, &query, sql::tool_calls, |call: &ToolCall| {
        (call.timestamp.0, call.call_key.clone())
    })
    .await
}

async fn of_session<T: Row + RowOwned + RowRead>(
    api: &Api,
    caller: &Caller,
    session_id: &str,
    query: &ListQuery<NoParams, PageParams>,
    select: fn(&str, &str, Option<&CallKey>, u32) -> sql::Statement,
    key: fn(&T) -> CallKey,
) -> Result<Json<Page<T>>, QueryError> {
    // The session bounds the list; a range of time would only hide a part of it.
    let plan: Plan<CallKey> = api.plan(caller, query, None, api.config().list_pages())?;
    let statement = select(caller.project_id(), session_id, plan.after.as_ref(), plan.fetch());
    let currency = api.current(caller, &query.wait, Rests::Derivations).await?;
    let rows = api.rows::<T>(caller, statement).await?;
    if rows.is_empty() && plan.after.is_none() && bounds(api, caller, session_id).await?.is_none() {
        return Err(NO_SESSION);
    }
    Ok(Json(plan.page(rows, key, currency)))
}

#[cfg(test)]
impl LlmCall {
    /// A call that merges these events.
    pub(crate) fn for_test(event_id: &str, event_ids: &[&str], sightings: u32) -> Self {
        Self {
            call_key: event_id.to_owned(),
            event_id: event_id.to_owned(),
            event_ids: event_ids.iter().map(|id| (*id).to_owned()).collect(),
            sightings,
            ..Self::default()
        }
    }
}
