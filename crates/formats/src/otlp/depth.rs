//! How deep a protobuf record is nested, told as its JSON would be.
//!
//! Both encodings refuse the same records: those whose JSON is nested deeper than [`MAX_DEPTH`]. Only values nest, so
//! only they are walked, and the walk ends at the bound: hostile nesting costs a rejection, not the stack.

use super::Signal;
use super::wire::Fields;
use crate::inspect::BadBody;
use crate::json::MAX_DEPTH;

// Field numbers of opentelemetry/proto/{logs,trace,common}/v1.
const LOG_BODY: u32 = 5;
const LOG_ATTRIBUTES: u32 = 6;
const SPAN_ATTRIBUTES: u32 = 9;
const SPAN_EVENTS: u32 = 11;
const SPAN_LINKS: u32 = 13;
const EVENT_ATTRIBUTES: u32 = 3;
const LINK_ATTRIBUTES: u32 = 4;
const KEY_VALUE_VALUE: u32 = 2;
const ARRAY_VALUE: u32 = 5;
const KVLIST_VALUE: u32 = 6;
const VALUES: u32 = 1;

/// A level of a list takes three levels of JSON and at least this many bytes, so shorter values are never too deep.
const BYTES_PER_LIST: usize = 4;
const SHORTEST: usize = BYTES_PER_LIST * (MAX_DEPTH as usize / 4 - 2);

/// For people, as [`crate::json::Fault::message`] says it.
pub(super) fn message() -> String {
    format!("nested deeper than {MAX_DEPTH} levels")
}

/// Whether a log record or span is nested too deep. Points of metrics hold labels only; the decoder judges them.
pub(super) fn is_too_deep(signal: Signal, record: &[u8]) -> bool {
    let fields = Fields::new(record);
    let walked = match signal {
        Signal::Logs => {
            fields.each_message(&[LOG_BODY, LOG_ATTRIBUTES], |field, bytes, within| match field {
                LOG_BODY => value(bytes, within, 2),
                _ => key_value(bytes, within, 3),
            })
        }
        Signal::Traces => {
            fields.each_message(&[SPAN_ATTRIBUTES, SPAN_EVENTS, SPAN_LINKS], |field, bytes, within| {
                let attributes = match field {
                    SPAN_EVENTS => EVENT_ATTRIBUTES,
                    SPAN_LINKS => LINK_ATTRIBUTES,
                    _ => return key_value(bytes, within, 3),
                };
                within.each_message(&[attributes], |_, bytes, within| key_value(bytes, within, 5))
            })
        }
        Signal::Metrics => Ok(()),
    };
    // Any other fault is the decoder's to tell.
    walked.is_err_and(|bad| bad.code == "too_deep")
}

fn key_value(bytes: &[u8], fields: Fields<'_>, depth: u32) -> Result<(), BadBody> {
    if bytes.len() < SHORTEST {
        return Ok(());
    }
    fields.each_message(&[KEY_VALUE_VALUE], |_, bytes, within| value(bytes, within, depth + 1))
}

/// Walks a value whose JSON object stands at `depth`.
fn value(bytes: &[u8], fields: Fields<'_>, depth: u32) -> Result<(), BadBody> {
    if depth > MAX_DEPTH {
        return Err(BadBody::new("too_deep", message(), None));
    }
    // What is left of the bytes cannot reach the bound.
    if bytes.len() < BYTES_PER_LIST * (MAX_DEPTH - depth) as usize / 4 {
        return Ok(());
    }
    fields.each_message(&[ARRAY_VALUE, KVLIST_VALUE], |field, _, within| {
        within.each_message(&[VALUES], |_, bytes, within| match field {
            // `{"arrayValue":{"values":[{…` and `{"kvlistValue":{"values":[{"key":…,"value":{…`
            ARRAY_VALUE => value(bytes, within, depth + 3),
            _ => within.each_message(&[KEY_VALUE_VALUE], |_, bytes, within| value(bytes, within, depth + 4)),
        })
    })
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
    use opentelemetry_proto::tonic::logs::v1::LogRecord;
    use opentelemetry_proto::tonic::trace::v1::Span;
    use prost::Message;

    use super::*;
    use crate::json::Cursor;

    fn any(value: Value) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    fn entry(value: AnyValue) -> KeyValue {
        KeyValue { key: "k".into(), value: Some(value), ..KeyValue::default() }
    }

    /// Nested `levels` deep, in both encodings.
    fn nested(levels: usize, list: bool) -> (AnyValue, String) {
        let (mut value, mut json) =
            (any(Value::StringValue("x".into())), r#"{"stringValue":"x"}"#.to_owned());
        for _ in 0..levels {
            if list {
                value = any(Value::ArrayValue(ArrayValue { values: vec![value] }));
                json = format!(r#"{{"arrayValue":{{"values":[{json}]}}}}"#);
            } else {
                value = any(Value::KvlistValue(KeyValueList { values: vec![entry(value)] }));
                json = format!(r#"{{"kvlistValue":{{"values":[{{"key":"k","value":{json}}}]}}}}"#);
            }
        }
        (value, json)
    }

    #[test]
    fn both_encodings_refuse_the_same_nesting() {
        for list in [true, false] {
            let mut refused = 0;
            for levels in 0..40 {
                let (value, json) = nested(levels, list);
                let by_json = |text: &str| Cursor::new(text.as_bytes()).skip_value().is_err();
                let body = LogRecord { body: Some(value.clone()), ..LogRecord::default() }.encode_to_vec();
                let expected = by_json(&format!(r#"{{"body":{json}}}"#));
                assert_eq!(is_too_deep(Signal::Logs, &body), expected, "body, {levels} levels");
                let span = Span { attributes: vec![entry(value)], ..Span::default() }.encode_to_vec();
                let expected = by_json(&format!(r#"{{"attributes":[{{"key":"k","value":{json}}}]}}"#));
                assert_eq!(is_too_deep(Signal::Traces, &span), expected, "attribute, {levels} levels");
                refused += usize::from(expected);
            }
            assert!(refused > 0);
        }
    }

    #[test]
    fn whatever_is_not_refused_can_be_decoded() {
        let deepest = (0..40).filter(|levels| {
            let record =
                LogRecord { body: Some(nested(*levels, true).0), ..LogRecord::default() }.encode_to_vec();
            !is_too_deep(Signal::Logs, &record)
        });
        let levels = deepest.max().unwrap();
        let record = LogRecord { body: Some(nested(levels, true).0), ..LogRecord::default() }.encode_to_vec();
        assert!(LogRecord::decode(record.as_slice()).is_ok());
    }
}
