//! `/v1/sessions/{id}/timeline`: the events of a session in the order in which they happened.

use axum::Json;
use axum::extract::State;
use fleetlog_store::row::Row;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::answer::{Instant, Page};
use crate::auth::Caller;
use crate::endpoints::events::{self, Event};
use crate::endpoints::sessions::NO_SESSION;
use crate::error::{ErrorBody, QueryError};
use crate::params::{Id, ListParams, ListQuery, WaitParams};
use crate::pipeline::{Api, Rests};
use crate::plan::Plan;
use crate::sql::{self, EventFilter, EventKey, Order};
use crate::time_range::{NS_PER_S, RangePolicy, TimeRange};

/// How far before its first and after its last known event a session is looked at: what was stored after the session
/// was last derived lies there. The derivation is seconds behind, and an hour costs one more granule.
const MARGIN_NS: i64 = 3_600 * NS_PER_S;

/// Which events of the session.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct TimelineParams {
    /// Only these types, separated by commas.
    r#type: Option<String>,
    /// `data` to get `context` and `data` too.
    include: Option<String>,
}

/// When a session's first and last events were.
#[derive(Row, Deserialize)]
#[clickhouse(crate = "fleetlog_store::row")]
pub(crate) struct Bounds {
    started_at: Instant,
    ended_at: Instant,
}

/// The events of a session, oldest first. Without `from` and `to` it is the whole session.
#[utoipa::path(
    get,
    path = "/v1/sessions/{id}/timeline",
    operation_id = "session_timeline",
    tag = "sessions",
    params(("id" = String, Path, description = "The session's id."), TimelineParams, ListParams, WaitParams),
    responses(
        (status = 200, body = Page<Event>),
        (status = "4XX", body = ErrorBody),
        (status = 503, body = ErrorBody),
    )
)]
pub(crate) async fn timeline(
    State(api): State<Api>,
    caller: Caller,
    Id(session_id): Id,
    query: ListQuery<TimelineParams>,
) -> Result<Json<Page<Event>>, QueryError> {
    let payload = events::payload(query.filters.include.as_deref())?;
    let types = events::types(query.filters.r#type.as_deref())?;
    // The session itself bounds what is read, whatever its length: one event with an absurd time makes it decades long.
    let policy = RangePolicy { max_days: u32::MAX, ..api.config().list_ranges() };
    let mut plan: Plan<EventKey> = api.plan(&caller, &query, policy, api.config().event_pages(payload))?;
    // The events are facts; where to look for them is derived.
    let currency = api.current(&caller, &query.wait, Rests::Derivations).await?;
    let first_page = plan.after.is_none();
    if first_page && query.list.from.is_none() && query.list.to.is_none() {
        // A session that is not derived yet began moments ago: the default range has it.
        if let Some(bounds) = bounds(&api, &caller, &session_id).await? {
            plan.range = whole(&bounds);
        }
    }
    let filter = EventFilter { session: Some(session_id.clone()), types, ..EventFilter::default() };
    let order = (Order::Oldest, payload);
    let statement = sql::events(caller.project_id(), plan.range, &filter, order, plan.after, plan.fetch());
    let Json(page) = events::page(&api, &caller, &plan, statement, currency).await?;
    if first_page && page.data.is_empty() && bounds(&api, &caller, &session_id).await?.is_none() {
        return Err(NO_SESSION);
    }
    Ok(Json(page))
}

/// The session's bounds, if there is such a session.
pub(crate) async fn bounds(
    api: &Api,
    caller: &Caller,
    session_id: &str,
) -> Result<Option<Bounds>, QueryError> {
    let statement = sql::session_bounds(caller.project_id(), session_id);
    Ok(api.rows::<Bounds>(caller, statement).await?.into_iter().next())
}

fn whole(bounds: &Bounds) -> TimeRange {
    TimeRange {
        from_ns: bounds.started_at.0.saturating_sub(MARGIN_NS),
        to_ns: bounds.ended_at.0.saturating_add(MARGIN_NS),
    }
}
