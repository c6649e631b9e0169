//! `/v1/sessions` and `/v1/sessions/{id}`: sessions with their totals, as the derivations keep them.

use axum::Json;
use axum::extract::State;
use fleetlog_store::row::Row;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::answer::{Instant, Money, One, Page};
use crate::auth::Caller;
use crate::error::{ErrorBody, QueryError};
use crate::params::{self, Id, ListParams, ListQuery, NoParams, Params, WaitParams};
use crate::pipeline::{Api, Rests};
use crate::plan::Plan;
use crate::sql;

/// A session with its counts, tokens and costs; every call counts once, however many channels reported it.
#[derive(Clone, Debug, Row, Serialize, Deserialize, ToSchema)]
#[clickhouse(crate = "fleetlog_store::row")]
pub(crate) struct Session {
    /// Session.
    pub(crate) session_id: String,
    /// Time of its first event.
    pub(crate) started_at: Instant,
    /// Time of its last event so far.
    ended_at: Instant,
    /// Time between the two in milliseconds.
    duration_ms: f64,
    /// `ended` when an end was reported, else `open`.
    status: String,
    /// Events, repeats counted once.
    event_count: u64,
    /// Prompts given.
    prompt_count: u64,
    /// Errors outside any call.
    error_count: u64,
    /// Calls to models.
    llm_call_count: u64,
    /// Calls to models that failed.
    llm_error_count: u64,
    /// Tool calls.
    tool_call_count: u64,
    /// Tool calls that failed.
    tool_error_count: u64,
    /// Tool calls that were refused.
    tool_denied_count: u64,
    /// Names of its agents.
    agents: Vec<String>,
    /// Models that answered.
    models: Vec<String>,
    /// Persons or accounts.
    users: Vec<String>,
    /// Machines.
    hosts: Vec<String>,
    /// Programs that emitted its events.
    sources: Vec<String>,
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
    /// Sum of the four input counts.
    in_total: u64,
    /// Sum of the two output counts.
    out_total: u64,
    /// Sum of the costs the senders reported.
    cost_reported: Money,
    /// Calls with a reported cost.
    cost_reported_calls: u64,
    /// Sum of the costs by the price table.
    cost_computed: Money,
    /// Calls with a computed cost; fewer than `llm_call_count` when a price is unknown.
    cost_computed_calls: u64,
    /// Calls whose counting involved a guess.
    guessed_calls: u64,
    /// Lines added by its tool calls.
    lines_added: u64,
    /// Lines removed by its tool calls.
    lines_removed: u64,
}

/// Which sessions.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SessionParams {
    /// Only sessions with an agent of this name.
    agent: Option<String>,
    /// Only sessions of this person or account.
    user: Option<String>,
    /// Only sessions in which this model answered.
    model: Option<String>,
    /// `open` or `ended`.
    status: Option<String>,
    /// Only sessions with events of this program.
    source: Option<String>,
}

impl SessionParams {
    fn filter(&self) -> Result<sql::SessionFilter, QueryError> {
        let statuses = params::words("status", self.status.as_deref(), &["open", "ended"])?;
        Ok(sql::SessionFilter {
            agent: self.agent.clone(),
            user: self.user.clone(),
            model: self.model.clone(),
            // Both words together exclude nothing.
            status: (statuses.len() == 1).then(|| statuses.concat()),
            source: self.source.clone(),
        })
    }
}

/// Sessions that were active in a range of time, newest first.
#[utoipa::path(
    get,
    path = "/v1/sessions",
    operation_id = "list_sessions",
    tag = "sessions",
    params(SessionParams, ListParams, WaitParams),
    responses(
        (status = 200, body = Page<Session>),
        (status = "4XX", body = ErrorBody),
        (status = 503, body = ErrorBody),
    )
)]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    query: ListQuery<SessionParams>,
) -> Result<Json<Page<Session>>, QueryError> {
    let plan: Plan<(i64, String)> =
        api.plan(&caller, &query, api.config().list_ranges(), api.config().list_pages())?;
    let filter = query.filters.filter()?;
    let statement =
        sql::sessions(caller.project_id(), plan.range, &filter, plan.after.as_ref(), plan.fetch());
    let currency = api.current(&caller, &query.wait, Rests::Derivations).await?;
    let rows = api.rows::<Session>(&caller, statement).await?;
    Ok(Json(plan.page(rows, |row| (row.started_at.0, row.session_id.clone()), currency)))
}

/// One session with its totals.
#[utoipa::path(
    get,
    path = "/v1/sessions/{id}",
    operation_id = "get_session",
    tag = "sessions",
    params(("id" = String, Path, description = "The session's id."), WaitParams),
    responses(
        (status = 200, body = One<Session>),
        (status = "4XX", body = ErrorBody),
        (status = 503, body = ErrorBody),
    )
)]
pub(crate) async fn one(
    State(api): State<Api>,
    caller: Caller,
    Id(session_id): Id,
    Params(NoParams {}, wait): Params<NoParams>,
) -> Result<Json<One<Session>>, QueryError> {
    let currency = api.current(&caller, &wait, Rests::Derivations).await?;
    let rows = api.rows::<Session>(&caller, sql::session(caller.project_id(), &session_id)).await?;
    let data = rows.into_iter().next().ok_or(NO_SESSION)?;
    Ok(Json(One { data, currency }))
}

/// The answer to an id of another project is the same as to one that does not exist.
pub(crate) const NO_SESSION: QueryError = QueryError::NotFound { what: "session" };
