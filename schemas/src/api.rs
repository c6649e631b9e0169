//! The JSON form of an event that people and tools see.
//!
//! [`ApiEvent`] writes an [`AgentEvent`] in camelCase with empty fields left out: times as RFC 3339 with
//! nanoseconds in UTC, money as decimal US dollars that are exact to the ninth digit, `context` and `data` as the
//! JSON objects they are. [`FIELDS`] lists the same fields with their documentation, so that a description of the
//! API is generated and cannot drift. Reading events in is the decoders' work, not this module's.

use serde::ser::{SerializeMap, Serializer};
use serde::{Serialize, ser};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::event::{AgentEvent, Channel, EventType, Status, TimestampSource, TokenBasis, UsageRole};
use crate::id::{Key128, NanoUsd};

/// The receipt of a request that waits on a gateway's disk and has no place in the log yet.
pub const SPOOLED_RECEIPT: &str = "spooled";

/// Nine digits always: a fixed width sorts as text, and no reader has to guess the precision.
const RFC3339_NS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z");

/// An instant in nanoseconds since the Unix epoch, written as RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // INVARIANT: every i64 of nanoseconds lies between the years 1677 and 2262, which `time` can express.
        let text = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0))
            .ok()
            .and_then(|at| at.format(RFC3339_NS).ok())
            .ok_or(std::fmt::Error)?;
        f.write_str(&text)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An amount of money, written as a JSON number of US dollars without rounding.
///
/// A float would be exact only up to some nine million dollars; the digits are written from the integer instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usd(pub NanoUsd);

impl std::fmt::Display for Usd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nanos = self.0.0;
        let (whole, part) = (nanos.unsigned_abs() / 1_000_000_000, nanos.unsigned_abs() % 1_000_000_000);
        let sign = if nanos < 0 { "-" } else { "" };
        if part == 0 {
            return write!(f, "{sign}{whole}");
        }
        let digits = format!("{part:09}");
        write!(f, "{sign}{whole}.{}", digits.trim_end_matches('0'))
    }
}

impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string()).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

/// What a field holds, for a description of the API.
#[derive(Clone, Copy, Debug)]
pub enum FieldKind {
    /// A string.
    Text,
    /// A string of a closed vocabulary, with its words.
    Word(fn() -> Vec<&'static str>),
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// An RFC 3339 time.
    Time,
    /// A decimal number of US dollars.
    Usd,
    /// A JSON object.
    Object,
}

/// One field of the API form.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name in the JSON.
    pub name: &'static str,
    /// What it holds.
    pub kind: FieldKind,
    /// What it says.
    pub doc: &'static str,
}

/// A value that is left out when it says nothing.
trait Value: Serialize {
    const KIND: FieldKind;
    fn is_absent(&self) -> bool {
        false
    }
}

impl Value for &str {
    const KIND: FieldKind = FieldKind::Text;
    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl Value for u64 {
    const KIND: FieldKind = FieldKind::Integer;
    fn is_absent(&self) -> bool {
        *self == 0
    }
}

impl Value for Timestamp {
    const KIND: FieldKind = FieldKind::Time;
}

impl Value for f64 {
    const KIND: FieldKind = FieldKind::Number;
}

impl Value for Usd {
    const KIND: FieldKind = FieldKind::Usd;
}

/// A number for which zero is an answer.
#[derive(Serialize)]
#[serde(transparent)]
struct Exact<T>(T);

impl<T: Serialize> Value for Exact<T> {
    const KIND: FieldKind = FieldKind::Integer;
}

impl<T: Value> Value for Option<T> {
    const KIND: FieldKind = T::KIND;
    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

/// Words of closed vocabularies, each with what it is when it says nothing.
macro_rules! word_value {
    ($($vocabulary:ident absent when $absent:expr;)+) => {$(
        impl Value for $vocabulary {
            const KIND: FieldKind = FieldKind::Word(|| Self::ALL.iter().map(|word| word.as_str()).collect());
            fn is_absent(&self) -> bool {
                Some(*self) == $absent
            }
        }
    )+};
}

word_value! {
    // Every event has a type, and its time is from somewhere: nothing to leave out.
    EventType absent when None;
    TimestampSource absent when None;
    Channel absent when Some(Channel::Other);
    Status absent when Some(Status::Unset);
    TokenBasis absent when Some(TokenBasis::None);
    UsageRole absent when Some(UsageRole::None);
}

/// JSON text that is passed on as it is.
struct Json<'a>(&'a str);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serde_json::from_str::<&RawValue>(self.0) {
            Ok(json) => json.serialize(serializer),
            // A row that holds something else is shown, not hidden, and never breaks the answer around it.
            Err(_) => serializer.serialize_str(self.0),
        }
    }
}

