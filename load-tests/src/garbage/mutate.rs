//! Something real, made wrong.

use fleetlog_chance::{Chance, mutate};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::seeds::{Content, Seed};
use super::wire;

/// Longest body, bytes.
const LONGEST: usize = 64 * 1024;
/// Names that mean something somewhere.
const NAMES: &[&str] = &[
    "id",
    "timestamp",
    "type",
    "sessionId",
    "projectId",
    "data",
    "context",
    "metrics",
    "attributes",
    "resourceLogs",
    "resourceSpans",
    "scopeLogs",
    "spans",
    "traceId",
    "spanId",
    "timeUnixNano",
    "body",
    "kvlistValue",
    "usage",
    "model",
    "batch",
    "runs",
    "inputTokens",
    "a.b",
    "",
    "\u{0}",
];

/// The body of a seed after some changes.
pub(crate) fn body(seed: &Seed, random: &mut StdRng) -> Vec<u8> {
    let mut bytes = match seed.content.clone() {
        Content::Document(mut value) => {
            change_some(std::slice::from_mut(&mut value), random);
            value.to_string().into_bytes()
        }
        Content::Lines(mut lines) => {
            change_some(&mut lines, random);
            lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n").into_bytes()
        }
        Content::Message(message) => wire::rebuilt(&message, 12, &mut |field| change_field(field, random)),
        Content::Form(form) => form,
    };
    if random.random_ratio(1, 3) {
        for _ in 0..random.random_range(1..4) {
            change_bytes(&mut bytes, random);
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

/// Bytes without any sense.
pub(crate) fn noise(random: &mut StdRng, most: usize) -> Vec<u8> {
    let length = random.random_range(0..most);
    (0..length).map(|_| random.random()).collect()
}

fn change_some(values: &mut [Value], random: &mut StdRng) {
    for _ in 0..random.random_range(0..4) {
        if values.is_empty() {
            return;
        }
        let place = random.random_range(0..values.len());
        if let Some(value) = values.get_mut(place) {
            mutate::change_node(value, &mut drawn(random), |node, _| change(node, random));
        }
    }
}

fn change(node: &mut Value, random: &mut StdRng) {
    let name = NAMES.get(random.random_range(0..NAMES.len())).copied().unwrap_or_default();
    match (random.random_range(0..6), &mut *node) {
        (0, Value::Object(members)) => drop(members.insert(name.to_owned(), strange(random))),
        (1, Value::Object(members)) => {
            let first = members.keys().next().cloned();
            if let Some(value) = first.and_then(|first| members.shift_remove(&first)) {
                members.insert(name.to_owned(), value);
            }
        }
        (2, Value::Array(items)) => {
            if let Some(last) = items.last().cloned() {
                items.extend(std::iter::repeat_n(last, random.random_range(1..20)));
            }
        }
        (3, any) => *any = Value::String(any.to_string()),
        (4, any) => *any = json!([any.take()]),
        (_, any) => *any = strange(random),
    }
}

fn strange(random: &mut StdRng) -> Value {
    match random.random_range(0..14) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(0),
        3 => json!(-1),
        4 => json!(u64::MAX),
        5 => json!(i64::MIN),
        6 => json!(1e308),
        7 => json!(""),
        8 => json!("\u{0}\u{1F600}\u{FFFD}\u{202E}"),
        9 => json!({}),
        10 => json!([]),
        11 => json!("9".repeat(random.random_range(0..300))),
        12 => json!("2026-13-41T25:61:61.9999999999+99:99"),
        _ => (0..random.random_range(0..120)).fold(Value::Null, |inner, _| json!([inner])),
    }
}

fn change_field(field: &mut Vec<u8>, random: &mut StdRng) {
    if !random.random_ratio(1, 12) {
        return;
    }
    match random.random_range(0..5) {
        0 => field.clear(),
        1 => *field = field.repeat(random.random_range(2..10)),
        2 => {
            if let Some(key) = field.first_mut() {
                *key = (*key & 7) | (random.random::<u8>() & 0x78);
            }
        }
        3 => field.truncate(random.random_range(0..=field.len())),
        _ => field.iter_mut().skip(1).for_each(|byte| *byte = random.random()),
    }
}

pub(crate) fn change_bytes(body: &mut Vec<u8>, random: &mut StdRng) {
    mutate::change_bytes(body, &mut drawn(random));
}

/// What one change draws from.
fn drawn(random: &mut StdRng) -> Chance {
    Chance::new(random.random())
}
