//! `/v1/usage`: calls, tokens and cost over time, from the rollups.

use axum::Json;
use axum::extract::State;
use fleetlog_store::row::Row;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::answer::{Instant, Money, Page};
use crate::auth::Caller;
use crate::error::{ErrorBody, QueryError};
use crate::params::{self, ListParams, ListQuery, WaitParams};
use crate::pipeline::{Api, Rests};
use crate::plan::Plan;
use crate::sql::{self, Dimension, UsageFilter, UsageKey};
use crate::time_range::NS_PER_S;

/// Most buckets of one series: more than a chart shows, fewer than a statement groups in its time.
const MAX_BUCKETS: i64 = 50_000;

/// A row of sums, as the store gives it.
#[derive(Clone, Debug, Row, Deserialize)]
#[clickhouse(crate = "fleetlog_store::row")]
struct UsageRow {
    bucket_s: i64,
    by_source: String,
    by_provider: String,
    by_model: String,
    by_agent: String,
    by_user: String,
    calls: u64,
    errors: u64,
    in_uncached: u64,
    cache_read: u64,
    cache_write_5m: u64,
    cache_write_1h: u64,
    out_visible: u64,
    out_reasoning: u64,
    cost_reported: Money,
    cost_reported_calls: u64,
    cost_computed: Money,
    cost_computed_calls: u64,
    duration_ms: f64,
    duration_calls: u64,
    guessed_calls: u64,
}

impl UsageRow {
    fn key(&self) -> UsageKey {
        let dimensions = [&self.by_source, &self.by_provider, &self.by_model, &self.by_agent, &self.by_user];
        (self.bucket_s, dimensions.map(Clone::clone))
    }

    fn sums(&self) -> Sums {
        Sums {
            calls: self.calls,
            errors: self.errors,
            in_uncached: self.in_uncached,
            cache_read: self.cache_read,
            cache_write_5m: self.cache_write_5m,
            cache_write_1h: self.cache_write_1h,
            out_visible: self.out_visible,
            out_reasoning: self.out_reasoning,
            in_total: self.in_uncached + self.cache_read + self.cache_write_5m + self.cache_write_1h,
            out_total: self.out_visible + self.out_reasoning,
            cost_reported: self.cost_reported,
            cost_reported_calls: self.cost_reported_calls,
            cost_computed: self.cost_computed,
            cost_computed_calls: self.cost_computed_calls,
            duration_ms: self.duration_ms,
            duration_calls: self.duration_calls,
            guessed_calls: self.guessed_calls,
        }
    }

    fn bucket(self, by: &[Dimension]) -> UsageBucket {
        let wanted = |dimension, value: &String| by.contains(&dimension).then(|| value.clone());
        UsageBucket {
            bucket: Instant(self.bucket_s.saturating_mul(NS_PER_S)),
            source: wanted(Dimension::Source, &self.by_source),
            provider: wanted(Dimension::Provider, &self.by_provider),
            model: wanted(Dimension::Model, &self.by_model),
            agent: wanted(Dimension::Agent, &self.by_agent),
            user: wanted(Dimension::User, &self.by_user),
            sums: self.sums(),
        }
    }
}

/// Sums over calls to models, each counted once.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct Sums {
    /// Calls to models.
    calls: u64,
    /// Calls that failed.
    errors: u64,
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
    /// Sum of the durations in milliseconds.
    duration_ms: f64,
    /// Calls with a duration: `duration_ms / duration_calls` is the mean.
    duration_calls: u64,
    /// Calls whose counting involved a guess.
    guessed_calls: u64,
}

/// Usage of one bucket of time and one combination of the dimensions that were asked for.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct UsageBucket {
    /// Start of the bucket.
    bucket: Instant,
    /// Program that reported the calls; only when grouped by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// Provider of the model; only when grouped by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    /// Model that answered; only when grouped by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// Agent's name or type; only when grouped by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<String>,
    /// Person or account; only when grouped by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(flatten)]
    sums: Sums,
}

/// A page of usage with the totals of the whole range.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsagePage {
    #[serde(flatten)]
    page: Page<UsageBucket>,
    /// Sums over the whole range, the buckets of other pages included.
    totals: Sums,
    /// Length of a bucket in seconds.
    step_s: u32,
}

