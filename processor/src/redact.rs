//! Replaces secrets in events before they reach the events topic.
//!
//! One pass of a multi-pattern search decides whether an event can hold a secret at all; nearly every event ends there.
//! Identities were computed before, so redaction changes what is shown and never what is counted. Replacements are made
//! in the JSON text itself: no pattern matches across a quote, so the text stays JSON.

use aho_corasick::AhoCorasick;
use fleetlog_schemas::event::AgentEvent;
use regex::Regex;
use thiserror::Error;

/// The redaction rules do not compile.
#[derive(Debug, Error)]
pub enum RuleError {
    /// A pattern is not a regular expression.
    #[error("redaction rule: {0}")]
    Pattern(#[from] regex::Error),
    /// The literals cannot be searched for.
    #[error("redaction rule: {0}")]
    Literals(#[from] aho_corasick::BuildError),
}

/// A shape of secret: literals of which one must occur, the pattern, and what it is replaced by.
struct Shape {
    literals: &'static [&'static str],
    pattern: &'static str,
    replacement: &'static str,
}

/// Shapes of well-known secrets. More specific ones stand first: the first that matches names the secret.
const SHAPES: &[Shape] = &[
    Shape {
        literals: &["-----begin"],
        // A line's end is `\n`, with more backslashes the deeper the JSON is inside other JSON's strings.
        pattern: r#"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?:[^"\\]|\\+[nrt/])*"#,
        replacement: "[redacted:private-key]",
    },
    Shape {
        literals: &["sk-ant-"],
        pattern: r"\bsk-ant-[A-Za-z0-9_-]{16,}",
        replacement: "[redacted:anthropic-key]",
    },
    Shape {
        literals: &["sk-lf-"],
        pattern: r"\bsk-lf-[A-Za-z0-9-]{16,}",
        replacement: "[redacted:langfuse-key]",
    },
    Shape {
        literals: &["lsv2_"],
        pattern: r"\blsv2_(?:pt|sk)_[A-Za-z0-9_]{16,}",
        replacement: "[redacted:langsmith-key]",
    },
    Shape { literals: &["sk-"], pattern: r"\bsk-[A-Za-z0-9_-]{20,}", replacement: "[redacted:openai-key]" },
    Shape {
        literals: &["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"],
        pattern: r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,})",
        replacement: "[redacted:github-token]",
    },
    Shape {
        literals: &["glpat-"],
        pattern: r"\bglpat-[A-Za-z0-9_-]{20,}",
        replacement: "[redacted:gitlab-token]",
    },
    Shape {
        literals: &["akia", "asia"],
        pattern: r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
        replacement: "[redacted:aws-key-id]",
    },
    Shape {
        literals: &["xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-"],
        pattern: r"\bxox[bpars]-[A-Za-z0-9-]{10,}",
        replacement: "[redacted:slack-token]",
    },
    Shape { literals: &["aiza"], pattern: r"\bAIza[A-Za-z0-9_-]{35}", replacement: "[redacted:google-key]" },
    Shape {
        literals: &["hf_"],
        pattern: r"\bhf_[A-Za-z0-9]{30,}",
        replacement: "[redacted:huggingface-token]",
    },
    Shape { literals: &["npm_"], pattern: r"\bnpm_[A-Za-z0-9]{36}", replacement: "[redacted:npm-token]" },
    Shape {
        literals: &["fl_"],
        pattern: r"\bfl_[0-9a-f]{8,}_[0-9a-f]{32,}",
        replacement: "[redacted:fleetlog-key]",
    },
    Shape {
        literals: &["eyj"],
        pattern: r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
        replacement: "[redacted:jwt]",
    },
    Shape {
        literals: &["bearer "],
        pattern: r"(?i)\bbearer +[A-Za-z0-9._~+/=-]{16,}",
        replacement: "[redacted:bearer]",
    },
    // A header as a JSON member, also where that JSON is itself inside a JSON string.
    Shape {
        literals: &["authorization", "api-key", "api_key", "apikey"],
        pattern: r#"(?i)(\\*"[a-z0-9_.-]*(?:authorization|api[-_]?key)\\*"\s*:\s*\\*")[^"\\\[][^"\\]*"#,
        replacement: "${1}[redacted:header]",
    },
    // A header as it stands in a command line or a dump of a request.
    Shape {
        literals: &["authorization:"],
        pattern: r"(?i)(\bauthorization: *(?:basic|bearer|token) +)[A-Za-z0-9._~+/=-]{6,}",
        replacement: "${1}[redacted:header]",
    },
    // Command lines hold prompts and keys (Gemini CLI puts its own into a resource attribute).
    Shape {
        literals: &["process.command_args", "process.command_line"],
        pattern: r#"("process\.command_(?:args|line)"\s*:\s*)(?:"(?:[^"\\]|\\.)+"|\[(?:[^\]"]|"(?:[^"\\]|\\.)*")+\])"#,
        replacement: "${1}\"[redacted:command-line]\"",
    },
];

