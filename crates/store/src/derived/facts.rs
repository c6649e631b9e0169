//! Reading all facts of some groups of one kind.

use std::collections::BTreeSet;

use clickhouse::query::{Query, RowCursor};
use fleetlog_schemas::event::Channel;

use super::progress::HOUR;
use super::{GroupKey, listed_traces};
use crate::listed::Listed;
use crate::store::limited;
use crate::{GroupKind, Store, StoreError};

/// Groups of one kind, and the hours in which they have events.
#[derive(Clone, Debug)]
pub struct GroupFilter {
    /// Their kind.
    pub kind: GroupKind,
    /// The groups.
    pub keys: Vec<GroupKey>,
    /// Hours. An hour too many costs time, one too few loses facts.
    pub hours: Vec<i32>,
    /// Of sessions: the traces whose events without a session are theirs too.
    pub adopted: Vec<Adopted>,
    /// For each of the groups, in their order: only facts received after this time count, nanoseconds. Empty: all do.
    pub since: Vec<i64>,
}

/// A trace whose events without a session belong to a session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Adopted {
    /// Project.
    pub project_id: String,
    /// Trace.
    pub trace_id: String,
    /// Session that owns it.
    pub session_id: String,
    /// Hours in which the trace has such events.
    pub hours: Vec<i32>,
}

/// The lists that statements about the groups of a filter name.
pub(super) struct Lists<'f> {
    filter: &'f GroupFilter,
    groups: Listed<(&'f str, &'f str)>,
    hours: Listed<i32>,
    /// The groups again, each with its entry in `since`.
    since_groups: Listed<String>,
    since: Listed<i64>,
    /// The adopted traces, each with its entry in `owners`.
    traces: Listed<String>,
    owners: Listed<&'f str>,
    adopted: Listed<(&'f str, &'f str)>,
    adopted_hours: Listed<i32>,
}

impl GroupFilter {
    /// What statements about the groups name.
    pub(super) fn lists(&self) -> Lists<'_> {
        const PAIR: &str = "Tuple(String, String)";
        // A project's id has no line break, so that project and id together name one thing.
        let joined = |project: &str, id: &str| format!("{project}\n{id}");
        let keys = || self.keys.iter().map(|key| (key.project_id.as_str(), key.id.as_str()));
        let since_keys = keys().filter(|_| !self.since.is_empty());
        let adopted = || self.adopted.iter().map(|one| (one.project_id.as_str(), one.trace_id.as_str()));
        let adopted_hours: BTreeSet<i32> =
            self.adopted.iter().flat_map(|adopted| adopted.hours.iter().copied()).collect();
        Lists {
            filter: self,
            groups: Listed::new("groups", PAIR, keys()),
            hours: Listed::new("hours", "Int64", self.hours.iter().copied()),
            since_groups: Listed::new(
                "since_groups",
                "String",
                since_keys.map(|(project, id)| joined(project, id)),
            ),
            since: Listed::new("since", "Int64", self.since.iter().copied()),
            traces: Listed::new("traces", "String", adopted().map(|(project, id)| joined(project, id))),
            owners: Listed::new("owners", "String", self.adopted.iter().map(|one| one.session_id.as_str())),
            adopted: Listed::new("adopted", PAIR, adopted()),
            adopted_hours: Listed::new("adopted_hours", "Int64", adopted_hours),
        }
    }
}

