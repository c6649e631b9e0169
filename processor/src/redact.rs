//! Replaces secrets in events before they reach the events topic.
//!
//! One pass of a multi-pattern search decides whether a text can hold a well-known secret at all; nearly every text ends
//! there, and otherwise only the patterns whose marks were found are tried. The operator's own rules see one text at a
//! time: each string value of `data` and `context`, and each column that is shown. All patterns run in linear time.
//! Identities were computed before, so redaction changes what is shown and never what is counted, and columns that hold
//! identities are left alone.

mod shapes;
mod values;

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use fleetlog_schemas::event::{AgentEvent, EventType};
use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use shapes::SHAPES;

/// Most rules an operator may add; each is a label of a metric.
pub const MOST_RULES: usize = 64;
/// Longest pattern of an operator's rule, bytes.
pub const LONGEST_PATTERN: usize = 2_000;
/// Longest replacement of an operator's rule, bytes.
pub const LONGEST_REPLACEMENT: usize = 200;
/// Longest name of an operator's rule, bytes.
pub const LONGEST_NAME: usize = 40;
/// Largest compiled pattern, bytes.
const COMPILED_BYTES: usize = 1 << 20;

/// How far beyond what a preview shows a secret is searched for, bytes: more than any key of today's has.
const PREVIEW_MARGIN: usize = 16 * 1024;

/// An escape of JSON's that stands for a character between words, with more backslashes the deeper the JSON is inside other
/// JSON's strings. Its last letter would hide that a word begins behind it.
const ESCAPE: &str = r"\\+(?:[nrtbf]|u[0-9A-Fa-f]{4})";
/// Put behind an escape while secrets are looked for. JSON holds no bare control character.
const PART: char = '\u{1}';

/// A set of rules is one number of as many bits.
const _: () = assert!(SHAPES.len() <= u128::BITS as usize);

/// Columns in which a secret may be shown; the others are identities, numbers, or words of closed vocabularies.
const SHOWN: &[&str] = &[
    "name",
    "error_type",
    "error_message",
    "agent_name",
    "user_id",
    "host",
    "model",
    "model_requested",
    "finish_reason",
    "service_tier",
    "inference_geo",
    "tool_name",
    "mcp_server",
    "file_path",
];

/// A rule of the operator's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedactRule {
    /// Its name: small letters, digits, `-` and `_`; the metric's label.
    pub name: String,
    /// A regular expression in the syntax of Rust's `regex`.
    pub pattern: String,
    /// What stands in its place, `${1}` for the first group; `[redacted:name]` when empty.
    #[serde(default)]
    pub replacement: String,
}

