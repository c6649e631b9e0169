//! Splitting a JSON body into records, apart from what a record means.
//!
//! The gateway counts and checks records, the processor decodes them; both go through [`each_record`], so that they
//! agree on what record number 17 is. A body is one object, an array, `{"events":[…]}` or one value a line. Array
//! elements are read strictly; where one is broken its end is found by brackets alone, so that it costs only itself.
//! Only a body whose structure is unclear is refused as a whole.

use crate::inspect::BadBody;
use crate::json::{Cursor, Fault, FaultKind};

/// Most records taken from one body. Beyond it a few bytes of input could cost many times their size in memory.
pub(crate) const MAX_RECORDS: u32 = 250_000;

/// Counts records and refuses a body with more than [`MAX_RECORDS`].
#[derive(Debug, Default)]
pub(crate) struct Quota(u32);

impl Quota {
    /// Takes one more record.
    pub(crate) fn take(&mut self) -> Result<(), BadBody> {
        self.0 += 1;
        if self.0 <= MAX_RECORDS {
            return Ok(());
        }
        Err(BadBody::new("too_many_records", format!("more than {MAX_RECORDS} records in one body"), None))
    }
}

/// How the records lie in a JSON body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// The body is one record.
    Single,
    /// The body is an array of records.
    Array,
    /// The body is an object whose `events` is an array of records.
    Wrapped,
    /// The body is an object; each element of its arrays of these names is a record.
    Members(&'static [&'static str]),
    /// One record a line; blank lines are none.
    Lines,
}

/// Where the next record stands, as far as its layout has such places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// On this line of the body, from 0, blank lines counted.
    Line(i64),
    /// In the array of this member, as do those after it until another is named.
    Member(&'a str),
}

/// What reads the records of a body.
pub(crate) trait RecordReader<'a> {
    /// Takes note of where the next record stands.
    fn at(&mut self, _place: Place<'_>) {}

    /// Reads exactly one value from the cursor.
    fn read(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Fault>;

    /// Takes note of the record that was just read, or of why it could not be.
    fn record(&mut self, record: &'a [u8], outcome: Result<(), Fault>);
}

/// Finds out how the records lie in `body`, which `lines` says to be one a line.
pub(crate) fn layout(body: &[u8], lines: bool) -> Result<Layout, BadBody> {
    let mut cursor = Cursor::new(body);
    let Some(first) = cursor.peek() else {
        return Err(BadBody::new("empty_body", "the body holds no record", None));
    };
    match first {
        _ if lines => Ok(Layout::Lines),
        // Records begin with a brace: an array that begins with text is itself a record, `["method", {…}]`.
        b'[' if cursor.eat(b'[') && cursor.peek() == Some(b'"') => Ok(Layout::Lines),
        b'[' => Ok(Layout::Array),
        b'{' => object_layout(cursor),
        _ => Err(BadBody::new("malformed_json", "neither an object nor an array", Some(cursor.position()))),
    }
}

fn object_layout(mut cursor: Cursor<'_>) -> Result<Layout, BadBody> {
    let (mut typed, mut wrapper) = (false, false);
    cursor.object(|cursor, key| {
        let key = key.text();
        typed |= key == "type";
        if key == "events" && cursor.peek() == Some(b'[') {
            wrapper = true;
            let start = cursor.position();
            if cursor.skip_value().is_err() {
                // A broken event inside: its own fault, found again when the events are read one by one.
                cursor.set_position(start);
                cursor.skip_loosely().ok_or_else(|| cursor.fault())?;
            }
            return Ok(());
        }
        cursor.skip_value().map(|_| ())
    })?;
    let end = cursor.position();
    if cursor.peek().is_none() {
        return Ok(if wrapper && !typed { Layout::Wrapped } else { Layout::Single });
    }
    if cursor.since(end).contains(&b'\n') {
        return Ok(Layout::Lines);
    }
    Err(BadBody::from(Fault { at: cursor.position(), kind: FaultKind::Syntax }))
}

/// Gives every record of `body` to `reader`, in order.
///
/// # Errors
/// The body's structure is unclear; what the reader has seen until then must be discarded.
pub(crate) fn each_record<'a>(
    body: &'a [u8],
    layout: Layout,
    reader: &mut impl RecordReader<'a>,
) -> Result<(), BadBody> {
    let body = without_bom(body);
    let clean = std::str::from_utf8(body).is_ok();
    let mut cursor = Cursor::new(body);
    match layout {
        Layout::Single => {
            one_line(body, clean, reader);
            return Ok(());
        }
        Layout::Lines => {
            let mut quota = Quota::default();
            for (number, line) in lines(body) {
                quota.take()?;
                reader.at(Place::Line(number));
                one_line(line, clean, reader);
            }
            return Ok(());
        }
        Layout::Array => elements(&mut cursor, clean, &mut Quota::default(), reader)?,
        Layout::Wrapped => members(&mut cursor, &["events"], clean, reader)?,
        Layout::Members(names) => members(&mut cursor, names, clean, reader)?,
    }
    match cursor.peek() {
        None => Ok(()),
        Some(_) => Err(BadBody::from(cursor.fault())),
    }
}

/// The body without the byte order mark that some editors put before it.
pub(crate) fn without_bom(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body)
}