impl Value for Json<'_> {
    const KIND: FieldKind = FieldKind::Object;
    fn is_absent(&self) -> bool {
        matches!(self.0, "" | "{}")
    }
}

fn put<M: SerializeMap, V: Value>(map: &mut M, name: &'static str, value: V) -> Result<(), M::Error> {
    if value.is_absent() { Ok(()) } else { map.serialize_entry(name, &value) }
}

/// Declares the fields of an object made of an event: its serialisation and its table of fields.
macro_rules! object {
    ($writer:ident, $fields:ident { $($(#[doc = $doc:literal])+ $name:literal: $type:ty = |$event:ident| $value:expr;)+ }) => {
        fn $writer<M: SerializeMap>(event: &AgentEvent, map: &mut M) -> Result<(), M::Error> {
            $({ let $event = event; put(map, $name, $value)?; })+
            Ok(())
        }

        /// The fields in the order in which they are written.
        pub const $fields: &[Field] = &[$(Field {
            name: $name,
            kind: <$type as Value>::KIND,
            doc: concat!($($doc),+).trim_ascii(),
        }),+];
    };
}

object! { write_fields, FIELDS {
    /// The sender's id, else one derived from the event's identity.
    "id": &str = |e| e.event_id.as_str();
    /// When it happened.
    "timestamp": Timestamp = |e| Timestamp(e.timestamp);
    /// What happened.
    "type": EventType = |e| e.event_type;
    /// Agent that did it.
    "agentId": &str = |e| e.agent_id.as_str();
    /// Session (conversation) it belongs to.
    "sessionId": &str = |e| e.session_id.as_str();
    /// Project of the key that sent it.
    "projectId": &str = |e| e.project_id.as_str();
    /// The source's own name of the record.
    "name": &str = |e| e.name.as_str();
    /// How it ended; left out when not said.
    "status": Status = |e| e.status;
    /// Severity: `trace`, `debug`, `info`, `warn`, `error` or `fatal`.
    "level": &str = |e| e.level.as_str();
    /// What emitted it, for instance `claude-code`.
    "source": &str = |e| e.source.as_str();
    /// The format it arrived in.
    "sourceFormat": &str = |e| e.source_format.as_str();
    /// The emitting program's version.
    "sourceVersion": &str = |e| e.source_version.as_str();
    /// The channel by which it arrived.
    "channel": Channel = |e| e.channel;
    /// Where `timestamp` comes from.
    "timestampSource": TimestampSource = |e| e.timestamp_source;
    /// When it ended.
    "endTimestamp": Option<Timestamp> = |e| e.end_timestamp.map(Timestamp);
    /// When the gateway accepted it.
    "receivedAt": Timestamp = |e| Timestamp(e.received_at);
    /// Class of the error.
    "errorType": &str = |e| e.error_type.as_str();
    /// Text of the error.
    "errorMessage": &str = |e| e.error_message.as_str();
    /// Trace, 32 hexadecimal digits when it comes from OTLP.
    "traceId": &str = |e| e.trace_id.as_str();
    /// Span, 16 hexadecimal digits when it comes from OTLP.
    "spanId": &str = |e| e.span_id.as_str();
    /// Parent span or parent record.
    "parentId": &str = |e| e.parent_id.as_str();
    /// Turn within the session.
    "turnId": &str = |e| e.turn_id.as_str();
    /// The provider's or SDK's id of the request.
    "requestId": &str = |e| e.request_id.as_str();
    /// The model's id of the tool call.
    "toolCallId": &str = |e| e.tool_call_id.as_str();
    /// Agent that started the agent.
    "parentAgentId": &str = |e| e.parent_agent_id.as_str();
    /// The agent's name or type.
    "agentName": &str = |e| e.agent_name.as_str();
    /// Person or account.
    "userId": &str = |e| e.user_id.as_str();
    /// Machine.
    "host": &str = |e| e.host.as_str();
    /// Provider of the model.
    "provider": &str = |e| e.provider.as_str();
    /// Model that answered.
    "model": &str = |e| e.model.as_str();
    /// Model that was asked for.
    "modelRequested": &str = |e| e.model_requested.as_str();
    /// Why the model stopped.
    "finishReason": &str = |e| e.finish_reason.as_str();
    /// Attempt number, from 1.
    "attempt": Option<Exact<u32>> = |e| e.attempt.map(Exact);
    /// Input tokens neither read from nor written to a cache. The six counts are disjoint; zero is left out.
    "inUncached": u64 = |e| e.in_uncached;
    /// Input tokens read from a cache.
    "cacheRead": u64 = |e| e.cache_read;
    /// Input tokens written to a 5-minute cache.
    "cacheWrite5m": u64 = |e| e.cache_write_5m;
    /// Input tokens written to a 1-hour cache.
    "cacheWrite1h": u64 = |e| e.cache_write_1h;
    /// Output tokens that are not reasoning.
    "outVisible": u64 = |e| e.out_visible;
    /// Output tokens spent on reasoning.
    "outReasoning": u64 = |e| e.out_reasoning;
    /// By which convention the counts were obtained.
    "tokenBasis": TokenBasis = |e| e.token_basis;
    /// What the counts describe.
    "usageRole": UsageRole = |e| e.usage_role;
    /// Sightings with the same key are the same call to a model.
    "llmCallKey": &str = |e| e.llm_call_key.as_str();
    /// Family of records whose channels share no id of a call.
    "callFamily": &str = |e| e.call_family.as_str();
    /// Among records of one family, channel and turn, the lowest counts.
    "precedence": u64 = |e| u64::from(e.precedence);
    /// Order among records of one thing; the highest wins field by field.
    "revision": Option<Exact<i64>> = |e| (e.revision != 0).then_some(Exact(e.revision));
    /// Cost the sender reported.
    "costReported": Option<Usd> = |e| e.cost_reported.map(Usd);
    /// Cost computed from the price table.
    "costComputed": Option<Usd> = |e| e.cost_computed.map(Usd);
    /// Version of the price table used.
    "priceVersion": &str = |e| e.price_version.as_str();
    /// Tool.
    "toolName": &str = |e| e.tool_name.as_str();
    /// Kind of tool: `builtin`, `mcp` or `agent`.
    "toolKind": &str = |e| e.tool_kind.as_str();
    /// MCP server of the tool.
    "mcpServer": &str = |e| e.mcp_server.as_str();
    /// `accept` or `reject`, with a `tool.decision`.
    "decision": &str = |e| e.decision.as_str();
    /// Exit code of a command.
    "exitCode": Option<Exact<i32>> = |e| e.exit_code.map(Exact);
    /// File the event is about.
    "filePath": &str = |e| e.file_path.as_str();
    /// Why a record is kept as `raw.unknown`.
    "unknownReason": &str = |e| e.unknown_reason.as_str();
    /// Secrets replaced in this event; zero is left out.
    "redactions": u64 = |e| u64::from(e.redactions);
    /// Members of `data` that nobody knew when the format was mapped; zero is left out.
    "newFields": u64 = |e| u64::from(e.new_fields);
    /// The event's identity: two arrivals with the same key are the same event.
    "dedupKey": Shown<Key128> = |e| Shown(e.dedup_key);
    /// Place of the raw record: partition, offset, index within the request.
    "rawPosition": Shown<String> = |e| Shown(format!("{}:{}:{}", e.raw_partition, e.raw_offset, e.raw_index));
} }

object! { write_metrics, METRIC_FIELDS {
    /// Duration in milliseconds.
    "duration": Option<f64> = |e| e.duration_ms;
    /// Time to the first token in milliseconds.
    "ttft": Option<f64> = |e| e.ttft_ms;
    /// Tokens in and out, the sum of the six counts; zero is left out.
    "tokenCount": u64 = |e| e.in_total() + e.out_total();
    /// Size of the file in bytes.
    "fileSize": Option<Exact<u64>> = |e| e.file_size.map(Exact);
    /// Lines added.
    "linesAdded": Option<Exact<u64>> = |e| e.lines_added.map(Exact);
    /// Lines removed.
    "linesRemoved": Option<Exact<u64>> = |e| e.lines_removed.map(Exact);
    /// Bytes that went in (request, tool input).
    "bytesIn": Option<Exact<u64>> = |e| e.bytes_in.map(Exact);
    /// Bytes that came out (response, tool output).
    "bytesOut": Option<Exact<u64>> = |e| e.bytes_out.map(Exact);
} }

object! { write_payload, PAYLOAD_FIELDS {
    /// Where it happened: resource, scope, environment. Only when asked for.
    "context": Json<'_> = |e| Json(&e.context);
    /// Everything the record said that has no field of its own. Only when asked for.
    "data": Json<'_> = |e| Json(&e.data);
} }

/// A value written as it is displayed.
struct Shown<T>(T);

impl<T: std::fmt::Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<T: std::fmt::Display> Value for Shown<T> {
    const KIND: FieldKind = FieldKind::Text;
}

/// An event in its API form.
///
/// # Invariants
/// A field that is empty, or a count of tokens that is zero, is not written; `metrics` is written when one of its
/// fields is. An event whose `context` and `data` were not read is written without them.
#[derive(Clone, Debug)]
pub struct ApiEvent(pub AgentEvent);

impl Serialize for ApiEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        write_fields(&self.0, &mut map)?;
        if Metrics(&self.0).is_present() {
            map.serialize_entry("metrics", &Metrics(&self.0))?;
        }
        write_payload(&self.0, &mut map)?;
        map.end()
    }
}

struct Metrics<'a>(&'a AgentEvent);

