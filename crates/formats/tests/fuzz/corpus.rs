//! The fixtures, cut down to small seeds, by the formats that they are decoded as.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fleetlog_chance::Chance;
use fleetlog_formats::catalogue::CATALOGUE;
use fleetlog_formats::decode;
use fleetlog_schemas::record::Route;
use serde_json::Value;

use crate::check::Case;
use crate::mutate;
use crate::template::{Template, quoted};
use crate::wire::{self, Message};

/// Seeds made of one fixture; each is another random part of it.
const SEEDS: usize = 32;

/// How much of a fixture a seed keeps.
struct Scale {
    /// Longest string, bytes.
    text: usize,
    /// Elements of a list.
    elements: usize,
    /// Elements of a list of attributes, by which a record is known.
    attributes: usize,
    /// Lines, beside the first of the file.
    lines: usize,
    /// Message in a message that is kept whole, bytes.
    message: usize,
}

/// Most inputs begin as about one record: what a record costs is what an input costs.
const SMALL: Scale = Scale { text: 48, elements: 1, attributes: 6, lines: 1, message: 400 };
/// A few begin as several records that have to do with each other.
const LARGE: Scale = Scale { text: 300, elements: 2, attributes: 12, lines: 4, message: 1_500 };
/// One seed in so many is a large one.
const LARGE_ONE_IN: usize = 8;

/// What a seed's bytes are.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// One JSON document.
    Document(Template),
    /// JSON values, one a line.
    Lines(Vec<Template>),
    /// A protobuf message.
    Message(Message),
    /// Anything else.
    Bytes(Vec<u8>),
    /// A multipart form.
    Form { boundary: String, parts: Vec<Part> },
}

/// A part of a form: its headers, and the JSON after them.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) head: Vec<u8>,
    pub(crate) text: Result<Template, Vec<u8>>,
}

/// Something real, small, and how it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Seed {
    pub(crate) route: Route,
    pub(crate) content_type: String,
    pub(crate) hint: String,
    pub(crate) body: Body,
}

impl Body {
    /// The bytes of a body.
    pub(crate) fn written(&self) -> Vec<u8> {
        match self {
            Self::Document(template) => template.bytes().to_vec(),
            Self::Lines(lines) => lines.iter().flat_map(|line| [line.bytes(), b"\n"].concat()).collect(),
            Self::Message(message) => message.bytes().to_vec(),
            Self::Bytes(bytes) => bytes.clone(),
            Self::Form { boundary, parts } => {
                let mut out = Vec::new();
                for part in parts {
                    out.extend(format!("--{boundary}\r\n").into_bytes());
                    out.extend_from_slice(&part.head);
                    out.extend_from_slice(part.bytes());
                    out.extend(b"\r\n");
                }
                out.extend(format!("--{boundary}--\r\n").into_bytes());
                out
            }
        }
    }
}

impl Part {
    fn bytes(&self) -> &[u8] {
        self.text.as_ref().map_or_else(Vec::as_slice, Template::bytes)
    }

    fn of(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |at| at + 4);
        let (head, text) = bytes.split_at(end);
        let text = serde_json::from_slice(text).map(|value| Template::of(&value));
        Self { head: head.to_vec(), text: text.map_err(|_| bytes[end..].to_vec()) }
    }
}

/// All seeds by format, and the words they are made of.
pub(crate) struct Corpus {
    by_format: BTreeMap<String, Vec<Seed>>,
    fixtures: BTreeMap<String, usize>,
    pub(crate) names: Vec<String>,
    pub(crate) texts: Vec<String>,
    /// The names as JSON strings.
    pub(crate) names_quoted: Vec<Vec<u8>>,
    /// JSON values that may stand anywhere: those that parsers stumble over, and as many of the texts.
    pub(crate) strange: Vec<Vec<u8>>,
}

