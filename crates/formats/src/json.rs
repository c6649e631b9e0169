//! Reading JSON text in place, without building values.
//!
//! A [`Cursor`] walks text once, checks it strictly (RFC 8259), and hands out slices of it. It never recurses over
//! nested input, so hostile nesting costs a [`Fault`], not the stack. Where one record is broken its end is found by
//! bracket counting alone ([`Cursor::skip_loosely`]), so that the records after it survive.

use std::borrow::Cow;

mod write;

pub(crate) use write::ObjectWriter;

/// Deepest nesting of a record; below serde_json's own limit of 128, which therefore never decides.
pub(crate) const MAX_DEPTH: u32 = 96;

/// Why text is not the JSON it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// The text ends inside a value.
    End,
    /// A byte that cannot stand where it stands.
    Syntax,
    /// Nested deeper than [`MAX_DEPTH`].
    Depth,
    /// Not UTF-8.
    Utf8,
}

/// A fault and its place, as a byte offset into the cursor's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) at: usize,
    pub(crate) kind: FaultKind,
}

impl Fault {
    /// The machine-readable word for the fault.
    pub(crate) fn code(self) -> &'static str {
        match self.kind {
            FaultKind::End | FaultKind::Syntax => "malformed_json",
            FaultKind::Depth => "too_deep",
            FaultKind::Utf8 => "invalid_utf8",
        }
    }

    /// A sentence for people; never contains input.
    pub(crate) fn message(self) -> String {
        match self.kind {
            FaultKind::End => format!("the JSON ends too early, at byte {}", self.at),
            FaultKind::Syntax => format!("not JSON at byte {}", self.at),
            FaultKind::Depth => format!("nested deeper than {MAX_DEPTH} levels at byte {}", self.at),
            FaultKind::Utf8 => format!("not UTF-8 at byte {}", self.at),
        }
    }
}

/// The contents of a JSON string, between its quotes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Str<'a> {
    raw: &'a [u8],
    escaped: bool,
}

impl<'a> Str<'a> {
    pub(crate) fn is_empty(self) -> bool {
        self.raw.is_empty()
    }

    /// The text, copied only when it holds escapes.
    pub(crate) fn text(self) -> Cow<'a, str> {
        if !self.escaped {
            return String::from_utf8_lossy(self.raw);
        }
        let mut quoted = Vec::with_capacity(self.raw.len() + 2);
        quoted.push(b'"');
        quoted.extend_from_slice(self.raw);
        quoted.push(b'"');
        match serde_json::from_slice::<String>(&quoted) {
            Ok(text) => Cow::Owned(text),
            // Only a lone surrogate gets here: the cursor has checked everything else.
            Err(_) => Cow::Owned(serde_json::from_slice(&mend(&quoted)).unwrap_or_default()),
        }
    }
}

