//! `/v1/traces`, `/v1/traces/{id}` and `/v1/scores`: traces, what they consist of, and what was thought of them.

use std::collections::{HashMap, HashSet};

use axum::Json;
use axum::extract::State;
use fleetlog_schemas::event::UsageRole;
use fleetlog_store::row::Row;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::answer::{Instant, Money, One, Page};
use crate::auth::Caller;
use crate::error::{ErrorBody, QueryError};
use crate::params::{self, Id, ListParams, ListQuery, NoParams, Params, WaitParams};
use crate::pipeline::{Api, Rests};
use crate::plan::Plan;
use crate::sql::{self, ScoreFilter, TraceFilter};
use crate::time_range::TimeRange;

/// Most observations and most scores that one trace's answer has.
const PARTS_MAX: u32 = 5_000;

/// A trace with its counts, tokens and costs; every call counts once, however many channels reported it.
#[derive(Clone, Debug, Row, Serialize, Deserialize, ToSchema)]
#[clickhouse(crate = "fleetlog_store::row")]
pub(crate) struct Trace {
    /// Trace.
    trace_id: String,
    /// Name: that of its own record, else of its root span.
    name: String,
    /// Session; empty when none is known.
    session_id: String,
    /// Person or account.
    user_id: String,
    /// Time of its first event.
    started_at: Instant,
    /// Time of its last event or its end.
    ended_at: Instant,
    /// Time between the two in milliseconds.
    duration_ms: f64,
    /// Events, repeats counted once.
    event_count: u64,
    /// Observations: spans, calls and steps with an id of their own.
    observation_count: u64,
    /// Observations and events that failed.
    error_count: u64,
    /// Scores that name the trace; one that was sent again with another value counts again.
    score_count: u64,
    /// Calls to models.
    llm_call_count: u64,
    /// Calls to models that failed.
    llm_error_count: u64,
    /// Tool calls.
    tool_call_count: u64,
    /// Tool calls that failed.
    tool_error_count: u64,
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
    /// Calls with a computed cost.
    cost_computed_calls: u64,
    /// Calls whose counting involved a guess.
    guessed_calls: u64,
}

/// A part of a trace: a span, a call, a step. Merged from the pieces in which it was reported.
#[derive(Clone, Debug, Default, Row, Serialize, Deserialize, ToSchema)]
#[clickhouse(crate = "fleetlog_store::row")]
pub(crate) struct Observation {
    /// Id within the trace.
    observation_id: String,
    /// Observation it is part of; empty at the root.
    parent_id: String,
    /// `llm.request`, `tool.call`, `agent.step`, `span` and so on.
    r#type: String,
    /// Name.
    name: String,
    /// Program that reported it.
    source: String,
    /// `span`, or `api` where an SDK reported it.
    channel: String,
    /// When it began.
    started_at: Instant,
    /// When it ended; null while that is not said.
    ended_at: Option<Instant>,
    /// Duration in milliseconds; null when not known.
    duration_ms: Option<f64>,
    /// `unset`, `ok`, `error`, `denied` or `cancelled`.
    status: String,
    /// Severity.
    level: String,
    /// Class of the error.
    error_type: String,
    /// Text of the error.
    error_message: String,
    /// Name or type of the agent.
    agent_name: String,
    /// Person or account.
    user_id: String,
    /// Provider of the model.
    provider: String,
    /// Model that answered.
    model: String,
    /// Tool.
    tool_name: String,
    /// What the counts describe: `none`, `call`, `rollup` or `cumulative`.
    usage_role: String,
    /// Input tokens neither read from nor written to a cache, as this observation states them.
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
    /// Cost as the sender reported it; null when not reported.
    cost_reported: Option<Money>,
    /// Cost by the price table; null when unknown.
    cost_computed: Option<Money>,
    /// Bytes of input; null when not said.
    bytes_in: Option<u64>,
    /// Bytes of output; null when not said.
    bytes_out: Option<u64>,
    /// Scores that name the trace; one that was sent again with another value counts again.
    score_count: u64,
    /// Distinct events that report it.
    pieces: u64,
    /// The latest of these events.
    event_id: String,
}

impl Observation {
    /// Whether no single one of its pieces says enough to be priced, but its call may have been.
    fn may_be_priced(&self) -> bool {
        self.pieces > 1 && self.cost_computed.is_none() && self.usage_role == UsageRole::Call.as_str()
    }
}

/// What the call of a span cost.
#[derive(Clone, Debug, Row, Serialize, Deserialize)]
#[clickhouse(crate = "fleetlog_store::row")]
struct SpanCost {
    span_id: String,
    cost_computed: Option<Money>,
}

/// An observation at its place in the tree.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Node {
    /// Steps from the root.
    depth: u32,
    #[serde(flatten)]
    observation: Observation,
}