/// Reads the arrays of these names within an object.
fn members<'a>(
    cursor: &mut Cursor<'a>,
    names: &[&str],
    clean: bool,
    reader: &mut impl RecordReader<'a>,
) -> Result<(), BadBody> {
    let mut quota = Quota::default();
    cursor.object(|cursor, key| {
        let key = key.text();
        if names.contains(&&*key) && cursor.peek() == Some(b'[') {
            reader.at(Place::Member(&key));
            return elements(cursor, clean, &mut quota, reader);
        }
        Ok(cursor.skip_value().map(|_| ())?)
    })
}

fn elements<'a>(
    cursor: &mut Cursor<'a>,
    clean: bool,
    quota: &mut Quota,
    reader: &mut impl RecordReader<'a>,
) -> Result<(), BadBody> {
    cursor.array(|cursor| {
        quota.take()?;
        let (record, outcome) = element(cursor, clean, |cursor| reader.read(cursor))?;
        reader.record(record, outcome);
        Ok(())
    })
}

/// Reads one element of an array strictly; one that is broken ends where the brackets say, and costs only itself.
/// `clean` says that the whole body is UTF-8.
///
/// # Errors
/// The element has no end, so the body's structure is unclear.
pub(crate) fn element<'a>(
    cursor: &mut Cursor<'a>,
    clean: bool,
    read: impl FnOnce(&mut Cursor<'a>) -> Result<(), Fault>,
) -> Result<(&'a [u8], Result<(), Fault>), BadBody> {
    cursor.peek();
    let start = cursor.position();
    // What may follow an element; anything else means the element did not end where it seemed to.
    let strict = read(cursor).and_then(|()| match cursor.clone().peek() {
        Some(b',' | b']') => Ok(()),
        _ => Err(cursor.fault()),
    });
    let record = match strict {
        Ok(()) => cursor.since(start),
        Err(fault) => {
            cursor.set_position(start);
            let record = cursor.skip_loosely().ok_or(fault)?;
            if record.is_empty() {
                return Err(BadBody::from(fault));
            }
            record
        }
    };
    let within = |fault: Fault| Fault { at: fault.at.saturating_sub(start), ..fault };
    let outcome = strict.map_err(within).and_then(|()| utf8(record, clean));
    Ok((record, outcome))
}

fn one_line<'a>(line: &'a [u8], clean: bool, reader: &mut impl RecordReader<'a>) {
    let mut cursor = Cursor::new(line);
    let outcome = reader.read(&mut cursor).and_then(|()| match cursor.peek() {
        None => utf8(line, clean),
        Some(_) => Err(cursor.fault()),
    });
    reader.record(line.trim_ascii(), outcome);
}

