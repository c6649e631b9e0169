//! What must hold of every input.

use fleetlog_formats::{Decoded, Input, decode, follow, inspect};
use fleetlog_schemas::record::{Route, StreamContext};
use peak_alloc::PeakAlloc;
use serde::de::IgnoredAny;

use crate::corpus::Seed;

/// Memory that a decoder may use whatever the input.
const MEMORY: usize = 256 << 10;
/// Memory that a decoder may use for each byte of input.
const MEMORY_PER_BYTE: usize = 32;
/// Memory that a decoder may use for each list or object, which is one byte as text and room for several values in a tree.
const MEMORY_PER_NODE: usize = 320;
/// Memory that a decoder may use for each record: an event, its texts, and what its group says of it.
const MEMORY_PER_RECORD: usize = 8 << 10;

/// One input.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) route: Route,
    pub(crate) content_type: String,
    pub(crate) hint: String,
    pub(crate) stream: Option<StreamContext>,
    pub(crate) first_record: u32,
    /// Whether a sender's following of it is tried too.
    pub(crate) followed: bool,
    pub(crate) body: Vec<u8>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case")
            .field("route", &self.route)
            .field("content_type", &self.content_type)
            .field("hint", &self.hint)
            .field("stream", &self.stream)
            .field("first_record", &self.first_record)
            .field("body", &String::from_utf8_lossy(self.body.get(..3_000).unwrap_or(&self.body)))
            .finish()
    }
}

impl Case {
    pub(crate) fn of(seed: &Seed) -> Self {
        Self {
            route: seed.route,
            content_type: seed.content_type.clone(),
            hint: seed.hint.clone(),
            stream: None,
            first_record: 0,
            followed: true,
            body: seed.body.written(),
        }
    }

    pub(crate) fn input<'a>(&'a self, rejected: &'a [u32]) -> Input<'a> {
        Input {
            route: self.route,
            content_type: &self.content_type,
            format_hint: &self.hint,
            body: &self.body,
            project_id: "p1",
            request_id: "req-1",
            idempotency_key: "",
            received_at: 1_800_000_000_000_000_000,
            raw_partition: 0,
            raw_offset: 0,
            first_record: self.first_record,
            piece: 0,
            rejected,
            stream: self.stream.as_ref(),
        }
    }
}

/// What the runs of a format saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) records: u64,
    pub(crate) events: u64,
    /// Events of the format itself.
    pub(crate) own: u64,
    pub(crate) refused: u64,
    pub(crate) bytes: u64,
    /// Most memory used, and the length of the body that used it.
    pub(crate) most_memory: (usize, usize),
    /// Most of its bound that a body used, in percent.
    pub(crate) most_of_bound: usize,
}

/// Runs what the gateway, the processor and a sender do with an input of a format.
pub(crate) fn check(case: &Case, format: &str, memory: &PeakAlloc, seen: &mut Seen) {
    let before = memory.current_usage();
    memory.reset_peak_usage();
    let body = inspect::Body {
        route: case.route,
        content_type: &case.content_type,
        format_hint: &case.hint,
        bytes: &case.body,
    };
    let inspected = inspect::inspect(&body, "p1");
    let rejected: Vec<u32> =
        inspected.iter().flat_map(|found| &found.rejected).map(|rejected| rejected.index).collect();
    assert!(rejected.is_sorted_by(|a, b| a < b), "rejected indexes ascend: {rejected:?}");
    let decoded = decode(&case.input(&rejected));
    let used = memory.peak_usage().saturating_sub(before);
    let (mut records, mut events) = (0, 0);
    match (&inspected, &decoded) {
        (Ok(found), Ok(decoded)) => {
            let accepted = (0..found.records).filter(|index| rejected.binary_search(index).is_err());
            assert!(
                fates(decoded, case.first_record).into_iter().eq(accepted),
                "gateway and processor find the same records"
            );
            assert_events(decoded);
            (records, events) = (found.records as usize, decoded.events.len());
            seen.own += decoded.events.iter().filter(|event| event.source_format == format).count() as u64;
        }
        (Err(_), _) => seen.refused += 1,
        (Ok(found), Err(undecodable)) => {
            panic!("the gateway accepts {found:?}, the processor: {undecodable}")
        }
    }
    let nodes = case.body.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
    let limit = MEMORY
        + MEMORY_PER_BYTE * case.body.len()
        + MEMORY_PER_NODE * nodes
        + MEMORY_PER_RECORD * records.max(events);
    assert!(
        used <= limit,
        "{used} bytes of memory for a body of {} bytes and {records} records",
        case.body.len(),
    );
    seen.records += records as u64;
    seen.events += events as u64;
    seen.bytes += case.body.len() as u64;
    seen.most_memory = seen.most_memory.max((used, case.body.len()));
    seen.most_of_bound = seen.most_of_bound.max(used * 100 / limit);
    if case.followed {
        // A sender follows the lines of what it tails with the same function.
        let mut context = case.stream.clone().unwrap_or_default();
        for line in case.body.split(|byte| *byte == b'\n').take(20) {
            follow(&mut context, line);
        }
    }
}

