//! Something real, made wrong: in its structure, or in its bytes.

use fleetlog_chance::{Chance, mutate};
use fleetlog_formats::catalogue::CATALOGUE;
use fleetlog_schemas::record::{Route, StreamContext};
use serde_json::{Value, json};

use crate::check::Case;
use crate::corpus::{Body, Corpus, Part, Seed};
use crate::template::Template;
use crate::wire::Message;

const CONTENT_TYPES: &[&str] =
    &["application/json", "application/x-ndjson", "application/x-protobuf", "", "text/plain"];
/// Longest body, bytes.
const LONGEST: usize = 400_000;
/// One input in so many is taken apart as a whole.
const WHOLE_ONE_IN: u64 = 40;
/// One input in so many is made large: it takes the time of a hundred others.
const LARGE_ONE_IN: u64 = 4_000;

/// The input of one run.
///
/// Nearly all are a copy of a seed with a few places changed ([`Template::write_changed`]); now and then the whole is
/// taken apart and changes are made within changes, and rarely much is made of little.
pub(crate) fn case(corpus: &Corpus, format: &str, random: &mut Chance) -> Case {
    let (seed, own) = corpus.seed(format, random);
    let (route, hint) = if own { (seed.route, seed.hint.as_str()) } else { (Route::Raw, format) };
    let mut case = Case {
        route,
        content_type: seed.content_type.clone(),
        hint: hint.to_owned(),
        stream: None,
        first_record: 0,
        followed: random.one_in(4),
        body: body(seed, corpus, format, random),
    };
    if case.body.len() > LONGEST {
        // JSON in JSON's strings doubles its backslashes at every depth.
        case.body.truncate(LONGEST);
    }
    if random.one_in(3) {
        for _ in 0..=random.place(3) {
            mutate_bytes(&mut case.body, corpus, format, random);
        }
    }
    if random.one_in(12) {
        case.content_type = (*random.one_of::<&str>(CONTENT_TYPES)).to_owned();
    }
    if random.one_in(12) {
        case.hint = random.one_of(CATALOGUE).name.to_owned();
    }
    if random.one_in(20) {
        case.route = *random.one_of(Route::ALL);
    }
    if random.one_in(3) {
        case.stream = Some(stream(corpus, format, random));
    }
    case.first_record = if random.one_in(8) { random.bits() as u32 } else { 0 };
    case
}

fn body(seed: &Seed, corpus: &Corpus, format: &str, random: &mut Chance) -> Vec<u8> {
    match &seed.body {
        _ if random.one_in(40) => (0..random.place(400)).map(|_| random.bits() as u8).collect(),
        Body::Document(document) if random.one_in(LARGE_ONE_IN) => {
            let mut value = document.value();
            enlarge_text(&mut value, random);
            lengthen_list(&mut value, random);
            written(&[value], 0)
        }
        Body::Document(document) if random.one_in(WHOLE_ONE_IN) => {
            let mut value = document.value();
            mutate_values(std::slice::from_mut(&mut value), corpus, random);
            written(&[value], 0)
        }
        Body::Document(document) => {
            let mut out = Vec::with_capacity(document.bytes().len() + 256);
            document.write_changed(another(document, corpus, format, random), corpus, random, &mut out);
            out
        }
        Body::Lines(lines) if random.one_in(WHOLE_ONE_IN) => {
            let mut lines = lines.iter().map(Template::value).collect();
            mutate_lines(&mut lines, corpus, random);
            written(&lines, random.place(8))
        }
        Body::Lines(lines) => changed_lines(lines, corpus, format, random),
        Body::Message(message) => mutate_message(message, random),
        Body::Bytes(bytes) => bytes.clone(),
        Body::Form { boundary, parts } => {
            let mut parts = parts.clone();
            mutate_parts(&mut parts, corpus, format, random);
            Body::Form { boundary: boundary.clone(), parts }.written()
        }
    }
}

/// A text of another seed of the format, or the same where that one has none.
fn another<'c>(same: &'c Template, corpus: &'c Corpus, format: &str, random: &mut Chance) -> &'c Template {
    match &corpus.seed(format, random).0.body {
        Body::Document(document) => document,
        Body::Lines(lines) if !lines.is_empty() => random.one_of(lines),
        _ => same,
    }
}

