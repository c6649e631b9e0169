//! Framing of `multipart/form-data` (RFC 7578, RFC 2046 §5.1): a body into parts, apart from what a part means.
//!
//! The boundary is the header's, else that of the first line: some proxies drop the parameter. Line ends may be bare.
//! A part whose head cannot be read is handed out as malformed and costs only itself; a body that does not begin or end
//! with its boundary is refused, because then a part may be missing.

use memchr::memmem;

use crate::framing::Quota;
use crate::inspect::BadBody;

/// Longest head of a part; a longer one is malformed.
const MAX_HEAD: usize = 16 * 1024;
/// Longest boundary (RFC 2046 allows 70).
const MAX_BOUNDARY: usize = 200;

/// One part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    /// `name` of its disposition.
    pub(crate) name: String,
    /// Its media type without parameters, in lower case; empty when not said.
    pub(crate) content_type: String,
    /// Its content.
    pub(crate) content: &'a [u8],
}

/// Whether a content type is that of a form in parts.
pub(crate) fn is_form(content_type: &str) -> bool {
    essence(content_type) == "multipart/form-data"
}

/// Gives every part of `body` to `each`, in order: its bytes, head included, and the part unless it is malformed.
///
/// # Errors
/// The body does not begin or end with its boundary, or has too many parts.
pub(crate) fn each_part<'a>(
    content_type: &str,
    body: &'a [u8],
    mut each: impl FnMut(&'a [u8], Option<Part<'a>>),
) -> Result<(), BadBody> {
    let bad = |message: &str, at: usize| BadBody::new("malformed_multipart", message, Some(at));
    let boundary = parameter(content_type, "boundary")
        .map(String::into_bytes)
        .or_else(|| first_line(body))
        .filter(|boundary| !boundary.is_empty() && boundary.len() <= MAX_BOUNDARY)
        .ok_or_else(|| bad("no boundary is said, and the body does not begin with one", 0))?;
    let delimiter = [b"--", boundary.as_slice()].concat();
    let finder = memmem::Finder::new(&delimiter);
    let mut next = Delimiter::find(&finder, &delimiter, body, 0)
        .ok_or_else(|| bad("the boundary does not occur in the body", 0))?;
    let mut quota = Quota::default();
    while !next.last {
        let start = next.end;
        next = Delimiter::find(&finder, &delimiter, body, start)
            .ok_or_else(|| bad("the body ends within a part", body.len()))?;
        let bytes = body.get(start..next.start).unwrap_or_default();
        quota.take()?;
        each(bytes, part(bytes));
    }
    Ok(())
}

/// A line that separates parts.
struct Delimiter {
    /// Where the line end before it begins.
    start: usize,
    /// Where the next part begins.
    end: usize,
    /// Whether no part follows.
    last: bool,
}

impl Delimiter {
    fn find(finder: &memmem::Finder<'_>, delimiter: &[u8], body: &[u8], from: usize) -> Option<Self> {
        let mut at = from;
        loop {
            let found = at + finder.find(body.get(at..)?)?;
            at = found + delimiter.len();
            let before = body.get(..found)?;
            let line_start = before.is_empty() || before.ends_with(b"\n");
            if let Some((after, last)) = line_start.then(|| line_end(body, at)).flatten() {
                let before = before.strip_suffix(b"\n").unwrap_or(before);
                let start = before.strip_suffix(b"\r").unwrap_or(before).len().max(from);
                return Some(Self { start, end: after, last });
            }
        }
    }
}

/// Where the line of a delimiter ends, which may have padding, and whether it is the last; `None` when something else
/// follows: a longer boundary, or content.
fn line_end(body: &[u8], at: usize) -> Option<(usize, bool)> {
    let rest = body.get(at..)?;
    if rest.starts_with(b"--") {
        return Some((body.len(), true));
    }
    let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let rest = rest.get(padding..)?;
    let end = if rest.starts_with(b"\r\n") { 2 } else { usize::from(rest.starts_with(b"\n")) };
    (end > 0).then_some((at + padding + end, false))
}

fn first_line(body: &[u8]) -> Option<Vec<u8>> {
    let rest = body.strip_prefix(b"--")?;
    let end = memchr::memchr(b'\n', rest.get(..rest.len().min(MAX_BOUNDARY + 2))?)?;
    Some(rest.get(..end)?.trim_ascii_end().to_vec())
}

