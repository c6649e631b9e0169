//! Writing facts, each range of the log once (INV-4).

use fleetlog_schemas::{AgentEvent, DeadLetter, Settlement};

use crate::insert::Identity;
use crate::rows::{DeadLetterRow, EventRow, PieceFact, PieceRow, SettlementRow};
use crate::{Store, StoreError};

/// A range of one partition of a topic: the unit of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FactRange {
    /// Topic.
    pub topic: &'static str,
    /// Partition.
    pub partition: i32,
    /// Offset of the first record.
    pub first: i64,
    /// Offset of the last record, itself included.
    pub last: i64,
}

impl FactRange {
    /// The deduplication token of this range's rows in a table: the same for every attempt.
    pub fn token(&self, table: &str) -> String {
        format!("{table}/{}/{}/{}-{}", self.topic, self.partition, self.first, self.last)
    }
}

/// One try to store a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its number, from 1.
    pub number: u32,
    /// ClickHouse refuses to start it after this time, milliseconds of its clock.
    pub insert_before_ms: i64,
}

/// A fact's place in its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Located {
    /// Partition.
    pub partition: i32,
    /// Offset of the record.
    pub offset: i64,
    /// Index within the record.
    pub index: u32,
}

/// Writes all rows of one fact table as one insert.
macro_rules! insert_facts {
    ($(#[$doc:meta])* $method:ident, $table:literal, $fact:ty, $row:ident) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// After an error nobody knows whether the rows are stored: send the same range again.
        ///
        /// # Cancellation
        /// A dropped insert may still be stored.
        pub async fn $method<'a>(
            &self,
            range: &FactRange,
            attempt: &Attempt,
            facts: impl Iterator<Item = (Located, &'a $fact)> + Send,
        ) -> Result<(), StoreError> {
            let identity = identity($table, range, attempt);
            let mut insert = self.insert::<$row<'static>>($table, Some(identity)).await?;
            for (at, fact) in facts {
                insert.write(&$row::new(fact, at, attempt)).await.map_err(StoreError::from_client)?;
            }
            insert.end().await.map_err(StoreError::from_client)
        }
    };
}

impl Store {
    insert_facts! {
        /// Stores a range's events. At most 500,000 rows and 128 MB, so that they are one block.
        insert_events, "events", AgentEvent, EventRow
    }
    insert_facts! {
        /// Stores a range's dead letters, without their bytes.
        insert_dead_letters, "dead_letters", DeadLetter, DeadLetterRow
    }
    insert_facts! {
        /// Stores a range's settlements.
        insert_settlements, "settlements", Settlement, SettlementRow
    }
    insert_facts! {
        /// Stores what became of a range's pieces. Only after their events are stored (INV-6).
        insert_pieces, "piece_settlements", PieceRow, PieceFact
    }
}

fn identity(table: &str, range: &FactRange, attempt: &Attempt) -> Identity {
    let token = range.token(table);
    let query_id = format!("{token}#{}", attempt.number);
    Identity { token, query_id }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_table_topic_partition_and_range() {
        let range = FactRange { topic: "fleetlog.events.v1", partition: 3, first: 7, last: 9 };
        let one = identity("events", &range, &Attempt { number: 1, insert_before_ms: 0 });
        let two = identity("events", &range, &Attempt { number: 2, insert_before_ms: 5 });
        assert_eq!(one.token, "events/fleetlog.events.v1/3/7-9");
        assert_eq!(one.token, two.token);
        assert_ne!(one.query_id, two.query_id);
        assert_ne!(range.token("settlements"), one.token);
    }
}
