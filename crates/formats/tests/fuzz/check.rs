//! What must hold of every input.

use std::collections::{BTreeMap, BTreeSet};

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

/// What a run saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) records: u64,
    pub(crate) events: u64,
    pub(crate) refused: u64,
    pub(crate) of_format: BTreeMap<String, u64>,
    /// Most memory used, and the length of the body that used it.
    pub(crate) most_memory: (usize, usize),
}

impl Seen {
    pub(crate) fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.events += other.events;
        self.refused += other.refused;
        self.most_memory = self.most_memory.max(other.most_memory);
        for (format, events) in &other.of_format {
            *self.of_format.entry(format.clone()).or_default() += events;
        }
    }
}

/// Runs what the gateway, the processor and a sender do with an input.
pub(crate) fn check(case: &Case, memory: &PeakAlloc) -> Seen {
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
    let mut seen = Seen { most_memory: (used, case.body.len()), ..Seen::default() };
    match (&inspected, &decoded) {
        (Ok(found), Ok(decoded)) => {
            let accepted: BTreeSet<u32> =
                (0..found.records).filter(|index| rejected.binary_search(index).is_err()).collect();
            assert_eq!(
                fates(decoded, case.first_record),
                accepted,
                "gateway and processor find the same records"
            );
            assert_events(decoded);
            seen.records = u64::from(found.records);
            seen.events = decoded.events.len() as u64;
            for event in &decoded.events {
                *seen.of_format.entry(event.source_format.clone()).or_default() += 1;
            }
        }
        (Err(_), _) => seen.refused = 1,
        (Ok(found), Err(undecodable)) => {
            panic!("the gateway accepts {found:?}, the processor: {undecodable}")
        }
    }
    let nodes = case.body.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
    let limit = MEMORY
        + MEMORY_PER_BYTE * case.body.len()
        + MEMORY_PER_NODE * nodes
        + MEMORY_PER_RECORD * usize::try_from(seen.records.max(seen.events)).unwrap_or(usize::MAX);
    assert!(
        used <= limit,
        "{used} bytes of memory for a body of {} bytes and {} records",
        case.body.len(),
        seen.records
    );
    // A sender follows the lines of what it tails with the same function.
    let mut context = case.stream.clone().unwrap_or_default();
    for line in case.body.split(|byte| *byte == b'\n').take(20) {
        follow(&mut context, line);
    }
    seen
}

/// Indexes that have a fate; panics when one has two kinds of it.
fn fates(decoded: &Decoded, first_record: u32) -> BTreeSet<u32> {
    let index = |raw_index: u32| raw_index.saturating_sub(first_record);
    let mut fates: BTreeSet<u32> = decoded.events.iter().map(|event| index(event.raw_index)).collect();
    for entry in &decoded.eventless {
        assert!(fates.insert(entry.index), "record {} has two fates", entry.index);
    }
    fates
}

fn assert_events(decoded: &Decoded) {
    assert!(
        decoded.events.is_sorted_by_key(|event| event.raw_index),
        "events come in the order of their records"
    );
    let mut keys = BTreeSet::new();
    for event in &decoded.events {
        for text in [&event.context, &event.data] {
            assert!(text.starts_with('{'), "{text}");
            assert!(serde_json::from_str::<IgnoredAny>(text).is_ok(), "{text}");
        }
        assert!(!event.event_id.is_empty() && event.dedup_key != Default::default());
        assert!(!event.source_format.contains('\0') || event.unknown_reason == "unknown_format");
        // One record may be several events, and each has its own identity.
        assert!(
            keys.insert((event.raw_index, event.dedup_key)),
            "two events of record {} have one identity",
            event.raw_index
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
    let lines = |first: String, other: &str| format!("{first}\n{}", format!("{other}\n").repeat(1_000));
    vec![
        case(Route::OtlpLogs, logs("anything")),
        case(Route::OtlpLogs, logs("service.name")),
        case(Route::OtlpLogs, logs("session.id")),
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
