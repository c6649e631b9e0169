//! What a group contributes to a minute of usage.

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::group::GroupKind;
use super::nested::{joined, nested, row_columns, stored_row};

nested! {
    /// Sums over calls with the same dimensions.
    UsageRow, StoredUsage in "usage" {
        /// Program that reported the calls.
        "source" source: String,
        /// Provider.
        "provider" provider: String,
        /// Model that answered.
        "model" model: String,
        /// The agent's name.
        "agent_name" agent_name: String,
        /// Person or account.
        "user_id" user_id: String,
        /// Calls.
        "calls" calls: u64,
        /// Calls that failed.
        "errors" errors: u64,
        /// Uncached input tokens.
        "in_uncached" in_uncached: u64,
        /// Input tokens read from a cache.
        "cache_read" cache_read: u64,
        /// Input tokens written to a 5-minute cache.
        "cache_write_5m" cache_write_5m: u64,
        /// Input tokens written to a 1-hour cache.
        "cache_write_1h" cache_write_1h: u64,
        /// Visible output tokens.
        "out_visible" out_visible: u64,
        /// Reasoning tokens.
        "out_reasoning" out_reasoning: u64,
        /// Reported cost, billionths of a dollar.
        "cost_reported" cost_reported: i64,
        /// Calls with a reported cost.
        "cost_reported_calls" cost_reported_calls: u64,
        /// Computed cost, billionths of a dollar.
        "cost_computed" cost_computed: i64,
        /// Calls with a computed cost.
        "cost_computed_calls" cost_computed_calls: u64,
        /// Durations, microseconds: whole numbers, so that their sum does not depend on the order.
        "duration_us" duration_us: u64,
        /// Calls with a duration.
        "duration_calls" duration_calls: u64,
        /// Calls whose counting involved a guess.
        "guessed_calls" guessed_calls: u64,
    }
}

/// What a group contributes to one minute; empty when nothing of it counts there any more.
#[derive(Clone, Debug, PartialEq)]
pub struct Contribution {
    /// Start of the minute, seconds since the epoch.
    pub minute: u32,
    /// Sums by dimensions, in the order of the dimensions.
    pub usage: Vec<UsageRow>,
}

/// A row of `usage_contributions` as it is stored.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct StoredContribution {
    pub(crate) project_id: String,
    pub(crate) group_kind: String,
    pub(crate) group_id: String,
    pub(crate) minute: u32,
    usage: StoredUsage,
}

stored_row!(StoredContribution);

impl StoredContribution {
    /// Names of its columns, in order.
    pub(crate) fn columns() -> String {
        ["project_id", "group_kind", "group_id", "minute"]
            .iter()
            .chain(UsageRow::COLUMNS)
            .copied()
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// The columns that do not hold these sums.
    pub(crate) fn differing(&self, usage: &[UsageRow]) -> Vec<&'static str> {
        self.usage.differing(usage)
    }
}

/// A row of `usage_contributions`.
pub(crate) struct ContributionRow<'a> {
    pub(crate) project_id: &'a str,
    pub(crate) kind: GroupKind,
    pub(crate) group_id: &'a str,
    pub(crate) version: u64,
    pub(crate) contribution: &'a Contribution,
}

const OWN: &[&str] = &["project_id", "minute", "group_kind", "group_id", "version"];
const COUNT: usize = OWN.len() + UsageRow::COLUMNS.len();

row_columns!(ContributionRow, COUNT, &joined::<COUNT>(&[OWN, UsageRow::COLUMNS]));

impl Serialize for ContributionRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut row = serializer.serialize_struct("ContributionRow", COUNT)?;
        row.serialize_field("project_id", self.project_id)?;
        row.serialize_field("minute", &self.contribution.minute)?;
        row.serialize_field("group_kind", self.kind.as_str())?;
        row.serialize_field("group_id", self.group_id)?;
        row.serialize_field("version", &self.version)?;
        UsageRow::serialize_columns(&self.contribution.usage, &mut row)?;
        row.end()
    }
}