/// A value as the cursor sees it; nested values stay text.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scalar<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    Text(Str<'a>),
    Object(&'a [u8]),
    Array(&'a [u8]),
}

/// A place in JSON text.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
    needs_mending: bool,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, needs_mending: false }
    }

    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn set_position(&mut self, at: usize) {
        self.at = at;
    }

    /// Whether something read so far is valid JSON that many parsers refuse, and should go through [`mend`].
    pub(crate) fn needs_mending(&self) -> bool {
        self.needs_mending
    }

    /// The text from `start` to here.
    pub(crate) fn since(&self, start: usize) -> &'a [u8] {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// The next byte that is not white space, without moving past it.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while let Some(&byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    /// Moves past `byte` when it is next.
    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let next = self.peek() == Some(byte);
        self.at += usize::from(next);
        next
    }

    pub(crate) fn fault(&self) -> Fault {
        let kind = if self.at >= self.text.len() { FaultKind::End } else { FaultKind::Syntax };
        Fault { at: self.at, kind }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.eat(byte) { Ok(()) } else { Err(self.fault()) }
    }

    /// Reads an object's members; `each` must consume the member's value.
    pub(crate) fn object<E: From<Fault>>(
        &mut self,
        mut each: impl FnMut(&mut Self, Str<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expect(b'{')?;
        if self.eat(b'}') {
            return Ok(());
        }
        loop {
            let key = self.key()?;
            each(self, key)?;
            if !self.eat(b',') {
                return Ok(self.expect(b'}')?);
            }
        }
    }

    /// Reads an array's elements; `each` must consume the element.
    pub(crate) fn array<E: From<Fault>>(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expect(b'[')?;
        if self.eat(b']') {
            return Ok(());
        }
        loop {
            each(self)?;
            if !self.eat(b',') {
                return Ok(self.expect(b']')?);
            }
        }
    }

    fn key(&mut self) -> Result<Str<'a>, Fault> {
        if self.peek() != Some(b'"') {
            return Err(self.fault());
        }
        let key = self.string()?;
        self.expect(b':')?;
        Ok(key)
    }

    /// Reads one value; a nested one as its checked text.
    pub(crate) fn scalar(&mut self) -> Result<Scalar<'a>, Fault> {
        match self.peek() {
            Some(b'"') => self.string().map(Scalar::Text),
            Some(b'{') => self.skip_value().map(Scalar::Object),
            Some(b'[') => self.skip_value().map(Scalar::Array),
            Some(b'-' | b'0'..=b'9') => {
                let number = self.number()?;
                Ok(Scalar::Number(std::str::from_utf8(number).unwrap_or_default()))
            }
            Some(b't') => self.word(b"true").map(|()| Scalar::Bool(true)),
            Some(b'f') => self.word(b"false").map(|()| Scalar::Bool(false)),
            Some(b'n') => self.word(b"null").map(|()| Scalar::Null),
            _ => Err(self.fault()),
        }
    }

    /// Checks one value and returns its text.
    pub(crate) fn skip_value(&mut self) -> Result<&'a [u8], Fault> {
        self.peek();
        let start = self.at;
        // One bit a level, the innermost lowest: set for an object.
        let (mut objects, mut depth) = (0u128, 0u32);
        loop {
            let opened = match self.peek() {
                Some(b'"') => self.string().map(|_| false)?,
                Some(b'-' | b'0'..=b'9') => self.number().map(|_| false)?,
                Some(b't') => self.word(b"true").map(|()| false)?,
                Some(b'f') => self.word(b"false").map(|()| false)?,
                Some(b'n') => self.word(b"null").map(|()| false)?,
                Some(open @ (b'{' | b'[')) => {
                    self.at += 1;
                    // `}` is two after `{`, as `]` is after `[`.
                    !self.eat(open + 2) && {
                        if depth == MAX_DEPTH {
                            return Err(Fault { at: self.at, kind: FaultKind::Depth });
                        }
                        depth += 1;
                        objects = objects << 1 | u128::from(open == b'{');
                        true
                    }
                }
                _ => return Err(self.fault()),
            };
            if opened {
                if objects & 1 == 1 {
                    self.key()?;
                }
                continue;
            }
            while depth > 0 {
                let in_object = objects & 1 == 1;
                if self.eat(b',') {
                    if in_object {
                        self.key()?;
                    }
                    break;
                }
                self.expect(if in_object { b'}' } else { b']' })?;
                depth -= 1;
                objects >>= 1;
            }
            if depth == 0 {
                return Ok(self.since(start));
            }
        }
    }

    /// Finds the end of an array element by brackets and quotes alone; `None` when the text ends first.
    pub(crate) fn skip_loosely(&mut self) -> Option<&'a [u8]> {
        self.peek();
        let start = self.at;
        let mut depth = 0usize;
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'"' => {
                    self.skip_string_loosely()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b',' | b']' | b'}' if depth == 0 => return Some(self.since(start)),
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
        }
        None
    }

    fn skip_string_loosely(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            let rest = self.text.get(self.at..)?;
            let found = memchr::memchr2(b'"', b'\\', rest)?;
            self.at += found + 1;
            if rest.get(found) == Some(&b'"') {
                return Some(());
            }
            self.at += 1;
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Fault> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        if rest.starts_with(word) {
            self.at += word.len();
            return Ok(());
        }
        self.at += rest.iter().zip(word).take_while(|(a, b)| a == b).count();
        Err(self.fault())
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count == 0 { Err(self.fault()) } else { Ok(()) }
    }

    fn next_is(&mut self, bytes: &[u8]) -> bool {
        let next = self.text.get(self.at).is_some_and(|byte| bytes.contains(byte));
        self.at += usize::from(next);
        next
    }

    fn number(&mut self) -> Result<&'a [u8], Fault> {
        let start = self.at;
        self.next_is(b"-");
        // A leading zero stands alone.
        if !self.next_is(b"0") {
            self.digits()?;
        }
        if self.next_is(b".") {
            self.digits()?;
        }
        let exponent = self.next_is(b"eE");
        if exponent {
            self.next_is(b"+-");
            self.digits()?;
        }
        let number = self.since(start);
        self.needs_mending |= (exponent || number.len() > LONGEST_FINITE) && is_beyond_double(number);
        Ok(number)
    }

    /// Reads a string; the cursor stands on its opening quote.
    pub(crate) fn string(&mut self) -> Result<Str<'a>, Fault> {
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain_prefix(self.text.get(self.at..).unwrap_or_default());
            match self.text.get(self.at) {
                Some(b'"') => {
                    let raw = self.since(start);
                    self.at += 1;
                    return Ok(Str { raw, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(self.fault()),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        self.at += 1;
        match self.text.get(self.at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                let unit = self.hex4()?;
                if (0xD800..0xDC00).contains(&unit) && self.low_surrogate_follows() {
                    self.at += 1;
                    self.hex4()?;
                } else if (0xD800..0xE000).contains(&unit) {
                    self.needs_mending = true;
                }
                Ok(())
            }
            _ => Err(self.fault()),
        }
    }

    fn low_surrogate_follows(&self) -> bool {
        match self.text.get(self.at..self.at + 6) {
            Some([b'\\', b'u', b'd' | b'D', b'c'..=b'f' | b'C'..=b'F', a, b]) => {
                a.is_ascii_hexdigit() && b.is_ascii_hexdigit()
            }
            _ => false,
        }
    }

    /// Reads the `u` and four hexadecimal digits of an escape.
    fn hex4(&mut self) -> Result<u32, Fault> {
        self.at += 1;
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.text.get(self.at).and_then(|&byte| char::from(byte).to_digit(16));
            unit = unit << 4 | digit.ok_or_else(|| self.fault())?;
            self.at += 1;
        }
        Ok(unit)
    }
}

