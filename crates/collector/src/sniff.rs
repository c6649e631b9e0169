//! How a file is cut and where it goes, from its first bytes.

use std::fmt;

use fleetlog_schemas::EventType;
use serde::Deserializer as _;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

/// Which endpoint a body goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Universal events.
    Events,
    /// OTLP logs.
    OtlpLogs,
    /// OTLP traces.
    OtlpTraces,
    /// OTLP metrics.
    OtlpMetrics,
    /// Any other format, recognised further on.
    Raw,
}

impl Target {
    /// Words for the command line.
    pub const WORDS: &'static [&'static str] = &["events", "otlp-logs", "otlp-traces", "otlp-metrics", "raw"];

    /// The target a word names.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "events" => Some(Self::Events),
            "otlp-logs" => Some(Self::OtlpLogs),
            "otlp-traces" => Some(Self::OtlpTraces),
            "otlp-metrics" => Some(Self::OtlpMetrics),
            "raw" => Some(Self::Raw),
            _ => None,
        }
    }

    /// The endpoint's path.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Events => "/v1/events",
            Self::OtlpLogs => "/v1/logs",
            Self::OtlpTraces => "/v1/traces",
            Self::OtlpMetrics => "/v1/metrics",
            Self::Raw => "/v1/raw/auto",
        }
    }

    const fn is_otlp(self) -> bool {
        matches!(self, Self::OtlpLogs | Self::OtlpTraces | Self::OtlpMetrics)
    }
}

/// How a file is cut into requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The file is one body.
    Whole,
    /// Lines are records; many go into one request.
    Lines,
    /// Each line is a body of its own (files written by collectors).
    BodyPerLine,
    /// The file is one binary body.
    Protobuf,
}

/// Tells how a file is cut and where it goes. `head` is its beginning, at least the first line.
///
/// `wanted` overrides the endpoint; the framing is still taken from the bytes.
pub fn sniff(head: &[u8], wanted: Option<Target>) -> (Framing, Target) {
    let text = head.trim_ascii_start();
    if !matches!(text.first(), Some(b'{' | b'[')) {
        // 0x0A is the tag of field 1, which every OTLP request begins with.
        let binary = head.first() == Some(&0x0A) && wanted.is_some_and(Target::is_otlp);
        let framing = if binary { Framing::Protobuf } else { Framing::Lines };
        return (framing, wanted.unwrap_or(Target::Raw));
    }
    let first_line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let rest = text.get(first_line.len()..).unwrap_or_default();
    match serde_json::from_slice::<Value>(first_line) {
        Ok(Value::Object(line)) => {
            let target = wanted.unwrap_or_else(|| target_of_object(&line));
            (framing_of_line(&line, rest, target), target)
        }
        Ok(whole) => (Framing::Whole, wanted.unwrap_or_else(|| target_of(&whole))),
        // The end of a document over several lines is further down; a line that is broken is one of many.
        Err(e) if e.is_eof() && !second_line_is_an_object(first_line, rest) => {
            (Framing::Whole, wanted.unwrap_or_else(|| target_of_document(text)))
        }
        Err(_) => (Framing::Lines, wanted.unwrap_or(Target::Raw)),
    }
}

/// How a file is cut whose first line is an object.
fn framing_of_line(line: &serde_json::Map<String, Value>, rest: &[u8], target: Target) -> Framing {
    let alone = rest.trim_ascii().is_empty();
    match target {
        // A single line may be the first of many; as a line it stays what it is when others follow.
        Target::Raw => Framing::Lines,
        _ if alone && (rest.is_empty() || line.contains_key("events")) => Framing::Whole,
        target if target.is_otlp() => Framing::BodyPerLine,
        _ => Framing::Lines,
    }
}

fn second_line_is_an_object(first_line: &[u8], rest: &[u8]) -> bool {
    let second = rest.split(|byte| *byte == b'\n').nth(1).unwrap_or_default();
    first_line.starts_with(b"{") && matches!(serde_json::from_slice(second), Ok(Value::Object(_)))
}

fn target_of(value: &Value) -> Target {
    match value {
        Value::Object(object) => target_of_object(object),
        Value::Array(items) => items.first().map_or(Target::Events, target_of),
        _ => Target::Raw,
    }
}

fn target_of_object(object: &serde_json::Map<String, Value>) -> Target {
    let has = |keys: [&str; 2]| keys.iter().any(|key| object.contains_key(*key));
    if has(["resourceLogs", "resource_logs"]) {
        Target::OtlpLogs
    } else if has(["resourceSpans", "resource_spans"]) {
        Target::OtlpTraces
    } else if has(["resourceMetrics", "resource_metrics"]) {
        Target::OtlpMetrics
    } else if object.get("events").is_some_and(Value::is_array)
        || object.get("type").and_then(Value::as_str).is_some_and(|word| is_universal(word, object))
    {
        Target::Events
    } else {
        Target::Raw
    }
}

