//! What the derivations read and write.
//!
//! A group is recomputed in this order, and each step can be repeated (design: versions):
//!
//! 1. [`Store::add_group_hours`]: in which hours the group has events, a set that only grows;
//! 2. [`Store::session_traces`] and [`Store::add_trace_sessions`]: which traces name the sessions, a set too;
//! 3. [`Store::next_version`]: the clock, before anything that decides is read;
//! 4. [`Store::trace_namings`] and [`Store::trace_hours`]: whose the events are that name a trace and no session;
//! 5. [`Store::group_hours`], [`Store::summaries`], [`Store::trace_shares`] and [`Store::sightings`]: all facts of the
//!    groups, then [`Store::expiry_edge`] and what [`Store::outlived_groups`] have of facts that are gone;
//! 6. [`Store::write_groups`]: contributions to usage first, then shares in traces, then the groups;
//! 7. [`Store::recompute_usage`]: the minutes and hours touched, each from a clock read of its own;
//! 8. [`Store::record_progress`].

mod expiry;
mod facts;
mod found;
mod progress;
mod repricings;
mod stored;
mod traces;
mod write;

pub use facts::{Adopted, GroupFilter, Sighting, Sightings, Summary};
pub use found::Range;
pub use progress::{DerivedThrough, Progress, Reflected, UnderivedGroup};
pub use repricings::{Repricing, RepricingMark};
pub use stored::{Bucket, Compared, Difference, Part, Scale};
pub use traces::{Naming, SessionTrace, TraceHour, TraceShare};
pub use write::DerivedGroup;

use std::collections::BTreeSet;

use crate::listed::Listed;
use crate::{GroupKind, Store, StoreError};

/// A group's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey {
    /// Project.
    pub project_id: String,
    /// What it is.
    pub kind: GroupKind,
    /// Session id, trace id, or [`loose_id_of`] a minute.
    pub id: String,
}

/// An hour in which a group has events.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupHour {
    /// The group: a session or a trace. A loose minute names its hour itself.
    pub key: GroupKey,
    /// The hour, as [`hour_of`] counts it.
    pub hour: i32,
    /// Start of the day of receipt, seconds since the epoch; how long the hour is remembered depends on it.
    pub received_day: u32,
}

#[derive(clickhouse::Row, serde::Serialize)]
struct GroupHourRow<'a> {
    project_id: &'a str,
    group_kind: &'a str,
    group_id: &'a str,
    hour: i32,
    last_received_at: u32,
}

impl Store {
    /// Adds to the set of hours of groups.
    ///
    /// # Errors
    /// After an error, add them again before anything is recomputed.
    pub async fn add_group_hours(&self, hours: &[GroupHour]) -> Result<(), StoreError> {
        if hours.is_empty() {
            return Ok(());
        }
        let mut insert = self.insert::<GroupHourRow<'static>>("group_hours", None).await?;
        for hour in hours {
            let row = GroupHourRow {
                project_id: &hour.key.project_id,
                group_kind: hour.key.kind.as_str(),
                group_id: &hour.key.id,
                hour: hour.hour,
                last_received_at: hour.received_day,
            };
            insert.write(&row).await.map_err(StoreError::from_client)?;
        }
        insert.end().await.map_err(StoreError::from_client)
    }

    /// All hours in which any of the groups has events.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn group_hours(&self, keys: &[GroupKey]) -> Result<BTreeSet<i32>, StoreError> {
        let keys = listed_keys(keys.iter().map(stored::name));
        let sql = format!(
            "SELECT DISTINCT hour FROM {}.group_hours WHERE (project_id, group_kind, group_id) IN {keys}",
            self.database()
        );
        let hours: Vec<i32> = self.read_with(&sql, |query| keys.bind(query)).await?;
        Ok(hours.into_iter().collect())
    }
}

/// Groups as statements name them: project, kind and id.
fn listed_keys<'k>(
    keys: impl IntoIterator<Item = (&'k str, &'k str, &'k str)>,
) -> Listed<(&'k str, &'k str, &'k str)> {
    Listed::new("keys", "Tuple(String, String, String)", keys)
}

/// Traces as statements name them: project and id.
fn listed_traces<'t>(traces: impl IntoIterator<Item = (&'t str, &'t str)>) -> Listed<(&'t str, &'t str)> {
    Listed::new("traces", "Tuple(String, String)", traces)
}

const HOUR_NS: i64 = 3600 * 1_000_000_000;
const MINUTE_NS: i64 = 60 * 1_000_000_000;

/// The hour of a time in nanoseconds, counted from 1970, as the order of `events` has it. The hour around 1970 is two
/// hours long, because the division cuts towards zero.
pub const fn hour_of(timestamp_ns: i64) -> i32 {
    // INVARIANT: an i64 of nanoseconds is at most 2.6 million hours from 1970.
    (timestamp_ns / HOUR_NS) as i32
}

/// The id of the loose group that a time belongs to: the start of its minute, seconds since 1970.
pub const fn loose_id_of(timestamp_ns: i64) -> i64 {
    timestamp_ns / MINUTE_NS * 60
}

/// The minute of usage that a time belongs to: seconds since the epoch, held within what `DateTime` can say.
pub fn minute_of(timestamp_ns: i64) -> u32 {
    let seconds = timestamp_ns.div_euclid(MINUTE_NS).saturating_mul(60);
    u32::try_from(seconds.max(0)).unwrap_or(u32::MAX - u32::MAX % 60)
}