/// How many bytes from the start are neither quote, backslash nor control character.
///
/// Eight bytes at a time: payloads are mostly long strings, so this is the hottest loop of the gateway.
fn plain_prefix(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let zero_bytes = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        // A mask may be wrong only above its own lowest hit, so the lowest hit of all is right.
        let hits = control | zero_bytes(word ^ (ONES * 0x22)) | zero_bytes(word ^ (ONES * 0x5C));
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|&&byte| byte != b'"' && byte != b'\\' && byte >= 0x20).count()
}

/// Digits without an exponent that always fit a double.
const LONGEST_FINITE: usize = 300;

/// Whether a number is too large for a double, and so for nearly every reader of JSON.
fn is_beyond_double(number: &[u8]) -> bool {
    let number = std::str::from_utf8(number).ok().and_then(|number| number.parse::<f64>().ok());
    number.is_some_and(f64::is_infinite)
}

/// Replaces what is valid JSON but refused by many parsers, ClickHouse's among them: an escape that is half a UTF-16 pair
/// becomes the replacement character, a number beyond a double becomes text.
///
/// Programs that cut a string in the middle of an emoji send the former.
pub(crate) fn mend(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let end = match byte {
            b'"' => {
                let mut cursor = Cursor { text, at, needs_mending: false };
                let end = cursor.skip_string_loosely().map_or(text.len(), |()| cursor.at);
                mend_string(text.get(at..end).unwrap_or_default(), &mut out);
                at = end;
                continue;
            }
            b'-' | b'0'..=b'9' => {
                let rest = text.get(at..).unwrap_or_default();
                let in_number = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                at + rest.iter().take_while(in_number).count()
            }
            _ => at + 1,
        };
        let token = text.get(at..end).unwrap_or_default();
        let beyond = is_beyond_double(token);
        out.extend(beyond.then_some(b'"'));
        out.extend_from_slice(token);
        out.extend(beyond.then_some(b'"'));
        at = end;
    }
    out
}

