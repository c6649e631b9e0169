//! What a door demands of a body before it is published, and what its answer repeats of it.
//!
//! The drop-in APIs answer a body that is not theirs with an error, and some name the ids they took. Only the outline
//! is looked at: whether a document's brackets close, whether a form's parts end. A record that is bad inside a sound
//! document costs itself alone, later, so it is no reason to refuse its neighbours here.

use fleetlog_formats::BadBody;
use fleetlog_formats::langfuse::{self, Entry};
use serde::Deserialize;

/// The outline that a door demands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Whatever the route's own inspection accepts.
    #[default]
    Any,
    /// One JSON document: an object or an array.
    Json,
    /// A form in parts (RFC 7578), which is inspected part by part afterwards.
    Form,
    /// A batch of Langfuse's, whose ids the answer names.
    LangfuseBatch,
    /// One Langfuse score, whose id the answer names, or an array of them.
    LangfuseScores,
}

/// What the answer repeats of a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Echo {
    /// Nothing.
    #[default]
    Nothing,
    /// What is to be said about each envelope of a batch.
    Batch(Vec<Entry>),
    /// The id of its only record, if it has one.
    Id(Option<String>),
}

impl Echo {
    /// A record without an id of its own is answered with the one that it is stored under.
    pub(crate) fn named(self, derived: impl FnOnce() -> String) -> Self {
        match self {
            Self::Id(id) => Self::Id(id.filter(|id| !id.is_empty()).or_else(|| Some(derived()))),
            other => other,
        }
    }
}

impl Shape {
    /// Looks at a decompressed body.
    ///
    /// # Errors
    /// The content type is another's, or the outline is broken.
    pub(crate) fn read(self, content_type: &str, body: &[u8]) -> Result<Echo, BadBody> {
        match self {
            Self::Any => Ok(Echo::Nothing),
            Self::Form => form(content_type, body).map(|()| Echo::Nothing),
            Self::Json => {
                json(content_type)?;
                document(body).map(|()| Echo::Nothing)
            }
            Self::LangfuseBatch => {
                json(content_type)?;
                langfuse::ids(body).map(Echo::Batch)
            }
            Self::LangfuseScores => {
                json(content_type)?;
                document(body)?;
                if body.trim_ascii_start().starts_with(b"[") {
                    return Ok(Echo::Nothing);
                }
                let Identified { id } = serde_json::from_slice(body).unwrap_or_default();
                Ok(Echo::Id(id))
            }
        }
    }
}

#[derive(Default, Deserialize)]
struct Identified {
    id: Option<String>,
}

fn bad(code: &'static str, message: &str, position: Option<usize>) -> BadBody {
    BadBody { code, message: message.to_owned(), position }
}

/// What clients send when nobody told them the type; curl's default among them.
const UNSAID: &[&str] = &["", "text/plain", "application/octet-stream", "application/x-www-form-urlencoded"];

fn json(content_type: &str) -> Result<(), BadBody> {
    let essence = essence(content_type);
    let said = matches!(&*essence, "application/json" | "text/json") || essence.ends_with("+json");
    if said || UNSAID.contains(&&*essence) { Ok(()) } else { Err(unsupported("JSON")) }
}

/// Whether a body is one object or array whose brackets close, and nothing after it.
fn document(body: &[u8]) -> Result<(), BadBody> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let mut open = Vec::new();
    let mut bytes = body.iter().copied().enumerate().skip_while(|(_, byte)| byte.is_ascii_whitespace());
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'{' => open.push(b'}'),
            b'[' => open.push(b']'),
            b'}' | b']' if open.pop() == Some(byte) => {}
            b'"' if !open.is_empty() => skip_string(&mut bytes),
            _ if open.is_empty() || byte == b'}' || byte == b']' => {
                return Err(bad("malformed_json", "not one JSON document", Some(at)));
            }
            _ => continue,
        }
        if open.is_empty() {
            return match bytes.find(|(_, byte)| !byte.is_ascii_whitespace()) {
                None => Ok(()),
                Some((at, _)) => Err(bad("malformed_json", "something follows the document", Some(at))),
            };
        }
    }
    let empty = body.trim_ascii().is_empty();
    let (code, message) = if empty {
        ("empty_body", "the body is empty")
    } else {
        ("malformed_json", "the document does not end")
    };
    Err(bad(code, message, (!empty).then_some(body.len())))
}

fn skip_string(bytes: &mut impl Iterator<Item = (usize, u8)>) {
    while let Some((_, byte)) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'"' => return,
            _ => {}
        }
    }
}

/// A type that was lost on the way is made up for by the boundary with which such a body begins.
fn form(content_type: &str, body: &[u8]) -> Result<(), BadBody> {
    let essence = essence(content_type);
    let begun = UNSAID.contains(&&*essence) && body.starts_with(b"--");
    if begun || essence == "multipart/form-data" { Ok(()) } else { Err(unsupported("multipart/form-data")) }
}

fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn unsupported(wanted: &str) -> BadBody {
    bad("unsupported_content_type", &format!("{wanted} is expected here"), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(shape: Shape, content_type: &str, body: &str) -> Result<Echo, &'static str> {
        shape.read(content_type, body.as_bytes()).map_err(|bad| bad.code)
    }

    #[test]
    fn a_document_is_sound_when_its_brackets_close_whatever_stands_between() {
        for body in [r#" {"a":[1,{"b":"]}\""}]} "#, "[]", "\u{feff}{}", r#"{"score":NaN}"#] {
            assert_eq!(
                code(Shape::Json, "application/json; charset=utf-8", body),
                Ok(Echo::Nothing),
                "{body}"
            );
        }
        for body in ["{\"a\":1", "{]", "nope", "{}{}", "\"text\"", "[\"", "}"] {
            assert_eq!(code(Shape::Json, "", body), Err("malformed_json"), "{body}");
        }
        assert_eq!(code(Shape::Json, "", " \n"), Err("empty_body"));
        assert_eq!(code(Shape::Json, "image/png", "{}"), Err("unsupported_content_type"));
    }

    #[test]
    fn what_the_answer_names_is_taken_from_the_body() {
        let body = r#"{"batch":[{"id":"b","type":"x"},{"type":"y"}],"metadata":{}}"#;
        let Ok(Echo::Batch(entries)) = code(Shape::LangfuseBatch, "application/json", body) else {
            panic!("a batch")
        };
        assert_eq!((entries.len(), entries[0].id.as_str()), (2, "b"));
        assert_eq!(code(Shape::LangfuseBatch, "application/json", "{}"), Err("malformed_json"));
        assert_eq!(
            code(Shape::LangfuseScores, "", r#"{"id":"s","name":"n"}"#),
            Ok(Echo::Id(Some("s".into())))
        );
        assert_eq!(code(Shape::LangfuseScores, "", r#"[{"id":"s"}]"#), Ok(Echo::Nothing));
    }

    #[test]
    fn a_form_is_known_by_its_type_or_by_its_boundary() {
        assert_eq!(code(Shape::Form, "Multipart/form-data; boundary=b", ""), Ok(Echo::Nothing));
        assert_eq!(code(Shape::Form, "", "--b\r\n"), Ok(Echo::Nothing));
        assert_eq!(code(Shape::Form, "", "{}"), Err("unsupported_content_type"));
        assert_eq!(code(Shape::Form, "application/json", "--b"), Err("unsupported_content_type"));
    }
}
