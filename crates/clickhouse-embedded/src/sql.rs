//! Just enough of ClickHouse's SQL to know where a statement's parts lie.
//!
//! The lexer follows ClickHouse's own (comments, strings, quoted identifiers, heredocs), and [`Shape`] says what kind of
//! statement a text is, where an INSERT's data begins and which FORMAT the tail names. It decides nothing: what may run
//! is the gate's business, and what a statement means is the engine's.

use std::ops::Range;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A bare word: keyword, identifier.
    Word,
    /// An identifier in backquotes or double quotes.
    Quoted,
    /// A string literal or heredoc.
    String,
    /// A number.
    Number,
    /// One byte of punctuation.
    Symbol(u8),
    /// A quote or comment that never ends, or a byte outside ASCII: ClickHouse knows typographic quotes and blanks, and
    /// a lexer that differs there would see another statement than the engine.
    Broken,
}

/// A token and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// What it is.
    pub(crate) kind: Kind,
    /// Its bytes, quotes included.
    pub(crate) span: Range<usize>,
}

/// Splits a text into tokens; comments and blanks are skipped.
pub(crate) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    /// Starts at the beginning of `text`.
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    /// Moves past the next `needle`; false when there is none.
    fn skip_past(&mut self, needle: &[u8]) -> bool {
        match find(&self.text[self.at..], needle) {
            Some(offset) => {
                self.at += offset + needle.len();
                true
            }
            None => {
                self.at = self.text.len();
                false
            }
        }
    }

    /// Skips blanks and comments; false when a comment never ends.
    fn skip_blank(&mut self) -> bool {
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(byte), _) if byte.is_ascii_whitespace() || byte == 0x0b => self.at += 1,
                (Some(b'-'), Some(b'-')) | (Some(b'/'), Some(b'/')) | (Some(b'#'), Some(b' ' | b'!')) => {
                    self.skip_past(b"\n");
                }
                (Some(b'/'), Some(b'*')) => {
                    if !self.skip_comment() {
                        return false;
                    }
                }
                // A no-break space counts as blank in ClickHouse.
                (Some(0xc2), Some(0xa0)) => self.at += 2,
                _ => return true,
            }
        }
    }

    /// Skips a comment with those nested in it; false when it never ends.
    fn skip_comment(&mut self) -> bool {
        let mut depth = 0_usize;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b'/'), Some(b'*')) => depth += 1,
                (Some(b'*'), Some(b'/')) => depth -= 1,
                (Some(_), _) => {
                    self.at += 1;
                    continue;
                }
                (None, _) => return false,
            }
            self.at += 2;
            if depth == 0 {
                return true;
            }
        }
    }

    /// Reads up to the closing quote; a doubled quote or a backslash continues it.
    fn quoted(&mut self, quote: u8, kind: Kind) -> Kind {
        self.at += 1;
        while let Some(byte) = self.peek(0) {
            self.at += 1;
            if byte == b'\\' {
                self.at += 1;
            } else if byte == quote {
                if self.peek(0) != Some(quote) {
                    return kind;
                }
                self.at += 1;
            }
        }
        self.at = self.text.len();
        Kind::Broken
    }

    /// Reads `$tag$ … $tag$`, or a lone dollar sign.
    fn heredoc(&mut self) -> Kind {
        let rest = &self.text[self.at..];
        let tag = rest[1..]
            .iter()
            .position(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_'))
            .filter(|length| rest[1 + length] == b'$');
        match tag {
            Some(length) => {
                let tag = &rest[..length + 2];
                self.at += tag.len();
                if self.skip_past(tag) { Kind::String } else { Kind::Broken }
            }
            None => {
                self.at += 1;
                Kind::Symbol(b'$')
            }
        }
    }

    fn run_of(&mut self, belongs: impl Fn(u8) -> bool) {
        while self.peek(0).is_some_and(&belongs) {
            self.at += 1;
        }
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        if !self.skip_blank() {
            return Some(Token { kind: Kind::Broken, span: self.text.len()..self.text.len() });
        }
        let start = self.at;
        let kind = match self.peek(0)? {
            b'\'' => self.quoted(b'\'', Kind::String),
            quote @ (b'`' | b'"') => self.quoted(quote, Kind::Quoted),
            b'$' => self.heredoc(),
            byte if byte.is_ascii_digit() => {
                self.run_of(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.');
                Kind::Number
            }
            byte if is_word(byte) => {
                // A dollar sign continues a word, so that `a$b$` opens no heredoc.
                self.run_of(|byte| is_word(byte) || byte.is_ascii_digit() || byte == b'$');
                Kind::Word
            }
            0 | 0x80.. => {
                self.at += 1;
                Kind::Broken
            }
            byte => {
                self.at += 1;
                Kind::Symbol(byte)
            }
        };
        self.at = self.at.min(self.text.len());
        Some(Token { kind, span: start..self.at })
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|window| window == needle)
}

/// Compares a token with a keyword, without case.
pub(crate) fn is_keyword(text: &[u8], token: &Token, keyword: &str) -> bool {
    token.kind == Kind::Word && text[token.span.clone()].eq_ignore_ascii_case(keyword.as_bytes())
}

/// The name in an identifier token, quotes and escapes removed.
pub(crate) fn identifier(text: &[u8], token: &Token) -> Option<String> {
    let raw = &text[token.span.clone()];
    match token.kind {
        Kind::Word => Some(String::from_utf8_lossy(raw).into_owned()),
        Kind::Quoted => Some(unescape(&raw[1..raw.len() - 1], raw[0])),
        Kind::String | Kind::Number | Kind::Symbol(_) | Kind::Broken => None,
    }
}

/// Resolves backslash escapes and doubled quotes as ClickHouse does.
fn unescape(raw: &[u8], quote: u8) -> String {
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == quote && bytes.peek() == Some(&quote) {
            bytes.next();
            out.push(quote);
        } else if byte == b'\\' {
            match bytes.next() {
                Some(b'x') => {
                    let digits: Vec<u8> = bytes.by_ref().take(2).collect();
                    let parsed =
                        std::str::from_utf8(&digits).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
                    out.push(parsed.unwrap_or(b'?'));
                }
                Some(b'n') => out.push(b'\n'),
                Some(b't') => out.push(b'\t'),
                Some(b'r') => out.push(b'\r'),
                Some(b'0') => out.push(0),
                // `\N` stands for nothing at all inside a quoted name.
                Some(b'N') | None => {}
                Some(other) => out.push(other),
            }
        } else {
            out.push(byte);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The parts of a statement that decide how it is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Nothing but blanks and comments.
    Empty,
    /// An INSERT that brings data in a format.
    InsertData {
        /// The bytes before VALUES or FORMAT.
        head: usize,
        /// The format's name; `Values` for VALUES.
        format: String,
        /// Where the data begins.
        data: usize,
    },
    /// An INSERT that reads a file of the host.
    InsertFile,
    /// A SELECT, with the format that its tail names.
    Select {
        /// The named format, if any.
        format: Option<String>,
    },
    /// Any other statement, with the format that its tail names.
    Other {
        /// The first word, in upper case.
        verb: String,
        /// The named format, if any.
        format: Option<String>,
    },
}

impl Shape {
    /// Looks at a text; for an INSERT only at what precedes its data.
    pub(crate) fn of(text: &[u8]) -> Self {
        let mut lexer = Lexer::new(text);
        let Some(first) = lexer.next() else { return Self::Empty };
        if is_keyword(text, &first, "INSERT")
            && let Some(insert) = insert_shape(text, lexer)
        {
            return insert;
        }
        let format = tail_format(text);
        let is_select = ["SELECT", "WITH", "FROM"].iter().any(|verb| is_keyword(text, &first, verb))
            || first.kind == Kind::Symbol(b'(');
        if is_select {
            Self::Select { format }
        } else {
            Self::Other { verb: String::from_utf8_lossy(&text[first.span]).to_ascii_uppercase(), format }
        }
    }
}

/// Finds the data of an INSERT; None when it brings none (INSERT … SELECT).
fn insert_shape(text: &[u8], lexer: Lexer<'_>) -> Option<Shape> {
    let mut tokens = lexer.skip_while(|token| {
        ["INTO", "TABLE", "FUNCTION"].iter().any(|keyword| is_keyword(text, token, keyword))
    });
    // The first token of the target: a table may be named like a keyword.
    tokens.next()?;
    let mut depth = 0_usize;
    let mut after_dot = false;
    while let Some(token) = tokens.next() {
        match token.kind {
            Kind::Symbol(b'(') => depth += 1,
            Kind::Symbol(b')') => depth = depth.saturating_sub(1),
            Kind::Word if depth == 0 && !after_dot => {
                let word = &text[token.span.clone()];
                if word.eq_ignore_ascii_case(b"VALUES") {
                    return Some(Shape::InsertData {
                        head: token.span.start,
                        format: "Values".to_owned(),
                        data: token.span.end,
                    });
                }
                if word.eq_ignore_ascii_case(b"FORMAT") {
                    let name = tokens.next()?;
                    let format = identifier(text, &name)?;
                    let data = data_start(text, name.span.end, &format);
                    return Some(Shape::InsertData { head: token.span.start, format, data });
                }
                if word.eq_ignore_ascii_case(b"INFILE") {
                    return Some(Shape::InsertFile);
                }
                if word.eq_ignore_ascii_case(b"SELECT") || word.eq_ignore_ascii_case(b"WITH") {
                    return None;
                }
            }
            _ => {}
        }
        after_dot = token.kind == Kind::Symbol(b'.');
    }
    None
}

/// Skips what ClickHouse skips between a format's name and the data: blanks, then one line end.
fn data_start(text: &[u8], name_end: usize, format: &str) -> usize {
    if format.eq_ignore_ascii_case("Values") {
        return name_end;
    }
    let mut at = name_end;
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\x0c')) {
        at += 1;
    }
    if text.get(at) == Some(&b'\r') {
        at += 1;
    }
    if text.get(at) == Some(&b'\n') {
        at += 1;
    }
    at
}

/// Finds the FORMAT clause at the end of a statement.
fn tail_format(text: &[u8]) -> Option<String> {
    let mut depth = 0_usize;
    let mut found = None;
    let mut tokens = Lexer::new(text).peekable();
    while let Some(token) = tokens.next() {
        match token.kind {
            Kind::Symbol(b'(' | b'[' | b'{') => depth += 1,
            Kind::Symbol(b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            Kind::Word if depth == 0 && is_keyword(text, &token, "FORMAT") => {
                let Some(name) = tokens.next_if(|next| matches!(next.kind, Kind::Word | Kind::Quoted)) else {
                    continue;
                };
                let ends = match tokens.peek() {
                    None => true,
                    Some(next) => next.kind == Kind::Symbol(b';') || is_keyword(text, next, "SETTINGS"),
                };
                if ends {
                    found = identifier(text, &name);
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(text: &str) -> (String, String, String) {
        match Shape::of(text.as_bytes()) {
            Shape::InsertData { head, format, data } => {
                (text[..head].to_owned(), format, text[data..].to_owned())
            }
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn insert_is_cut_before_its_format_and_data() {
        let (head, format, data) =
            insert("INSERT INTO db.t (a, `format`) SETTINGS x = 'VALUES' FORMAT CSV \n\n1,2");
        assert_eq!(head, "INSERT INTO db.t (a, `format`) SETTINGS x = 'VALUES' ");
        assert_eq!((format.as_str(), data.as_str()), ("CSV", "\n1,2"));
    }

    #[test]
    fn insert_values_keeps_its_rows_as_data() {
        let (head, format, data) = insert("-- FORMAT x\ninsert into t values (1, ';\n\n')");
        assert_eq!(
            (head.as_str(), format.as_str(), data.as_str()),
            ("-- FORMAT x\ninsert into t ", "Values", " (1, ';\n\n')")
        );
    }

    #[test]
    fn table_named_like_a_keyword_is_a_table() {
        assert_eq!(insert("INSERT INTO format FORMAT TSV").0, "INSERT INTO format ");
        assert_eq!(insert("INSERT INTO db.values VALUES (1)").0, "INSERT INTO db.values ");
    }

    #[test]
    fn insert_from_a_query_is_not_data_and_a_file_is_recognised() {
        assert!(matches!(Shape::of(b"INSERT INTO t SELECT 1 FORMAT CSV"), Shape::Other { .. }));
        assert_eq!(Shape::of(b"INSERT INTO t FROM/**/INFILE '/x' FORMAT CSV"), Shape::InsertFile);
    }

    #[test]
    fn select_names_its_format_only_at_the_end() {
        let format = |text: &str| match Shape::of(text.as_bytes()) {
            Shape::Select { format } => format,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(format("SELECT 1 FORMAT JSON;"), Some("JSON".to_owned()));
        assert_eq!(format("SELECT 1\n FORMAT Native\n"), Some("Native".to_owned()));
        assert_eq!(format("SELECT 1 FORMAT CSV SETTINGS a=1"), Some("CSV".to_owned()));
        assert_eq!(format("SELECT format FROM t"), None);
        assert_eq!(format("SELECT ' FORMAT CSV'"), None);
        assert_eq!(format("(SELECT 1) -- FORMAT CSV"), None);
    }

    #[test]
    fn quoted_identifier_is_resolved_as_the_engine_resolves_it() {
        let text = br"`f\x69le` + $a$ x $a$ + 'it''s'";
        let tokens: Vec<Token> = Lexer::new(text).collect();
        assert_eq!(identifier(text, &tokens[0]).as_deref(), Some("file"));
        assert_eq!(tokens.iter().filter(|token| token.kind == Kind::String).count(), 2);
    }

    #[test]
    fn endless_quote_or_comment_is_broken_not_a_panic() {
        for text in ["'abc", "`a\\", "/* x", "/* /* */", "$a$ x", "\"", "'\\"] {
            let tokens: Vec<Token> = Lexer::new(text.as_bytes()).collect();
            assert!(tokens.iter().any(|token| token.kind == Kind::Broken), "{text}");
        }
    }

    #[test]
    fn comments_are_those_of_the_engine() {
        let words = |text: &str| Lexer::new(text.as_bytes()).filter(|token| token.kind == Kind::Word).count();
        assert_eq!(words("a // ' b\n c"), 2);
        assert_eq!(words("a # ' b\n c #! d"), 2);
        assert_eq!(words("/* /* */ a */ b"), 1);
        assert_eq!(words("a$b$, c, d$b$"), 3);
    }
}
