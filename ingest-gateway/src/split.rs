//! Cutting a body that exceeds a message into pieces that are bodies of their own.
//!
//! Possible where records lie side by side: lines, the elements of an array, the top-level `Resource*` messages of
//! OTLP. The cut is by syntax alone and may be wrong about a body that is not sound; [`crate::check`] therefore
//! inspects every piece again and takes the body whole when the pieces do not add up to it.

use bytes::{BufMut, Bytes, BytesMut};
use fleetlog_schemas::record::Route;

/// First byte, and the byte after the last.
type Span = (usize, usize);

/// One piece of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) bytes: Bytes,
    /// Lines of the body before this piece, for formats that number them.
    pub(crate) lines_before: i64,
}

/// Cuts a body into pieces of at most `max` bytes, or of one record that is longer; `None` when its records do not
/// lie side by side.
pub(crate) fn split(route: Route, content_type: &str, body: &Bytes, max: usize) -> Option<Vec<Piece>> {
    let first = body.iter().copied().find(|byte| !byte.is_ascii_whitespace())?;
    match route {
        Route::Events if first == b'[' => wrapped(body, b"[", array_elements(body, 0)?, b"]", max),
        Route::Events => lines(body, max),
        Route::Raw if first == b'[' && !names_lines(content_type) => {
            wrapped(body, b"[", array_elements(body, 0)?, b"]", max)
        }
        Route::Raw => lines(body, max),
        Route::OtlpLogs | Route::OtlpTraces | Route::OtlpMetrics if content_type.contains("json") => {
            let (key, elements) = resources(body)?;
            let prefix = [b"{".as_slice(), key, b":["].concat();
            wrapped(body, &prefix, elements, b"]}", max)
        }
        Route::OtlpLogs | Route::OtlpTraces | Route::OtlpMetrics => messages(body, max),
    }
}

/// Whether a content type says that there is a record on each line, be they arrays themselves.
fn names_lines(content_type: &str) -> bool {
    let essence = content_type.to_ascii_lowercase();
    ["ndjson", "jsonl", "json-lines"].iter().any(|word| essence.contains(word))
}

fn lines(body: &Bytes, max: usize) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let (mut start, mut lines_before) = (0, 0);
    while start < body.len() {
        let window = body.len().min(start + max);
        let end = if window == body.len() {
            window
        } else {
            let within = memchr::memrchr(b'\n', &body[start..window]);
            let beyond = || memchr::memchr(b'\n', &body[window..]).map(|at| window - start + at);
            within.or_else(beyond).map_or(body.len(), |at| start + at + 1)
        };
        let bytes = body.slice(start..end);
        let lines = memchr::memchr_iter(b'\n', &bytes).count();
        if !bytes.trim_ascii().is_empty() {
            pieces.push(Piece { bytes, lines_before });
        }
        lines_before += i64::try_from(lines).ok()?;
        start = end;
    }
    Some(pieces)
}

/// Joins neighbouring elements into pieces, each between `prefix` and `suffix`.
fn wrapped(
    body: &Bytes,
    prefix: &[u8],
    elements: Vec<Span>,
    suffix: &[u8],
    max: usize,
) -> Option<Vec<Piece>> {
    let room = max.checked_sub(prefix.len() + suffix.len())?;
    let mut runs: Vec<Span> = Vec::new();
    for (start, end) in elements {
        match runs.last_mut() {
            Some(run) if end - run.0 <= room => run.1 = end,
            _ => runs.push((start, end)),
        }
    }
    let piece = |(start, end): Span| {
        let mut bytes = BytesMut::with_capacity(prefix.len() + end - start + suffix.len());
        bytes.put_slice(prefix);
        bytes.put_slice(&body[start..end]);
        bytes.put_slice(suffix);
        Piece { bytes: bytes.freeze(), lines_before: 0 }
    };
    Some(runs.into_iter().map(piece).collect())
}