/// Indexes that have a fate, ascending; panics when one has two of them.
fn fates(decoded: &Decoded, first_record: u32) -> Vec<u32> {
    let mut fates: Vec<u32> =
        decoded.events.iter().map(|event| event.raw_index.saturating_sub(first_record)).collect();
    // One record may be several events.
    fates.dedup();
    fates.extend(decoded.eventless.iter().map(|entry| entry.index));
    fates.sort_unstable();
    assert!(fates.is_sorted_by(|a, b| a < b), "a record has two fates: {fates:?}");
    fates
}

fn assert_events(decoded: &Decoded) {
    assert!(
        decoded.events.is_sorted_by_key(|event| event.raw_index),
        "events come in the order of their records"
    );
    for event in &decoded.events {
        for text in [&event.context, &event.data] {
            assert!(text.starts_with('{'), "{text}");
            assert!(serde_json::from_str::<IgnoredAny>(text).is_ok(), "{text}");
        }
        assert!(!event.event_id.is_empty() && event.dedup_key != Default::default());
        assert!(!event.source_format.contains('\0') || event.unknown_reason == "unknown_format");
    }
    // One record may be several events, and each has its own identity.
    for events in decoded.events.chunk_by(|a, b| a.raw_index == b.raw_index) {
        let mut keys: Vec<_> = events.iter().map(|event| event.dedup_key).collect();
        keys.sort_unstable();
        assert!(
            keys.is_sorted_by(|a, b| a < b),
            "two events of record {} have one identity",
            events[0].raw_index
        );
    }
}

/// Bodies in which many small records share one large text.
pub(crate) fn amplifying() -> Vec<Case> {
    let large = "x".repeat(60_000);
    let case = |route, body: String| Case {
        route,
        content_type: "application/json".to_owned(),
        hint: String::new(),
        stream: None,
        first_record: 0,
        followed: true,
        body: body.into_bytes(),
    };
    let attribute = |name: &str| format!(r#"{{"key":"{name}","value":{{"stringValue":"{large}"}}}}"#);
    let logs = |name: &str| {
        let records = vec![r#"{"severityText":"a"}"#; 1_000].join(",");
        format!(
            r#"{{"resourceLogs":[{{"resource":{{"attributes":[{}]}},"scopeLogs":[{{"logRecords":[{records}]}}]}}]}}"#,
            attribute(name)
        )
    };
    let points = |name: &str, unit: &str| {
        let points = vec![r#"{"asInt":1}"#; 1_000].join(",");
        format!(
            r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"{name}","unit":"{unit}","gauge":{{"dataPoints":[{points}]}}}}]}}]}}]}}"#
        )
    };
    let lines = |first: String, other: &str| format!("{first}\n{}", format!("{other}\n").repeat(1_000));
    vec![
        case(Route::OtlpLogs, logs("anything")),
        case(Route::OtlpLogs, logs("service.name")),
        case(Route::OtlpLogs, logs("session.id")),
        case(Route::OtlpMetrics, points(&large, "1")),
        case(Route::OtlpMetrics, points("m", &large)),
        case(
            Route::Raw,
            lines(
                format!(r#"{{"type":"session_meta","payload":{{"id":"{large}","cli_version":"{large}"}}}}"#),
                r#"{"type":"event_msg","payload":{"type":"x"}}"#,
            ),
        ),
        case(
            Route::Raw,
            lines(
                format!(
                    r#"{{"type":"user","sessionId":"{large}","uuid":"u","version":"{large}","message":{{}}}}"#
                ),
                r#"{"type":"user","sessionId":"s","uuid":"u","message":{}}"#,
            ),
        ),
    ]
}
