//! From captured bytes to derived groups, with nothing between but what the services do to them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use fleetlog_aggregator::derive::{Prices, derive};
use fleetlog_formats::{Input, decode};
use fleetlog_pricing::PriceTable;
use fleetlog_schemas::AgentEvent;
use fleetlog_schemas::event::{Channel, EventType};
use fleetlog_schemas::record::Route;
use fleetlog_store::GroupKind;
use fleetlog_store::derived::{DerivedGroup, GroupKey, Sighting, Summary};

/// A captured body and the door it came in by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    route: Route,
    name: &'static str,
}

impl Source {
    pub(crate) const fn logs(name: &'static str) -> Self {
        Self { route: Route::OtlpLogs, name }
    }

    pub(crate) const fn spans(name: &'static str) -> Self {
        Self { route: Route::OtlpTraces, name }
    }

    pub(crate) const fn metrics(name: &'static str) -> Self {
        Self { route: Route::OtlpMetrics, name }
    }

    pub(crate) const fn lines(name: &'static str) -> Self {
        Self { route: Route::Raw, name }
    }
}

/// The events of all sources, each at its own place in the raw log.
pub(crate) fn events(sources: &[Source]) -> Vec<AgentEvent> {
    (0..).zip(sources).flat_map(|(offset, source)| decoded(*source, offset)).collect()
}

/// The table that ships.
pub(crate) static PRICES: LazyLock<PriceTable> = LazyLock::new(|| PriceTable::built_in().unwrap());

fn decoded(source: Source, raw_offset: i64) -> Vec<AgentEvent> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/formats/tests/fixtures");
    let path = folder.join(source.name);
    let body = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = source.name.ends_with(".jsonl");
    let content_type = if lines { "application/x-ndjson" } else { "application/json" };
    priced(source.route, (content_type, ""), &body, raw_offset)
}

/// The events of a body that is posted to an API of the given name.
pub(crate) fn posted(api: &str, body: &serde_json::Value, raw_offset: i64) -> Vec<AgentEvent> {
    priced(Route::Raw, ("application/json", api), body.to_string().as_bytes(), raw_offset)
}

/// Decodes and prices, as the processor does.
fn priced(
    route: Route,
    (content_type, format_hint): (&str, &str),
    body: &[u8],
    raw_offset: i64,
) -> Vec<AgentEvent> {
    let input = Input {
        route,
        content_type,
        format_hint,
        body,
        project_id: "p",
        request_id: "request",
        idempotency_key: "",
        received_at: 1_800_000_000_000_000_000,
        raw_partition: 0,
        raw_offset,
        first_record: 0,
        piece: 0,
        rejected: &[],
        stream: None,
    };
    let mut events = decode(&input).unwrap().events;
    for event in &mut events {
        PRICES.enrich(event);
    }
    events
}

/// The events of one channel.
pub(crate) fn channel(events: &[AgentEvent], channel: &str) -> Vec<AgentEvent> {
    events.iter().filter(|event| event.channel.as_str() == channel).cloned().collect()
}

/// All sessions of these events: an event without one is its trace's.
pub(crate) fn derived(events: &[AgentEvent]) -> Vec<DerivedGroup> {
    let mut owners: BTreeMap<&str, (i64, &str)> = BTreeMap::new();
    for event in events.iter().filter(|event| !event.session_id.is_empty() && !event.trace_id.is_empty()) {
        let naming = (event.timestamp, event.session_id.as_str());
        owners.entry(&event.trace_id).and_modify(|first| *first = naming.min(*first)).or_insert(naming);
    }
    let mut groups: BTreeMap<(GroupKind, &str), Vec<&AgentEvent>> = BTreeMap::new();
    for event in events {
        let key = match (event.session_id.as_str(), owners.get(event.trace_id.as_str())) {
            ("", Some((_, session))) => (GroupKind::Session, *session),
            ("", None) if event.trace_id.is_empty() => continue,
            ("", None) => (GroupKind::Trace, event.trace_id.as_str()),
            (session, _) => (GroupKind::Session, session),
        };
        groups.entry(key).or_default().push(event);
    }
    groups
        .into_iter()
        .map(|((kind, id), events)| {
            let key = GroupKey { project_id: "p".to_owned(), kind, id: id.to_owned() };
            let sightings: Vec<Sighting> =
                events.iter().filter(|event| is_sighting(event)).map(|event| sighting(event)).collect();
            derive(&Prices::new(PRICES.clone()), key, &summary(&events), &sightings, &[], None)
        })
        .filter(|group| {
            group.key.kind == GroupKind::Session || !group.calls.is_empty() || !group.tools.is_empty()
        })
        .collect()
}

