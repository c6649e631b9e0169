//! Writing groups and usage, each row with its version.

use std::collections::BTreeSet;

use super::GroupKey;
use crate::listed::Listed;
use crate::rows::{ContributionRow, GroupRow, TraceRow};
use crate::{Call, Contribution, Session, Store, StoreError, Tool, Trace};

/// A recomputed group.
#[derive(Clone, Debug)]
pub struct DerivedGroup {
    /// Its name.
    pub key: GroupKey,
    /// What it says as a whole.
    pub session: Session,
    /// Its calls to models, each once.
    pub calls: Vec<Call>,
    /// Its tool calls, each once.
    pub tools: Vec<Tool>,
    /// What it contributes to usage: one entry for each minute with a sighting, empty ones included.
    pub contributions: Vec<Contribution>,
    /// What it shares in traces: one entry for each trace of its events, empty ones included.
    pub traces: Vec<Trace>,
}

impl Store {
    /// Writes new versions of groups: what they contribute to usage and share in traces first, then the groups
    /// themselves.
    ///
    /// # Errors
    /// After an error, recompute them under a new version.
    pub async fn write_groups(&self, groups: &[DerivedGroup], version: u64) -> Result<(), StoreError> {
        if groups.iter().any(|group| !group.contributions.is_empty()) {
            let mut insert = self.insert::<ContributionRow<'static>>("usage_contributions", None).await?;
            for group in groups {
                for contribution in &group.contributions {
                    let row = ContributionRow {
                        project_id: &group.key.project_id,
                        kind: group.key.kind,
                        group_id: &group.key.id,
                        version,
                        contribution,
                    };
                    insert.write(&row).await.map_err(StoreError::from_client)?;
                }
            }
            insert.end().await.map_err(StoreError::from_client)?;
        }
        self.write_traces(groups, version).await?;
        if groups.is_empty() {
            return Ok(());
        }
        let mut insert = self.insert::<GroupRow<'static>>("session_groups", None).await?;
        for group in groups {
            let row = GroupRow {
                project_id: &group.key.project_id,
                kind: group.key.kind,
                group_id: &group.key.id,
                version,
                session: &group.session,
                calls: &group.calls,
                tools: &group.tools,
            };
            insert.write(&row).await.map_err(StoreError::from_client)?;
        }
        insert.end().await.map_err(StoreError::from_client)
    }

    async fn write_traces(&self, groups: &[DerivedGroup], version: u64) -> Result<(), StoreError> {
        if groups.iter().all(|group| group.traces.is_empty()) {
            return Ok(());
        }
        let mut insert = self.insert::<TraceRow<'static>>("trace_groups", None).await?;
        for DerivedGroup { key, traces, .. } in groups {
            for trace in traces {
                let row = TraceRow::new((&key.project_id, key.kind, &key.id), version, trace);
                insert.write(&row).await.map_err(StoreError::from_client)?;
            }
        }
        insert.end().await.map_err(StoreError::from_client)
    }

    /// Recomputes minutes of usage from what the groups contribute, then the hours they lie in from their minutes.
    ///
    /// Call it after the groups are written. A minute to which nothing counts any more gets an empty version.
    ///
    /// # Errors
    /// After an error, call it again with the same minutes.
    pub async fn recompute_usage(&self, minutes: &BTreeSet<(String, u32)>) -> Result<(), StoreError> {
        let hours: BTreeSet<(String, u32)> =
            minutes.iter().map(|(project, minute)| (project.clone(), minute - minute % 3600)).collect();
        for chunk in chunks(minutes) {
            self.recompute(["usage_1m_groups", "usage_contributions", "minute", "minute"], chunk, 60).await?;
        }
        for chunk in chunks(&hours) {
            let of = ["usage_1h_groups", "usage_1m_groups", "bucket", "toStartOfHour(bucket)"];
            self.recompute(of, chunk, 3600).await?;
        }
        Ok(())
    }