impl Corpus {
    /// Reads every fixture there is.
    pub(crate) fn load(random: &mut Chance) -> Self {
        let mut corpus = Self {
            by_format: BTreeMap::new(),
            fixtures: BTreeMap::new(),
            names: Vec::new(),
            texts: Vec::new(),
            names_quoted: Vec::new(),
            strange: Vec::new(),
        };
        let mut files = Vec::new();
        list(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"), &mut files);
        files.sort();
        for file in &files {
            let Ok(mut bytes) = std::fs::read(file) else { continue };
            let mut name = file.clone();
            if file.extension().is_some_and(|extension| extension == "zst") {
                bytes = zstd::decode_all(bytes.as_slice()).unwrap();
                name = file.with_extension("");
            }
            corpus.take(&name, &bytes, random);
        }
        corpus.take(Path::new("universal.json"), UNIVERSAL.as_bytes(), random);
        corpus.names.sort();
        corpus.names.dedup();
        corpus.texts.sort();
        corpus.texts.dedup();
        corpus.names_quoted = corpus.names.iter().map(|name| quoted(name)).collect();
        corpus.strange =
            (0..STRANGE).map(|_| mutate::strange(&corpus, random).to_string().into_bytes()).collect();
        corpus
    }

    /// How many fixtures hold records of a format.
    pub(crate) fn fixtures_of(&self, format: &str) -> usize {
        self.fixtures.get(format).copied().unwrap_or(0)
    }

    /// A seed of a format; one of any where it has none of its own, and then false.
    pub(crate) fn seed(&self, format: &str, random: &mut Chance) -> (&Seed, bool) {
        match self.by_format.get(format) {
            Some(seeds) => (random.one_of(seeds), true),
            None => {
                let any = random.place(self.by_format.len());
                (random.one_of(self.by_format.values().nth(any).map_or(&[], Vec::as_slice)), false)
            }
        }
    }

    fn take(&mut self, file: &Path, bytes: &[u8], random: &mut Chance) {
        let bodies: Vec<Body> = (0..SEEDS)
            .filter_map(|number| {
                let scale = if number % LARGE_ONE_IN == 0 { &LARGE } else { &SMALL };
                part(file, bytes, scale, random)
            })
            .collect();
        for body in bodies.iter().take(LARGE_ONE_IN) {
            self.learn(body);
        }
        for (route, content_type, hint) in doors(file) {
            let mut formats = BTreeMap::new();
            for body in &bodies {
                let content_type = match body {
                    Body::Form { boundary, .. } => format!("multipart/form-data; boundary={boundary}"),
                    _ => content_type.to_owned(),
                };
                let seed = Seed { route, content_type, hint: hint.clone(), body: body.clone() };
                let mut understood = formats_of(&seed);
                // A hint may name a way of sending that ends as another format's events.
                let by_hint = (!hint.is_empty() && !understood.is_empty()).then(|| hint.clone());
                understood.extend(by_hint.filter(|hint| !understood.contains(hint)));
                for format in understood {
                    formats.entry(format).or_insert_with(Vec::new).push(seed.clone());
                }
            }
            for (format, seeds) in formats {
                // A hint that detection would not have needed makes no new seeds.
                if hint.is_empty() || !self.by_format.contains_key(&format) {
                    *self.fixtures.entry(format.clone()).or_default() += 1;
                    self.by_format.entry(format).or_default().extend(seeds);
                }
            }
        }
    }

    fn learn(&mut self, body: &Body) {
        match body {
            Body::Document(document) => self.learn_value(&document.value()),
            Body::Lines(lines) => lines.iter().for_each(|line| self.learn_value(&line.value())),
            Body::Message(_) | Body::Bytes(_) => {}
            Body::Form { parts, .. } => {
                parts.iter().filter_map(|part| part.text.as_ref().ok()).for_each(|text| {
                    self.learn_value(&text.value());
                });
            }
        }
    }

    fn learn_value(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.learn_value(item)),
            Value::Object(members) => {
                for (name, value) in members {
                    self.names.push(name.clone());
                    self.learn_value(value);
                }
            }
            Value::String(text) if text.len() < 80 => self.texts.push(text.clone()),
            _ => {}
        }
    }
}

/// Strange values that there are to choose from.
const STRANGE: usize = 600;

/// Universal events need no capture: their shape is ours.
const UNIVERSAL: &str = r#"[{"id":"e1","timestamp":"2026-11-21T12:00:00.5Z","type":"llm.request","agentId":"a",
"sessionId":"s","projectId":"p1","context":{"host":"h","provider":"openai","model":"gpt-5"},"data":{"callId":"c",
"inputTokens":12,"outputTokens":3,"cost":0.5,"tool":"x"},"metrics":{"duration":1.5,"tokenCount":15,"fileSize":9}},
{"type":"tool.call","timestamp":1795264656000,"status":"error","error":{"type":"E","message":"m"},"toolCallId":"t"}]"#;

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { list(&path, files) } else { files.push(path) }
    }
}

/// By which doors a fixture may come in: the one its name tells, else any, with every hint.
fn doors(file: &Path) -> Vec<(Route, &'static str, String)> {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let content_type = match file.extension().and_then(|extension| extension.to_str()) {
        Some("pb") => "application/x-protobuf",
        Some("jsonl") => "application/x-ndjson",
        _ => "application/json",
    };
    let otlp = [("logs", Route::OtlpLogs), ("spans", Route::OtlpTraces), ("metrics", Route::OtlpMetrics)];
    let mut doors: Vec<_> = otlp
        .iter()
        .filter(|(signal, _)| name.contains(signal))
        .map(|(_, route)| (*route, content_type, String::new()))
        .collect();
    if name == "universal.json" {
        doors.push((Route::Events, content_type, String::new()));
    }
    doors.push((Route::Raw, content_type, String::new()));
    doors.extend(CATALOGUE.iter().map(|format| (Route::Raw, content_type, format.name.to_owned())));
    doors
}