/// The compiled rules.
pub struct Redactor {
    prefilter: AhoCorasick,
    /// The rule each literal of the prefilter belongs to.
    rule_of_literal: Vec<usize>,
    rules: Vec<(Regex, &'static str)>,
}

impl Redactor {
    /// Compiles the built-in rules.
    ///
    /// # Errors
    /// [`RuleError`] when a rule does not compile, which a test excludes.
    pub fn built_in() -> Result<Self, RuleError> {
        let mut literals = Vec::new();
        let mut rule_of_literal = Vec::new();
        let mut rules = Vec::new();
        for (rule, shape) in SHAPES.iter().enumerate() {
            for literal in shape.literals {
                literals.push(*literal);
                rule_of_literal.push(rule);
            }
            rules.push((Regex::new(shape.pattern)?, shape.replacement));
        }
        let prefilter = AhoCorasick::builder().ascii_case_insensitive(true).build(literals)?;
        Ok(Self { prefilter, rule_of_literal, rules })
    }

    /// Replaces the secrets of an event and adds their number to its `redactions`.
    pub fn redact(&self, event: &mut AgentEvent) {
        let texts = [&mut event.data, &mut event.context, &mut event.error_message, &mut event.name];
        let found: u32 = texts.into_iter().map(|text| self.redact_text(text)).sum();
        event.redactions = event.redactions.saturating_add(found);
    }

