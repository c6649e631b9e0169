//! Writing a JSON object member by member.

use std::collections::HashSet;

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

/// An object under construction, as text.
///
/// # Invariants
/// A member name is written once: the first wins, a later one of the same name gets a suffix, so that the text means
/// the same to every reader and nothing said is lost.
#[derive(Debug)]
pub(crate) struct ObjectWriter {
    text: Vec<u8>,
    names: Names,
}

/// Hashes of the names written so far; a collision costs a needless suffix, nothing else.
#[derive(Debug, Default)]
struct Names {
    /// The first ones, which nearly always are all: comparing them is cheaper than a table.
    few: Vec<u64>,
    many: HashSet<u64>,
}

impl Names {
    const FEW: usize = 64;

    fn insert(&mut self, name: &str) -> bool {
        let hash = xxh3_64(name.as_bytes());
        if self.few.contains(&hash) {
            return false;
        }
        if self.few.len() < Self::FEW {
            self.few.push(hash);
            return true;
        }
        self.many.insert(hash)
    }

    fn len(&self) -> usize {
        self.few.len() + self.many.len()
    }
}

impl ObjectWriter {
    pub(crate) fn new() -> Self {
        Self { text: vec![b'{'], names: Names::default() }
    }

    /// Continues an object whose text and member names are known.
    pub(crate) fn continuing<'a>(object: &[u8], names: impl IntoIterator<Item = &'a str>) -> Self {
        let end = object.iter().rposition(|&byte| byte == b'}').unwrap_or(0);
        let mut known = Names::default();
        for name in names {
            known.insert(name);
        }
        let mut text = object.get(..end).unwrap_or_default().to_vec();
        if text.is_empty() {
            text.push(b'{');
        }
        Self { text, names: known }
    }

    fn name(&mut self, name: &str) {
        if self.text.iter().rfind(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            self.text.push(b',');
        }
        if self.names.insert(name) {
            self.value(name);
        } else {
            let mut copy = self.names.len();
            let unique = loop {
                copy += 1;
                let candidate = format!("{name}#{copy}");
                if self.names.insert(&candidate) {
                    break candidate;
                }
            };
            self.value(&unique);
        }
        self.text.push(b':');
    }

    fn value(&mut self, value: &(impl Serialize + ?Sized)) {
        let before = self.text.len();
        if serde_json::to_writer(&mut self.text, value).is_err() {
            // Writing to memory does not fail; a value that cannot be expressed becomes null.
            self.text.truncate(before);
            self.text.extend_from_slice(b"null");
        }
    }

    /// Adds a member.
    pub(crate) fn field(&mut self, name: &str, value: &(impl Serialize + ?Sized)) {
        self.name(name);
        self.value(value);
    }

    /// Adds a member whose value is JSON text already checked.
    pub(crate) fn raw(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        self.text.extend_from_slice(value);
    }

    /// The object's text.
    pub(crate) fn finish(mut self) -> String {
        self.text.push(b'}');
        String::from_utf8(self.text)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_names_lose_nothing() {
        let mut object = ObjectWriter::new();
        object.field("a", &1);
        object.field("a", &2);
        object.raw("b", b"[true]");
        assert_eq!(object.finish(), r##"{"a":1,"a#2":2,"b":[true]}"##);
    }

    #[test]
    fn continuing_an_object_keeps_its_members() {
        let mut object = ObjectWriter::continuing(br#"{ "a": 1 }"#, ["a"]);
        object.field("a", "x");
        assert_eq!(object.finish(), r##"{ "a": 1 ,"a#2":"x"}"##);
        let mut empty = ObjectWriter::continuing(b"{ }", []);
        empty.field("a", "x");
        assert_eq!(empty.finish(), r#"{ "a":"x"}"#);
    }
}
