//! SELECTs over the fates of records: what the gateway counted against what became of it (INV-6).

use super::{Builder, Param, Statement, within};
use crate::time_range::TimeRange;

/// The windows of a project: first by raw record, so that what one has too much does not make up for what another lacks,
/// and what is stored of a record whose settlement is not there yet counts as what it is.
macro_rules! windows {
    () => {
        concat!(
            "SELECT
  window_s, count() AS batches, sum(counted) AS records, sum(found) AS stored, sum(repeated) AS duplicate,
  sum(dropped) AS filtered, sum(buried) AS dead, sum(used) AS context,
  toUInt64(sumIf(open, open > 0 AND NOT decided)) AS in_flight,
  toUInt64(sumIf(open, open > 0 AND decided)) AS lost, toUInt64(-sumIf(open, open < 0)) AS excess,
  countIf(NOT settled) AS unsettled_batches, countIf((open > 0 OR NOT settled) AND NOT decided) AS moving_batches
FROM (
  SELECT
    window_s, raw_offset < {settled_below:Array(Int64)}[raw_partition + 1] AS decided,
    max(known) = 1 AS settled, sum(part_stored) AS found, sum(part_duplicate) AS repeated,
    toUInt64(max(all_filtered)) AS dropped, toUInt64(max(all_dead)) AS buried, toUInt64(max(all_context)) AS used,
    if(settled, toUInt64(max(all_records)), found + repeated) AS counted,
    toInt64(counted) - toInt64(found + repeated + dropped + buried + used) AS open
  FROM (
    SELECT
      raw_partition, raw_offset, intDiv(toUnixTimestamp64Nano(received_at), 10000000000) * 10 AS window_s, 1 AS known,
      records AS all_records, filtered AS all_filtered, dead AS all_dead, context AS all_context,
      toUInt32(0) AS part_stored, toUInt32(0) AS part_duplicate
    FROM settlements
    WHERE project_id = {project:String} AND ",
            within!("received_at"),
            "
    UNION ALL
    SELECT
      raw_partition, raw_offset, intDiv(toUnixTimestamp64Nano(received_at), 10000000000) * 10, 0,
      toUInt32(0), toUInt32(0), toUInt32(0), toUInt32(0), stored, duplicate
    FROM piece_settlements
    WHERE project_id = {project:String} AND ",
            within!("received_at"),
            "
  )
  GROUP BY raw_partition, raw_offset, window_s
)
GROUP BY window_s"
        )
    };
}

/// What the windows of 10 s within the range come to, newest first. Of a raw record below `settled_below` of its partition
/// nothing is on its way any more: what is missing there is lost. When it was accepted does not tell that: what comes out of
/// a spool or is replayed keeps its time, and is on its way as long as anything else.
pub(crate) fn completeness(
    project_id: &str,
    range: TimeRange,
    settled_below: &[i64],
    after: Option<i64>,
    limit: u32,
) -> Statement {
    let query = of(Builder::select(windows!()), project_id, range, settled_below);
    let query = match after {
        None => query,
        Some(window_s) => {
            query.push("\nHAVING window_s < {after_s:Int64}").bind("after_s", Param::Int(window_s))
        }
    };
    query.push("\nORDER BY window_s DESC").limit(limit).build()
}

/// What all windows within the range come to.
pub(crate) fn completeness_totals(project_id: &str, range: TimeRange, settled_below: &[i64]) -> Statement {
    let query = Builder::select(concat!(
        "SELECT
  sum(w.batches) AS batches, sum(w.records) AS records, sum(w.stored) AS stored, sum(w.duplicate) AS duplicate,
  sum(w.filtered) AS filtered, sum(w.dead) AS dead, sum(w.context) AS context, sum(w.in_flight) AS in_flight,
  sum(w.lost) AS lost, sum(w.excess) AS excess, sum(w.unsettled_batches) AS unsettled_batches
FROM (",
        windows!(),
        ") AS w"
    ));
    of(query, project_id, range, settled_below).build()
}

fn of(query: Builder, project_id: &str, range: TimeRange, settled_below: &[i64]) -> Builder {
    query
        .bind("project", Param::Text(project_id.to_owned()))
        .bind("from_ns", Param::Int(range.from_ns))
        .bind("to_ns", Param::Int(range.to_ns))
        .bind("settled_below", Param::Ints(settled_below.to_vec()))
}