/// Lines in nearly their order, one of them or all with a few places changed.
fn changed_lines(lines: &[Template], corpus: &Corpus, format: &str, random: &mut Chance) -> Vec<u8> {
    let how = random.place(8);
    let (start, between, end): (&[u8], &[u8], &[u8]) = match how {
        0 => (b"", b"\n", b""),
        1 => (b"", b"\r\n", b"\r\n"),
        2 => (b"[", b",", b"]"),
        3 => (b"", b"\n\n \n", b""),
        _ => (b"", b"\n", b"\n"),
    };
    let mut out = Vec::with_capacity(lines.iter().map(|line| line.bytes().len()).sum::<usize>() + 256);
    out.extend_from_slice(start);
    let (skipped, swapped) = (random.place(6 * lines.len()), random.one_in(8));
    let all = random.one_in(4);
    let changed = random.place(lines.len());
    let mut first = true;
    for number in 0..lines.len() {
        let line = &lines[if swapped { lines.len() - 1 - number } else { number }];
        if number == skipped && lines.len() > 1 {
            continue;
        }
        let copies = if random.one_in(40) { copies(random, 100) } else { 1 };
        for _ in 0..copies {
            if !std::mem::take(&mut first) {
                out.extend_from_slice(between);
            }
            if all || number == changed {
                line.write_changed(another(line, corpus, format, random), corpus, random, &mut out);
            } else {
                out.extend_from_slice(line.bytes());
            }
        }
    }
    out.extend_from_slice(end);
    out
}

fn stream(corpus: &Corpus, format: &str, random: &mut Chance) -> StreamContext {
    let word = |random: &mut Chance| match random.place(3) {
        0 => String::new(),
        1 => random.one_of(&corpus.texts).clone(),
        _ => "x".to_owned(),
    };
    StreamContext {
        format: if random.one_in(2) { format.to_owned() } else { word(random) },
        stream_id: word(random),
        first_line: if random.one_in(4) { random.bits() as i64 } else { 7 },
        session_id: word(random),
        model: word(random),
        turn_id: word(random),
        agent_id: word(random),
        version: word(random),
        ..StreamContext::default()
    }
}

fn written(values: &[Value], how: usize) -> Vec<u8> {
    let lines: Vec<String> = values.iter().map(Value::to_string).collect();
    match how {
        0 => lines.join("\n"),
        1 => lines.join("\r\n") + "\r\n",
        2 => format!("[{}]", lines.join(",")),
        3 => lines.join("\n\n \n"),
        _ => lines.join("\n") + "\n",
    }
    .into_bytes()
}

/// Bytes of a text that many records may share.
const LARGE: usize = 60_000;
/// Records that may share it.
const MANY: usize = 300;

fn mutate_lines(lines: &mut Vec<Value>, corpus: &Corpus, random: &mut Chance) {
    if random.one_in(LARGE_ONE_IN / WHOLE_ONE_IN) {
        enlarge_text(&mut lines[0], random);
        let last = lines[lines.len() - 1].clone();
        lines.extend(std::iter::repeat_n(last, MANY));
        return;
    }
    match random.place(8) {
        0 => drop(lines.swap_remove(random.place(lines.len()))),
        1 => {
            let line = random.one_of(lines).clone();
            let copies = copies(random, 200);
            lines.extend(std::iter::repeat_n(line, copies));
        }
        2 => {
            let (a, b) = (random.place(lines.len()), random.place(lines.len()));
            lines.swap(a, b);
        }
        _ => {}
    }
    mutate_values(lines, corpus, random);
}

/// Changes what parts hold, and which there are.
fn mutate_parts(parts: &mut Vec<Part>, corpus: &Corpus, format: &str, random: &mut Chance) {
    match random.place(6) {
        _ if parts.is_empty() => return,
        0 => drop(parts.swap_remove(random.place(parts.len()))),
        1 => {
            let part = random.one_of(parts).clone();
            let copies = copies(random, 100);
            parts.extend(std::iter::repeat_n(part, copies));
        }
        2 => {
            let (a, b) = (random.place(parts.len()), random.place(parts.len()));
            parts.swap(a, b);
        }
        _ => {}
    }
    for part in parts {
        if !random.one_in(3) {
            continue;
        }
        if let Ok(text) = &part.text {
            let mut out = Vec::new();
            text.write_changed(another(text, corpus, format, random), corpus, random, &mut out);
            part.text = Err(out);
        }
    }
}

/// Makes a random text of a value large.
fn enlarge_text(value: &mut Value, random: &mut Chance) {
    for _ in 0..20 {
        let mut done = false;
        mutate::change_node(value, random, |node, _| {
            if let Value::String(text) = node {
                *text = text.repeat(LARGE / text.len().max(1) + 1);
                done = true;
            }
        });
        if done {
            return;
        }
    }
}