fn is_sighting(event: &AgentEvent) -> bool {
    let untyped = event.event_type == EventType::Span && event.revision > 0 && !event.tool_call_id.is_empty();
    let reports = event.event_type.is_llm() || event.event_type.is_tool();
    reports || event.event_type == EventType::ToolDecision || untyped
}

/// What the engine sums up of a group, as far as deriving calls needs it.
fn summary(events: &[&AgentEvent]) -> Summary {
    let times = || events.iter().map(|event| event.timestamp);
    let distinct: BTreeSet<_> = events.iter().map(|event| event.dedup_key.as_u128()).collect();
    let start = |channel: &Channel| {
        events
            .iter()
            .filter(|event| event.channel == *channel)
            .map(|event| event.timestamp)
            .min()
            .unwrap_or(0)
    };
    Summary {
        project_id: "p".to_owned(),
        group_id: String::new(),
        started_at: times().min().unwrap_or(0),
        ended_at: times().max().unwrap_or(0),
        first_received_at: 0,
        last_received_at: 0,
        last_end_at: 0,
        last_begin_at: 0,
        channel_starts: Channel::ALL.iter().map(start).collect(),
        event_count: distinct.len() as u64,
        error_count: 0,
        prompt_count: 0,
        sighting_count: 0,
        traced: false,
        agents: Vec::new(),
        users: Vec::new(),
        hosts: Vec::new(),
        sources: Vec::new(),
    }
}

/// The columns of the event that deciding needs, as they are read back from the store.
fn sighting(event: &AgentEvent) -> Sighting {
    let event = event.clone();
    Sighting {
        group_id: String::new(),
        project_id: event.project_id,
        event_id: event.event_id,
        dedup_key: event.dedup_key.as_u128(),
        source: event.source,
        source_format: event.source_format,
        channel: event.channel.to_string(),
        timestamp: event.timestamp,
        timestamp_source: event.timestamp_source.to_string(),
        end_timestamp: event.end_timestamp,
        received_at: event.received_at,
        event_type: event.event_type.to_string(),
        status: event.status.to_string(),
        error_type: event.error_type,
        error_message: event.error_message,
        trace_id: event.trace_id,
        span_id: event.span_id,
        parent_id: event.parent_id,
        turn_id: event.turn_id,
        request_id: event.request_id,
        tool_call_id: event.tool_call_id,
        agent_id: event.agent_id,
        agent_name: event.agent_name,
        user_id: event.user_id,
        provider: event.provider,
        model: event.model,
        model_requested: event.model_requested,
        finish_reason: event.finish_reason,
        attempt: event.attempt,
        duration_ms: event.duration_ms,
        ttft_ms: event.ttft_ms,
        in_uncached: event.in_uncached,
        cache_read: event.cache_read,
        cache_write_5m: event.cache_write_5m,
        cache_write_1h: event.cache_write_1h,
        out_visible: event.out_visible,
        out_reasoning: event.out_reasoning,
        token_basis: event.token_basis.to_string(),
        usage_role: event.usage_role.to_string(),
        llm_call_key: event.llm_call_key,
        call_family: event.call_family,
        precedence: event.precedence,
        revision: event.revision,
        cost_reported: event.cost_reported.map(|cost| cost.0),
        cost_computed: event.cost_computed.map(|cost| cost.0),
        price_version: event.price_version,
        service_tier: event.service_tier,
        inference_geo: event.inference_geo,
        tool_name: event.tool_name,
        tool_kind: event.tool_kind,
        mcp_server: event.mcp_server,
        decision: event.decision,
        exit_code: event.exit_code,
        file_path: event.file_path,
        lines_added: event.lines_added,
        lines_removed: event.lines_removed,
        file_size: event.file_size,
        bytes_in: event.bytes_in,
        bytes_out: event.bytes_out,
        raw_partition: event.raw_partition,
        raw_offset: event.raw_offset,
        raw_index: event.raw_index,
    }
}
