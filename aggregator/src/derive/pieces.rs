//! One account out of the pieces in which a channel reported one thing (create and update, POST and PATCH, start and
//! end).
//!
//! | of | counts |
//! |---|---|
//! | a text, a number, a status | the latest that is said at all |
//! | the token counts | one piece's, whole: the latest with tokens, else the latest that states usage |
//! | the type | the latest that is said: an update need not repeat it |
//! | the computed cost | that of the piece whose token counts are used, if it depends on nothing that other pieces say |
//! | the time | the earliest start, the latest end |
//! | the event | the piece whose token counts are used, else the latest |
//!
//! Later is a higher `revision`, then a later time; pieces that agree in both are in the order of their identities, so
//! that the order of their arrival never decides.

use std::borrow::Cow;

use fleetlog_schemas::event::{EventType, Status, UsageRole};
use fleetlog_store::derived::Sighting;

use super::{merge, price, tokens};

/// The account that the pieces make together. Of none it is the empty one.
pub(super) fn merged<'a>(mut pieces: Vec<&'a Sighting>) -> Cow<'a, Sighting> {
    pieces.sort_unstable_by_key(|piece| (piece.revision, piece.timestamp, piece.dedup_key));
    if let [alone] = pieces.as_slice() {
        return Cow::Borrowed(*alone);
    }
    let mut whole = pieces.last().map(|last| (*last).clone()).unwrap_or_default();
    whole.timestamp = pieces.iter().map(|piece| piece.timestamp).min().unwrap_or_default();
    if let Some(first) = pieces.iter().min_by_key(|piece| (piece.timestamp, piece.dedup_key)) {
        whole.timestamp_source.clone_from(&first.timestamp_source);
    }
    whole.end_timestamp = pieces.iter().filter_map(|piece| piece.end_timestamp).max();
    whole.received_at = pieces.iter().map(|piece| piece.received_at).min().unwrap_or_default();
    fill(&mut whole, &pieces);
    if let Some(typed) = pieces.iter().rev().find(|piece| !merge::is_untyped(piece)) {
        whole.event_type.clone_from(&typed.event_type);
    }
    (whole.cost_computed, whole.price_version) = (None, String::new());
    let stating = pieces.iter().rev().filter(|piece| tokens::role(piece) == UsageRole::Call);
    if let Some(counts) = stating.clone().find(|piece| tokens::stated(piece) > 0).or(stating.clone().next()) {
        tokens::set(&mut whole, tokens::vector(counts));
        whole.usage_role.clone_from(&counts.usage_role);
        whole.token_basis.clone_from(&counts.token_basis);
        whole.event_type.clone_from(&counts.event_type);
        whole.event_id.clone_from(&counts.event_id);
        whole.dedup_key = counts.dedup_key;
        whole.source_format.clone_from(&counts.source_format);
        (whole.raw_partition, whole.raw_offset, whole.raw_index) =
            (counts.raw_partition, counts.raw_offset, counts.raw_index);
        if price::usage(counts).costs_as(&price::usage(&whole)) {
            whole.cost_computed = counts.cost_computed;
            whole.price_version.clone_from(&counts.price_version);
        }
    }
    if let Some(said) = pieces.iter().rev().find(|piece| merge::status(piece) != Status::Unset) {
        whole.status.clone_from(&said.status);
    }
    let finer = |piece: &&&Sighting| {
        EventType::parse(&piece.event_type).is_some_and(|kind| kind.is_tool() && kind != EventType::ToolCall)
    };
    if let Some(finest) = pieces.iter().rev().find(finer) {
        whole.event_type.clone_from(&finest.event_type);
    }
    Cow::Owned(whole)
}

/// Fields of which the latest that is said counts.
fn fill(whole: &mut Sighting, pieces: &[&Sighting]) {
    macro_rules! texts {
        ($($field:ident),+ $(,)?) => {
            $(if let Some(said) = pieces.iter().rev().find(|piece| !piece.$field.is_empty()) {
                whole.$field.clone_from(&said.$field);
            })+
        };
    }
    macro_rules! values {
        ($($field:ident),+ $(,)?) => {
            $(whole.$field = pieces.iter().rev().find_map(|piece| piece.$field);)+
        };
    }
    texts!(
        source,
        error_type,
        error_message,
        trace_id,
        span_id,
        turn_id,
        request_id,
        tool_call_id,
        agent_id,
        agent_name,
        user_id,
        provider,
        model,
        model_requested,
        finish_reason,
        llm_call_key,
        call_family,
        service_tier,
        inference_geo,
        tool_name,
        tool_kind,
        mcp_server,
        decision,
        file_path,
    );
    values!(
        attempt,
        duration_ms,
        ttft_ms,
        cost_reported,
        exit_code,
        lines_added,
        lines_removed,
        file_size,
        bytes_in,
        bytes_out,
    );
}