/// Makes a random list of a value long.
fn lengthen_list(value: &mut Value, random: &mut Chance) {
    for _ in 0..20 {
        let mut done = false;
        mutate::change_node(value, random, |node, _| {
            if let Value::Array(items) = node
                && let Some(last) = items.last().cloned()
            {
                items.extend(std::iter::repeat_n(last, MANY));
                done = true;
            }
        });
        if done {
            return;
        }
    }
}

fn mutate_values(values: &mut [Value], corpus: &Corpus, random: &mut Chance) {
    if values.is_empty() {
        return;
    }
    for _ in 0..random.place(4) {
        let at = random.place(values.len());
        mutate::change_node(&mut values[at], random, |node, random| change(node, corpus, random));
    }
}

fn change(node: &mut Value, corpus: &Corpus, random: &mut Chance) {
    match (random.place(7), &mut *node) {
        (0, Value::Object(members)) if !members.is_empty() => {
            let name = members.keys().nth(random.place(members.len())).cloned().unwrap_or_default();
            let value = members.shift_remove(&name).unwrap_or_default();
            if random.one_in(2) {
                members.insert(random.one_of(&corpus.names).clone(), value);
            }
        }
        (1, Value::Object(members)) => {
            members.insert(random.one_of(&corpus.names).clone(), strange(corpus, random));
        }
        (2, Value::Array(items)) if !items.is_empty() => {
            let item = random.one_of(items).clone();
            let copies = copies(random, 100);
            items.extend(std::iter::repeat_n(item, copies));
        }
        (3, Value::Array(items)) if !items.is_empty() => {
            items.remove(random.place(items.len()));
        }
        (4, any) => *any = Value::String(any.to_string()),
        (5, any) => *any = json!([any.take()]),
        (_, any) => *any = strange(corpus, random),
    }
}

/// A value that may stand anywhere.
pub(crate) fn strange(corpus: &Corpus, random: &mut Chance) -> Value {
    match random.place(18) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(0),
        3 => json!(-1),
        4 => json!(u64::MAX),
        5 => json!(i64::MIN),
        6 => json!(1e308),
        7 => json!(-0.5),
        8 => json!(""),
        9 => json!("\u{0}\u{1F600}\u{FFFD}\u{202E}"),
        10 => json!({}),
        11 => json!([]),
        12 => json!(random.bits().to_string()),
        13 => json!("9".repeat(random.place(400))),
        14 => json!("2026-13-41T25:61:61.9999999999+99:99"),
        15 => (0..random.place(150)).fold(Value::Null, |inner, _| json!([inner])),
        _ => json!(random.one_of(&corpus.texts)),
    }
}

fn mutate_message(message: &Message, random: &mut Chance) -> Vec<u8> {
    if message.len() == 0 {
        return message.bytes().to_vec();
    }
    let mut chosen = [0; 3];
    let count = random.place(chosen.len() + 1);
    chosen.iter_mut().for_each(|one| *one = random.place(message.len()));
    let moved = message.field(random.place(message.len())).to_vec();
    message.rebuilt(&chosen[..count], &mut |field, whole, out| match random.place(6) {
        0 => {}
        1 => (0..copies(random, 100)).for_each(|_| out.extend_from_slice(whole)),
        2 => {
            // The same payload under another number.
            let from = out.len();
            out.extend_from_slice(whole);
            if let Some(first) = out.get_mut(from) {
                *first = (*first & 7) | ((random.bits() as u8 & 0x0f) << 3);
            }
        }
        3 => out.extend_from_slice(&whole[..random.place(whole.len() + 1)]),
        4 => {
            out.extend_from_slice(&moved);
            out.extend_from_slice(whole);
        }
        _ => {
            let head = field.payload.map_or(1, |payload| payload - field.start).min(whole.len());
            out.extend_from_slice(&whole[..head]);
            out.extend((head..whole.len()).map(|_| random.bits() as u8));
        }
    })
}

fn mutate_bytes(body: &mut Vec<u8>, corpus: &Corpus, format: &str, random: &mut Chance) {
    if random.one_in(8) {
        // The beginning of one, and the end of another.
        let other = corpus.seed(format, random).0.body.written();
        body.truncate(random.place(body.len() + 1));
        body.extend_from_slice(&other[random.place(other.len())..]);
    } else {
        mutate::change_bytes(body, random);
    }
}

/// A number of copies: nearly always a few, now and then up to `many`.
pub(crate) fn copies(random: &mut Chance, many: usize) -> usize {
    let most = if random.one_in(20) { many } else { 3 };
    1 + random.place(most)
}
