//! One event as a row of `events`.

use fleetlog_schemas::AgentEvent;

use crate::facts::{Attempt, Located};

/// Declares a row that borrows from a fact: each column with the expression that yields it.
macro_rules! fact_row {
    ($(#[$doc:meta])* $name:ident from ($fact:ident: $fact_type:ty, $at:ident, $attempt:ident) {
        $($(#[$attribute:meta])* $column:ident: $column_type:ty = $value:expr),+ $(,)?
    }) => {
        $(#[$doc])*
        #[derive(clickhouse::Row, serde::Serialize)]
        pub(crate) struct $name<'a> { $($(#[$attribute])* $column: $column_type),+ }

        impl<'a> $name<'a> {
            /// The row of a fact at its place in the log.
            pub(crate) fn new($fact: &'a $fact_type, $at: Located, $attempt: &Attempt) -> Self {
                Self { $($column: $value),+ }
            }
        }
    };
}
pub(crate) use fact_row;

fact_row! {
    /// A row of `events`.
    EventRow from (event: AgentEvent, at, attempt) {
        event_id: &'a str = &event.event_id,
        dedup_key: u128 = event.dedup_key.as_u128(),
        project_id: &'a str = &event.project_id,
        source: &'a str = &event.source,
        source_format: &'a str = &event.source_format,
        source_version: &'a str = &event.source_version,
        channel: &'a str = event.channel.as_str(),
        timestamp: i64 = event.timestamp,
        timestamp_source: &'a str = event.timestamp_source.as_str(),
        end_timestamp: Option<i64> = event.end_timestamp,
        received_at: i64 = event.received_at,
        #[serde(rename = "type")]
        event_type: &'a str = event.event_type.as_str(),
        name: &'a str = &event.name,
        status: &'a str = event.status.as_str(),
        level: &'a str = &event.level,
        error_type: &'a str = &event.error_type,
        error_message: &'a str = &event.error_message,
        session_id: &'a str = &event.session_id,
        trace_id: &'a str = &event.trace_id,
        span_id: &'a str = &event.span_id,
        parent_id: &'a str = &event.parent_id,
        turn_id: &'a str = &event.turn_id,
        request_id: &'a str = &event.request_id,
        tool_call_id: &'a str = &event.tool_call_id,
        agent_id: &'a str = &event.agent_id,
        parent_agent_id: &'a str = &event.parent_agent_id,
        agent_name: &'a str = &event.agent_name,
        user_id: &'a str = &event.user_id,
        host: &'a str = &event.host,
        provider: &'a str = &event.provider,
        model: &'a str = &event.model,
        model_requested: &'a str = &event.model_requested,
        finish_reason: &'a str = &event.finish_reason,
        attempt: Option<u32> = event.attempt,
        duration_ms: Option<f64> = event.duration_ms,
        ttft_ms: Option<f64> = event.ttft_ms,
        in_uncached: u64 = event.in_uncached,
        cache_read: u64 = event.cache_read,
        cache_write_5m: u64 = event.cache_write_5m,
        cache_write_1h: u64 = event.cache_write_1h,
        out_visible: u64 = event.out_visible,
        out_reasoning: u64 = event.out_reasoning,
        token_basis: &'a str = event.token_basis.as_str(),
        usage_role: &'a str = event.usage_role.as_str(),
        llm_call_key: &'a str = &event.llm_call_key,
        call_family: &'a str = &event.call_family,
        precedence: u32 = event.precedence,
        revision: i64 = event.revision,
        cost_reported: Option<i64> = event.cost_reported.map(|cost| cost.0),
        cost_computed: Option<i64> = event.cost_computed.map(|cost| cost.0),
        price_version: &'a str = &event.price_version,
        service_tier: &'a str = &event.service_tier,
        inference_geo: &'a str = &event.inference_geo,
        tool_name: &'a str = &event.tool_name,
        tool_kind: &'a str = &event.tool_kind,
        mcp_server: &'a str = &event.mcp_server,
        decision: &'a str = &event.decision,
        exit_code: Option<i32> = event.exit_code,
        file_path: &'a str = &event.file_path,
        lines_added: Option<u64> = event.lines_added,
        lines_removed: Option<u64> = event.lines_removed,
        file_size: Option<u64> = event.file_size,
        bytes_in: Option<u64> = event.bytes_in,
        bytes_out: Option<u64> = event.bytes_out,
        unknown_reason: &'a str = &event.unknown_reason,
        redactions: u32 = event.redactions,
        new_fields: u32 = event.new_fields,
        context: &'a str = &event.context,
        data: &'a str = &event.data,
        raw_partition: i32 = event.raw_partition,
        raw_offset: i64 = event.raw_offset,
        raw_index: u32 = event.raw_index,
        log_partition: i32 = at.partition,
        log_offset: i64 = at.offset,
        log_index: u32 = at.index,
        insert_before: i64 = attempt.insert_before_ms,
    }
}