fn utf8(record: &[u8], clean: bool) -> Result<(), Fault> {
    if clean {
        return Ok(());
    }
    match std::str::from_utf8(record) {
        Ok(_) => Ok(()),
        Err(error) => Err(Fault { at: error.valid_up_to(), kind: FaultKind::Utf8 }),
    }
}

/// The lines of a body that are not blank, with their numbers.
fn lines(body: &[u8]) -> impl Iterator<Item = (i64, &[u8])> {
    let (mut rest, mut number) = (body, -1);
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            number += 1;
            if !line.trim_ascii().is_empty() {
                return Some((number, line));
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Vec<(String, bool)>);

    impl<'a> RecordReader<'a> for Seen {
        fn read(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Fault> {
            cursor.skip_value().map(|_| ())
        }
        fn record(&mut self, record: &'a [u8], outcome: Result<(), Fault>) {
            self.0.push((String::from_utf8_lossy(record).into_owned(), outcome.is_ok()));
        }
    }

    fn records(body: &[u8]) -> Result<Vec<(String, bool)>, BadBody> {
        let mut seen = Seen::default();
        each_record(body, layout(without_bom(body), false)?, &mut seen)?;
        Ok(seen.0)
    }

    fn outcomes(body: &[u8]) -> Vec<bool> {
        records(body).unwrap().into_iter().map(|(_, good)| good).collect()
    }

    #[test]
    fn four_layouts_are_told_apart() {
        assert_eq!(outcomes(b"{\"a\":1}"), [true]);
        assert_eq!(outcomes(b" [ {\"a\":1} , {} ] "), [true, true]);
        assert_eq!(outcomes(b"{\"x\":0,\"events\":[{\"a\":1},{}],\"y\":[]}"), [true, true]);
        assert_eq!(outcomes(b"{\"type\":\"log\",\"events\":[{},{}]}"), [true]);
        assert_eq!(outcomes(b"{\"a\":1}\r\n\n{\"a\":2}\n"), [true, true]);
        assert_eq!(outcomes(b"\xEF\xBB\xBF{\"a\":1}"), [true]);
        assert_eq!(outcomes(b"[]"), [false; 0]);
    }

    #[test]
    fn broken_element_costs_only_itself() {
        assert_eq!(outcomes(b"[{\"a\":1},{\"a\":tru},{\"a\":\"],\"}]"), [true, false, true]);
        assert_eq!(outcomes(b"[{\"a\":1],{\"b\":2}]"), [false, true]);
        assert_eq!(outcomes(b"{\"events\":[{\"a\":\"\xff\"},{}]}"), [false, true]);
        assert_eq!(outcomes(b"{\"a\":1}\n{\"a\"\n{}"), [true, false, true]);
        assert_eq!(outcomes(b"[1 2, {}]"), [false, true]);
    }

    #[test]
    fn tiny_records_cannot_exhaust_memory() {
        let many = format!("[{}0]", "0,".repeat(MAX_RECORDS as usize));
        assert_eq!(records(many.as_bytes()).unwrap_err().code, "too_many_records");
    }

    #[test]
    fn unclear_structure_is_refused_with_its_position() {
        let position = |body: &[u8]| records(body).unwrap_err().position;
        assert_eq!(position(b"[{\"a\":1}"), Some(8));
        assert_eq!(position(b"{\"a\":1} x"), Some(8));
        assert_eq!(position(b"{\"a\":1,}"), Some(7));
        assert_eq!(position(b"[{},,{}]"), Some(4));
        assert_eq!(position(b"[1,]"), Some(3));
        assert_eq!(position(b"  hello"), Some(2));
        assert_eq!(records(b" \n ").unwrap_err().code, "empty_body");
    }
}
