//! `/v1/completeness`: what became of every record that the gateway counted (INV-6).

use axum::Json;
use axum::extract::State;
use fleetlog_schemas::record::SpoolStanding;
use fleetlog_store::row::Row;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::answer::{Instant, Page};
use crate::auth::Caller;
use crate::error::{ErrorBody, QueryError};
use crate::ledger::{Partition, Standing};
use crate::params::{ListParams, ListQuery, NoParams, WaitParams};
use crate::pipeline::{Api, Rests};
use crate::plan::Plan;
use crate::sql;
use crate::time_range::NS_PER_S;

/// Length of a window, seconds.
const WINDOW_S: u32 = 10;

/// A window as the store gives it.
#[derive(Clone, Debug, Row, Deserialize)]
#[clickhouse(crate = "fleetlog_store::row")]
struct WindowRow {
    window_s: i64,
    batches: u64,
    records: u64,
    stored: u64,
    duplicate: u64,
    filtered: u64,
    dead: u64,
    context: u64,
    in_flight: u64,
    lost: u64,
    excess: u64,
    unsettled_batches: u64,
    /// Batches that are not settled and may still be on their way.
    moving_batches: u64,
}

/// What became of the records of accepted requests. Every record has one fate:
/// `records = stored + duplicate + filtered + dead + context + in_flight + lost`, and more only by `excess`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Row, Serialize, Deserialize, ToSchema)]
#[clickhouse(crate = "fleetlog_store::row")]
pub(crate) struct Fates {
    /// Accepted requests, or pieces of them, that are processed at least in part.
    batches: u64,
    /// Records as the gateway counted them when it accepted their requests, without those it rejected.
    records: u64,
    /// Records of which at least one event is stored.
    stored: u64,
    /// Records all of whose events were stored already.
    duplicate: u64,
    /// Records dropped by policy.
    filtered: u64,
    /// Records that became dead letters.
    dead: u64,
    /// Records that only gave context to others.
    context: u64,
    /// Records that are processed and not known to be stored yet. Requests that are not processed yet are not in it, and
    /// in no window: they are the `in_flight` of `partitions`.
    in_flight: u64,
    /// Records that are neither stored nor on their way: missing of requests below the `settled_below` of their partition.
    lost: u64,
    /// Records that were stored beyond those that the gateway counted.
    excess: u64,
    /// Batches of which something is stored and whose count is not there yet: their `records` are what is stored so far.
    unsettled_batches: u64,
}

/// Records accepted within 10 s, and what became of them.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Window {
    /// Start of the window, by the gateway's time of acceptance.
    window: Instant,
    #[serde(flatten)]
    fates: Fates,
    /// Nothing of this window is on its way any more: what is missing now is lost.
    complete: bool,
    /// Each record that the gateway counted is accounted for, and no other.
    balanced: bool,
}

/// A partition of the raw log, with the requests of all projects.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct RawPartition {
    /// Its number; the first part of a receipt's places.
    partition: u32,
    /// Every request below this place, as far back as is looked at, is settled or known to be lost.
    settled_below: i64,
    /// First place still in the log.
    log_start: i64,
    /// Place of the next request.
    log_end: i64,
    /// Acknowledged requests, of all projects, that are not settled in the store yet.
    in_flight: u64,
    /// Acknowledged requests, of all projects, found lost lately.
    lost: u64,
}

/// A gateway that has a spool, and what it held when it last told. It may have more since; what it has is acknowledged and
/// in no partition, so `complete_through` passes neither `oldest` nor `as_of`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Spool {
    /// The gateway's id.
    gateway: String,
    /// Acknowledged requests, or pieces of them, of all projects, that wait in its spool.
    records: u64,
    /// None of them was accepted before this time. Null when there are none.
    oldest: Option<Instant>,
    /// When it told this. A time that stands still is of a gateway that does not run or does not reach Kafka.
    as_of: Instant,
}

/// A page of windows with the totals of the whole range.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CompletenessPage {
    #[serde(flatten)]
    page: Page<Window>,
    /// Sums over the whole range, the windows of other pages included.
    totals: Fates,
    /// Length of a window in seconds.
    window_s: u32,
    /// Everything acknowledged before this time is stored or known to be lost. Null: not proven.
    settled_through: Option<Instant>,
    /// How far the raw log is settled. Empty while nothing is known of it.
    partitions: Vec<RawPartition>,
    /// The gateways with a spool.
    spools: Vec<Spool>,
}

