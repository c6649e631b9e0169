//! The proof that a reader sees its own project only (INV-10).
//!
//! The filters are row policies of a server, or part of the users file of the embedded engine; both are listed in
//! `system.row_policies`. A reader that starts without this proof could show one project's rows to another.

use std::collections::HashMap;
use std::time::Duration;

use fleetlog_schemas::ddl::{TABLES, row_policies};

use crate::{Store, StoreError};

#[derive(clickhouse::Row, serde::Deserialize)]
struct PolicyRow {
    table: String,
    filter: String,
    applies: bool,
}

impl Store {
    /// Confines readers where that is possible from here, and says whether they are confined.
    pub(crate) async fn confine(&self) -> Result<bool, StoreError> {
        if self.verify_row_policies().await.is_ok() {
            return Ok(true);
        }
        for statement in row_policies(&self.parameters) {
            match self.execute(&statement, Duration::from_secs(30)).await {
                Ok(()) => {}
                Err(error @ (StoreError::Denied { .. } | StoreError::Statement { .. })) => {
                    tracing::warn!(%error, "row policies cannot be created from here; the query API will refuse to start");
                    return Ok(false);
                }
                // The embedded engine's access storage is read-only (code 495): its users file is written before start.
                Err(StoreError::Unavailable(error)) if error.contains("Code: 495") => {
                    tracing::warn!(%error, "the engine was started without the row filters; the query API will refuse to start");
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        match self.verify_row_policies().await {
            Ok(()) => Ok(true),
            Err(StoreError::NotConfined { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Proves that every table is confined for this connection's user.
    ///
    /// # Errors
    /// [`StoreError::NotConfined`] with the tables that are not: whoever reads for a project must not start.
    pub async fn verify_row_policies(&self) -> Result<(), StoreError> {
        let sql = format!(
            "SELECT table, ifNull(select_filter, '') AS filter, \
             (apply_to_all AND NOT has(apply_to_except, currentUser())) OR has(apply_to_list, currentUser()) AS applies \
             FROM system.row_policies WHERE database = '{}' AND is_restrictive = 0",
            self.database()
        );
        let policies: Vec<PolicyRow> = self.read_all(&sql).await?;
        let tables = unconfined(&policies);
        if tables.is_empty() { Ok(()) } else { Err(StoreError::NotConfined { tables }) }
    }
}

/// Tables for which the policies that apply are not exactly ours. Permissive policies widen each other, so one that
/// says something else is as bad as none.
fn unconfined(policies: &[PolicyRow]) -> Vec<String> {
    let mut by_table: HashMap<&str, Vec<&PolicyRow>> = HashMap::new();
    for policy in policies.iter().filter(|policy| policy.applies) {
        by_table.entry(&policy.table).or_default().push(policy);
    }
    TABLES
        .iter()
        .filter(|(table, readers)| {
            let wanted = bare(readers.filter());
            !by_table
                .get(table)
                .is_some_and(|found| found.iter().all(|policy| bare(&policy.filter) == wanted))
        })
        .map(|(table, _)| (*table).to_owned())
        .collect()
}

/// A filter without what ClickHouse adds when it prints it.
fn bare(filter: &str) -> String {
    filter.chars().filter(|c| !matches!(c, '(' | ')' | ' ' | '`' | '\n')).collect()
}

#[cfg(test)]
mod tests {
    use fleetlog_schemas::ddl::Readers;

    use super::*;

    fn policy(table: &str, filter: &str, applies: bool) -> PolicyRow {
        PolicyRow { table: table.to_owned(), filter: filter.to_owned(), applies }
    }

    #[test]
    fn a_table_counts_as_confined_only_when_nothing_widens_it() {
        let ours: Vec<PolicyRow> =
            TABLES.iter().map(|(table, readers)| policy(table, readers.filter(), true)).collect();
        assert!(unconfined(&ours).is_empty());

        let printed = "(getSetting('log_comment') = '') OR (project_id = getSetting('log_comment'))";
        assert_eq!(bare(printed), bare(Readers::Project.filter()));

        let mut widened = ours;
        widened.push(policy("events", "1", true));
        assert_eq!(unconfined(&widened), ["events"]);
        widened.retain(|policy| policy.table != "sessions" && policy.table != "settlements");
        widened.push(policy("settlements", Readers::Project.filter(), false));
        assert_eq!(unconfined(&widened), ["events", "settlements"]);
    }
}
