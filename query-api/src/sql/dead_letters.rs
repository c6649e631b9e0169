//! SELECTs over what could not be used.

use super::{Builder, Param, Statement, within};
use crate::sql::EventKey;
use crate::time_range::TimeRange;

/// Which dead letters a list has.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeadLetterFilter {
    /// Any of these reasons.
    pub(crate) reasons: Vec<String>,
    /// The gateway's id of the request.
    pub(crate) request: Option<String>,
}

/// Dead letters given up within the range, newest first. The original bytes are not in the table.
pub(crate) fn dead_letters(
    project_id: &str,
    range: TimeRange,
    filter: &DeadLetterFilter,
    after: Option<EventKey>,
    limit: u32,
) -> Statement {
    let mut query = Builder::select(
        "SELECT
  reason, message, stage, records, received_at, failed_at, request_id, key_id, route, format_hint, content_type,
  content_encoding, payload_size, payload_preview, replay_of, raw_partition, raw_offset, raw_index, log_partition, log_offset, log_index
FROM dead_letters",
    )
    .project(project_id)
    .range(within!("failed_at"), range)
    .and_any("reason IN {reasons:Array(String)}", "reasons", &filter.reasons)
    .and_some("request_id = {request:String}", "request", filter.request.as_deref());
    if let Some(EventKey(failed_ns, partition, offset, index)) = after {
        query = query
            .and("(failed_at, log_partition, log_offset, log_index) < (fromUnixTimestamp64Nano({after_ns:Int64}, 'UTC'), {after_partition:Int64}, {after_offset:Int64}, {after_index:UInt64})")
            .bind("after_ns", Param::Int(failed_ns))
            .bind("after_partition", Param::Int(i64::from(partition)))
            .bind("after_offset", Param::Int(offset))
            .bind("after_index", Param::UInt(u64::from(index)));
    }
    query
        .push("\nORDER BY toStartOfHour(failed_at) DESC, failed_at DESC, log_partition DESC, log_offset DESC, log_index DESC")
        .limit(limit)
        .build()
}