impl WindowRow {
    fn window(self, decided_s: i64) -> Window {
        let fates = Fates {
            batches: self.batches,
            records: self.records,
            stored: self.stored,
            duplicate: self.duplicate,
            filtered: self.filtered,
            dead: self.dead,
            context: self.context,
            in_flight: self.in_flight,
            lost: self.lost,
            excess: self.excess,
            unsettled_batches: self.unsettled_batches,
        };
        Window {
            window: Instant(self.window_s.saturating_mul(NS_PER_S)),
            fates,
            complete: self.window_s < decided_s && self.moving_batches == 0,
            balanced: fates.balance(),
        }
    }
}

impl Fates {
    fn balance(&self) -> bool {
        self.in_flight + self.lost + self.excess + self.unsettled_batches == 0
    }
}

/// Windows that begin before this (seconds) are decided: everything acknowledged until their end, and as long after as a
/// request may take through a gateway, is settled.
fn decided_s(standing: &Standing, margin_ms: u64) -> i64 {
    let Some(settled_ns) = standing.settled_ns else { return 0 };
    let margin_ns = i64::try_from(margin_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
    settled_ns.saturating_sub(margin_ns).div_euclid(i64::from(WINDOW_S) * NS_PER_S) * i64::from(WINDOW_S)
}

fn partitions(standing: &Standing) -> Vec<RawPartition> {
    let of = |(number, partition): (u32, &Partition)| RawPartition {
        partition: number,
        settled_below: partition.settled_below(),
        log_start: partition.log().start,
        log_end: partition.log().end,
        in_flight: partition.in_flight(),
        lost: partition.lost(),
    };
    (0..).zip(standing.partitions.iter()).map(of).collect()
}

fn spools(standing: &Standing) -> Vec<Spool> {
    let of = |spool: &SpoolStanding| Spool {
        gateway: spool.gateway_id.clone(),
        records: spool.records,
        oldest: spool.oldest.map(Instant),
        as_of: Instant(spool.as_of),
    };
    standing.spools.iter().map(of).collect()
}

/// What became of the records accepted in a range of time, in windows of 10 s, newest first. Windows without records are
/// left out; the range is widened to whole windows.
///
/// What the gateway counted is the count that travels with each accepted request. A request that is acknowledged and not
/// processed yet is in no window, because whose it is and what it holds is not looked at before: `partitions` counts such
/// requests, of all projects. A request that a gateway holds in its spool is not in the log, so not in `partitions` either:
/// `spools` counts such requests by gateway, and no window that may hold one is `complete`.
#[utoipa::path(
    get,
    path = "/v1/completeness",
    operation_id = "completeness",
    tag = "operation",
    params(ListParams, WaitParams),
    responses(
        (status = 200, body = CompletenessPage),
        (status = "4XX", body = ErrorBody),
        (status = 503, body = ErrorBody),
    )
)]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    query: ListQuery<NoParams>,
) -> Result<Json<CompletenessPage>, QueryError> {
    let config = api.config();
    let plan: Plan<i64> = api.plan(&caller, &query, config.completeness_ranges(), config.list_pages())?;
    let range = plan.range.aligned(WINDOW_S);
    let currency = api.current(&caller, &query.wait, Rests::Facts).await?;
    // Before the statement: what is decided by then is what it sees.
    let standing = api.standing();
    let decided_s = decided_s(&standing, config.completeness_margin_ms);
    let settled_below: Vec<i64> = standing.partitions.iter().map(Partition::settled_below).collect();
    let project_id = caller.project_id();
    let rows = sql::completeness(project_id, range, &settled_below, plan.after, plan.fetch());
    let totals = sql::completeness_totals(project_id, range, &settled_below);
    let (rows, totals) =
        futures::try_join!(api.rows::<WindowRow>(&caller, rows), api.rows::<Fates>(&caller, totals))?;
    let mut page = plan.page(rows, |row| row.window_s, currency).map(|row| row.window(decided_s));
    page.range = Some(range.into());
    Ok(Json(CompletenessPage {
        page,
        totals: totals.first().copied().unwrap_or_default(),
        window_s: WINDOW_S,
        settled_through: standing.settled_ns.map(Instant),
        partitions: partitions(&standing),
        spools: spools(&standing),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_decided_once_its_end_and_a_requests_way_are_settled() {
        let at = |settled_ns| decided_s(&Standing { settled_ns, ..Standing::default() }, 15_000);
        assert_eq!(at(None), 0);
        // The window from 100 ends at 110, and its last request may be acknowledged until 125.
        assert_eq!((at(Some(125 * NS_PER_S - 1)), at(Some(125 * NS_PER_S))), (100, 110));
    }
}