/// The redaction rules cannot be used.
#[derive(Debug, Error)]
pub enum RuleError {
    /// A built-in pattern is not a regular expression.
    #[error("redaction rule: {0}")]
    Pattern(#[from] regex::Error),
    /// The literals cannot be searched for.
    #[error("redaction rule: {0}")]
    Literals(#[from] aho_corasick::BuildError),
    /// One of the operator's rules makes no sense.
    #[error("rule {number} ({name}): {problem}")]
    Own {
        /// Its place in the list, from 1.
        number: usize,
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// How often each rule replaced something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redactions(Vec<u64>);

impl Redactions {
    fn add(&mut self, rule: usize, count: usize) {
        if self.0.len() <= rule {
            self.0.resize(rule + 1, 0);
        }
        if let Some(total) = self.0.get_mut(rule) {
            *total += count as u64;
        }
    }

    /// Replacements of all rules.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// The compiled rules.
pub struct Redactor {
    prefilter: AhoCorasick,
    /// The built-in rule each literal of the prefilter belongs to.
    rule_of_literal: Vec<usize>,
    built_in: Vec<Regex>,
    escape: Regex,
    /// Tells which of the operator's rules match at all.
    own_set: RegexSet,
    own: Vec<OwnRule>,
}

struct OwnRule {
    name: String,
    pattern: Regex,
    replacement: String,
}

impl Redactor {
    /// Compiles the built-in rules.
    ///
    /// # Errors
    /// [`RuleError`] when a rule does not compile, which a test excludes.
    pub fn built_in() -> Result<Self, RuleError> {
        Self::with_rules(&[])
    }

    /// Compiles the built-in rules and the operator's.
    ///
    /// # Errors
    /// [`RuleError`] naming the rule.
    pub fn with_rules(rules: &[RedactRule]) -> Result<Self, RuleError> {
        let mut literals = Vec::new();
        let mut rule_of_literal = Vec::new();
        let mut built_in = Vec::new();
        for (rule, shape) in SHAPES.iter().enumerate() {
            for literal in shape.literals {
                literals.push(*literal);
                rule_of_literal.push(rule);
            }
            built_in.push(Regex::new(shape.pattern)?);
        }
        let prefilter = AhoCorasick::builder().ascii_case_insensitive(true).build(literals)?;
        let own = own_rules(rules)?;
        let own_set = RegexSetBuilder::new(rules.iter().map(|rule| &rule.pattern))
            .size_limit(COMPILED_BYTES * (1 + rules.len()))
            .build()?;
        let escape = Regex::new(ESCAPE)?;
        Ok(Self { prefilter, rule_of_literal, built_in, escape, own_set, own })
    }

    /// Replacements by the rules' names.
    pub fn by_name<'r>(&'r self, redactions: &'r Redactions) -> impl Iterator<Item = (&'r str, u64)> {
        let built_in = SHAPES.iter().map(|shape| shape.name);
        let names = built_in.chain(self.own.iter().map(|rule| rule.name.as_str()));
        names.zip(redactions.0.iter().copied()).filter(|(_, count)| *count > 0)
    }

    /// Replaces the secrets of an event and adds their number to its `redactions`.
    pub fn redact(&self, event: &mut AgentEvent, counts: &mut Redactions) {
        let before = counts.total();
        if event.event_type == EventType::RawUnknown {
            self.redact_bytes(event, counts);
        }
        for json in [&mut event.data, &mut event.context] {
            self.replace_known(json, counts);
            if !self.own.is_empty() {
                values::rewrite(json, |text| self.replaced_own(text, counts));
            }
        }
        for (_, text) in event.texts_mut().filter(|(name, _)| SHOWN.contains(name)) {
            self.replace_known(text, counts);
            if let Some(new) = self.replaced_own(text, counts) {
                *text = new;
            }
        }
        let found = u32::try_from(counts.total() - before).unwrap_or(u32::MAX);
        event.redactions = event.redactions.saturating_add(found);
    }

    /// Bytes that are no text are kept in base64, where no rule would find anything. Where what is readable of them holds
    /// a secret, that is kept instead, without the secret; the bytes themselves stay in the raw topic alone.
    fn redact_bytes(&self, event: &mut AgentEvent, counts: &mut Redactions) {
        let Some(bytes) = kept_bytes(&event.data) else { return };
        let before = counts.total();
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        self.replace_known(&mut text, counts);
        if let Some(new) = self.replaced_own(&text, counts) {
            text = new;
        }
        if counts.total() > before {
            event.data = serde_json::json!({ "text": text }).to_string();
        }
    }

    /// The beginning of bytes as text without its secrets, at most `most` bytes of it; empty when they are no text.
    ///
    /// # Invariants
    /// A secret that begins within what is shown is seen whole by the rules, unless it is longer than
    /// `PREVIEW_MARGIN`: that much is read beyond what is shown, and cut off again.
    pub fn preview(&self, bytes: &[u8], most: usize) -> String {
        let read = bytes.get(..most.saturating_add(PREVIEW_MARGIN)).unwrap_or(bytes);
        let mut text = match std::str::from_utf8(read) {
            Ok(text) => text.to_owned(),
            // The end may lie within a character.
            Err(e) if e.error_len().is_none() => String::from_utf8_lossy(read).into_owned(),
            Err(_) => return String::new(),
        };
        let mut counts = Redactions::default();
        self.replace_known(&mut text, &mut counts);
        if !self.own.is_empty() {
            values::rewrite(&mut text, |value| self.replaced_own(value, &mut counts));
            if let Some(new) = self.replaced_own(&text, &mut counts) {
                text = new;
            }
        }
        let seen_whole =
            if read.len() < bytes.len() { text.len().saturating_sub(PREVIEW_MARGIN) } else { text.len() };
        text.truncate(text.floor_char_boundary(most.min(seen_whole)));
        text
    }

    /// Replaces the well-known secrets of a text, JSON or not.
    fn replace_known(&self, text: &mut String, counts: &mut Redactions) {
        let mut candidates = 0_u128;
        for found in self.prefilter.find_overlapping_iter(text.as_str()) {
            if let Some(rule) = self.rule_of_literal.get(found.pattern().as_usize()) {
                candidates |= 1 << rule;
            }
        }
        let parts = candidates != 0 && text.contains('\\') && !text.contains(PART);
        if parts {
            *text = self.escape.replace_all(text, format!("${{0}}{PART}")).into_owned();
        }
        while candidates != 0 {
            let rule = candidates.trailing_zeros() as usize;
            candidates &= candidates - 1;
            let (Some(pattern), Some(shape)) = (self.built_in.get(rule), SHAPES.get(rule)) else { break };
            let found = pattern.find_iter(text).count();
            if found > 0 {
                counts.add(rule, found);
                *text = pattern.replace_all(text, shape.replacement).into_owned();
            }
        }
        if parts {
            text.retain(|c| c != PART);
        }
    }

    /// A text after the operator's rules, in their order; `None` when none of them matches.
    fn replaced_own(&self, text: &str, counts: &mut Redactions) -> Option<String> {
        if self.own.is_empty() {
            return None;
        }
        let mut new = None;
        for index in &self.own_set.matches(text) {
            let rule = self.own.get(index)?;
            let now = new.as_deref().unwrap_or(text);
            // An earlier rule may have taken what this one matched.
            let found = rule.pattern.find_iter(now).count();
            if found > 0 {
                counts.add(SHAPES.len() + index, found);
                new = Some(rule.pattern.replace_all(now, rule.replacement.as_str()).into_owned());
            }
        }
        new
    }
}

/// The bytes of a record that was kept whole although it is no text.
fn kept_bytes(data: &str) -> Option<Vec<u8>> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Kept<'d> {
        base64: &'d str,
    }
    let kept: Kept<'_> = serde_json::from_str(data).ok()?;
    base64::engine::general_purpose::STANDARD.decode(kept.base64).ok()
}

fn own_rules(rules: &[RedactRule]) -> Result<Vec<OwnRule>, RuleError> {
    let mut own: Vec<OwnRule> = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let wrong = |problem: String| RuleError::Own { number: index + 1, name: rule.name.clone(), problem };
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
        if rule.name.is_empty() || rule.name.len() > LONGEST_NAME || !rule.name.chars().all(word) {
            return Err(wrong(format!("its name must be 1 to {LONGEST_NAME} small letters, digits, - or _")));
        }
        let known = SHAPES.iter().any(|shape| shape.name == rule.name);
        if known || own.iter().any(|earlier| earlier.name == rule.name) {
            return Err(wrong("its name is taken".to_owned()));
        }
        if index == MOST_RULES {
            return Err(wrong(format!("more than {MOST_RULES} rules")));
        }
        if rule.pattern.len() > LONGEST_PATTERN || rule.replacement.len() > LONGEST_REPLACEMENT {
            return Err(wrong(format!(
                "a pattern has at most {LONGEST_PATTERN} bytes, a replacement {LONGEST_REPLACEMENT}"
            )));
        }
        let pattern = RegexBuilder::new(&rule.pattern).size_limit(COMPILED_BYTES).build();
        let pattern = pattern.map_err(|e| wrong(e.to_string()))?;
        if pattern.is_match("") {
            return Err(wrong("its pattern matches nothing at all, everywhere".to_owned()));
        }
        let replacement = match rule.replacement.as_str() {
            "" => format!("[redacted:{}]", rule.name),
            given => given.to_owned(),
        };
        own.push(OwnRule { name: rule.name.clone(), pattern, replacement });
    }
    Ok(own)
}

#[cfg(test)]
mod tests;