    /// Replaces the secrets of a text; returns how many.
    pub fn redact_text(&self, text: &mut String) -> u32 {
        let mut candidates = 0u64;
        for found in self.prefilter.find_overlapping_iter(text.as_str()) {
            if let Some(rule) = self.rule_of_literal.get(found.pattern().as_usize()) {
                candidates |= 1 << rule;
            }
        }
        if candidates == 0 {
            return 0;
        }
        let mut replaced = 0;
        for (index, (pattern, replacement)) in self.rules.iter().enumerate() {
            if candidates & (1 << index) == 0 {
                continue;
            }
            let found = pattern.find_iter(text).count();
            if found > 0 {
                replaced += u32::try_from(found).unwrap_or(u32::MAX);
                *text = pattern.replace_all(text, *replacement).into_owned();
            }
        }
        replaced
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    // Pieced together, so that no scanner of this repository takes them for real ones.
    fn secrets() -> Vec<(String, &'static str)> {
        let filler = "a1B2c3D4e5F6g7H8i9J0a1B2c3D4e5F6g7H8i9J0";
        vec![
            (format!("sk-{}{}", "ant-api03-", filler), "anthropic-key"),
            (format!("sk-{}{}", "proj-", filler), "openai-key"),
            (format!("gh{}_{}", "p", &filler[..36]), "github-token"),
            (format!("AK{}{}", "IA", "ABCDEFGHIJKLMNOP"), "aws-key-id"),
            (format!("xox{}-{}", "b", "1234567890-abcdef"), "slack-token"),
            (format!("AI{}{}", "za", &filler[..35]), "google-key"),
            (format!("ey{}.{}.{}", "Jhbhello123", "Jhbhello123", "abcdefghijk"), "jwt"),
            (format!("Bearer {filler}"), "bearer"),
            (format!("fl_{}_{}", "0123456789abcdef", "0123456789abcdef".repeat(4)), "fleetlog-key"),
            (format!("-----BEGIN {} KEY-----\\nMIIabc\\n-----END X-----", "RSA PRIVATE"), "private-key"),
        ]
    }

    #[test]
    fn every_shape_is_replaced_and_named_and_the_text_stays_json() {
        let redactor = Redactor::built_in().unwrap();
        for (secret, name) in secrets() {
            let mut text = format!(r#"{{"env":"KEY is {secret}","n":1}}"#);
            assert_eq!(redactor.redact_text(&mut text), 1, "{name}: {text}");
            assert!(text.contains(&format!("[redacted:{name}]")), "{text}");
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["n"], 1, "{text}");
        }
    }

    #[test]
    fn headers_and_command_lines_are_replaced_whatever_they_hold() {
        let redactor = Redactor::built_in().unwrap();
        let mut text = r#"{"http.request.header.authorization":"Basic abc","x-api-key":"k","process.command_args":["gemini","-p","my \"secret\" [plan]"],"inner":"{\"api_key\":\"v\"}"}"#.to_owned();
        assert_eq!(redactor.redact_text(&mut text), 4);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["process.command_args"], "[redacted:command-line]");
        assert_eq!(value["x-api-key"], "[redacted:header]");
        assert_eq!(value["inner"], r#"{"api_key":"[redacted:header]"}"#);
    }

    #[test]
    fn secrets_inside_json_inside_json_are_replaced_whole() {
        let redactor = Redactor::built_in().unwrap();
        let pem = format!("-----BEGIN {}-----\nMIIabc\nMIIdef\n-----END {0}-----\n", "RSA PRIVATE KEY");
        let mut value = Value::String(pem);
        for depth in 0..4 {
            value = serde_json::json!({"content": value, "authorization": "Basic c2VjcmV0", "n": depth});
            let mut text = value.to_string();
            redactor.redact_text(&mut text);
            assert!(!text.contains("MII") && !text.contains("c2VjcmV0"), "{depth}: {text}");
            assert!(serde_json::from_str::<Value>(&text).is_ok(), "{depth}: {text}");
            value = Value::String(value.to_string());
        }
        let mut command = r#"{"command":"curl -H 'Authorization: Basic dXNlcjpwYXNz' https://x"}"#.to_owned();
        assert_eq!(redactor.redact_text(&mut command), 1);
        assert!(!command.contains("dXNl") && command.contains("https://x"), "{command}");
    }

    #[test]
    fn ordinary_text_is_left_alone_and_a_second_pass_finds_nothing() {
        let redactor = Redactor::built_in().unwrap();
        let ordinary =
            r#"{"text":"the task-list of asia shows bearer bonds; sk-learn and hf_ are names","api_keys":3}"#;
        let mut text = ordinary.to_owned();
        assert_eq!((redactor.redact_text(&mut text), text.as_str()), (0, ordinary));
        let mut event =
            AgentEvent { data: format!(r#"{{"k":"{}"}}"#, secrets()[0].0), ..AgentEvent::default() };
        redactor.redact(&mut event);
        assert_eq!(event.redactions, 1);
        redactor.redact(&mut event);
        assert_eq!(event.redactions, 1);
    }

    proptest! {
        #[test]
        fn json_stays_json(noise in ".{0,40}", which in 0usize..10, key in "[a-z_.-]{0,12}(authorization|api_key|process.command_args)?") {
            let redactor = Redactor::built_in().unwrap();
            let secret = secrets()[which].0.replace("\\n", "\n");
            let object = serde_json::json!({key: format!("{noise}{secret}{noise}"), "list": [noise, secret]});
            let mut text = object.to_string();
            redactor.redact_text(&mut text);
            prop_assert!(serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
        }
    }
}