    /// Recomputes buckets of a width as [`Self::usage_statement`] does.
    async fn recompute(
        &self,
        of: [&str; 4],
        buckets: Vec<(&str, u32)>,
        width: u32,
    ) -> Result<(), StoreError> {
        let Some(first) = buckets.iter().map(|(_, start)| *start).min() else { return Ok(()) };
        let last = buckets.iter().map(|(_, start)| *start).max().unwrap_or(first);
        let buckets = Listed::new("buckets", "Tuple(String, UInt32)", buckets);
        let sql = self.usage_statement(of, &buckets);
        // The clock is read before the snapshot that the statement reads (design: versions).
        let version = self.next_version().await?;
        let query = self
            .client
            .query_raw(&sql)
            .with_setting("max_execution_time", self.read_timeout.as_secs().to_string())
            .with_setting("log_comment", "")
            .with_setting("insert_deduplicate", "0")
            .with_setting("optimize_on_insert", "0")
            .param("version", version)
            // As a number: text of fewer than five digits is no time to ClickHouse, and the first hours of 1970 have fewer.
            .param("first", first)
            .param("end", last.saturating_add(width));
        crate::store::limited(self.read_timeout, buckets.bind(query).execute()).await
    }

    /// `INSERT … SELECT` that sums the rows of `from` into one row per bucket.
    ///
    /// The left array join keeps a bucket whose rows are all empty; its arrays come out empty.
    fn usage_statement(
        &self,
        [into, from, time, bucket]: [&str; 4],
        buckets: &Listed<(&str, u32)>,
    ) -> String {
        let db = self.database();
        let arrays = USAGE_KEYS
            .iter()
            .chain(USAGE_SUMS)
            .map(|column| format!("usage.{column}"))
            .collect::<Vec<_>>()
            .join(", ");
        let keys = USAGE_KEYS.join(", ");
        let grouped = USAGE_KEYS
            .iter()
            .chain(USAGE_SUMS)
            .map(|column| format!("groupArrayIf({column}, calls > 0)"))
            .collect::<Vec<_>>()
            .join(", ");
        let sums = self.usage_sums(
            from,
            time,
            bucket,
            &format!("(project_id, toUnixTimestamp({bucket})) IN {buckets}"),
        );
        format!(
            "INSERT INTO {db}.{into} (project_id, bucket, version, {arrays}) \
             SELECT project_id, start, {{version:UInt64}}, {grouped} FROM ( \
               {sums} ORDER BY project_id, start, {keys} \
             ) GROUP BY project_id, start"
        )
    }

    /// The sums that the rows of `from` make within `first` and `end`, one row per bucket and combination of dimensions.
    pub(super) fn usage_sums(&self, from: &str, time: &str, bucket: &str, which: &str) -> String {
        let db = self.database();
        let keys = USAGE_KEYS.join(", ");
        let sums = USAGE_SUMS
            .iter()
            .map(|column| format!("sum(u.{column}) AS {column}"))
            .collect::<Vec<_>>()
            .join(", ");
        let inputs = USAGE_KEYS
            .iter()
            .chain(USAGE_SUMS)
            .map(|column| format!("usage.{column} AS {column}"))
            .collect::<Vec<_>>()
            .join(", ");
        format!(
            "SELECT project_id, start, {keys}, {sums} FROM ( \
               SELECT project_id, {bucket} AS start, {inputs} FROM {db}.{from} FINAL LEFT ARRAY JOIN usage \
               WHERE {time} >= toDateTime({{first:UInt32}}, 'UTC') AND {time} < toDateTime({{end:UInt32}}, 'UTC') AND {which} \
             ) AS u GROUP BY project_id, start, {keys}"
        )
    }
}

pub(super) const USAGE_KEYS: &[&str] = &["source", "provider", "model", "agent_name", "user_id"];
pub(super) const USAGE_SUMS: &[&str] = &[
    "calls",
    "errors",
    "in_uncached",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "out_visible",
    "out_reasoning",
    "cost_reported",
    "cost_reported_calls",
    "cost_computed",
    "cost_computed_calls",
    "duration_us",
    "duration_calls",
    "guessed_calls",
];

/// Buckets a statement may name; bounds its memory.
const BUCKETS_PER_STATEMENT: usize = 2000;

/// Neighbours in time together, so that each statement reads a short range.
fn chunks(buckets: &BTreeSet<(String, u32)>) -> Vec<Vec<(&str, u32)>> {
    let mut sorted: Vec<(&str, u32)> =
        buckets.iter().map(|(project, start)| (project.as_str(), *start)).collect();
    sorted.sort_unstable_by_key(|(project, start)| (*start, *project));
    sorted.chunks(BUCKETS_PER_STATEMENT).map(<[_]>::to_vec).collect()
}