/// A word of ours, or a dotted one that could be the sender's own; not where the line has the marks of a coding agent's
/// log, which is recognised further on.
fn is_universal(word: &str, line: &serde_json::Map<String, Value>) -> bool {
    let foreign = ["thread.", "turn.", "item."].iter().any(|prefix| word.starts_with(prefix))
        || ["payload", "uuid", "part"].iter().any(|key| line.contains_key(*key));
    !foreign && (EventType::parse(word).is_some() || word.contains('.'))
}

/// The target of a document whose end may not be seen: an array is what its first element is, an object what its
/// members are named.
fn target_of_document(text: &[u8]) -> Target {
    if let Some(elements) = text.strip_prefix(b"[") {
        let first = serde_json::Deserializer::from_slice(elements).into_iter::<Value>().next();
        return first.and_then(Result::ok).map_or(Target::Raw, |first| target_of(&first));
    }
    let mut members = Vec::new();
    // That the document is cut off is no fault: the names before are known.
    let _cut_off = serde_json::Deserializer::from_slice(text).deserialize_map(Members(&mut members)).is_err();
    let has = |key: &str| members.iter().any(|member| member == key);
    match () {
        () if has("resourceLogs") => Target::OtlpLogs,
        () if has("resourceSpans") => Target::OtlpTraces,
        () if has("resourceMetrics") => Target::OtlpMetrics,
        () if has("events") => Target::Events,
        () => Target::Raw,
    }
}

/// Collects the names of an object's own members, not those of what is in it.
struct Members<'a>(&'a mut Vec<String>);

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key()? {
            self.0.push(name);
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_cut_by_what_it_holds() {
        let cases: [(&[u8], (Framing, Target)); 21] = [
            (b"{\"type\":\"deploy.done\"}\nbad line\n", (Framing::Lines, Target::Events)),
            (b"{\"type\":\"turn.started\"}\n{}\n", (Framing::Lines, Target::Raw)),
            (b"{\"type\":\"log\"}\n{\"type\":\"log\"}\n", (Framing::Lines, Target::Events)),
            (b"{\"type\":\"log\"}", (Framing::Whole, Target::Events)),
            (b"[{\"type\":\"log\"}]", (Framing::Whole, Target::Events)),
            (b"{\"resourceLogs\":[]}\n{\"resourceLogs\":[]}", (Framing::BodyPerLine, Target::OtlpLogs)),
            (b"{\n  \"resourceSpans\": [\n", (Framing::Whole, Target::OtlpTraces)),
            (b"{\"type\":\"assistant\",\"sessionId\":\"s\"}\n{}", (Framing::Lines, Target::Raw)),
            (b"{\"payload\":1,\"type\":\"session_meta\"}\n{}", (Framing::Lines, Target::Raw)),
            (b"plain words\n", (Framing::Lines, Target::Raw)),
            (b"{\"type\":\"log\"}\n", (Framing::Lines, Target::Events)),
            (b"{\"events\":[]}\n", (Framing::Whole, Target::Events)),
            (b"{\"resourceLogs\":[]}", (Framing::Whole, Target::OtlpLogs)),
            (b"{\"type\":\"user\",\"sessionId\":\"s\"}\n", (Framing::Lines, Target::Raw)),
            (b"[{\"ts\":1,\"say\":\"text\"}]", (Framing::Whole, Target::Raw)),
            (b"[\n  {\n    \"ts\": 1,\n    \"say\": \"text\"\n  },\n", (Framing::Whole, Target::Raw)),
            (b"[\n  {\n    \"type\": \"log\"\n  },\n", (Framing::Whole, Target::Events)),
            (b"{\n  \"sessionId\": \"s\",\n", (Framing::Whole, Target::Raw)),
            (b"{\n  \"post\": [{\"id\": 1, \"events\": []}],\n", (Framing::Whole, Target::Raw)),
            (b"{\n  \"source\": {\"a\": 1},\n  \"events\": [\n  {\"type", (Framing::Whole, Target::Events)),
            (b"{\"cut\": \"of\n{\"type\":\"user\"}\n", (Framing::Lines, Target::Raw)),
        ];
        for (head, expected) in cases {
            assert_eq!(sniff(head, None), expected, "{}", String::from_utf8_lossy(head));
        }
        assert_eq!(sniff(b"\n\x05abc", Some(Target::OtlpLogs)), (Framing::Protobuf, Target::OtlpLogs));
    }
}