/// Where the elements of the array that begins at or after `from` lie, without the commas between them.
fn array_elements(body: &[u8], from: usize) -> Option<Vec<Span>> {
    let open = from + body[from..].iter().position(|byte| *byte == b'[')?;
    let mut elements = Vec::new();
    let (mut depth, mut at, mut start) = (0_usize, open + 1, open + 1);
    loop {
        match body.get(at)? {
            b'"' => at = string_end(body, at)?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 0 => depth -= 1,
            b']' => {
                if !body[start..at].trim_ascii().is_empty() {
                    elements.push((start, at));
                }
                return body[at + 1..].trim_ascii().is_empty().then_some(elements);
            }
            b',' if depth == 0 => {
                elements.push((start, at));
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
}

/// The position of the quote that ends the string beginning at `at`.
fn string_end(body: &[u8], at: usize) -> Option<usize> {
    let mut from = at + 1;
    loop {
        let found = from + memchr::memchr2(b'"', b'\\', body.get(from..)?)?;
        if body[found] == b'"' {
            return Some(found);
        }
        from = found + 2;
    }
}

/// The only member of an OTLP JSON request, quoted, and where its array's elements lie.
fn resources(body: &[u8]) -> Option<(&[u8], Vec<Span>)> {
    let open = body.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let quote = open + 1 + body[open + 1..].iter().position(|byte| !byte.is_ascii_whitespace())?;
    if body[open] != b'{' || body[quote] != b'"' {
        return None;
    }
    let end = string_end(body, quote)?;
    // Whatever follows the array but the closing brace is a member that no piece would carry.
    let last = body.iter().rposition(|byte| !byte.is_ascii_whitespace())?;
    if body[last] != b'}' {
        return None;
    }
    let elements = array_elements(&body[..last], end)?;
    Some((&body[quote..=end], elements))
}

/// Cuts a protobuf message of length-delimited fields between them (wire format: tag, length, bytes).
fn messages(body: &Bytes, max: usize) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < body.len() {
        let mut rest = &body[at..];
        let tag = prost::encoding::decode_varint(&mut rest).ok()?;
        if tag & 0b111 != 2 {
            return None;
        }
        let length = usize::try_from(prost::encoding::decode_varint(&mut rest).ok()?).ok()?;
        let end = (body.len() - rest.len()).checked_add(length).filter(|end| *end <= body.len())?;
        if end - start > max && at > start {
            pieces.push(Piece { bytes: body.slice(start..at), lines_before: 0 });
            start = at;
        }
        at = end;
    }
    pieces.push(Piece { bytes: body.slice(start..), lines_before: 0 });
    Some(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(route: Route, content_type: &str, body: &'static str, max: usize) -> Option<Vec<String>> {
        let pieces = split(route, content_type, &Bytes::from_static(body.as_bytes()), max)?;
        Some(pieces.iter().map(|piece| String::from_utf8(piece.bytes.to_vec()).unwrap()).collect())
    }

    #[test]
    fn lines_are_cut_after_line_ends_and_know_how_many_came_before() {
        let body = Bytes::from_static(b"{\"a\":1}\n\n{\"b\":2}\n{\"c\":3}");
        let pieces = split(Route::Raw, "application/x-ndjson", &body, 10).unwrap();
        let seen: Vec<_> = pieces.iter().map(|p| (&p.bytes[..], p.lines_before)).collect();
        assert_eq!(seen, [(&b"{\"a\":1}\n\n"[..], 0), (&b"{\"b\":2}\n"[..], 2), (&b"{\"c\":3}"[..], 3)]);
        let long = cut(Route::Events, "", "1\n{\"a\":\"long\"}\n2\n3", 5).unwrap();
        assert_eq!(long, ["1\n", "{\"a\":\"long\"}\n", "2\n3"], "a line longer than a piece stands alone");
    }

    #[test]
    fn arrays_are_cut_between_elements_and_not_within_strings() {
        let body = r#" [{"a":"x,]"} , {"b":[1,2]},{"c":"\"],"}] "#;
        let pieces = cut(Route::Events, "application/json", body, 18).unwrap();
        assert_eq!(pieces, [r#"[{"a":"x,]"} ]"#, r#"[ {"b":[1,2]}]"#, r#"[{"c":"\"],"}]"#]);
        assert_eq!(cut(Route::Events, "", body, 30).unwrap().len(), 2);
        assert_eq!(cut(Route::Events, "", body, 8).unwrap().len(), 3, "one each, however long");
        assert_eq!(cut(Route::Raw, "", body, 30).unwrap().len(), 2);
        assert_eq!(cut(Route::Raw, "application/x-ndjson", "[1]\n[2]\n", 4).unwrap(), ["[1]\n", "[2]\n"]);
    }

    #[test]
    fn otlp_is_cut_between_resources_in_both_forms() {
        let json = r#"{"resourceLogs":[{"a":1},{"b":2}]}"#;
        let pieces = cut(Route::OtlpLogs, "application/json", json, 30).unwrap();
        assert_eq!(pieces, [r#"{"resourceLogs":[{"a":1}]}"#, r#"{"resourceLogs":[{"b":2}]}"#]);
        let two_members = r#"{"resourceLogs":[{"a":1},{"b":2}],"x":1}"#;
        assert_eq!(cut(Route::OtlpLogs, "application/json", two_members, 30), None);

        let message = Bytes::from_static(b"\x0a\x03abc\x0a\x02de\x0a\x01f");
        let pieces = split(Route::OtlpTraces, "application/x-protobuf", &message, 6).unwrap();
        let seen: Vec<_> = pieces.iter().map(|piece| &piece.bytes[..]).collect();
        assert_eq!(seen, [&b"\x0a\x03abc"[..], b"\x0a\x02de", b"\x0a\x01f"].as_slice());
        assert_eq!(split(Route::OtlpTraces, "", &message, 2).unwrap().len(), 3, "one each, however long");
        assert_eq!(split(Route::OtlpTraces, "", &Bytes::from_static(b"\x0a\x09abc"), 6), None);
    }
}
