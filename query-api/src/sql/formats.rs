//! SELECTs over what formats and clients send, and how well it is understood.

use super::{Builder, Param, Statement, within};
use crate::time_range::TimeRange;

/// Which formats a list has.
#[derive(Clone, Debug, Default)]
pub(crate) struct FormatFilter {
    /// Format.
    pub(crate) format: Option<String>,
    /// Program.
    pub(crate) source: Option<String>,
}

/// The sort key of a row: hour, format, program and its version.
pub(crate) type FormatKey = (i64, String, String, String);

/// Counts by hour, format, program and version, newest first.
pub(crate) fn formats(
    project_id: &str,
    range: TimeRange,
    filter: &FormatFilter,
    after: Option<&FormatKey>,
    limit: u32,
) -> Statement {
    let query = Builder::select(
        "SELECT
  fromUnixTimestamp64Nano(intDiv(toUnixTimestamp64Nano(timestamp), 3600000000000) * 3600000000000, 'UTC') AS hour,
  toString(source_format) AS format, toString(source) AS program, toString(source_version) AS version, count() AS events,
  countIf(type = 'raw.unknown') AS unknown, sum(new_fields) AS unknown_fields, countIf(new_fields > 0) AS with_unknown_fields,
  countIf(type IN ('llm.request', 'llm.response') AND usage_role = 'call') AS calls_with_usage,
  countIf(type IN ('llm.request', 'llm.response') AND usage_role = 'call' AND in_uncached + cache_read + cache_write_5m
    + cache_write_1h + out_visible + out_reasoning = 0) AS calls_without_tokens,
  countIf(token_basis = 'guessed') AS guessed_bases, countIf(timestamp_source = 'ingest') AS without_time,
  arraySort(arrayFilter(x -> x != '', groupUniqArray(20)(toString(unknown_reason)))) AS unknown_reasons
FROM events",
    )
    .project(project_id)
    .range(within!("timestamp"), range)
    .and_some("source_format = {format:String}", "format", filter.format.as_deref())
    .and_some("source = {source:String}", "source", filter.source.as_deref())
    .push("\nGROUP BY hour, format, program, version");
    let query = match after {
        None => query,
        Some((hour_ns, format, program, version)) => query
            .push(concat!(
                "\nHAVING (-toUnixTimestamp64Nano(hour), format, program, version) > ",
                "(-{after_ns:Int64}, {after_format:String}, {after_program:String}, {after_version:String})"
            ))
            .bind("after_ns", Param::Int(*hour_ns))
            .bind("after_format", Param::Text(format.clone()))
            .bind("after_program", Param::Text(program.clone()))
            .bind("after_version", Param::Text(version.clone())),
    };
    query.push("\nORDER BY hour DESC, format, program, version").limit(limit).build()
}
