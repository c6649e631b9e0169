//! A batch as the gateway answers it: `207` with one entry an envelope.

use crate::framing::{self, Layout, RecordReader};
use crate::inspect::{BadBody, Inspection, Rejected};
use crate::json::{Cursor, Fault, Scalar, mend};

use super::INGESTION;

/// What a batch's answer must say about one envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The envelope's id; empty when it cannot be read.
    pub id: String,
    /// Why the envelope is not accepted; it is then among the rejected of [`inspect`](crate::inspect::inspect), too.
    pub complaint: Option<Rejected>,
}

/// The ids of a batch's envelopes, in record order, and what is wrong with those that are not accepted.
///
/// Only what is no JSON object, or has no id to be answered by, is not accepted: an envelope of an unknown type is kept.
///
/// # Errors
/// The body is not an object with an array `batch`: `malformed_json`, `too_many_records` or `empty_body`.
pub fn ids(body: &[u8]) -> Result<Vec<Entry>, BadBody> {
    let body = framing::without_bom(body);
    if !has_batch(body)? {
        return Err(BadBody::new("malformed_json", "a batch is an object with an array \"batch\"", None));
    }
    let mut reader = Ids::default();
    framing::each_record(body, Layout::Members(INGESTION.members), &mut reader)?;
    Ok(reader.entries)
}

/// Counts and checks the envelopes of a batch.
pub(crate) fn inspect(body: &[u8]) -> Result<Inspection, BadBody> {
    let entries = ids(body)?;
    let records = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    Ok(Inspection { records, rejected: entries.into_iter().filter_map(|entry| entry.complaint).collect() })
}

fn has_batch(body: &[u8]) -> Result<bool, BadBody> {
    let mut cursor = Cursor::new(body);
    if cursor.peek().is_none() {
        return Err(BadBody::new("empty_body", "the body holds no batch", None));
    }
    let mut found = false;
    cursor.object(|cursor, key| {
        found |= key.text() == "batch" && cursor.peek() == Some(b'[');
        cursor.skip_loosely().map(|_| ()).ok_or_else(|| cursor.fault())
    })?;
    Ok(found)
}

#[derive(Default)]
struct Ids {
    entries: Vec<Entry>,
    object: bool,
    id: String,
}

impl<'a> RecordReader<'a> for Ids {
    fn read(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Fault> {
        (self.object, self.id) = (cursor.peek() == Some(b'{'), String::new());
        if !self.object {
            return cursor.skip_value().map(|_| ());
        }
        let mut id = String::new();
        cursor.object(|cursor, key| {
            if key.text() == "id"
                && let Scalar::Text(text) = cursor.scalar()?
            {
                id = text.text().into_owned();
                return Ok(());
            }
            cursor.skip_value().map(|_| ())
        })?;
        self.id = id;
        Ok(())
    }

    fn record(&mut self, record: &'a [u8], outcome: Result<(), Fault>) {
        let index = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let complaint = match outcome {
            Err(fault) => Some((fault.code(), fault.message())),
            Ok(()) if !self.object => Some(("not_an_object", "an envelope is a JSON object".to_owned())),
            Ok(()) if self.id.is_empty() => {
                Some(("missing_id", "an envelope needs a member \"id\" with a text".to_owned()))
            }
            Ok(()) => None,
        };
        let complaint = complaint.map(|(code, message)| Rejected { index, code, message });
        let id = if outcome.is_ok() { std::mem::take(&mut self.id) } else { id_of_broken(record) };
        self.entries.push(Entry { id, complaint });
    }
}

/// The id of an envelope that is broken behind it.
fn id_of_broken(record: &[u8]) -> String {
    let mut id = String::new();
    let mended = mend(record);
    let _read: Result<(), Fault> = Cursor::new(&mended).object(|cursor, key| {
        if let ("id", Scalar::Text(text)) = (&*key.text(), cursor.scalar()?) {
            id = text.text().into_owned();
        }
        Ok(())
    });
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_complaints_come_in_record_order() {
        let body = br#"{"metadata":{"batch":[1]},"batch":[{"id":"a","type":"trace-create","body":{}},
            {"id":"b","body":tru},7,{"type":"x"},{"body":{"id":"z"},"id":"c"}]}"#;
        let entries = ids(body).unwrap();
        let seen: Vec<_> = entries
            .iter()
            .map(|entry| (entry.id.as_str(), entry.complaint.as_ref().map(|found| (found.index, found.code))))
            .collect();
        let expected = [
            ("a", None),
            ("b", Some((1, "malformed_json"))),
            ("", Some((2, "not_an_object"))),
            ("", Some((3, "missing_id"))),
            ("c", None),
        ];
        assert_eq!(seen, expected);
        let found = inspect(body).unwrap();
        assert_eq!((found.records, found.rejected.len()), (5, 3));
    }

    #[test]
    fn what_is_no_batch_is_refused() {
        for body in ["[]", "{}", r#"{"batch":{}}"#, r#"{"batch":[{"id":"a"}"#, "x"] {
            assert_eq!(ids(body.as_bytes()).unwrap_err().code, "malformed_json", "{body}");
        }
        assert_eq!(ids(b" ").unwrap_err().code, "empty_body");
        assert_eq!(ids(br#"{"batch":[]}"#).unwrap(), []);
    }
}
