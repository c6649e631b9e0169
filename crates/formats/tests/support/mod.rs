//! Fixtures and a readable view of events.

use std::path::Path;

use fleetlog_formats::{Input, decode};
use fleetlog_schemas::event::AgentEvent;
use fleetlog_schemas::record::Route;
use serde_json::{Map, Value};

pub(crate) fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn input<'a>(route: Route, name: &str, body: &'a [u8]) -> Input<'a> {
    Input {
        route,
        content_type: if name.ends_with(".pb") { "application/x-protobuf" } else { "application/json" },
        format_hint: "",
        body,
        project_id: "p1",
        request_id: "req-1",
        idempotency_key: "",
        received_at: 1_800_000_000_000_000_000,
        raw_partition: 0,
        raw_offset: 0,
        first_record: 0,
        piece: 0,
        rejected: &[],
        stream: None,
    }
}

pub(crate) fn decoded(route: Route, name: &str) -> Vec<AgentEvent> {
    let bytes = fixture(name);
    let decoded = decode(&input(route, name, &bytes)).unwrap();
    assert!(decoded.eventless.is_empty(), "{:?}", decoded.eventless);
    decoded.events
}

/// Events as JSON objects of what they say: defaults left out, `context` and `data` unfolded.
pub(crate) fn view(events: &[AgentEvent]) -> Value {
    let fields = |event: &AgentEvent| match serde_json::to_value(event) {
        Ok(Value::Object(fields)) => fields,
        other => panic!("{other:?}"),
    };
    let blank = fields(&AgentEvent::default());
    let show = |event: &AgentEvent| -> Value {
        let mut shown = Map::new();
        for (name, value) in fields(event) {
            let value = match name.as_str() {
                "event_id" if event.event_id == event.dedup_key.to_string() => continue,
                "dedup_key" => event.dedup_key.to_string().into(),
                "context" | "data" => serde_json::from_str(value.as_str().unwrap()).unwrap(),
                _ if blank.get(&name) == Some(&value) => continue,
                _ => value,
            };
            shown.insert(name, value);
        }
        Value::Object(shown)
    };
    events.iter().map(show).collect()
}
