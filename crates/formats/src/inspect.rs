//! What the gateway needs to know of a body before it publishes it: that its structure is sound, how many records it
//! holds, and which of them cannot be accepted.
//!
//! It decides nothing about meaning. The same framing as in decoding makes the indexes agree with the processor's.

use fleetlog_schemas::record::Route;
use thiserror::Error;

use crate::detect::Door;
use crate::framing::{self, RecordReader};
use crate::json::{Cursor, Fault, Scalar};
use crate::media::{Media, media};
use crate::{langfuse, langsmith, otlp, records};

/// A body as it stands after decompression, with what the sender said about it.
#[derive(Clone, Copy, Debug)]
pub struct Body<'a> {
    /// Door it came in by.
    pub route: Route,
    /// `Content-Type` as sent, or empty.
    pub content_type: &'a str,
    /// Format named by the sender, or empty.
    pub format_hint: &'a str,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// A body that is refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct BadBody {
    /// Machine-readable: `empty_body`, `malformed_json`, `too_deep`, `invalid_utf8`, `malformed_protobuf`,
    /// `malformed_multipart`, `wrong_signal`, `too_many_records` or `unsupported_content_type`.
    pub code: &'static str,
    /// A sentence for people; never contains input.
    pub message: String,
    /// Byte offset of the fault in the decompressed body.
    pub position: Option<usize>,
}

impl BadBody {
    pub(crate) fn new(code: &'static str, message: impl Into<String>, position: Option<usize>) -> Self {
        Self { code, message: message.into(), position }
    }
}

impl From<Fault> for BadBody {
    fn from(fault: Fault) -> Self {
        Self::new(fault.code(), fault.message(), Some(fault.at))
    }
}

/// A record that cannot be accepted, while the others are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Index of the record within the body.
    pub index: u32,
    /// Machine-readable: `malformed_json`, `too_deep`, `invalid_utf8`, `not_an_object`, `missing_type`, `bad_type`,
    /// `project_mismatch`, `wrong_signal`, `bad_ids`, `missing_id` or `malformed_part`.
    pub code: &'static str,
    /// A sentence for people; never contains input.
    pub message: String,
}

/// What a sound body holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Records of every kind, the rejected ones included.
    pub records: u32,
    /// Those that cannot be accepted, by ascending index.
    pub rejected: Vec<Rejected>,
}

impl Inspection {
    pub(crate) fn reject(&mut self, index: u32, code: &'static str, message: impl Into<String>) {
        self.rejected.push(Rejected { index, code, message: message.into() });
    }
}

/// Counts and checks the records of a body sent with a key of `project_id`.
///
/// # Errors
/// The body is refused as a whole; nothing of it may be published.
pub fn inspect(body: &Body<'_>, project_id: &str) -> Result<Inspection, BadBody> {
    match Door::of(body) {
        Door::Universal => {
            let lines = match media(body.content_type)? {
                Media::Lines => true,
                Media::Json | Media::Unsaid => false,
                Media::Protobuf => return Err(Media::unsupported(body.content_type)),
            };
            let bytes = framing::without_bom(body.bytes);
            let layout = framing::layout(bytes, lines)?;
            let mut heads = Heads { project_id, head: Head::default(), seen: Inspection::default() };
            framing::each_record(bytes, layout, &mut heads)?;
            Ok(heads.seen)
        }
        Door::Otlp(signal) => otlp::inspect(signal, body),
        Door::Form => langsmith::multipart::inspect(body),
        Door::Records if langfuse::is_batch(body.format_hint) => langfuse::inspect(body.bytes),
        Door::Records => Ok(Inspection { records: raw_records(body), rejected: Vec::new() }),
    }
}

/// Records of a body of another format: lines or elements where it has them, else one.
fn raw_records(body: &Body<'_>) -> u32 {
    #[derive(Default)]
    struct Count(u32);
    impl<'a> RecordReader<'a> for Count {
        fn read(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Fault> {
            cursor.skip_value().map(|_| ())
        }
        fn record(&mut self, _: &'a [u8], _: Result<(), Fault>) {
            self.0 += 1;
        }
    }
    let mut count = Count::default();
    match records::layout(body) {
        Some(layout) if framing::each_record(body.bytes, layout, &mut count).is_ok() => count.0,
        _ => 1,
    }
}

/// The two members of a universal event that the gateway looks at.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    object: bool,
    typed: Option<bool>,
    foreign: bool,
}

