//! Files of lines, decoded whole and in chunks.

use std::path::PathBuf;

use fleetlog_formats::{Decoded, Input, decode, follow};
use fleetlog_schemas::event::AgentEvent;
use fleetlog_schemas::record::{Route, StreamContext};

use crate::support::{fixture, input, view};

/// A fixture that is a stream of lines, and the hint it is sent with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream<'a> {
    pub(crate) hint: &'a str,
    pub(crate) name: &'a str,
}

/// How lines are sent; without it a chunk of one line looks like a document.
pub(crate) const LINES: &str = "application/x-ndjson";

/// Decodes a chunk that begins at `line`, given what the lines before it have said.
fn chunk(sent: (&str, &str), lines: &[&str], line: usize, before: &StreamContext) -> Decoded {
    let (content_type, hint) = sent;
    let body = lines.concat();
    let stream = StreamContext { first_line: line as i64, ..before.clone() };
    let input = Input {
        content_type,
        format_hint: hint,
        first_record: line as u32,
        stream: Some(&stream),
        ..input(Route::Raw, "", body.as_bytes())
    };
    decode(&input).unwrap()
}

/// A stream's context before its first line.
fn start() -> StreamContext {
    StreamContext { stream_id: "stream-1".into(), ..StreamContext::default() }
}

/// Decodes a stream's lines at once.
pub(crate) fn of_text(hint: &str, text: &str) -> Decoded {
    chunk(("", hint), &text.split_inclusive('\n').collect::<Vec<_>>(), 0, &start())
}

/// Decodes a fixture at once.
pub(crate) fn whole(stream: Stream<'_>) -> Vec<AgentEvent> {
    of_text(stream.hint, &String::from_utf8(fixture(stream.name)).unwrap()).events
}

/// Cuts a text at every line, sent with this content type and hint; both parts must give the events of the whole.
pub(crate) fn assert_cuts_of(sent: (&str, &str), text: &str) {
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let expected = chunk(sent, &lines, 0, &start());
    let mut context = start();
    for (cut, line) in lines.iter().enumerate() {
        let mut events = if cut == 0 { Vec::new() } else { chunk(sent, &lines[..cut], 0, &start()).events };
        events.extend(chunk(sent, &lines[cut..], cut, &context).events);
        similar_asserts::assert_eq!(view(&events), view(&expected.events), "cut at {cut}");
        follow(&mut context, line.as_bytes());
    }
}

/// [`assert_cuts_of`], whether or not the sender says that it sends lines.
pub(crate) fn assert_text_cuts_change_nothing(hint: &str, text: &str) {
    assert_cuts_of(("", hint), text);
    assert_cuts_of((LINES, hint), text);
}

/// [`assert_text_cuts_change_nothing`] of a fixture.
pub(crate) fn assert_cuts_change_nothing(stream: Stream<'_>) {
    assert_text_cuts_change_nothing(stream.hint, &String::from_utf8(fixture(stream.name)).unwrap());
}

/// A folder of files that others wrote; says why there is none.
pub(crate) fn samples(folder: &str) -> Option<PathBuf> {
    let sibling = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/formats/samples");
    let samples = std::env::var_os("FLEETLOG_SAMPLES").map_or(sibling, PathBuf::from);
    if !samples.is_dir() {
        println!("skipped: no samples; FLEETLOG_SAMPLES names their folder");
        return None;
    }
    Some(samples.join(folder))
}

/// A log record as an exporter writes it, with these attributes; decoded.
pub(crate) fn log(service: &str, attributes: &serde_json::Value) -> AgentEvent {
    let any = |value: &serde_json::Value| match value {
        serde_json::Value::Bool(flag) => serde_json::json!({"boolValue": flag}),
        serde_json::Value::Number(number) => serde_json::json!({"intValue": number}),
        value => serde_json::json!({"stringValue": value}),
    };
    let entry =
        |(name, value): (&String, &serde_json::Value)| serde_json::json!({"key": name, "value": any(value)});
    let attributes: Vec<_> = attributes.as_object().unwrap().iter().map(entry).collect();
    let service = serde_json::json!([{"key": "service.name", "value": {"stringValue": service}}]);
    let record = serde_json::json!({"observedTimeUnixNano": "1795263350870650303", "attributes": attributes});
    let body = serde_json::json!({"resourceLogs": [{"resource": {"attributes": service},
        "scopeLogs": [{"scope": {"name": service}, "logRecords": [record]}]}]});
    let decoded = decode(&input(Route::OtlpLogs, "", body.to_string().as_bytes())).unwrap();
    let [event] = decoded.events.try_into().unwrap();
    event
}
