//! Splitting an OTLP request into its records, with the resource and scope of each.
//!
//! Only the path to the records is understood here; the records, resources and scopes stay bytes. JSON keys are accepted
//! in camelCase and snake_case, and the older `instrumentationLibrary…` names.

use fleetlog_schemas::id::Key128;

use super::wire::{Fields, Value};
use super::{Encoding, Signal};
use crate::framing::{Quota, element};
use crate::inspect::BadBody;
use crate::json::{Cursor, Fault};

/// Records that share a resource and a scope; for metrics the points of one metric.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group<'a> {
    /// The resource's bytes, empty when there is none.
    pub(crate) resource: &'a [u8],
    /// The scope's bytes, empty when there is none.
    pub(crate) scope: &'a [u8],
    /// The metric's bytes, points included; empty for the other signals.
    pub(crate) metric: &'a [u8],
    /// The records' bytes, in order.
    pub(crate) records: Vec<&'a [u8]>,
    /// Which of the records, by their place, are not well-formed JSON, and why; in order.
    pub(crate) broken: Vec<(usize, Fault)>,
    /// What stands for a long resource in an identity.
    pub(crate) resource_digest: Option<Key128>,
    /// What stands for a long scope in an identity.
    pub(crate) scope_digest: Option<Key128>,
}

impl<'a> Group<'a> {
    /// Resource and scope as an identity covers them.
    pub(crate) fn identity(&self) -> [&[u8]; 2] {
        let resource = self.resource_digest.as_ref().map_or(self.resource, |key| key.0.as_slice());
        [resource, self.scope_digest.as_ref().map_or(self.scope, |key| key.0.as_slice())]
    }

    /// Takes the next element of a JSON array as a record; a broken one costs only itself.
    fn take(&mut self, cursor: &mut Cursor<'a>, found: &mut Found<'a>) -> Result<(), BadBody> {
        found.quota.take()?;
        let (record, outcome) = element(cursor, found.clean, |cursor| cursor.skip_value().map(|_| ()))?;
        self.broken.extend(outcome.err().map(|fault| (self.records.len(), fault)));
        self.records.push(record);
        Ok(())
    }
}

/// The groups found so far, and how many records they hold.
#[derive(Debug, Default)]
struct Found<'a> {
    groups: Vec<Group<'a>>,
    quota: Quota,
    /// Whether the whole body is UTF-8.
    clean: bool,
    /// Whether a record is one of its signal.
    own: bool,
    /// Whether a record can only be another signal's.
    foreign: bool,
}

impl Found<'_> {
    /// A body that holds another signal's records alone was sent to the wrong path.
    fn checked(self) -> Result<Self, BadBody> {
        if self.foreign && !self.own { Err(wrong_signal()) } else { Ok(self) }
    }
}

fn wrong_signal() -> BadBody {
    BadBody::new("wrong_signal", "the body belongs to another OTLP signal", None)
}

/// Splits a request of `signal`.
///
/// # Errors
/// The body is not what it claims to be, or belongs to another signal.
pub(crate) fn groups(signal: Signal, encoding: Encoding, body: &[u8]) -> Result<Vec<Group<'_>>, BadBody> {
    match encoding {
        Encoding::Json => json_groups(signal, body),
        Encoding::Protobuf => proto_groups(signal, body),
    }
}

impl Signal {
    pub(super) fn resources_key(self, key: &str) -> bool {
        match self {
            Self::Logs => matches!(key, "resourceLogs" | "resource_logs"),
            Self::Traces => matches!(key, "resourceSpans" | "resource_spans"),
            Self::Metrics => matches!(key, "resourceMetrics" | "resource_metrics"),
        }
    }

    fn scopes_key(self, key: &str) -> bool {
        match self {
            Self::Logs => matches!(key, "scopeLogs" | "scope_logs" | "instrumentationLibraryLogs"),
            Self::Traces => matches!(key, "scopeSpans" | "scope_spans" | "instrumentationLibrarySpans"),
            Self::Metrics => {
                matches!(key, "scopeMetrics" | "scope_metrics" | "instrumentationLibraryMetrics")
            }
        }
    }

    fn records_key(self, key: &str) -> bool {
        match self {
            Self::Logs => matches!(key, "logRecords" | "log_records" | "logs"),
            Self::Traces => key == "spans",
            Self::Metrics => key == "metrics",
        }
    }
}