/// A judgement of a trace, an observation or a session.
#[derive(Clone, Debug, Row, Serialize, Deserialize, ToSchema)]
#[clickhouse(crate = "fleetlog_store::row")]
pub(crate) struct Score {
    /// Id that its sender gave it; of Opik's, which have none, what is judged and the name; else that of its event.
    score_id: String,
    /// When it was given.
    timestamp: Instant,
    /// Trace that is judged; empty where only an observation or a session is named.
    trace_id: String,
    /// Observation that is judged; empty when it is the whole trace or session.
    observation_id: String,
    /// Session that is judged, or that was named beside the trace.
    session_id: String,
    /// Name.
    name: String,
    /// Program that gave it.
    source: String,
    /// As a number, true being 1; null where there is only a word.
    value: Option<f64>,
    /// As it was written; the word where there is a number beside it.
    text: String,
    /// `NUMERIC`, `CATEGORICAL`, `BOOLEAN` or `TEXT`, in the sender's words.
    data_type: String,
    /// Comment, or reason.
    comment: String,
}

/// A trace with all of its parts.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct WholeTrace {
    #[serde(flatten)]
    trace: Trace,
    /// The tree, each observation before its children, brothers by the time at which they began. One whose parent is
    /// not there stands at the root.
    observations: Vec<Node>,
    /// Whether there are more observations or scores than an answer has.
    truncated: bool,
    /// What was thought of it and of its observations, newest first.
    scores: Vec<Score>,
}

/// Which traces.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct TraceParams {
    /// Only traces of this session.
    session: Option<String>,
    /// Only traces of this person or account.
    user: Option<String>,
    /// Only traces of this name.
    name: Option<String>,
    /// `error` for traces in which something failed.
    status: Option<String>,
}

/// Traces that were active in a range of time, newest first.
#[utoipa::path(
    get,
    path = "/v1/traces",
    operation_id = "list_traces",
    tag = "traces",
    params(TraceParams, ListParams, WaitParams),
    responses(
        (status = 200, body = Page<Trace>),
        (status = "4XX", body = ErrorBody),
        (status = 503, body = ErrorBody),
    )
)]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    query: ListQuery<TraceParams>,
) -> Result<Json<Page<Trace>>, QueryError> {
    let plan: Plan<(i64, String)> =
        api.plan(&caller, &query, api.config().list_ranges(), api.config().list_pages())?;
    let TraceParams { session, user, name, status } = query.filters;
    let failed = !params::words("status", status.as_deref(), &["error"])?.is_empty();
    let filter = TraceFilter { session, user, name, failed };
    let statement = sql::traces(caller.project_id(), plan.range, &filter, plan.after.as_ref(), plan.fetch());
    let currency = api.current(&caller, &query.wait, Rests::Derivations).await?;
    let rows = api.rows::<Trace>(&caller, statement).await?;
    Ok(Json(plan.page(rows, |row| (row.started_at.0, row.trace_id.clone()), currency)))
}

/// One trace with the tree of its observations and its scores.
#[utoipa::path(
    get,
    path = "/v1/traces/{id}",
    operation_id = "get_trace",
    tag = "traces",
    params(("id" = String, Path, description = "The trace's id."), WaitParams),
    responses(
        (status = 200, body = One<WholeTrace>),
        (status = "4XX", body = ErrorBody),
        (status = 503, body = ErrorBody),
    )
)]
pub(crate) async fn one(
    State(api): State<Api>,
    caller: Caller,
    Id(trace_id): Id,
    Params(NoParams {}, wait): Params<NoParams>,
) -> Result<Json<One<WholeTrace>>, QueryError> {
    let project_id = caller.project_id();
    let currency = api.current(&caller, &wait, Rests::Derivations).await?;
    let found = api.rows::<Trace>(&caller, sql::trace(project_id, &trace_id)).await?;
    let trace = found.into_iter().next().ok_or(QueryError::NotFound { what: "trace" })?;
    let statement = sql::observations(project_id, &trace_id, PARTS_MAX + 1);
    let mut observations = api.rows::<Observation>(&caller, statement).await?;
    let filter = ScoreFilter { trace: Some(trace_id), ..ScoreFilter::default() };
    let statement = sql::scores(project_id, TimeRange::ALWAYS, &filter, None, PARTS_MAX + 1);
    let mut scores = api.rows::<Score>(&caller, statement).await?;
    let most = PARTS_MAX as usize;
    let truncated = observations.len() > most || scores.len() > most;
    observations.truncate(most);
    scores.truncate(most);
    if observations.iter().any(Observation::may_be_priced) {
        let statement = sql::costs_of_trace(project_id, &trace.session_id, &trace.trace_id, PARTS_MAX);
        price(&mut observations, api.rows::<SpanCost>(&caller, statement).await?);
    }
    Ok(Json(One {
        data: WholeTrace { trace, observations: tree(observations), truncated, scores },
        currency,
    }))
}

/// Gives observations that came in pieces the costs of their calls, which were priced when all pieces were known.
fn price(observations: &mut [Observation], costs: Vec<SpanCost>) {
    let costs: HashMap<String, Option<Money>> =
        costs.into_iter().map(|cost| (cost.span_id, cost.cost_computed)).collect();
    for observation in observations.iter_mut().filter(|observation| observation.may_be_priced()) {
        observation.cost_computed = costs.get(&observation.observation_id).copied().flatten();
    }
}