struct Heads<'p> {
    project_id: &'p str,
    head: Head,
    seen: Inspection,
}

impl<'a> RecordReader<'a> for Heads<'_> {
    fn read(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Fault> {
        self.head = Head::default();
        if cursor.peek() != Some(b'{') {
            return cursor.skip_value().map(|_| ());
        }
        let mut head = Head { object: true, ..Head::default() };
        cursor.object(|cursor, key| {
            match &*key.text() {
                "type" => {
                    head.typed = Some(matches!(cursor.scalar()?, Scalar::Text(word) if !word.is_empty()))
                }
                "projectId" => {
                    head.foreign = match cursor.scalar()? {
                        Scalar::Null => false,
                        Scalar::Text(project) => project.text() != self.project_id,
                        _ => true,
                    }
                }
                _ => cursor.skip_value().map(|_| ())?,
            }
            Ok::<(), Fault>(())
        })?;
        self.head = head;
        Ok(())
    }

    fn record(&mut self, _: &'a [u8], outcome: Result<(), Fault>) {
        let index = self.seen.records;
        self.seen.records += 1;
        let complaint = match (outcome, self.head) {
            (Err(fault), _) => Some((fault.code(), fault.message())),
            (Ok(()), head) => head.complaint().map(|(code, message)| (code, message.to_owned())),
        };
        if let Some((code, message)) = complaint {
            self.seen.reject(index, code, message);
        }
    }
}

impl Head {
    fn complaint(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self { object: false, .. } => Some(("not_an_object", "an event is a JSON object")),
            Self { typed: None, .. } => Some(("missing_type", "an event needs a member \"type\"")),
            Self { typed: Some(false), .. } => Some(("bad_type", "\"type\" must be a non-empty string")),
            Self { foreign: true, .. } => {
                Some(("project_mismatch", "\"projectId\" is not the key's project"))
            }
            Self { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(bytes: &[u8], content_type: &str) -> Result<Inspection, BadBody> {
        inspect(&Body { route: Route::Events, content_type, format_hint: "", bytes }, "p1")
    }

    fn codes(inspection: &Inspection) -> Vec<(u32, &'static str)> {
        inspection.rejected.iter().map(|rejected| (rejected.index, rejected.code)).collect()
    }

    #[test]
    fn good_records_are_accepted_and_bad_ones_listed_by_index() {
        let body = br#"[{"type":"log"},{"type":7},{},[],{"type":"log","projectId":"p2"},{"type":"x","projectId":"p1"},{"type":nul}]"#;
        let found = events(body, "application/json").unwrap();
        assert_eq!(found.records, 7);
        let expected = [
            (1, "bad_type"),
            (2, "missing_type"),
            (3, "not_an_object"),
            (4, "project_mismatch"),
            (6, "malformed_json"),
        ];
        assert_eq!(codes(&found), expected);
    }

    #[test]
    fn lines_may_be_named_or_found() {
        let body = b"{\"type\":\"log\"}\nnope\n\n{\"type\":\"log\"}";
        for content_type in ["application/x-ndjson", "application/json", ""] {
            let found = events(body, content_type).unwrap();
            assert_eq!((found.records, codes(&found)), (3, vec![(1, "malformed_json")]), "{content_type}");
        }
    }

    #[test]
    fn malformed_body_names_the_byte() {
        let bad = events(br#"{"type":"log""#, "application/json").unwrap_err();
        assert_eq!((bad.code, bad.position), ("malformed_json", Some(13)));
        assert_eq!(events(b"{}", "image/png").unwrap_err().code, "unsupported_content_type");
    }

    #[test]
    fn deep_nesting_costs_the_record() {
        let deep = format!(
            "[{{\"type\":\"log\",\"data\":{}}},{{\"type\":\"log\"}}]",
            "[".repeat(500) + &"]".repeat(500)
        );
        assert_eq!(codes(&events(deep.as_bytes(), "").unwrap()), [(0, "too_deep")]);
    }
}
