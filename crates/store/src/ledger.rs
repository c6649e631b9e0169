//! Which places of the raw log are settled, and how far what they became is derived (INV-6, INV-7).

use std::fmt::Write as _;
use std::ops::Range;

use fleetlog_schemas::id::Position;

use crate::{Store, StoreError};

/// Neighbouring offsets of one partition of the raw log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clickhouse::Row, serde::Deserialize)]
pub struct RawRun {
    /// Partition of the raw log.
    pub raw_partition: i32,
    /// First offset.
    pub first: i64,
    /// Last offset, itself included.
    pub last: i64,
}

impl Store {
    /// The settled ones among these offsets of the raw log, as runs of neighbours in order.
    ///
    /// An offset is settled when its settlement is stored and everything that the settlement names: every piece with all
    /// of its records, each of them stored or a known duplicate, and every dead letter. What only context or policy took
    /// needs no more than the settlement.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn settled_runs(&self, asked: &[(i32, Range<i64>)]) -> Result<Vec<RawRun>, StoreError> {
        let Some(places) = places(asked) else { return Ok(Vec::new()) };
        let db = self.database();
        // Each piece is judged alone: what one partition has too much must not make up for what another lacks. Dead letters
        // are a piece of their own, of partition -1.
        let sql = format!(
            "SELECT raw_partition, min(raw_offset) AS first, max(raw_offset) AS last FROM ( \
               SELECT raw_partition, raw_offset, raw_offset - toInt64(row_number() OVER \
                 (PARTITION BY raw_partition ORDER BY raw_offset)) AS island \
               FROM ( \
                 SELECT raw_partition, raw_offset FROM ( \
                   SELECT raw_partition, raw_offset, piece, max(known) AS settled, max(wanted) <= sum(found) AS whole \
                   FROM ( \
                     SELECT raw_partition, raw_offset, piece, 1 AS known, toUInt64(share) AS wanted, toUInt64(0) AS found \
                     FROM (SELECT raw_partition, raw_offset, arrayPushBack(`pieces.partition`, toInt32(-1)) AS parts, \
                         arrayPushBack(`pieces.records`, dead) AS shares FROM {db}.settlements WHERE {places}) \
                     ARRAY JOIN parts AS piece, shares AS share \
                     UNION ALL \
                     SELECT raw_partition, raw_offset, log_partition, 0, toUInt64(0), toUInt64(stored) + duplicate \
                     FROM {db}.piece_settlements WHERE {places} \
                     UNION ALL \
                     SELECT raw_partition, raw_offset, toInt32(-1), 0, toUInt64(0), toUInt64(records) \
                     FROM {db}.dead_letters WHERE {places} \
                   ) GROUP BY raw_partition, raw_offset, piece \
                 ) GROUP BY raw_partition, raw_offset HAVING max(settled) = 1 AND min(whole) = 1 \
               ) \
             ) GROUP BY raw_partition, island ORDER BY raw_partition, first"
        );
        self.read_with(&sql, |query| query.with_setting("select_sequential_consistency", "1")).await
    }

    /// Up to which offset each partition of the events topic carries events of these raw records, duplicates included: what
    /// a retry repeats lies before it in the same partition.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn carried_to(&self, positions: &[Position]) -> Result<Vec<(i32, i64)>, StoreError> {
        let asked: Vec<(i32, Range<i64>)> =
            positions.iter().map(|at| (at.partition, at.offset..at.offset.saturating_add(1))).collect();
        let Some(places) = places(&asked) else { return Ok(Vec::new()) };
        let sql = format!(
            "SELECT log_partition, max(log_offset) FROM {}.piece_settlements WHERE {places} GROUP BY log_partition",
            self.database()
        );
        self.read_with(&sql, |query| query.with_setting("select_sequential_consistency", "1")).await
    }
}

/// The condition that names these places; `None` when there are none.
fn places(asked: &[(i32, Range<i64>)]) -> Option<String> {
    let mut text = String::new();
    for (partition, offsets) in asked.iter().filter(|(_, offsets)| !offsets.is_empty()) {
        let or = if text.is_empty() { "" } else { " OR " };
        // Numbers only: nothing to escape.
        let (first, last) = (offsets.start, offsets.end - 1);
        let _infallible =
            write!(text, "{or}(raw_partition = {partition} AND raw_offset BETWEEN {first} AND {last})");
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_without_offsets_ask_for_nothing() {
        assert_eq!(places(&[(3, 7..7)]), None);
        let two = places(&[(0, 0..2), (1, 5..5), (2, 9..10)]).unwrap();
        assert_eq!(
            two,
            "(raw_partition = 0 AND raw_offset BETWEEN 0 AND 1) OR (raw_partition = 2 AND raw_offset BETWEEN 9 AND 9)"
        );
    }
}