/// Observations in the order of their tree, given in the order of their times.
///
/// Flat with a depth, not nested: a chain of thousands would be as many levels of JSON. Those whose parents form a
/// circle follow at the end as if the first of them were a root.
fn tree(observations: Vec<Observation>) -> Vec<Node> {
    let ids: HashSet<&str> = observations.iter().map(|part| part.observation_id.as_str()).collect();
    let mut children: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut roots = Vec::new();
    for (place, part) in observations.iter().enumerate() {
        if ids.contains(part.parent_id.as_str()) && part.parent_id != part.observation_id {
            children.entry(&part.parent_id).or_default().push(place);
        } else {
            roots.push(place);
        }
    }
    let mut seen = vec![false; observations.len()];
    let mut order: Vec<(usize, u32)> = Vec::with_capacity(observations.len());
    for root in roots.into_iter().chain(0..observations.len()) {
        let mut open = vec![(root, 0)];
        while let Some((place, depth)) = open.pop() {
            let Some((part, seen)) = observations.get(place).zip(seen.get_mut(place)) else { continue };
            if std::mem::replace(seen, true) {
                continue;
            }
            order.push((place, depth));
            let below = children.get(part.observation_id.as_str()).into_iter().flatten();
            open.extend(below.rev().map(|child| (*child, depth.saturating_add(1))));
        }
    }
    let mut observations: Vec<Option<Observation>> = observations.into_iter().map(Some).collect();
    order
        .into_iter()
        .filter_map(|(place, depth)| {
            let observation = observations.get_mut(place)?.take()?;
            Some(Node { depth, observation })
        })
        .collect()
}

/// Which scores.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ScoreParams {
    /// Only scores of this trace and of its observations.
    trace: Option<String>,
    /// Only scores of this observation.
    observation: Option<String>,
    /// Only scores of this session.
    session: Option<String>,
    /// Only scores of this name.
    name: Option<String>,
}

/// Scores given in a range of time, newest first.
#[utoipa::path(
    get,
    path = "/v1/scores",
    operation_id = "list_scores",
    tag = "traces",
    params(ScoreParams, ListParams, WaitParams),
    responses(
        (status = 200, body = Page<Score>),
        (status = "4XX", body = ErrorBody),
        (status = 503, body = ErrorBody),
    )
)]
pub(crate) async fn scores(
    State(api): State<Api>,
    caller: Caller,
    query: ListQuery<ScoreParams>,
) -> Result<Json<Page<Score>>, QueryError> {
    let plan: Plan<(i64, String)> =
        api.plan(&caller, &query, api.config().list_ranges(), api.config().list_pages())?;
    let ScoreParams { trace, observation, session, name } = query.filters;
    let filter = ScoreFilter { trace, observation, session, name };
    let statement = sql::scores(caller.project_id(), plan.range, &filter, plan.after.as_ref(), plan.fetch());
    let currency = api.current(&caller, &query.wait, Rests::Facts).await?;
    let rows = api.rows::<Score>(&caller, statement).await?;
    Ok(Json(plan.page(rows, |row| (row.timestamp.0, row.score_id.clone()), currency)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(id: &str, parent: &str) -> Observation {
        Observation { observation_id: id.to_owned(), parent_id: parent.to_owned(), ..Observation::default() }
    }

    fn order(parts: &[(&str, &str)]) -> Vec<(String, u32)> {
        tree(parts.iter().map(|(id, parent)| part(id, parent)).collect())
            .into_iter()
            .map(|node| (node.observation.observation_id, node.depth))
            .collect()
    }

    fn expected(nodes: &[(&str, u32)]) -> Vec<(String, u32)> {
        nodes.iter().map(|(id, depth)| ((*id).to_owned(), *depth)).collect()
    }

    #[test]
    fn children_follow_their_parents_in_the_order_of_time() {
        let parts = [("b", "root"), ("root", ""), ("c", "root"), ("b2", "b"), ("b1", "b"), ("lost", "gone")];
        assert_eq!(
            order(&parts),
            expected(&[("root", 0), ("b", 1), ("b2", 2), ("b1", 2), ("c", 1), ("lost", 0)])
        );
    }

    #[test]
    fn a_circle_hides_nothing_and_ends() {
        assert_eq!(order(&[("a", "b"), ("b", "a"), ("c", "c")]), expected(&[("c", 0), ("a", 0), ("b", 1)]));
    }

    #[test]
    fn a_chain_of_thousands_stays_flat() {
        let ids: Vec<String> = (0..=PARTS_MAX).map(|n| n.to_string()).collect();
        let parts: Vec<(&str, &str)> = ids.windows(2).map(|w| (w[1].as_str(), w[0].as_str())).collect();
        assert_eq!(order(&parts).last().unwrap().1, PARTS_MAX - 1);
    }
}