fn mend_string(text: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| memchr::memchr(b'\\', rest)) {
        let escape = at + found;
        out.extend_from_slice(text.get(at..escape).unwrap_or_default());
        let unit = |at: usize| match text.get(at..at + 6) {
            Some([b'\\', b'u', hex @ ..]) => {
                std::str::from_utf8(hex).ok().and_then(|hex| u32::from_str_radix(hex, 16).ok())
            }
            _ => None,
        };
        let len = match (unit(escape), unit(escape + 6)) {
            (Some(0xD800..0xDC00), Some(0xDC00..0xE000)) => 12,
            (Some(0xD800..0xE000), _) => 0,
            (Some(_), _) => 6,
            (None, _) => 2,
        };
        if len == 0 {
            out.extend_from_slice(b"\\ufffd");
            at = escape + 6;
        } else {
            let end = (escape + len).min(text.len());
            out.extend_from_slice(text.get(escape..end).unwrap_or_default());
            at = end;
        }
    }
    out.extend_from_slice(text.get(at..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepts(text: &[u8]) -> bool {
        let mut cursor = Cursor::new(text);
        cursor.skip_value().is_ok() && cursor.peek().is_none()
    }

    #[test]
    fn nesting_costs_a_fault_and_not_the_stack() {
        let mut deep = vec![b'['; 100_000];
        assert_eq!(Cursor::new(&deep).skip_value().unwrap_err().kind, FaultKind::Depth);
        deep.extend(vec![b']'; 100_000]);
        deep.push(b',');
        assert_eq!(Cursor::new(&deep).skip_loosely().unwrap().len(), 200_000);
    }

    #[test]
    fn half_an_emoji_is_mended_and_whole_ones_are_kept() {
        let text = br#""a\ud83d b\ud83d\ude00 \\ud83d \udc00""#;
        let mut cursor = Cursor::new(text);
        let string = cursor.string().unwrap();
        assert!(cursor.needs_mending());
        assert_eq!(string.text(), "a\u{fffd} b\u{1f600} \\ud83d \u{fffd}");
    }

    #[test]
    fn numbers_that_no_double_holds_become_text() {
        let text = format!(r#"{{"a\"1e999":[1e999,-1E+400,1e308,{},0.1]}}"#, "9".repeat(400));
        let mut cursor = Cursor::new(text.as_bytes());
        cursor.skip_value().unwrap();
        assert!(cursor.needs_mending());
        let mended = String::from_utf8(mend(text.as_bytes())).unwrap();
        let value: serde_json::Value = serde_json::from_str(&mended).unwrap();
        let list = &value["a\"1e999"];
        assert_eq!((&list[0], &list[1], list[2].as_f64()), (&"1e999".into(), &"-1E+400".into(), Some(1e308)));
        assert!(list[3].is_string() && list[4] == 0.1);
    }

    #[test]
    fn grammar_is_strict() {
        for good in ["0", "-1.5e+3", "\"\\u00e9\"", "[]", "{}", "[1,[],{\"a\":{}}]", " {\"a\" : null } "] {
            assert!(accepts(good.as_bytes()), "{good}");
        }
        for bad in
            ["", "01", "1.", "+1", ".5", "[1,]", "{\"a\"}", "{,}", "tru", "\"\n\"", "\"\\x\"", "[1}", "{1:2}"]
        {
            assert!(!accepts(bad.as_bytes()), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json_on_what_is_json(text in r#"[\[\]{}:,"\\a0-9eE.+\- tnu\x01]{0,40}"#) {
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(accepts(text.as_bytes()), theirs);
        }

        #[test]
        fn loose_end_of_a_good_element_is_its_strict_end(value in r#"\[("[a-z,\]\[{}]{0,8}"|[1-9]{1,3})(,\{"k":\[1,"\]"\]\})*\]"#) {
            let text = format!("{value},1]");
            let strict = Cursor::new(text.as_bytes()).skip_value().unwrap();
            let loose = Cursor::new(text.as_bytes()).skip_loosely().unwrap();
            prop_assert_eq!(strict, loose);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            accepts(&bytes);
            Cursor::new(&bytes).skip_loosely();
            mend(&bytes);
        }
    }
}
