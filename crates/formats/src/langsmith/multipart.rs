//! Runs in the parts of a form: `post.<id>` and `patch.<id>` with the run, `post.<id>.inputs` and so on with its larger
//! members, `attachment.<id>.<name>`, and `feedback.<id>`.
//!
//! Every part is a record. The first part of a run's piece becomes its event, and the others are context to it, so that
//! a broken part costs only what it said.

use base64::Engine as _;
use serde_json::{Value, json};

use super::{FEEDBACK, RUNS};
use crate::hint::Hint;
use crate::input::{Decoded, Input, Undecodable};
use crate::inspect::{BadBody, Body, Inspection};
use crate::json::{Cursor, mend};
use crate::multipart::{Part, each_part};
use crate::records::{Object, Record, RecordFormat, Records};

/// The format's name as a hint.
pub(crate) const HINT: &str = Hint::LANGSMITH_FORM.as_str();

/// Largest attachment whose content is kept with its run; of a larger one only type and size are.
const MAX_ATTACHMENT: usize = 64 * 1024;

/// Counts the parts of a form. The answer to a form has no place for single parts, so a bad one among good ones is not
/// rejected: it is kept whole where the others are decoded. A form of bad parts alone is refused.
pub(crate) fn inspect(body: &Body<'_>) -> Result<Inspection, BadBody> {
    let mut seen = Inspection::default();
    each_part(body.content_type, body.bytes, |_, part| {
        let index = seen.records;
        seen.records += 1;
        let complaint = match &part {
            None => Some(("malformed_part", "the head of the part names no form field".to_owned())),
            Some(part) => complaint(part),
        };
        if let Some((code, message)) = complaint {
            seen.reject(index, code, message);
        }
    })?;
    if seen.rejected.len() < seen.records as usize {
        seen.rejected.clear();
    }
    Ok(seen)
}

/// What a part is, by its name.
enum Role<'n> {
    /// A run, or one of its members.
    Run {
        verb: &'static str,
        id: &'n str,
        member: &'n str,
    },
    Attachment {
        id: &'n str,
        name: &'n str,
    },
    Feedback,
}

impl<'n> Role<'n> {
    fn of(name: &'n str) -> Option<Self> {
        let (kind, rest) = name.split_once('.')?;
        let (id, member) = rest.split_once('.').unwrap_or((rest, ""));
        Some(match kind {
            _ if id.is_empty() => return None,
            "post" => Self::Run { verb: "post", id, member },
            "patch" => Self::Run { verb: "patch", id, member },
            "attachment" => Self::Attachment { id, name: member },
            "feedback" => Self::Feedback,
            _ => return None,
        })
    }
}

fn complaint(part: &Part<'_>) -> Option<(&'static str, String)> {
    let whole = match Role::of(&part.name)? {
        Role::Attachment { .. } => return None,
        Role::Run { member, .. } => member.is_empty(),
        Role::Feedback => true,
    };
    let mut cursor = Cursor::new(part.content);
    let object = cursor.peek() == Some(b'{');
    let read =
        cursor.skip_value().and_then(|_| if cursor.peek().is_none() { Ok(()) } else { Err(cursor.fault()) });
    match read {
        Err(fault) => Some((fault.code(), fault.message())),
        Ok(()) if std::str::from_utf8(part.content).is_err() => {
            Some(("invalid_utf8", "not UTF-8".to_owned()))
        }
        Ok(()) if whole && !object => {
            Some(("not_an_object", "a run or feedback is a JSON object".to_owned()))
        }
        Ok(()) => None,
    }
}

/// One piece of a run, gathered from its parts.
struct Piece {
    verb: &'static str,
    id: String,
    first: u32,
    run: Object,
}

/// Decodes the parts of a form.
///
/// # Errors
/// The parts cannot be told apart.
pub(crate) fn decode(input: &Input<'_>) -> Result<Decoded, Undecodable> {
    let mut form = Form { records: Records::new(input), pieces: Vec::new(), attachments: Vec::new() };
    let mut index = 0;
    each_part(input.content_type, input.body, |bytes, part| {
        if input.rejected.binary_search(&index).is_err() {
            form.take(index, bytes, part);
        }
        index += 1;
    })?;
    Ok(form.finish())
}