fn json_groups(signal: Signal, body: &[u8]) -> Result<Vec<Group<'_>>, BadBody> {
    let body = crate::framing::without_bom(body);
    let mut cursor = Cursor::new(body);
    if cursor.peek().is_none() {
        return Err(BadBody::new("empty_body", "the body holds no record", None));
    }
    let mut found = Found { clean: std::str::from_utf8(body).is_ok(), ..Found::default() };
    // Several requests may follow each other, one a line: so the collector's file exporter writes them.
    while cursor.peek().is_some() {
        cursor.object(|cursor, key| {
            let key = &*key.text();
            if signal.resources_key(key) {
                found.own = true;
                return list(cursor, |cursor| json_resource(signal, cursor, &mut found));
            }
            found.foreign |=
                [Signal::Logs, Signal::Traces, Signal::Metrics].iter().any(|other| other.resources_key(key));
            Ok::<(), BadBody>(cursor.skip_value().map(|_| ())?)
        })?;
    }
    Ok(found.checked()?.groups)
}

/// Reads an array, or a `null` in its place.
fn list<'a>(
    cursor: &mut Cursor<'a>,
    each: impl FnMut(&mut Cursor<'a>) -> Result<(), BadBody>,
) -> Result<(), BadBody> {
    match cursor.peek() {
        Some(b'n') => Ok(cursor.skip_value().map(|_| ())?),
        _ => cursor.array(each),
    }
}

fn json_resource<'a>(signal: Signal, cursor: &mut Cursor<'a>, found: &mut Found<'a>) -> Result<(), BadBody> {
    let first = found.groups.len();
    let mut resource: &[u8] = b"";
    cursor.object(|cursor, key| {
        let key = &*key.text();
        if signal.scopes_key(key) {
            return list(cursor, |cursor| json_scope(signal, cursor, found));
        }
        let value = cursor.skip_value()?;
        if key == "resource" {
            resource = value;
        }
        Ok::<(), BadBody>(())
    })?;
    // The resource may stand after its scopes.
    for group in found.groups.iter_mut().skip(first) {
        group.resource = resource;
    }
    Ok(())
}

fn json_scope<'a>(signal: Signal, cursor: &mut Cursor<'a>, found: &mut Found<'a>) -> Result<(), BadBody> {
    let first = found.groups.len();
    let mut scope: &[u8] = b"";
    let mut group = Group::default();
    cursor.object(|cursor, key| {
        let key = &*key.text();
        if signal.records_key(key) {
            return list(cursor, |cursor| match signal {
                Signal::Metrics => json_metric(cursor, found),
                Signal::Logs | Signal::Traces => group.take(cursor, found),
            });
        }
        let value = cursor.skip_value()?;
        if matches!(key, "scope" | "instrumentationLibrary") {
            scope = value;
        }
        Ok::<(), BadBody>(())
    })?;
    if !group.records.is_empty() {
        found.groups.push(group);
    }
    for group in found.groups.iter_mut().skip(first) {
        group.scope = scope;
    }
    Ok(())
}

fn json_metric<'a>(cursor: &mut Cursor<'a>, found: &mut Found<'a>) -> Result<(), BadBody> {
    let mut group = Group::default();
    cursor.peek();
    let start = cursor.position();
    cursor.object(|cursor, key| {
        let data = matches!(
            &*key.text(),
            "gauge" | "sum" | "histogram" | "exponentialHistogram" | "exponential_histogram" | "summary"
        );
        if !data || cursor.peek() != Some(b'{') {
            return Ok::<(), BadBody>(cursor.skip_value().map(|_| ())?);
        }
        cursor.object(|cursor, key| match &*key.text() {
            "dataPoints" | "data_points" => list(cursor, |cursor| group.take(cursor, found)),
            _ => Ok(cursor.skip_value().map(|_| ())?),
        })
    })?;
    group.metric = cursor.since(start);
    if !group.records.is_empty() {
        found.groups.push(group);
    }
    Ok(())
}

// Field numbers of opentelemetry/proto/{collector,logs,trace,metrics}/v1: the three signals share their upper levels.
const RESOURCE_GROUPS: u32 = 1;
const RESOURCE: u32 = 1;
const SCOPE_GROUPS: u32 = 2;
const SCOPE: u32 = 1;
const RECORDS: u32 = 2;
/// `Metric.gauge`, `.sum`, `.histogram`, `.exponential_histogram`, `.summary`.
const METRIC_DATA: [u32; 5] = [5, 7, 9, 10, 11];
const DATA_POINTS: u32 = 1;