/// The formats of the catalogue as which a seed is understood.
fn formats_of(seed: &Seed) -> Vec<String> {
    let case = Case::of(seed);
    let Ok(decoded) = decode(&case.input(&[])) else { return Vec::new() };
    let understood = decoded.events.iter().filter(|event| event.unknown_reason.is_empty());
    let mut formats: Vec<String> = understood
        .map(|event| event.source_format.clone())
        .filter(|format| CATALOGUE.iter().any(|listed| listed.name == format))
        .collect();
    formats.sort();
    formats.dedup();
    formats
}

/// A small random part of a fixture.
fn part(file: &Path, bytes: &[u8], scale: &Scale, random: &mut Chance) -> Option<Body> {
    if file.extension().is_some_and(|extension| extension == "pb") {
        return Some(Body::Message(Message::of(&thinned_message(bytes, scale, random))));
    }
    if file.extension().is_some_and(|extension| extension == "form") {
        return form(bytes, scale, random);
    }
    if let Ok(mut value) = serde_json::from_slice(bytes) {
        thin(&mut value, scale, random);
        return Some(Body::Document(Template::of(&value)));
    }
    let lines: Option<Vec<Value>> = std::str::from_utf8(bytes)
        .ok()?
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::from_str(line).ok())
        .collect();
    let Some(mut lines) = lines else {
        return Some(Body::Bytes(bytes.get(..4096).unwrap_or(bytes).to_vec()));
    };
    let first = random.place(lines.len());
    // Often the header too, which names what the others need.
    let header = (random.one_in(2) && first > 0).then(|| lines[0].clone());
    let count = 1 + random.place(scale.lines);
    lines = header.into_iter().chain(lines.into_iter().skip(first).take(count)).collect();
    lines.iter_mut().for_each(|line| thin(line, scale, random));
    Some(Body::Lines(lines.iter().map(Template::of).collect()))
}

/// A few parts of a form that follow each other.
fn form(bytes: &[u8], scale: &Scale, random: &mut Chance) -> Option<Body> {
    let end = bytes.iter().position(|byte| *byte == b'\r')?;
    let boundary = std::str::from_utf8(bytes.get(2..end)?).ok()?.to_owned();
    let delimiter = format!("--{boundary}\r\n").into_bytes();
    let mut parts = Vec::new();
    let mut rest = bytes.strip_prefix(delimiter.as_slice())?;
    while let Some(at) = rest.windows(delimiter.len()).position(|window| window == delimiter) {
        parts.push(Part::of(&rest[..at.saturating_sub(2)]));
        rest = &rest[at + delimiter.len()..];
    }
    let first = random.place(parts.len());
    let mut parts: Vec<Part> =
        parts.into_iter().skip(first).take(1 + random.place(2 * scale.lines)).collect();
    for text in parts.iter_mut().filter_map(|part| part.text.as_mut().ok()) {
        let mut value = text.value();
        thin(&mut value, scale, random);
        *text = Template::of(&value);
    }
    Some(Body::Form { boundary, parts })
}

/// Keeps a random few of every list, and the beginning of every text.
fn thin(value: &mut Value, scale: &Scale, random: &mut Chance) {
    match value {
        Value::Array(items) => {
            let attributes = items.iter().all(|item| item.get("key").is_some());
            let most = if attributes { scale.attributes } else { scale.elements };
            while items.len() > most {
                items.remove(random.place(items.len()));
            }
            items.iter_mut().for_each(|item| thin(item, scale, random));
        }
        Value::Object(members) => members.values_mut().for_each(|member| thin(member, scale, random)),
        Value::String(text) if text.len() > scale.text => {
            // JSON within a text stays JSON.
            match serde_json::from_str::<Value>(text) {
                Ok(mut inner) if inner.is_array() || inner.is_object() => {
                    thin(&mut inner, scale, random);
                    *text = inner.to_string();
                }
                _ => text.truncate(text.floor_char_boundary(scale.text)),
            }
        }
        _ => {}
    }
}

fn thinned_message(bytes: &[u8], scale: &Scale, random: &mut Chance) -> Vec<u8> {
    let Some(found) = wire::fields(bytes) else { return bytes.to_vec() };
    let mut keep: BTreeMap<u64, Vec<wire::Field>> = BTreeMap::new();
    for field in found {
        keep.entry(field.tag).or_default().push(field);
    }
    for fields in keep.values_mut() {
        while fields.len() > scale.attributes.min(4 * scale.elements) {
            fields.remove(random.place(fields.len()));
        }
    }
    let mut kept: Vec<wire::Field> = keep.into_values().flatten().collect();
    kept.sort_by_key(|field| field.start);
    // Below the first levels the lists are attributes, which are what a record is known by.
    let mut out = Vec::new();
    for field in kept {
        let whole = &bytes[field.start..field.end];
        match field.payload {
            Some(payload) if whole.len() > scale.message => {
                let inner = thinned_message(&bytes[payload..field.end], scale, random);
                wire::put_varint(field.tag, &mut out);
                wire::put_varint(inner.len() as u64, &mut out);
                out.extend(inner);
            }
            _ => out.extend(whole),
        }
    }
    out
}