struct Form<'i> {
    records: Records<'i>,
    pieces: Vec<Piece>,
    /// Those whose run has not come yet, with their places and ids.
    attachments: Vec<(u32, String, String, Value)>,
}

impl Form<'_> {
    fn take(&mut self, index: u32, bytes: &[u8], part: Option<Part<'_>>) {
        let Some(part) = part.filter(|part| complaint(part).is_none()) else {
            return self.records.keep_unknown(index, bytes, false);
        };
        match Role::of(&part.name) {
            Some(Role::Run { verb, id, member }) => self.run(index, verb, id, member, part.content),
            Some(Role::Attachment { id, name }) => {
                self.attachments.push((index, id.to_owned(), name.to_owned(), attachment(&part)));
            }
            Some(Role::Feedback) => {
                let object = serde_json::from_slice::<Object>(&mend(part.content)).unwrap_or_default();
                self.decode(&FEEDBACK, index, "", part.content, &object);
            }
            None => self.records.keep_unknown(index, bytes, false),
        }
    }

    fn run(&mut self, index: u32, verb: &'static str, id: &str, member: &str, content: &[u8]) {
        let value = serde_json::from_slice::<Value>(&mend(content)).unwrap_or_default();
        let known = self.pieces.iter_mut().rev().find(|piece| piece.verb == verb && piece.id == id);
        let piece = match known {
            Some(piece) => {
                self.records.used(index);
                piece
            }
            None => {
                self.pieces.push(Piece { verb, id: id.to_owned(), first: index, run: Object::new() });
                let Some(piece) = self.pieces.last_mut() else { return };
                piece
            }
        };
        match value {
            Value::Object(run) if member.is_empty() => piece.run.extend(run),
            value => {
                piece.run.insert(member.to_owned(), value);
            }
        }
    }

    fn finish(mut self) -> Decoded {
        for (index, id, name, value) in std::mem::take(&mut self.attachments) {
            let known = self.pieces.iter_mut().find(|piece| piece.id == id);
            let piece = match known {
                Some(piece) => {
                    self.records.used(index);
                    piece
                }
                None => {
                    self.pieces.push(Piece { verb: "patch", id, first: index, run: Object::new() });
                    let Some(piece) = self.pieces.last_mut() else { continue };
                    piece
                }
            };
            let attachments = piece.run.entry("attachments").or_insert_with(|| json!({}));
            if let Some(attachments) = attachments.as_object_mut() {
                attachments.insert(name, value);
            }
        }
        for mut piece in std::mem::take(&mut self.pieces) {
            piece.run.entry("id").or_insert_with(|| piece.id.into());
            let text = serde_json::to_vec(&piece.run).unwrap_or_default();
            self.decode(&RUNS, piece.first, piece.verb, &text, &piece.run);
        }
        let mut decoded = self.records.finish();
        decoded.events.sort_by_key(|event| event.raw_index);
        decoded.eventless.sort_by_key(|entry| entry.index);
        decoded
    }

    fn decode(&mut self, format: &RecordFormat, index: u32, member: &str, text: &[u8], object: &Object) {
        let record = Record { index, text, object, line: i64::from(index), member };
        (format.decode)(&mut self.records, &record);
    }
}

fn attachment(part: &Part<'_>) -> Value {
    let mut described = json!({"content_type": part.content_type, "size": part.content.len()});
    let Some(members) = described.as_object_mut() else { return described };
    match std::str::from_utf8(part.content) {
        _ if part.content.len() > MAX_ATTACHMENT => members.insert("omitted".to_owned(), true.into()),
        Ok(text) => members.insert("text".to_owned(), text.into()),
        Err(_) => {
            let base64 = base64::engine::general_purpose::STANDARD.encode(part.content);
            members.insert("base64".to_owned(), base64.into())
        }
    };
    described
}