fn proto_groups(signal: Signal, body: &[u8]) -> Result<Vec<Group<'_>>, BadBody> {
    let mut found = Found::default();
    Fields::new(body).each_message(&[RESOURCE_GROUPS], |_, _, fields| {
        let first = found.groups.len();
        let mut resource: &[u8] = b"";
        fields.each_message(&[RESOURCE, SCOPE_GROUPS], |field, bytes, fields| {
            if field == RESOURCE {
                resource = bytes;
                return Ok(());
            }
            proto_scope(signal, fields, &mut found)
        })?;
        for group in found.groups.iter_mut().skip(first) {
            group.resource = resource;
        }
        Ok(())
    })?;
    Ok(found.checked()?.groups)
}

/// Whether a protobuf record can only be another signal's: the fields of the three have the same numbers and mean
/// different things, so one sent to another's path would be read as nonsense or not at all.
///
/// | field | log record | span | metric |
/// |---|---|---|---|
/// | 1 | time, 8 bytes | trace id | name |
/// | 2 | severity, a number | span id | description |
/// | 7 | dropped attributes, a number | start, 8 bytes | sum |
/// | 11 | observed time, 8 bytes | events | summary |
pub(super) fn is_foreign(signal: Signal, record: &[u8]) -> bool {
    let mut fields = Fields::new(record);
    while let Ok(Some((field, value))) = fields.next() {
        let texts = matches!(value, Value::Bytes(_));
        match (signal, field) {
            (Signal::Logs, 1 | 2) if texts => return true,
            (Signal::Traces, 1 | 2) | (Signal::Metrics, 1 | 2 | 7 | 11) if !texts => return true,
            // Writers keep the order of the fields, and these two suffice.
            (Signal::Logs | Signal::Traces, 3..) => return false,
            _ => {}
        }
    }
    false
}

fn proto_scope<'a>(signal: Signal, fields: Fields<'a>, found: &mut Found<'a>) -> Result<(), BadBody> {
    let first = found.groups.len();
    let mut scope: &[u8] = b"";
    let mut records = Vec::new();
    fields.each_message(&[SCOPE, RECORDS], |field, bytes, fields| {
        let foreign = field == RECORDS && is_foreign(signal, bytes);
        found.foreign |= foreign;
        found.own |= field == RECORDS && !foreign;
        match (field, signal) {
            (SCOPE, _) => scope = bytes,
            // Its points could not be told from other bytes.
            (_, Signal::Metrics) if foreign => return Err(wrong_signal()),
            (_, Signal::Metrics) => {
                let mut points = Vec::new();
                fields.each_message(&METRIC_DATA, |_, _, fields| {
                    fields.each_message(&[DATA_POINTS], |_, point, _| {
                        points.push(point);
                        found.quota.take()
                    })
                })?;
                if !points.is_empty() {
                    found.groups.push(Group { metric: bytes, records: points, ..Group::default() });
                }
            }
            (_, Signal::Logs | Signal::Traces) => {
                found.quota.take()?;
                records.push(bytes);
            }
        }
        Ok(())
    })?;
    if !records.is_empty() {
        found.groups.push(Group { records, ..Group::default() });
    }
    for group in found.groups.iter_mut().skip(first) {
        group.scope = scope;
    }
    Ok(())
}

/// Whether a record has a span's ids.
pub(crate) fn has_span_ids(encoding: Encoding, record: &[u8]) -> bool {
    let (mut trace, mut span) = (false, false);
    match encoding {
        Encoding::Protobuf => {
            let mut fields = Fields::new(record);
            while let (false, Ok(Some((field, value)))) = (trace && span, fields.next()) {
                match (field, value) {
                    (1, Value::Bytes(id)) => trace = !super::proto::id(id, 16).is_empty(),
                    (2, Value::Bytes(id)) => span = !super::proto::id(id, 8).is_empty(),
                    _ => {}
                }
            }
        }
        Encoding::Json => {
            let done = Fault { at: 0, kind: crate::json::FaultKind::End };
            let read = Cursor::new(record).object(|cursor, key| {
                let value = cursor.scalar()?;
                match &*key.text() {
                    "traceId" | "trace_id" => trace = !super::json::id(&value, 16).is_empty(),
                    "spanId" | "span_id" => span = !super::json::id(&value, 8).is_empty(),
                    _ => {}
                }
                if trace && span { Err(done) } else { Ok(()) }
            });
            // Both ends are fine: the members ran out, or both ids were found.
            read.unwrap_or_default();
        }
    }
    trace && span
}
