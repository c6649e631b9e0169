//! JSON text that knows where each of its values lies, so that an input is a copy with a few places changed: no tree is
//! built and written again for each of a million inputs.

use fleetlog_chance::Chance;
use serde_json::Value;

use crate::corpus::Corpus;
use crate::mutate::copies;

/// Where a value lies; a member's label comes before it.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// Where the member begins with its name; an element or the document begins with its value.
    from: usize,
    start: usize,
    end: usize,
}

/// A JSON text.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    /// Never empty: the first is the whole.
    nodes: Vec<Node>,
}

/// Most places that one input changes.
const CHANGES: usize = 3;

impl Template {
    pub(crate) fn of(value: &Value) -> Self {
        let mut template = Self { bytes: Vec::new(), nodes: Vec::new() };
        template.put(value, 0);
        template
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }

    fn put(&mut self, value: &Value, from: usize) {
        let at = self.nodes.len();
        let start = self.bytes.len();
        self.nodes.push(Node { from, start, end: start });
        match value {
            Value::Array(items) => {
                self.bytes.push(b'[');
                for (number, item) in items.iter().enumerate() {
                    self.bytes.extend((number > 0).then_some(b','));
                    self.put(item, self.bytes.len());
                }
                self.bytes.push(b']');
            }
            Value::Object(members) => {
                self.bytes.push(b'{');
                for (number, (name, member)) in members.iter().enumerate() {
                    self.bytes.extend((number > 0).then_some(b','));
                    let from = self.bytes.len();
                    self.bytes.extend(quoted(name));
                    self.bytes.push(b':');
                    self.put(member, from);
                }
                self.bytes.push(b'}');
            }
            plain => self.bytes.extend(plain.to_string().into_bytes()),
        }
        self.nodes[at].end = self.bytes.len();
    }

    fn place(&self, random: &mut Chance) -> Node {
        *random.one_of(&self.nodes)
    }

    /// Writes the text with up to a few of its values changed; `other` is a text of the same format to take values from.
    pub(crate) fn write_changed(
        &self,
        other: &Self,
        corpus: &Corpus,
        random: &mut Chance,
        out: &mut Vec<u8>,
    ) {
        let mut places = [Node { from: usize::MAX, start: 0, end: 0 }; CHANGES];
        for place in places.iter_mut().take(random.place(CHANGES + 1)) {
            *place = self.place(random);
        }
        places.sort_unstable_by_key(|place| place.from);
        let mut at = 0;
        // A place within one that is changed already goes with it.
        for place in places.iter().take_while(|place| place.from != usize::MAX) {
            if place.from < at {
                continue;
            }
            out.extend_from_slice(&self.bytes[at..place.from]);
            at = place.end;
            if random.one_in(8) {
                // Without it, and without the comma that would tell.
                match (out.last(), self.bytes.get(at)) {
                    (Some(b','), _) => drop(out.pop()),
                    (_, Some(b',')) => at += 1,
                    _ => {}
                }
            } else {
                self.change(*place, other, corpus, random, out);
            }
        }
        out.extend_from_slice(&self.bytes[at..]);
    }

    fn change(&self, place: Node, other: &Self, corpus: &Corpus, random: &mut Chance, out: &mut Vec<u8>) {
        let whole = &self.bytes[place.from..place.end];
        let (label, value) = whole.split_at(place.start - place.from);
        match random.place(9) {
            0 if !label.is_empty() => {
                out.extend_from_slice(random.one_of::<Vec<u8>>(&corpus.names_quoted));
                out.push(b':');
                out.extend_from_slice(value);
            }
            1 => {
                for _ in 0..copies(random, 60) {
                    out.extend_from_slice(whole);
                    out.push(b',');
                }
                out.extend_from_slice(whole);
            }
            2 => {
                if !label.is_empty() {
                    out.extend_from_slice(random.one_of::<Vec<u8>>(&corpus.names_quoted));
                    out.push(b':');
                }
                out.extend_from_slice(random.one_of::<Vec<u8>>(&corpus.strange));
                out.push(b',');
                out.extend_from_slice(whole);
            }
            3 => {
                out.extend_from_slice(label);
                out.extend(quoted(&String::from_utf8_lossy(value)));
            }
            4 => {
                out.extend_from_slice(label);
                out.push(b'[');
                out.extend_from_slice(value);
                out.push(b']');
            }
            5 => {
                out.extend_from_slice(label);
                out.push(b'{');
                out.extend_from_slice(random.one_of::<Vec<u8>>(&corpus.names_quoted));
                out.push(b':');
                out.extend_from_slice(value);
                out.push(b'}');
            }
            6 => {
                let there = other.place(random);
                out.extend_from_slice(label);
                out.extend_from_slice(&other.bytes[there.start..there.end]);
            }
            _ => {
                out.extend_from_slice(label);
                out.extend_from_slice(random.one_of::<Vec<u8>>(&corpus.strange));
            }
        }
    }
}

/// A JSON string.
pub(crate) fn quoted(text: &str) -> Vec<u8> {
    serde_json::to_vec(text).unwrap_or_default()
}
