//! The list of known fields is what the captures have: `FLEETLOG_UPDATE_DOCS=1` rewrites it.
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fleetlog_formats::catalogue::CATALOGUE;
use fleetlog_formats::{Input, decode};
use fleetlog_schemas::event::{AgentEvent, EventType};
use fleetlog_schemas::record::Route;
use serde_json::{Map, Value};

/// Formats whose fields are anybody's: conventions, not programs.
const OPEN: &[&str] = &["universal.json", "otlp.logs", "otlp.spans", "otlp.metrics"];

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { list(&path, files) } else { files.push(path) }
    }
}

fn understood(route: Route, content_type: &str, hint: &str, body: &[u8]) -> Vec<AgentEvent> {
    let input = Input {
        route,
        content_type,
        format_hint: hint,
        body,
        project_id: "p",
        request_id: "r",
        idempotency_key: "",
        received_at: 0,
        raw_partition: 0,
        raw_offset: 0,
        first_record: 0,
        piece: 0,
        rejected: &[],
        stream: None,
    };
    let mut events = decode(&input).map(|decoded| decoded.events).unwrap_or_default();
    events.retain(|event| event.event_type != EventType::RawUnknown);
    events
}

/// The events of a fixture by the doors that its name tells, else as detection finds it, else by each hint.
fn events(file: &Path) -> Vec<AgentEvent> {
    let mut body = std::fs::read(file).unwrap();
    let mut name = file.file_name().unwrap().to_str().unwrap().to_owned();
    if let Some(plain) = name.strip_suffix(".zst") {
        body = zstd::decode_all(body.as_slice()).unwrap();
        name = plain.to_owned();
    }
    let content_type = match name.rsplit('.').next() {
        Some("pb") => "application/x-protobuf".to_owned(),
        Some("jsonl") => "application/x-ndjson".to_owned(),
        Some("form") => {
            let first = body.split(|byte| *byte == b'\r').next().unwrap();
            format!("multipart/form-data; boundary={}", String::from_utf8_lossy(&first[2..]))
        }
        _ => "application/json".to_owned(),
    };
    let signals = [("logs", Route::OtlpLogs), ("spans", Route::OtlpTraces), ("metrics", Route::OtlpMetrics)];
    let doors = signals.iter().filter(|(signal, _)| name.contains(signal)).map(|(_, route)| (*route, ""));
    let hints = CATALOGUE.iter().map(|format| (Route::Raw, format.name));
    doors
        .chain([(Route::Raw, "")])
        .chain(hints)
        .map(|(route, hint)| understood(route, &content_type, hint, &body))
        .find(|events| !events.is_empty())
        .unwrap_or_default()
}

#[test]
fn the_list_of_known_fields_is_what_the_captures_have() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    list(&here.join("../crates/formats/tests/fixtures"), &mut files);
    let mut fields: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for event in files.iter().flat_map(|file| events(file)) {
        if OPEN.contains(&event.source_format.as_str()) {
            continue;
        }
        let data: Map<String, Value> = serde_json::from_str(&event.data).unwrap();
        fields.entry(event.source_format).or_default().extend(data.keys().cloned());
    }
    let found = serde_json::to_string_pretty(&fields).unwrap() + "\n";
    let path = here.join("data/fields.json");
    if std::env::var_os("FLEETLOG_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let listed = std::fs::read_to_string(&path).unwrap();
    assert!(
        listed == found,
        "data/fields.json is not what the fixtures have; FLEETLOG_UPDATE_DOCS=1 cargo test -p fleetlog-processor --test fields rewrites it"
    );
}