/// Which usage, and how it is split.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct UsageParams {
    /// Length of a bucket: whole minutes, hours or days (`1m`, `15m`, `1h`, `1d`), by default an hour. The range is
    /// widened to whole buckets.
    #[param(example = "1h")]
    step: Option<String>,
    /// Splits the sums by these, separated by commas: `source`, `provider`, `model`, `agent`, `user`.
    #[param(example = "model,agent")]
    group_by: Option<String>,
    /// Only calls that this program reported.
    source: Option<String>,
    /// Only calls to models of this provider.
    provider: Option<String>,
    /// Only calls that this model answered.
    model: Option<String>,
    /// Only calls of agents with this name or type.
    agent: Option<String>,
    /// Only calls of this person or account.
    user: Option<String>,
}

impl UsageParams {
    fn filter(&self) -> UsageFilter {
        UsageFilter {
            source: self.source.clone(),
            provider: self.provider.clone(),
            model: self.model.clone(),
            agent: self.agent.clone(),
            user: self.user.clone(),
        }
    }

    fn dimensions(&self) -> Result<Vec<Dimension>, QueryError> {
        let known = Dimension::ALL.map(Dimension::as_str);
        let words = params::words("group_by", self.group_by.as_deref(), &known)?;
        Ok(words.into_iter().filter_map(Dimension::parse).collect())
    }

    fn step_s(&self) -> Result<u32, QueryError> {
        let Some(text) = &self.step else { return Ok(3_600) };
        step_s(text).ok_or_else(|| QueryError::BadParameter {
            name: "step".to_owned(),
            message: "must be whole minutes, hours or days, for instance 1m, 15m, 1h or 1d".to_owned(),
        })
    }
}

fn step_s(text: &str) -> Option<u32> {
    let (count, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit_s = match unit {
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let step_s = count.parse::<u32>().ok()?.checked_mul(unit_s)?;
    (step_s > 0).then_some(step_s)
}

/// Calls, tokens and cost of a range of time, in buckets, oldest first.
#[utoipa::path(
    get,
    path = "/v1/usage",
    operation_id = "usage",
    tag = "usage",
    params(UsageParams, ListParams, WaitParams),
    responses(
        (status = 200, body = UsagePage),
        (status = "4XX", body = ErrorBody),
        (status = 503, body = ErrorBody),
    )
)]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    query: ListQuery<UsageParams>,
) -> Result<Json<UsagePage>, QueryError> {
    let (step_s, by, filter) = (query.filters.step_s()?, query.filters.dimensions()?, query.filters.filter());
    let plan: Plan<UsageKey> =
        api.plan(&caller, &query, api.config().usage_ranges(), api.config().usage_pages())?;
    let range = plan.range.aligned(step_s);
    if (range.to_ns - range.from_ns) / (i64::from(step_s) * NS_PER_S) > MAX_BUCKETS {
        return Err(QueryError::BadParameter {
            name: "step".to_owned(),
            message: format!("the range has more than {MAX_BUCKETS} buckets of this length"),
        });
    }
    let series = (range, step_s);
    let project_id = caller.project_id();
    let currency = api.current(&caller, &query.wait, Rests::Derivations).await?;
    let rows = sql::usage(project_id, series, &filter, &by, plan.after.as_ref(), plan.fetch());
    let totals = sql::usage_totals(project_id, series, &filter);
    let (rows, totals) =
        futures::try_join!(api.rows::<UsageRow>(&caller, rows), api.rows::<UsageRow>(&caller, totals))?;
    let mut page = plan.page(rows, UsageRow::key, currency).map(|row| row.bucket(&by));
    page.range = Some(range.into());
    Ok(Json(UsagePage { page, totals: totals.first().map(UsageRow::sums).unwrap_or_default(), step_s }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_whole_number_of_minutes() {
        assert_eq!(step_s("1m"), Some(60));
        assert_eq!(step_s("15m"), Some(900));
        assert_eq!(step_s("1d"), Some(86_400));
        for text in ["", "m", "0m", "30s", "1.5h", "-1h", "99999999d", "1ü"] {
            assert_eq!(step_s(text), None, "{text}");
        }
    }
}
