//! What is left of facts that have expired.

use std::collections::{BTreeSet, HashMap};

use super::stored::name;
use super::{DerivedGroup, GroupKey, listed_keys};
use crate::{Store, StoreError};

impl Store {
    /// Every event that was received at this time or later, nanoseconds, is still held; earlier ones may have expired.
    ///
    /// It is the start of a day: of the oldest one that `events` holds, or of the first one that retention does not
    /// reach yet. Retention drops a day in parts, so one that it has reached may be there and not whole. Read it after
    /// the facts: then what was gone when they were read is before it.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn expiry_edge(&self) -> Result<i64, StoreError> {
        // A dropped partition may leave an empty part behind for a while.
        let sql = format!(
            "SELECT toInt64(toUnixTimestamp(greatest( \
               toDateTime(min(toDateOrZero(partition)), 'UTC'), \
               toStartOfDay(now('UTC') - toIntervalDay({})) + toIntervalDay(1)))) * 1000000000 \
             FROM system.parts WHERE active AND rows > 0 AND database = '{}' AND table = 'events'",
            self.retention_days(),
            self.database()
        );
        self.read_one(&sql, self.read_timeout).await
    }

    /// Those of these groups of which some version has seen facts that were received before the edge.
    ///
    /// Reads a group's key and one time; it is the cheap question before [`Store::outlived_groups`].
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn groups_before(&self, edge: i64, keys: &[GroupKey]) -> Result<Vec<GroupKey>, StoreError> {
        let named = listed_keys(keys.iter().map(name));
        let sql = format!(
            "SELECT DISTINCT toString(project_id), toString(group_kind), group_id FROM {}.session_groups \
             WHERE (project_id, group_kind, group_id) IN {named} \
               AND toUnixTimestamp64Nano(first_received_at) < {{edge:Int64}}",
            self.database()
        );
        let found: Vec<(String, String, String)> =
            self.read_with(&sql, |query| named.bind(query).param("edge", edge)).await?;
        let found: BTreeSet<(&str, &str, &str)> =
            found.iter().map(|(project, kind, id)| (project.as_str(), kind.as_str(), id.as_str())).collect();
        Ok(keys.iter().filter(|key| found.contains(&name(key))).cloned().collect())
    }

    /// The stored versions of those of these groups that have seen facts which were received before the edge, with
    /// their shares in the given traces (project, trace), and without what they contribute to usage.
    ///
    /// # Errors
    /// Whatever keeps the queries from being answered.
    pub async fn outlived_groups(
        &self,
        edge: i64,
        keys: &[GroupKey],
        traces: &[(&str, &str)],
    ) -> Result<Vec<DerivedGroup>, StoreError> {
        let named: Vec<(&str, &str, &str)> = keys.iter().map(name).collect();
        let mut shares: HashMap<(String, String, String), Vec<_>> = HashMap::new();
        if !traces.is_empty() {
            for row in self.stored_shares(traces, &named).await? {
                shares.entry((row.project_id, row.group_kind, row.group_id)).or_default().push(row.trace);
            }
        }
        let rows = self.stored_rows(&named).await?;
        let outlived = rows.into_iter().filter(|row| row.first_received_at < edge).filter_map(|row| {
            let of = (row.project_id.clone(), row.group_kind.clone(), row.group_id.clone());
            let key = keys.iter().find(|key| name(key) == (&of.0, &of.1, &of.2))?.clone();
            let (session, calls, tools) = row.into_parts();
            let traces = shares.remove(&of).unwrap_or_default();
            Some(DerivedGroup { key, session, calls, tools, contributions: Vec::new(), traces })
        });
        Ok(outlived.collect())
    }
}
