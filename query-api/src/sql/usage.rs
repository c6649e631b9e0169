//! SELECTs over the usage rollups.

use super::{Builder, Param, Statement};
use crate::time_range::{NS_PER_S, TimeRange};

/// What usage can be split by: the rollups' own dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dimension {
    /// Program that reported the calls.
    Source,
    /// Provider of the model.
    Provider,
    /// Model that answered.
    Model,
    /// Agent's name or type.
    Agent,
    /// Person or account.
    User,
}

impl Dimension {
    /// Every dimension, in the order of the columns.
    pub(crate) const ALL: [Self; 5] = [Self::Source, Self::Provider, Self::Model, Self::Agent, Self::User];

    /// Its name in requests and answers.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Provider => "provider",
            Self::Model => "model",
            Self::Agent => "agent",
            Self::User => "user",
        }
    }

    /// The dimension a word names.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dimension| dimension.as_str() == word)
    }

    /// Its column of the answer: the rollup's when it is asked for, else the same for all rows.
    const fn column(self, wanted: bool) -> &'static str {
        match (self, wanted) {
            (Self::Source, true) => ", source AS by_source",
            (Self::Source, false) => ", '' AS by_source",
            (Self::Provider, true) => ", provider AS by_provider",
            (Self::Provider, false) => ", '' AS by_provider",
            (Self::Model, true) => ", model AS by_model",
            (Self::Model, false) => ", '' AS by_model",
            (Self::Agent, true) => ", agent_name AS by_agent",
            (Self::Agent, false) => ", '' AS by_agent",
            (Self::User, true) => ", user_id AS by_user",
            (Self::User, false) => ", '' AS by_user",
        }
    }
}

/// Which usage is added up.
#[derive(Clone, Debug, Default)]
pub(crate) struct UsageFilter {
    /// Program that reported the calls.
    pub(crate) source: Option<String>,
    /// Provider of the model.
    pub(crate) provider: Option<String>,
    /// Model that answered.
    pub(crate) model: Option<String>,
    /// Agent's name or type.
    pub(crate) agent: Option<String>,
    /// Person or account.
    pub(crate) user: Option<String>,
}

/// The sort key of a usage row: the bucket's start in seconds, then all dimensions in their order.
pub(crate) type UsageKey = (i64, [String; 5]);

const SUMS: &str = ",
  sum(calls) AS calls, sum(errors) AS errors, sum(in_uncached) AS in_uncached, sum(cache_read) AS cache_read,
  sum(cache_write_5m) AS cache_write_5m, sum(cache_write_1h) AS cache_write_1h, sum(out_visible) AS out_visible,
  sum(out_reasoning) AS out_reasoning, toDecimal64(sum(cost_reported), 9) AS cost_reported,
  sum(cost_reported_calls) AS cost_reported_calls, toDecimal64(sum(cost_computed), 9) AS cost_computed,
  sum(cost_computed_calls) AS cost_computed_calls, sum(duration_ms) AS duration_ms,
  sum(duration_calls) AS duration_calls, sum(guessed_calls) AS guessed_calls";

/// Usage in buckets of `step_s` seconds, oldest first, split by `by`.
///
/// The range must be aligned to the step ([`TimeRange::aligned`]), the step a whole number of minutes.
pub(crate) fn usage(
    project_id: &str,
    (range, step_s): (TimeRange, u32),
    filter: &UsageFilter,
    by: &[Dimension],
    after: Option<&UsageKey>,
    limit: u32,
) -> Statement {
    let bucket = "SELECT
  toInt64(intDiv(toUnixTimestamp(bucket), {step:UInt64}) * {step:UInt64}) AS bucket_s";
    let mut query = Builder::select(bucket).bind("step", Param::UInt(u64::from(step_s)));
    query = summed(query, project_id, range, rollup(step_s), filter, by)
        .push("\nGROUP BY bucket_s, by_source, by_provider, by_model, by_agent, by_user");
    if let Some((bucket_s, [source, provider, model, agent, user])) = after {
        query = query
            .push(
                "\nHAVING (bucket_s, by_source, by_provider, by_model, by_agent, by_user) > ({after_s:Int64}, {after_source:String}, {after_provider:String}, {after_model:String}, {after_agent:String}, {after_user:String})",
            )
            .bind("after_s", Param::Int(*bucket_s))
            .bind("after_source", Param::Text(source.clone()))
            .bind("after_provider", Param::Text(provider.clone()))
            .bind("after_model", Param::Text(model.clone()))
            .bind("after_agent", Param::Text(agent.clone()))
            .bind("after_user", Param::Text(user.clone()));
    }
    query
        .push("\nORDER BY bucket_s, by_source, by_provider, by_model, by_agent, by_user")
        .limit(limit)
        .build()
}

/// The sums over the whole range, in one row; no row has more buckets than the series they are the totals of.
pub(crate) fn usage_totals(
    project_id: &str,
    (range, step_s): (TimeRange, u32),
    filter: &UsageFilter,
) -> Statement {
    let query = Builder::select("SELECT\n  toInt64(0) AS bucket_s");
    summed(query, project_id, range, rollup(step_s), filter, &[]).build()
}

/// Seconds of a bound, within what a rollup's `DateTime` can hold.
fn bucket_bound(ns: i64) -> i64 {
    ns.div_euclid(NS_PER_S).clamp(0, i64::from(u32::MAX))
}

/// Whole hours are added up from the hourly rollup, anything finer from the minutes.
const fn rollup(step_s: u32) -> &'static str {
    if step_s.is_multiple_of(3_600) { "\nFROM usage_1h" } else { "\nFROM usage_1m" }
}

fn summed(
    mut query: Builder,
    project_id: &str,
    range: TimeRange,
    rollup: &'static str,
    filter: &UsageFilter,
    by: &[Dimension],
) -> Builder {
    for dimension in Dimension::ALL {
        query = query.push(dimension.column(by.contains(&dimension)));
    }
    query
        .push(SUMS)
        .push(rollup)
        .project(project_id)
        .and_int("bucket >= toDateTime({from_s:Int64}, 'UTC')", "from_s", bucket_bound(range.from_ns))
        .and_int("bucket < toDateTime({to_s:Int64}, 'UTC')", "to_s", bucket_bound(range.to_ns))
        .and_some("source = {source:String}", "source", filter.source.as_deref())
        .and_some("provider = {provider:String}", "provider", filter.provider.as_deref())
        .and_some("model = {model:String}", "model", filter.model.as_deref())
        .and_some("agent_name = {agent:String}", "agent", filter.agent.as_deref())
        .and_some("user_id = {user:String}", "user", filter.user.as_deref())
}