impl Lists<'_> {
    /// The groups as the facts' expression names them.
    pub(super) fn group(&self) -> String {
        match self.filter.kind {
            GroupKind::Session if self.filter.adopted.is_empty() => "session_id".to_owned(),
            GroupKind::Session => format!(
                "if(session_id != '', session_id, \
                   transform(concat(toString(project_id), '\\n', trace_id), {}, {}, ''))",
                self.traces, self.owners
            ),
            GroupKind::Trace => "trace_id".to_owned(),
            GroupKind::Loose => {
                "toString(intDiv(toUnixTimestamp64Nano(timestamp), 60000000000) * 60)".to_owned()
            }
        }
    }

    /// The facts of the groups.
    pub(super) fn facts(&self) -> String {
        let all = self.all_facts();
        if self.filter.since.is_empty() {
            return all;
        }
        format!(
            "({all}) AND toUnixTimestamp64Nano(received_at) > transform(concat(toString(project_id), '\\n', {}), \
               {}, {}, toInt64({}))",
            self.group(),
            self.since_groups,
            self.since,
            i64::MAX
        )
    }

    /// Each comparison is one that the order of `events` can use.
    fn all_facts(&self) -> String {
        let (groups, hours) = (&self.groups, &self.hours);
        let own = match self.filter.kind {
            GroupKind::Session => {
                format!("(project_id, session_id) IN {groups} AND {HOUR} IN {hours} AND session_id != ''")
            }
            GroupKind::Trace => format!(
                "(project_id, trace_id) IN {groups} AND {HOUR} IN {hours} AND session_id = '' AND trace_id != ''"
            ),
            GroupKind::Loose => format!(
                "(project_id, toString(intDiv(toUnixTimestamp64Nano(timestamp), 60000000000) * 60)) IN {groups} \
                 AND {HOUR} IN {hours} AND session_id = '' AND trace_id = ''"
            ),
        };
        if self.filter.adopted.is_empty() {
            return own;
        }
        format!(
            "(({own}) OR ((project_id, trace_id) IN {} AND {HOUR} IN {} AND session_id = '' AND trace_id != ''))",
            self.adopted, self.adopted_hours
        )
    }

    /// Binds what [`Self::group`] and [`Self::facts`] name.
    pub(super) fn bind(&self, query: Query) -> Query {
        let mut query = self.hours.bind(self.groups.bind(query));
        if !self.filter.since.is_empty() {
            query = self.since.bind(self.since_groups.bind(query));
        }
        if self.filter.adopted.is_empty() {
            return query;
        }
        let query = self.owners.bind(self.traces.bind(query));
        self.adopted_hours.bind(self.adopted.bind(query))
    }
}

/// What a group's events say together. Every column that is derived from is a minimum, a maximum, a set or a count of
/// distinct events, so neither order nor repetition of events can change it.
///
/// Events are told apart by half of their key, which halves the cost of the query: 64 random bits among one group's.
#[derive(Clone, Debug, clickhouse::Row, serde::Deserialize)]
pub struct Summary {
    /// Project.
    pub project_id: String,
    /// Group, of the kind asked for.
    pub group_id: String,
    /// Time of the first event, nanoseconds.
    pub started_at: i64,
    /// Time of the last event or its end, nanoseconds.
    pub ended_at: i64,
    /// When the first event was received, nanoseconds.
    pub first_received_at: i64,
    /// When the last event was received, nanoseconds.
    pub last_received_at: i64,
    /// Time of the last reported end of the session; 0 when none was.
    pub last_end_at: i64,
    /// Time of the last start or prompt; 0 when there was none.
    pub last_begin_at: i64,
    /// Time of each channel's first event, nanoseconds, in the order of [`Channel::ALL`]; 0 where it has none.
    pub channel_starts: Vec<i64>,
    /// Distinct events.
    pub event_count: u64,
    /// Distinct events that report an error outside any call.
    pub error_count: u64,
    /// Distinct prompts.
    pub prompt_count: u64,
    /// Events that report a call to a model or a tool, repeats included: how many rows reading them will give.
    pub sighting_count: u64,
    /// Whether any event names a trace.
    pub traced: bool,
    /// Names of agents, sorted, at most 100.
    pub agents: Vec<String>,
    /// Users, sorted, at most 100.
    pub users: Vec<String>,
    /// Machines, sorted, at most 100.
    pub hosts: Vec<String>,
    /// Sources, sorted, at most 100.
    pub sources: Vec<String>,
}

