//! A group's share in a trace: one row, replaced as a whole.

use super::group::GroupKind;
use super::nested::{differing, stored_row};

/// What a group shares in a trace, with the sums over its calls there.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct Trace {
    /// Trace.
    pub trace_id: String,
    /// Name: that of its own record, else of its root span.
    pub name: String,
    /// Person or account.
    pub user_id: String,
    /// Time of the first event, nanoseconds.
    pub started_at: i64,
    /// Time of the last event or its end, nanoseconds.
    pub ended_at: i64,
    /// When the first event was received, nanoseconds.
    pub first_received_at: i64,
    /// When the last event was received, nanoseconds.
    pub last_received_at: i64,
    /// Distinct events; 0 when the group has none of the trace any more.
    pub event_count: u64,
    /// Distinct observations.
    pub observation_count: u64,
    /// Observations and events that failed.
    pub error_count: u64,
    /// Scores.
    pub score_count: u64,
    /// Calls to models.
    pub llm_call_count: u64,
    /// Calls to models that failed.
    pub llm_error_count: u64,
    /// Tool calls.
    pub tool_call_count: u64,
    /// Tool calls that failed.
    pub tool_error_count: u64,
    /// Uncached input tokens.
    pub in_uncached: u64,
    /// Input tokens read from a cache.
    pub cache_read: u64,
    /// Input tokens written to a 5-minute cache.
    pub cache_write_5m: u64,
    /// Input tokens written to a 1-hour cache.
    pub cache_write_1h: u64,
    /// Visible output tokens.
    pub out_visible: u64,
    /// Reasoning tokens.
    pub out_reasoning: u64,
    /// Reported cost, billionths of a dollar.
    pub cost_reported: i64,
    /// Calls with a reported cost.
    pub cost_reported_calls: u64,
    /// Computed cost, billionths of a dollar.
    pub cost_computed: i64,
    /// Calls with a computed cost.
    pub cost_computed_calls: u64,
    /// Calls whose counting involved a guess.
    pub guessed_calls: u64,
}

/// A row of `trace_groups` as it is stored.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct StoredTrace {
    pub(crate) project_id: String,
    pub(crate) group_kind: String,
    pub(crate) group_id: String,
    pub(crate) trace: Trace,
}

stored_row!(StoredTrace);

impl StoredTrace {
    /// Names of its columns, in order.
    pub(crate) const COLUMNS: &'static str = "project_id, group_kind, group_id, trace_id, name, user_id, started_at, ended_at, \
         first_received_at, last_received_at, event_count, observation_count, error_count, score_count, llm_call_count, \
         llm_error_count, tool_call_count, tool_error_count, in_uncached, cache_read, cache_write_5m, cache_write_1h, \
         out_visible, out_reasoning, cost_reported, cost_reported_calls, cost_computed, cost_computed_calls, guessed_calls";

    /// The columns that do not hold what a share says.
    pub(crate) fn differing(&self, trace: &Trace) -> Vec<&'static str> {
        differing!(self.trace, trace; trace_id, name, user_id, started_at, ended_at, first_received_at,
            last_received_at, event_count, observation_count, error_count, score_count, llm_call_count,
            llm_error_count, tool_call_count, tool_error_count, in_uncached, cache_read, cache_write_5m,
            cache_write_1h, out_visible, out_reasoning, cost_reported, cost_reported_calls, cost_computed,
            cost_computed_calls, guessed_calls)
    }
}

/// A row of `trace_groups`.
#[derive(clickhouse::Row, serde::Serialize)]
pub(crate) struct TraceRow<'a> {
    project_id: &'a str,
    trace_id: &'a str,
    group_kind: &'a str,
    group_id: &'a str,
    version: u64,
    name: &'a str,
    user_id: &'a str,
    started_at: i64,
    ended_at: i64,
    first_received_at: i64,
    last_received_at: i64,
    event_count: u64,
    observation_count: u64,
    error_count: u64,
    score_count: u64,
    llm_call_count: u64,
    llm_error_count: u64,
    tool_call_count: u64,
    tool_error_count: u64,
    in_uncached: u64,
    cache_read: u64,
    cache_write_5m: u64,
    cache_write_1h: u64,
    out_visible: u64,
    out_reasoning: u64,
    cost_reported: i64,
    cost_reported_calls: u64,
    cost_computed: i64,
    cost_computed_calls: u64,
    guessed_calls: u64,
}

impl<'a> TraceRow<'a> {
    pub(crate) fn new(
        (project_id, kind, group_id): (&'a str, GroupKind, &'a str),
        version: u64,
        trace: &'a Trace,
    ) -> Self {
        Self {
            project_id,
            trace_id: &trace.trace_id,
            group_kind: kind.as_str(),
            group_id,
            version,
            name: &trace.name,
            user_id: &trace.user_id,
            started_at: trace.started_at,
            ended_at: trace.ended_at,
            first_received_at: trace.first_received_at,
            last_received_at: trace.last_received_at,
            event_count: trace.event_count,
            observation_count: trace.observation_count,
            error_count: trace.error_count,
            score_count: trace.score_count,
            llm_call_count: trace.llm_call_count,
            llm_error_count: trace.llm_error_count,
            tool_call_count: trace.tool_call_count,
            tool_error_count: trace.tool_error_count,
            in_uncached: trace.in_uncached,
            cache_read: trace.cache_read,
            cache_write_5m: trace.cache_write_5m,
            cache_write_1h: trace.cache_write_1h,
            out_visible: trace.out_visible,
            out_reasoning: trace.out_reasoning,
            cost_reported: trace.cost_reported,
            cost_reported_calls: trace.cost_reported_calls,
            cost_computed: trace.cost_computed,
            cost_computed_calls: trace.cost_computed_calls,
            guessed_calls: trace.guessed_calls,
        }
    }
}
