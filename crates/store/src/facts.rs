//! Writing facts, each range of the log once (INV-4).

use std::collections::HashSet;

use fleetlog_schemas::{AgentEvent, DeadLetter, Settlement};

use crate::insert::Identity;
use crate::rows::{DeadLetterRow, EventRow, PieceFact, PieceRow, SettlementRow};
use crate::{Store, StoreError};

/// A table of facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactTable {
    /// `events`.
    Events,
    /// `piece_settlements`.
    Pieces,
    /// `settlements`.
    Settlements,
    /// `dead_letters`.
    DeadLetters,
}

impl FactTable {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Events, Self::Pieces, Self::Settlements, Self::DeadLetters];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Pieces => "piece_settlements",
            Self::Settlements => "settlements",
            Self::DeadLetters => "dead_letters",
        }
    }

    /// What tells its facts apart, as [`FactId::key`] is made.
    fn key(self) -> String {
        // The raw position: beyond 64 bits, and negative numbers by their bits.
        let raw = |index: &str| {
            format!(
                "bitOr(bitOr(bitShiftLeft(toUInt128(toUInt32(raw_partition)), 96), \
                 bitShiftLeft(toUInt128(toUInt64(raw_offset)), 32)), toUInt128(toUInt32({index})))"
            )
        };
        match self {
            Self::Events => "dedup_key".to_owned(),
            Self::Pieces => raw("first_index"),
            Self::Settlements => raw("0"),
            Self::DeadLetters => raw("raw_index"),
        }
    }

    /// Name of the table that takes the same rows and keeps none ([`Store::renew_probe`]).
    pub const fn probe(self) -> &'static str {
        match self {
            Self::Events => "events_probe",
            Self::Pieces => "piece_settlements_probe",
            Self::Settlements => "settlements_probe",
            Self::DeadLetters => "dead_letters_probe",
        }
    }
}

/// Places of facts within one partition of a topic: offset and index.
pub type Positions = HashSet<(i64, u32)>;

/// Which fact it is, whatever its place: a log that was cut off or made anew has others at the same places. What stands in
/// for a refused fact has its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FactId {
    /// An event's identity; of everything else the place in the raw log that it speaks of.
    pub key: u128,
    /// When that was received, nanoseconds: a raw log that was made anew has the same places again.
    pub received_at: i64,
}

impl FactId {
    const fn of_raw(raw_partition: i32, raw_offset: i64, index: u32, received_at: i64) -> Self {
        let key = (raw_partition as u32 as u128) << 96 | (raw_offset as u64 as u128) << 32 | index as u128;
        Self { key, received_at }
    }
}

/// What is stored in a table of facts.
pub trait Fact {
    /// Which one it is.
    fn id(&self) -> FactId;
}

impl Fact for AgentEvent {
    fn id(&self) -> FactId {
        FactId { key: self.dedup_key.as_u128(), received_at: self.received_at }
    }
}

impl Fact for PieceRow {
    fn id(&self) -> FactId {
        FactId::of_raw(self.raw_partition, self.raw_offset, self.first_index, self.received_at)
    }
}

impl Fact for Settlement {
    fn id(&self) -> FactId {
        FactId::of_raw(self.raw_partition, self.raw_offset, 0, self.received_at)
    }
}

impl Fact for DeadLetter {
    fn id(&self) -> FactId {
        FactId::of_raw(self.raw_partition, self.raw_offset, self.raw_index as u32, self.received_at)
    }
}

/// What is stored of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The facts that are stored, by their places.
    pub facts: HashSet<((i64, u32), FactId)>,
    /// Rows beyond the first of their place and fact: a broken promise, to be reported.
    pub repeats: usize,
}

impl Stored {
    /// Whether a fact is stored at its place.
    pub fn has(&self, at: &Located, fact: &impl Fact) -> bool {
        self.facts.contains(&((at.offset, at.index), fact.id()))
    }
}

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
    /// The deduplication token of an attempt to store this range's rows in a table. Of its time too: a log that is read
    /// again or made anew has the same ranges again, and nothing of them may be taken for what was stored before.
    pub fn token(&self, table: FactTable, attempt: &Attempt) -> String {
        let Attempt { number, insert_before_ms, .. } = attempt;
        format!("{}{}-{}~{number}@{insert_before_ms}", self.inserts(table), self.first, self.last)
    }

    /// What the ids of all inserts from this partition into a table begin with.
    fn inserts(&self, table: FactTable) -> String {
        format!("{}/{}/{}/", table.name(), self.topic, self.partition)
    }
}

/// One attempt to store rows of a range: the same rows under the same token, however often they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its number, from 1.
    pub number: u32,
    /// How often it was sent before.
    pub sends: u32,
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