/// Declares the row of a sighting and the list of its columns.
macro_rules! sighting {
    ($($(#[$attribute:meta])* $column:literal $field:ident: $field_type:ty),+ $(,)?) => {
        /// An event that may report a call: the columns that deciding needs.
        #[derive(Clone, Debug, Default, clickhouse::Row, serde::Deserialize)]
        pub struct Sighting {
            /// Group, of the kind asked for.
            pub group_id: String,
            $($(#[$attribute])* pub $field: $field_type),+
        }

        const SIGHTING_COLUMNS: &[&str] = &[$($column),+];
    };
}

sighting! {
    /// Project.
    "project_id" project_id: String,
    /// The event.
    "event_id" event_id: String,
    /// Its identity.
    "dedup_key" dedup_key: u128,
    /// Program that emitted it.
    "source" source: String,
    /// Format it arrived in.
    "source_format" source_format: String,
    /// Channel it arrived by.
    "channel" channel: String,
    /// When it happened, nanoseconds.
    "timestamp" timestamp: i64,
    /// Where that time comes from.
    "timestamp_source" timestamp_source: String,
    /// When it ended, nanoseconds.
    "end_timestamp" end_timestamp: Option<i64>,
    /// When it was received, nanoseconds.
    "received_at" received_at: i64,
    /// What happened.
    #[serde(rename = "type")]
    "type" event_type: String,
    /// How it ended.
    "status" status: String,
    /// Class of the error.
    "error_type" error_type: String,
    /// Text of the error.
    "error_message" error_message: String,
    /// Trace.
    "trace_id" trace_id: String,
    /// Span.
    "span_id" span_id: String,
    /// Span that it is within, or what else it belongs to.
    "parent_id" parent_id: String,
    /// Turn.
    "turn_id" turn_id: String,
    /// The provider's id of the request.
    "request_id" request_id: String,
    /// The model's id of the tool call.
    "tool_call_id" tool_call_id: String,
    /// Agent.
    "agent_id" agent_id: String,
    /// The agent's name.
    "agent_name" agent_name: String,
    /// Person or account.
    "user_id" user_id: String,
    /// Provider.
    "provider" provider: String,
    /// Model that answered.
    "model" model: String,
    /// Model asked for.
    "model_requested" model_requested: String,
    /// Why the model stopped.
    "finish_reason" finish_reason: String,
    /// Attempt number.
    "attempt" attempt: Option<u32>,
    /// Duration, milliseconds.
    "duration_ms" duration_ms: Option<f64>,
    /// Time to the first token, milliseconds.
    "ttft_ms" ttft_ms: Option<f64>,
    /// Uncached input tokens.
    "in_uncached" in_uncached: u64,
    /// Input tokens read from a cache.
    "cache_read" cache_read: u64,
    /// Input tokens written to a 5-minute cache.
    "cache_write_5m" cache_write_5m: u64,
    /// Input tokens written to a 1-hour cache.
    "cache_write_1h" cache_write_1h: u64,
    /// Visible output tokens.
    "out_visible" out_visible: u64,
    /// Reasoning tokens.
    "out_reasoning" out_reasoning: u64,
    /// Convention of the counts.
    "token_basis" token_basis: String,
    /// What the counts describe.
    "usage_role" usage_role: String,
    /// Key of the call.
    "llm_call_key" llm_call_key: String,
    /// Family whose channels share no id of a call.
    "call_family" call_family: String,
    /// Rank among the records of a family's channel and turn; the lowest counts.
    "precedence" precedence: u32,
    /// Order among the pieces of one thing; 0 where the record is whole.
    "revision" revision: i64,
    /// Reported cost, billionths of a dollar.
    "cost_reported" cost_reported: Option<i64>,
    /// Computed cost, billionths of a dollar.
    "cost_computed" cost_computed: Option<i64>,
    /// Price table of the computed cost.
    "price_version" price_version: String,
    /// Service tier other than the standard one.
    "service_tier" service_tier: String,
    /// Place where it was served.
    "inference_geo" inference_geo: String,
    /// Tool.
    "tool_name" tool_name: String,
    /// Kind of tool.
    "tool_kind" tool_kind: String,
    /// MCP server.
    "mcp_server" mcp_server: String,
    /// Decision about a tool.
    "decision" decision: String,
    /// Exit code.
    "exit_code" exit_code: Option<i32>,
    /// File.
    "file_path" file_path: String,
    /// Lines added.
    "lines_added" lines_added: Option<u64>,
    /// Lines removed.
    "lines_removed" lines_removed: Option<u64>,
    /// Size of the file.
    "file_size" file_size: Option<u64>,
    /// Bytes of input.
    "bytes_in" bytes_in: Option<u64>,
    /// Bytes of output.
    "bytes_out" bytes_out: Option<u64>,
    /// Raw partition.
    "raw_partition" raw_partition: i32,
    /// Raw offset.
    "raw_offset" raw_offset: i64,
    /// Index within the request.
    "raw_index" raw_index: u32,
}

/// Sightings, as they are read.
pub struct Sightings {
    cursor: RowCursor<Sighting>,
    within: std::time::Duration,
}

impl Sightings {
    /// The next one.
    ///
    /// # Errors
    /// Whatever ends the answer early: then none of it may be used.
    pub async fn next(&mut self) -> Result<Option<Sighting>, StoreError> {
        limited(self.within, self.cursor.next()).await
    }
}

impl Store {
    /// One row for each group that has events.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn summaries(&self, filter: &GroupFilter) -> Result<Vec<Summary>, StoreError> {
        let lists = filter.lists();
        let sql = format!(
            "WITH greatest(timestamp, ifNull(end_timestamp, timestamp)) AS ends_at \
             SELECT project_id, {group} AS group_id, \
               if({timed} > 0, minIf(timestamp, {OWN_TIME}), min(timestamp)) AS started_at, \
               if({timed} > 0, maxIf(ends_at, {OWN_TIME}), max(ends_at)) AS ended_at, \
               min(received_at) AS first_received_at, max(received_at) AS last_received_at, \
               toUnixTimestamp64Nano(maxIf(timestamp, type = 'session.end')) AS last_end_at, \
               toUnixTimestamp64Nano(maxIf(timestamp, type IN ('session.start', 'user.prompt'))) AS last_begin_at, \
               [{starts}] AS channel_starts, \
               uniqExact(toUInt64(dedup_key)) AS event_count, \
               uniqExactIf(toUInt64(dedup_key), type = 'error' OR (status = 'error' AND NOT ({SIGHTING}))) \
                 AS error_count, \
               greatest({prompts}) AS prompt_count, \
               countIf({SIGHTING} OR {UNTYPED}) AS sighting_count, max(trace_id != '') = 1 AS traced, \
               arraySort(arrayFilter(x -> x != '', groupUniqArray(100)(agent_name))) AS agents, \
               arraySort(arrayFilter(x -> x != '', groupUniqArray(100)(user_id))) AS users, \
               arraySort(arrayFilter(x -> x != '', groupUniqArray(100)(host))) AS hosts, \
               arraySort(arrayFilter(x -> x != '', groupUniqArray(100)(source))) AS sources \
             FROM {db}.events WHERE {facts} GROUP BY project_id, group_id",
            group = lists.group(),
            timed = format_args!("countIf({OWN_TIME})"),
            starts = channel_starts(),
            prompts = channel_prompts(),
            db = self.database(),
            facts = lists.facts(),
        );
        self.read_with(&sql, |query| lists.bind(query)).await
    }

    /// The minutes of usage in which these traces have events without a session that may report a call, each with its
    /// project and trace.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn homeless_minutes(
        &self,
        traces: &[Adopted],
    ) -> Result<Vec<(String, String, u32)>, StoreError> {
        let named: BTreeSet<(&str, &str)> =
            traces.iter().map(|trace| (trace.project_id.as_str(), trace.trace_id.as_str())).collect();
        let named = listed_traces(named);
        let hours: BTreeSet<i32> = traces.iter().flat_map(|trace| trace.hours.iter().copied()).collect();
        let hours = Listed::new("hours", "Int64", hours);
        let sql = format!(
            "SELECT DISTINCT toString(project_id), trace_id, intDiv(toUnixTimestamp64Nano(timestamp), 60000000000) AS minute \
             FROM {db}.events WHERE (project_id, trace_id) IN {named} AND {HOUR} IN {hours} \
               AND session_id = '' AND trace_id != '' AND ({SIGHTING} OR {UNTYPED})",
            db = self.database(),
        );
        let rows: Vec<(String, String, i64)> =
            self.read_with(&sql, |query| hours.bind(named.bind(query))).await?;
        let minute = |minute: i64| super::minute_of(minute.saturating_mul(super::MINUTE_NS));
        Ok(rows.into_iter().map(|(project, trace, at)| (project, trace, minute(at))).collect())
    }

    /// All events of the groups that may report a call, or are a piece of the report of one, in no order.
    ///
    /// # Errors
    /// When the query cannot be prepared; what ClickHouse says comes with the rows.
    pub fn sightings(&self, filter: &GroupFilter) -> Result<Sightings, StoreError> {
        let lists = filter.lists();
        let sql = format!(
            "SELECT {group} AS group_id, {columns} FROM {db}.events WHERE {facts} AND ({SIGHTING} OR {UNTYPED})",
            group = lists.group(),
            columns = SIGHTING_COLUMNS.join(", "),
            db = self.database(),
            facts = lists.facts(),
        );
        // Without names and types in front, the answer can be streamed however large it is, and no value is checked
        // twice: the contract tests prove that the columns fit.
        let query = self
            .client
            .clone()
            .with_validation(self.validates_rows)
            .query_raw(&sql)
            .with_setting("max_execution_time", self.read_timeout.as_secs().to_string())
            .with_setting("log_comment", "");
        let cursor = lists.bind(query).fetch::<Sighting>().map_err(StoreError::from_client)?;
        Ok(Sightings { cursor, within: self.read_timeout })
    }
}

/// Events that may report a call to a model or a tool ([`fleetlog_schemas::EventType::is_llm`] and `is_tool`), and
/// decisions about tools.
pub(super) const SIGHTING: &str = "type IN ('llm.request', 'llm.response', 'tool.decision', 'tool.call', 'command.run', \
     'file.read', 'file.edit', 'file.create', 'file.delete', 'search', 'web.fetch', 'mcp.call')";

/// Pieces that do not say of what kind their thing is: they add to the call that other pieces make of it, if any does.
const UNTYPED: &str = "(type = 'span' AND revision > 0 AND tool_call_id != '')";

/// Whether an event says itself when it happened; the others only came with it, a long time later where a file is sent
/// after the fact. A judgement may come days after what it judges, and makes it no longer.
pub(super) const OWN_TIME: &str = "(timestamp_source != 'ingest' AND type != 'score')";

/// The instructions that each channel tells of: the same ones, so that the most counts and never the sum.
fn channel_prompts() -> String {
    let prompts = Channel::ALL.iter().map(|channel| {
        format!("uniqExactIf(toUInt64(dedup_key), type = 'user.prompt' AND channel = '{channel}')")
    });
    prompts.collect::<Vec<_>>().join(", ")
}

/// The first time of each channel.
fn channel_starts() -> String {
    let starts = Channel::ALL
        .iter()
        .map(|channel| format!("toUnixTimestamp64Nano(minIf(timestamp, channel = '{channel}'))"));
    starts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use fleetlog_schemas::EventType;

    use super::*;

    #[test]
    fn every_type_that_can_report_a_call_is_read() {
        for kind in EventType::ALL {
            let read = SIGHTING.contains(&format!("'{kind}'"));
            let reports = kind.is_llm() || kind.is_tool() || *kind == EventType::ToolDecision;
            assert_eq!(read, reports, "{kind}");
        }
    }
}