fn part(bytes: &[u8]) -> Option<Part<'_>> {
    let window = bytes.get(..bytes.len().min(MAX_HEAD))?;
    let crlf = memmem::find(window, b"\r\n\r\n").map(|at| (at, at + 4));
    let bare = memmem::find(window, b"\n\n").map(|at| (at, at + 2));
    let (head, content) = crlf.into_iter().chain(bare).min()?;
    let head = std::str::from_utf8(bytes.get(..head)?).ok()?;
    let header = |wanted: &str| {
        head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim())
        })
    };
    let disposition = header("content-disposition").filter(|value| essence(value) == "form-data")?;
    Some(Part {
        name: parameter(disposition, "name").filter(|name| !name.is_empty())?,
        content_type: header("content-type").map(essence).unwrap_or_default(),
        content: bytes.get(content..)?,
    })
}

fn essence(value: &str) -> String {
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// A parameter of a header's value, quoted or not.
fn parameter(value: &str, wanted: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (name, after) = rest.split_once('=')?;
        let (text, after) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after.get(..end)?.trim().to_owned(), after.get(end..)?)
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(text);
        }
        rest = after.split_once(';')?.1;
    }
}

/// The text up to the closing quote, and what follows it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((text, quoted.get(at + 1..)?)),
            '\\' => text.push(characters.next()?.1),
            other => text.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(content_type: &str, body: &str) -> Result<Vec<Option<(String, String)>>, BadBody> {
        let mut seen = Vec::new();
        each_part(content_type, body.as_bytes(), |_, part| {
            let show = |part: Part<'_>| (part.name, String::from_utf8_lossy(part.content).into_owned());
            seen.push(part.map(show));
        })?;
        Ok(seen)
    }

    const BODY: &str = "--b1\r\nContent-Disposition: form-data; name=\"a.\\\"1\\\"\"; filename=\"x;y\"\r\n\
        content-type: Application/JSON; length=2\r\n\r\n{}\r\n--b1 \r\n\r\nno head\r\n--b12\r\n--b1\r\n\
        Content-Disposition: form-data; filename=z; name=c\r\n\r\n\r\n--b1--\r\nepilogue";

    #[test]
    fn parts_are_told_apart_and_a_malformed_one_costs_itself() {
        let parts = names("multipart/form-data; boundary=b1", BODY).unwrap();
        let expected = [Some(("a.\"1\"".into(), "{}".into())), None, Some(("c".into(), String::new()))];
        assert_eq!(parts, expected);
        assert_eq!(names("multipart/form-data", BODY).unwrap(), expected, "boundary of the first line");
        let quoted = "multipart/form-data; charset=utf-8; boundary=\"b1\"";
        assert_eq!(names(quoted, &BODY.replace("\r\n", "\n")).unwrap(), expected);
        assert_eq!(names("multipart/form-data; boundary=b1", "--b1--").unwrap(), []);
    }

    #[test]
    fn body_that_may_lack_parts_is_refused() {
        let code = |body: &str| names("multipart/form-data; boundary=b1", body).unwrap_err().code;
        assert_eq!(code(BODY.split("--b1--").next().unwrap()), "malformed_multipart");
        assert_eq!(code("{}"), "malformed_multipart");
        assert_eq!(code(""), "malformed_multipart");
    }

    proptest! {
        #[test]
        fn arbitrary_bodies_never_panic(body in "(--b|\r\n|\n|--|:|name=\"|Content-Disposition: form-data; |.){0,60}") {
            let _outcome = names("multipart/form-data; boundary=b", &body);
            let _outcome = names(&body, &body);
        }

        #[test]
        fn content_comes_back_as_it_was_sent(contents in prop::collection::vec("[a-z{}\r\n-]{0,12}", 0..6)) {
            let part = |text: &String| format!("--zz\r\nContent-Disposition: form-data; name=n\r\n\r\n{text}\r\n");
            let body = contents.iter().map(part).collect::<String>() + "--zz--\r\n";
            let seen = names("multipart/form-data; boundary=zz", &body).unwrap();
            let seen: Vec<String> = seen.into_iter().map(|part| part.unwrap().1).collect();
            prop_assert_eq!(seen, contents);
        }
    }
}
