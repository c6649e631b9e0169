//! Finding the groups that have facts in a range of time.

use std::collections::HashSet;

use super::progress::{GROUP, HOUR, UnderivedGroup};
use super::{GroupHour, GroupKey};
use crate::{Store, StoreError};

/// Which facts: by their own time, and of one project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Project; all of them when empty.
    pub project_id: String,
    /// Hours, as [`super::hour_of`] counts them, both ends included.
    pub hours: Option<(i32, i32)>,
}

impl Store {
    /// The hours in which there are facts, ascending.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn fact_hours(&self, range: &Range) -> Result<Vec<i32>, StoreError> {
        let sql = format!(
            "SELECT DISTINCT toInt32({HOUR}) AS hour FROM {}.events \
             WHERE ({{project:String}} = '' OR project_id = {{project:String}}) \
               AND {HOUR} >= {{first:Int64}} AND {HOUR} <= {{last:Int64}} ORDER BY hour",
            self.database()
        );
        let (first, last) = range.hours.unwrap_or((i32::MIN, i32::MAX));
        self.read_with(&sql, |query| {
            query.param("project", &range.project_id).param("first", first).param("last", last)
        })
        .await
    }

    /// Groups that have facts in an hour, beyond `after` in the order of (project, kind, id), at most `limit`.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn groups_of_hour(
        &self,
        project_id: &str,
        hour: i32,
        after: Option<&GroupKey>,
        limit: usize,
    ) -> Result<Vec<GroupHour>, StoreError> {
        let sql = format!(
            "SELECT {GROUP}, toInt32({HOUR}) AS hour, toUnixTimestamp(toStartOfDay(max(received_at))) AS received_day, \
               min(log_offset) AS first_offset \
             FROM {}.events WHERE ({{project:String}} = '' OR project_id = {{project:String}}) AND {HOUR} = {{hour:Int64}} \
               AND (toString(project_id), kind, id) > ({{after_project:String}}, {{after_kind:String}}, {{after_id:String}}) \
             GROUP BY project_id, kind, id, hour ORDER BY toString(project_id), kind, id LIMIT {{limit:UInt64}}",
            self.database()
        );
        let after = after.map_or(("", "", ""), |key| (&key.project_id, key.kind.as_str(), &key.id));
        let rows: Vec<UnderivedGroup> = self
            .read_with(&sql, |query| {
                query
                    .param("project", project_id)
                    .param("hour", hour)
                    .param("after_project", after.0)
                    .param("after_kind", after.1)
                    .param("after_id", after.2)
                    .param("limit", limit as u64)
            })
            .await?;
        Ok(rows.iter().map(UnderivedGroup::group_hour).collect())
    }

    /// Groups that have facts which, as far as is recorded, no derivation has seen yet, at most `limit`.
    ///
    /// # Errors
    /// Whatever keeps the queries from being answered.
    pub async fn unsettled_groups(&self, limit: usize) -> Result<HashSet<GroupKey>, StoreError> {
        let beyond = self.beyond_progress().await?;
        let sql = format!(
            "SELECT {GROUP}, toInt32(0) AS hour, toUInt32(0) AS received_day, min(log_offset) AS first_offset \
             FROM {}.events WHERE {} GROUP BY project_id, kind, id LIMIT {{limit:UInt64}}",
            self.database(),
            beyond.condition(),
        );
        let rows: Vec<UnderivedGroup> =
            self.read_with(&sql, |query| beyond.bind(query).param("limit", limit as u64)).await?;
        Ok(rows.iter().map(UnderivedGroup::key).collect())
    }
}
