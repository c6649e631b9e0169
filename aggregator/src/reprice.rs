//! Applies today's price table to calls of the past.
//!
//! What is repriced is recorded as a fact first, with the table itself, and then every group of the range is derived
//! again. Every later derivation reads the record after its version's clock, as it reads facts; so the one with the
//! highest version knows it, and none undoes it. Events stay as they are.

use fleetlog_pricing::PriceTable;
use fleetlog_store::Store;
use fleetlog_store::derived::{Range, Repricing, hour_of};

use crate::config::Config;
use crate::error::AggregatorError;
use crate::rederive::{Rederivation, Report, Step, rederive};

/// Most repricings kept: each holds a table in the memory of every aggregator.
const MOST: u64 = 1000;

/// Which calls are to be repriced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repricings {
    /// Project; all of them when empty.
    pub project_id: String,
    /// Model, where `*` stands for any text.
    pub model: String,
    /// Calls from this time on, nanoseconds.
    pub from: i64,
    /// Calls before this time, nanoseconds.
    pub until: i64,
}

/// Records that calls cost what the configured table says, and derives them again.
///
/// # Errors
/// [`AggregatorError`] when the store cannot be used or the price table is broken. Once it is recorded, it holds: what is
/// not derived again yet will be, with the same call or [`rederive`].
pub async fn reprice(
    config: &Config,
    which: &Repricings,
    tell: impl FnMut(Step),
) -> Result<Report, AggregatorError> {
    let store = Store::new(&config.clickhouse)?;
    let sheets = config.prices.sheets()?;
    let versions = config.prices.table()?;
    let (known, _) = store.repricing_mark().await?;
    if known >= MOST {
        return Err(AggregatorError::TooManyRepricings { known });
    }
    let version = store.next_version().await?;
    let repricing = Repricing {
        repriced_at: i64::try_from(version).unwrap_or(i64::MAX),
        project_id: which.project_id.clone(),
        model: which.model.clone(),
        from_time: which.from,
        until_time: which.until,
        versions: PriceTable::versions(&versions).map(str::to_owned).collect(),
        sheets,
    };
    store.add_repricing(&repricing).await?;
    let hours = Some((hour_of(which.from), hour_of(which.until.saturating_sub(1))));
    let range = Range { project_id: which.project_id.clone(), hours };
    rederive(config, &Rederivation { range, check: false }, tell).await
}