/// Writes all rows of one fact table as one insert; or to its probe, which keeps nothing.
macro_rules! insert_facts {
    ($(#[$doc:meta])* $method:ident, $probe:ident, $table:expr, $fact:ty, $row:ident) => {
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
            let _turn = self.turn().await;
            let mut insert = self.insert::<$row<'static>>($table.name(), Some(identity)).await?;
            for (at, fact) in facts {
                insert.write(&$row::new(fact, at, attempt)).await.map_err(StoreError::from_client)?;
            }
            insert.end().await.map_err(StoreError::from_client)
        }

        /// Asks whether ClickHouse takes these rows, and stores nothing.
        ///
        /// # Errors
        /// [`StoreError::Refused`] when it does not.
        pub async fn $probe<'a>(
            &self,
            facts: impl Iterator<Item = (Located, &'a $fact)> + Send,
        ) -> Result<(), StoreError> {
            let mut insert = self.insert::<$row<'static>>($table.probe(), None).await?;
            for (at, fact) in facts {
                insert.write(&$row::new(fact, at, &PROBING)).await.map_err(StoreError::from_client)?;
            }
            insert.end().await.map_err(StoreError::from_client)
        }
    };
}

/// A probe is never too late: the year 2200.
const PROBING: Attempt = Attempt { number: 0, sends: 0, insert_before_ms: 7_258_118_400_000 };

impl Store {
    insert_facts! {
        /// Stores a range's events. At most 500,000 rows and 128 MB, so that they are one block.
        insert_events, probe_events, FactTable::Events, AgentEvent, EventRow
    }
    insert_facts! {
        /// Stores a range's dead letters, without their bytes.
        insert_dead_letters, probe_dead_letters, FactTable::DeadLetters, DeadLetter, DeadLetterRow
    }
    insert_facts! {
        /// Stores a range's settlements.
        insert_settlements, probe_settlements, FactTable::Settlements, Settlement, SettlementRow
    }
    insert_facts! {
        /// Stores what became of a range's pieces. Only after their events are stored (INV-6).
        insert_pieces, probe_pieces, FactTable::Pieces, PieceRow, PieceFact
    }
}

impl Store {
    /// The facts of a range that are stored in a table.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn stored_facts(&self, table: FactTable, range: &FactRange) -> Result<Stored, StoreError> {
        let sql = format!(
            "SELECT log_offset, log_index, {} AS key, toUnixTimestamp64Nano(received_at) AS received FROM {}.{} \
             WHERE log_partition = {{partition:Int32}} AND log_offset BETWEEN {{first:Int64}} AND {{last:Int64}}",
            table.key(),
            self.database(),
            table.name(),
        );
        let rows: Vec<(i64, u32, u128, i64)> = self
            .read_with(&sql, |query| {
                query
                    .param("partition", range.partition)
                    .param("first", range.first)
                    .param("last", range.last)
            })
            .await?;
        let read = rows.len();
        let facts: HashSet<_> = rows
            .into_iter()
            .map(|(offset, index, key, received_at)| ((offset, index), FactId { key, received_at }))
            .collect();
        Ok(Stored { repeats: read - facts.len(), facts })
    }

    /// The offset behind everything that these tables hold of a partition from an offset on; that offset itself where
    /// there is nothing.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn stored_end(
        &self,
        tables: &[FactTable],
        partition: i32,
        from: i64,
    ) -> Result<i64, StoreError> {
        let mut end = from;
        for table in tables {
            let sql = format!(
                "SELECT max(log_offset) + 1 FROM {}.{} \
                 WHERE log_partition = {{partition:Int32}} AND log_offset >= {{from:Int64}} HAVING count() > 0",
                self.database(),
                table.name(),
            );
            // What is below the end that was found already says nothing new.
            let ends: Vec<i64> =
                self.read_with(&sql, |query| query.param("partition", partition).param("from", end)).await?;
            end = ends.into_iter().fold(end, i64::max);
        }
        Ok(end)
    }

    /// Whether an insert from the range's partition into a table may still be under way: on this node, or on any replica
    /// of the cluster.
    ///
    /// # Errors
    /// Whatever keeps ClickHouse, or the bridge of the embedded engine, from telling.
    pub async fn is_inserting(&self, table: FactTable, range: &FactRange) -> Result<bool, StoreError> {
        if self.running(&range.inserts(table)).await? > 0 {
            return Ok(true);
        }
        // A part that waits for its quorum belongs to no running query, and becomes visible later.
        Ok(self.cluster().is_some() && self.awaits_quorum(table.name()).await?)
    }
}

fn identity(table: FactTable, range: &FactRange, attempt: &Attempt) -> Identity {
    let token = range.token(table, attempt);
    let query_id = format!("{token}#{}", attempt.sends);
    Identity { token, query_id }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_table_topic_partition_range_attempt_and_its_time() {
        let range = FactRange { topic: "fleetlog.events.v1", partition: 3, first: 7, last: 9 };
        let attempt = |number, sends| Attempt { number, sends, insert_before_ms: 5 };
        let of = |number, sends| identity(FactTable::Events, &range, &attempt(number, sends));
        assert_eq!(of(1, 0).token, "events/fleetlog.events.v1/3/7-9~1@5");
        assert_eq!(of(1, 0).token, of(1, 1).token);
        assert_ne!(of(1, 0).query_id, of(1, 1).query_id);
        assert_ne!(of(1, 0).token, of(2, 0).token);
        assert!(of(2, 5).query_id.starts_with(&range.inserts(FactTable::Events)));
        assert_ne!(range.token(FactTable::Settlements, &attempt(1, 0)), of(1, 0).token);
        let later = Attempt { insert_before_ms: 6, ..attempt(1, 0) };
        assert_ne!(range.token(FactTable::Events, &later), of(1, 0).token);
    }
}