impl Metrics<'_> {
    fn is_present(&self) -> bool {
        let e = self.0;
        e.duration_ms.is_some()
            || e.ttft_ms.is_some()
            || e.in_total() + e.out_total() > 0
            || e.file_size.is_some()
            || e.lines_added.is_some()
            || e.lines_removed.is_some()
            || e.bytes_in.is_some()
            || e.bytes_out.is_some()
    }
}

impl Serialize for Metrics<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        write_metrics(self.0, &mut map)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(event: AgentEvent) -> serde_json::Value {
        serde_json::to_value(ApiEvent(event)).unwrap()
    }

    #[test]
    fn an_empty_event_says_only_what_every_event_has() {
        let value = json(AgentEvent::default());
        let names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["timestamp", "type", "timestampSource", "receivedAt", "dedupKey", "rawPosition"]);
        assert_eq!(value["timestamp"], "1970-01-01T00:00:00.000000000Z");
    }

    #[test]
    fn money_is_written_to_the_ninth_digit_and_never_rounded() {
        for (nanos, text) in [
            (21_144_000, "0.021144"),
            (1, "0.000000001"),
            (0, "0"),
            (-1_500_000_000, "-1.5"),
            (i64::MAX, "9223372036.854775807"),
            (i64::MIN, "-9223372036.854775808"),
        ] {
            assert_eq!(serde_json::to_string(&Usd(NanoUsd(nanos))).unwrap(), text);
        }
    }

    #[test]
    fn times_are_utc_with_nanoseconds_over_the_whole_range() {
        assert_eq!(Timestamp(1_735_689_599_123_456_789).to_string(), "2024-12-31T23:59:59.123456789Z");
        assert_eq!(Timestamp(-1).to_string(), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(Timestamp(i64::MIN).to_string(), "1677-09-21T00:12:43.145224192Z");
        assert_eq!(Timestamp(i64::MAX).to_string(), "2262-04-11T23:47:16.854775807Z");
    }

    #[test]
    fn payload_is_passed_on_as_json_and_broken_payload_as_text() {
        let event = AgentEvent {
            context: r#"{"a":[1,2.50]}"#.into(),
            data: "{broken".into(),
            ..AgentEvent::default()
        };
        let text = serde_json::to_string(&ApiEvent(event)).unwrap();
        assert!(text.contains(r#""context":{"a":[1,2.50]}"#), "{text}");
        assert!(text.contains(r#""data":"{broken""#), "{text}");
    }

    #[test]
    fn measures_stand_under_metrics_and_zero_is_an_answer_where_it_was_said() {
        let event = AgentEvent {
            duration_ms: Some(12.5),
            in_uncached: 3,
            cache_read: 4,
            out_visible: 5,
            file_size: Some(0),
            exit_code: Some(0),
            status: Status::Ok,
            cost_reported: Some(NanoUsd(0)),
            ..AgentEvent::default()
        };
        let value = json(event);
        assert_eq!(value["metrics"], serde_json::json!({"duration": 12.5, "tokenCount": 12, "fileSize": 0}));
        assert_eq!(value["exitCode"], 0);
        assert_eq!(value["costReported"], 0);
        assert_eq!(value["status"], "ok");
    }

    #[test]
    fn every_field_is_documented_and_none_is_named_twice() {
        let all: Vec<_> = FIELDS.iter().chain(METRIC_FIELDS).chain(PAYLOAD_FIELDS).collect();
        let names: std::collections::BTreeSet<_> = all.iter().map(|field| field.name).collect();
        assert_eq!(names.len(), all.len());
        assert!(all.iter().all(|field| field.doc.ends_with('.')));
    }
}
