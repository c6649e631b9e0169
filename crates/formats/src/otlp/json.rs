//! OTLP records in JSON, in all the dialects that are sent: numbers as numbers or strings, ids in hexadecimal or base64,
//! enums by number or name, values without a type (`{}`), camelCase or snake_case keys.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use super::model::{AnyValue, Attributes, Link, Log, Metric, Point, Resource, Scope, Span, SpanEvent};
use crate::json::{Cursor, Fault, Scalar};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// An id of `bytes` bytes as lower-case hexadecimal; empty when it is none, or all zeros.
pub(super) fn id(value: &Scalar<'_>, bytes: usize) -> String {
    let Scalar::Text(text) = value else { return String::new() };
    let text = text.text();
    let hex = if text.len() == 2 * bytes && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        text.to_ascii_lowercase()
    } else {
        match BASE64.decode(text.as_bytes()) {
            Ok(decoded) if decoded.len() == bytes => hex::encode(decoded),
            _ => String::new(),
        }
    };
    if hex.bytes().all(|byte| byte == b'0') { String::new() } else { hex }
}

fn unsigned(value: &Scalar<'_>) -> u64 {
    let parse = |text: &str| {
        let float = || text.parse::<f64>().ok().filter(|number| *number >= 0.0).map(|number| number as u64);
        text.parse::<u64>().ok().or_else(float).unwrap_or(0)
    };
    match value {
        Scalar::Number(number) => parse(number),
        Scalar::Text(text) => parse(&text.text()),
        _ => 0,
    }
}

/// An enum given by number, or by the name at that place in `names`.
fn enumeration(value: &Scalar<'_>, names: &[&str]) -> i32 {
    match value {
        Scalar::Text(name) => {
            let name = name.text();
            let named =
                names.iter().position(|known| *known == name).and_then(|place| i32::try_from(place).ok());
            named.or_else(|| name.parse().ok()).unwrap_or(0)
        }
        other => i32::try_from(unsigned(other)).unwrap_or(0),
    }
}

fn text(value: &Scalar<'_>) -> String {
    match value {
        Scalar::Text(text) => text.text().into_owned(),
        Scalar::Number(number) => (*number).to_owned(),
        _ => String::new(),
    }
}

/// A value in its wrapper, `{"stringValue": …}`.
fn any_value<'a>(cursor: &mut Cursor<'a>) -> Result<AnyValue<'a>, Fault> {
    let mut value = AnyValue::Null;
    if cursor.peek() != Some(b'{') {
        // Some senders leave the wrapper out.
        return cursor.scalar().map(|scalar| plain(&scalar));
    }
    cursor.object(|cursor, key| {
        value = match &*key.text() {
            "arrayValue" | "array_value" => AnyValue::List(values(cursor)?),
            "kvlistValue" | "kvlist_value" => AnyValue::Map(entries(cursor)?),
            kind => wrapped(kind, &cursor.scalar()?),
        };
        Ok::<(), Fault>(())
    })?;
    Ok(value)
}

fn wrapped<'a>(kind: &str, scalar: &Scalar<'a>) -> AnyValue<'a> {
    match (kind, scalar) {
        ("intValue" | "int_value", Scalar::Text(digits)) => match digits.text().parse() {
            Ok(number) => AnyValue::Int(number),
            Err(_) => plain(scalar),
        },
        ("doubleValue" | "double_value", scalar) => match text(scalar).parse() {
            Ok(number) => AnyValue::Double(number),
            Err(_) => plain(scalar),
        },
        ("bytesValue" | "bytes_value", Scalar::Text(encoded)) => {
            match BASE64.decode(encoded.text().as_bytes()) {
                Ok(bytes) => AnyValue::Bytes(bytes),
                Err(_) => plain(scalar),
            }
        }
        _ => plain(scalar),
    }
}

fn plain<'a>(scalar: &Scalar<'a>) -> AnyValue<'a> {
    match *scalar {
        Scalar::Null => AnyValue::Null,
        Scalar::Bool(flag) => AnyValue::Bool(flag),
        Scalar::Number(number) => match number.parse() {
            Ok(integer) => AnyValue::Int(integer),
            Err(_) => match number.parse::<f64>() {
                Ok(double) if double.is_finite() => AnyValue::Double(double),
                // Beyond a double: no reader of JSON would take it as a number.
                _ => AnyValue::Text(number.into()),
            },
        },
        Scalar::Text(text) => AnyValue::Text(text.text()),
        Scalar::Object(nested) | Scalar::Array(nested) => AnyValue::Text(String::from_utf8_lossy(nested)),
    }
}

/// The list within `{"values": […]}`.
fn values<'a>(cursor: &mut Cursor<'a>) -> Result<Vec<AnyValue<'a>>, Fault> {
    let mut list = Vec::new();
    if cursor.peek() == Some(b'[') {
        cursor.array(|cursor| any_value(cursor).map(|value| list.push(value)))?;
        return Ok(list);
    }
    members(cursor, |cursor, key| {
        if key == "values" && cursor.peek() == Some(b'[') {
            return cursor.array(|cursor| any_value(cursor).map(|value| list.push(value)));
        }
        cursor.skip_value().map(|_| ())
    })?;
    Ok(list)
}

/// The entries within `{"values": […]}`.
fn entries<'a>(cursor: &mut Cursor<'a>) -> Result<Attributes<'a>, Fault> {
    let mut map = Vec::new();
    members(cursor, |cursor, key| {
        if key == "values" {
            map = attributes(cursor)?;
            return Ok(());
        }
        cursor.skip_value().map(|_| ())
    })?;
    Ok(map)
}

/// A list of `{"key": …, "value": …}`, or an object of plain values.
fn attributes<'a>(cursor: &mut Cursor<'a>) -> Result<Attributes<'a>, Fault> {
    let mut map = Vec::new();
    match cursor.peek() {
        Some(b'[') => cursor.array(|cursor| {
            let (mut name, mut value) = (None, AnyValue::Null);
            members(cursor, |cursor, key| {
                match key {
                    "key" => match cursor.scalar()? {
                        Scalar::Text(text) => name = Some(text.text()),
                        _ => return Err(cursor.fault()),
                    },
                    "value" => value = any_value(cursor)?,
                    _ => cursor.skip_value().map(|_| ())?,
                }
                Ok(())
            })?;
            map.extend(name.map(|name| (name, value)));
            Ok::<(), Fault>(())
        })?,
        Some(b'{') => cursor.object(|cursor, key| {
            let value = any_value(cursor)?;
            map.push((key.text(), value));
            Ok::<(), Fault>(())
        })?,
        _ => match cursor.scalar()? {
            Scalar::Null => {}
            _ => return Err(cursor.fault()),
        },
    }
    Ok(map)
}

/// Reads an object's members with their names as text.
fn members<'a>(
    cursor: &mut Cursor<'a>,
    mut each: impl FnMut(&mut Cursor<'a>, &str) -> Result<(), Fault>,
) -> Result<(), Fault> {
    cursor.object(|cursor, key| each(cursor, &key.text()))
}

/// Reads an array of objects, or `null` in its place.
fn objects<'a, T: Default>(
    cursor: &mut Cursor<'a>,
    mut each: impl FnMut(&mut T, &mut Cursor<'a>, &str) -> Result<(), Fault>,
) -> Result<Vec<T>, Fault> {
    let mut all = Vec::new();
    if cursor.peek() != Some(b'[') {
        cursor.skip_value()?;
        return Ok(all);
    }
    cursor.array(|cursor| {
        let mut one = T::default();
        members(cursor, |cursor, key| each(&mut one, cursor, key))?;
        all.push(one);
        Ok::<(), Fault>(())
    })?;
    Ok(all)
}

/// Reads a resource.
pub(super) fn resource(text: &[u8]) -> Result<Resource<'_>, Fault> {
    let mut resource = Resource::default();
    members(&mut Cursor::new(text), |cursor, key| {
        match key {
            "attributes" => resource.attributes = attributes(cursor)?,
            _ => cursor.skip_value().map(|_| ())?,
        }
        Ok(())
    })?;
    Ok(resource)
}

/// Reads a scope.
pub(super) fn scope(json: &[u8]) -> Result<Scope<'_>, Fault> {
    let mut scope = Scope::default();
    members(&mut Cursor::new(json), |cursor, key| {
        match key {
            "name" => scope.name = text(&cursor.scalar()?),
            "version" => scope.version = text(&cursor.scalar()?),
            "attributes" => scope.attributes = attributes(cursor)?,
            _ => cursor.skip_value().map(|_| ())?,
        }
        Ok(())
    })?;
    Ok(scope)
}

/// `SeverityNumber` by name: `SEVERITY_NUMBER_INFO3` is 11.
fn severity(value: &Scalar<'_>) -> i32 {
    const LEVELS: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
    let Scalar::Text(name) = value else { return enumeration(value, &[]) };
    let name = name.text();
    let Some(word) = name.strip_prefix("SEVERITY_NUMBER_") else { return name.parse().unwrap_or(0) };
    let level = word.trim_end_matches(|last: char| last.is_ascii_digit());
    let step: i32 = word.get(level.len()..).and_then(|digit| digit.parse().ok()).unwrap_or(1);
    let place = LEVELS.iter().position(|known| *known == level).and_then(|place| i32::try_from(place).ok());
    place.map_or(0, |place| place * 4 + step)
}

/// Reads a log record.
pub(super) fn log(json: &[u8]) -> Result<Log<'_>, Fault> {
    let mut log = Log::default();
    members(&mut Cursor::new(json), |cursor, key| {
        match key {
            "timeUnixNano" | "time_unix_nano" => log.time = unsigned(&cursor.scalar()?),
            "observedTimeUnixNano" | "observed_time_unix_nano" => log.observed = unsigned(&cursor.scalar()?),
            "severityNumber" | "severity_number" => log.severity = severity(&cursor.scalar()?),
            "severityText" | "severity_text" => log.severity_text = text(&cursor.scalar()?),
            "body" => log.body = Some(any_value(cursor)?).filter(|body| *body != AnyValue::Null),
            "attributes" => log.attributes = attributes(cursor)?,
            "droppedAttributesCount" | "dropped_attributes_count" => {
                log.dropped_attributes = unsigned(&cursor.scalar()?);
            }
            "traceId" | "trace_id" => log.trace_id = id(&cursor.scalar()?, 16),
            "spanId" | "span_id" => log.span_id = id(&cursor.scalar()?, 8),
            "eventName" | "event_name" => log.event_name = text(&cursor.scalar()?),
            _ => cursor.skip_value().map(|_| ())?,
        }
        Ok(())
    })?;
    Ok(log)
}

const SPAN_KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];
const STATUS_CODES: [&str; 3] = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];
const TEMPORALITIES: [&str; 3] = [
    "AGGREGATION_TEMPORALITY_UNSPECIFIED",
    "AGGREGATION_TEMPORALITY_DELTA",
    "AGGREGATION_TEMPORALITY_CUMULATIVE",
];

/// Reads a span.
pub(super) fn span(json: &[u8]) -> Result<Span<'_>, Fault> {
    let mut span = Span::default();
    members(&mut Cursor::new(json), |cursor, key| {
        match key {
            "traceId" | "trace_id" => span.trace_id = id(&cursor.scalar()?, 16),
            "spanId" | "span_id" => span.span_id = id(&cursor.scalar()?, 8),
            "parentSpanId" | "parent_span_id" => span.parent_id = id(&cursor.scalar()?, 8),
            "name" => span.name = text(&cursor.scalar()?),
            "kind" => span.kind = enumeration(&cursor.scalar()?, &SPAN_KINDS),
            "startTimeUnixNano" | "start_time_unix_nano" => span.start = unsigned(&cursor.scalar()?),
            "endTimeUnixNano" | "end_time_unix_nano" => span.end = unsigned(&cursor.scalar()?),
            "attributes" => span.attributes = attributes(cursor)?,
            "droppedAttributesCount"
            | "droppedEventsCount"
            | "droppedLinksCount"
            | "dropped_attributes_count"
            | "dropped_events_count"
            | "dropped_links_count" => {
                span.dropped = span.dropped.saturating_add(unsigned(&cursor.scalar()?));
            }
            "events" => span.events = objects(cursor, span_event)?,
            "links" => span.links = objects(cursor, link)?,
            "status" if cursor.peek() == Some(b'{') => members(cursor, |cursor, key| {
                let value = cursor.scalar()?;
                match key {
                    "code" => span.status = enumeration(&value, &STATUS_CODES),
                    "message" => span.status_message = text(&value),
                    _ => {}
                }
                Ok(())
            })?,
            _ => cursor.skip_value().map(|_| ())?,
        }
        Ok(())
    })?;
    Ok(span)
}

fn span_event<'a>(event: &mut SpanEvent<'a>, cursor: &mut Cursor<'a>, key: &str) -> Result<(), Fault> {
    match key {
        "name" => event.name = text(&cursor.scalar()?),
        "timeUnixNano" | "time_unix_nano" => event.time = unsigned(&cursor.scalar()?),
        "attributes" => event.attributes = attributes(cursor)?,
        _ => cursor.skip_value().map(|_| ())?,
    }
    Ok(())
}

fn link<'a>(link: &mut Link<'a>, cursor: &mut Cursor<'a>, key: &str) -> Result<(), Fault> {
    match key {
        "traceId" | "trace_id" => link.trace_id = id(&cursor.scalar()?, 16),
        "spanId" | "span_id" => link.span_id = id(&cursor.scalar()?, 8),
        "attributes" => link.attributes = attributes(cursor)?,
        _ => cursor.skip_value().map(|_| ())?,
    }
    Ok(())
}

/// Reads what the points of a metric share.
pub(super) fn metric(json: &[u8]) -> Result<Metric, Fault> {
    let mut metric = Metric::default();
    members(&mut Cursor::new(json), |cursor, key| {
        metric.kind = match key {
            "gauge" => "gauge",
            "sum" => "sum",
            "histogram" => "histogram",
            "exponentialHistogram" | "exponential_histogram" => "exponential_histogram",
            "summary" => "summary",
            _ => {
                match (key, cursor.scalar()?) {
                    ("name", value) => metric.name = text(&value),
                    ("unit", value) => metric.unit = text(&value),
                    _ => {}
                }
                return Ok(());
            }
        };
        if cursor.peek() != Some(b'{') {
            return cursor.skip_value().map(|_| ());
        }
        members(cursor, |cursor, key| {
            if matches!(key, "dataPoints" | "data_points") {
                // The points are read one by one; a broken one is none of the metric's.
                return cursor.skip_loosely().map(|_| ()).ok_or_else(|| cursor.fault());
            }
            let value = cursor.scalar()?;
            match key {
                "aggregationTemporality" | "aggregation_temporality" => {
                    metric.temporality = enumeration(&value, &TEMPORALITIES);
                }
                "isMonotonic" | "is_monotonic" => metric.monotonic = matches!(value, Scalar::Bool(true)),
                _ => {}
            }
            Ok(())
        })
    })?;
    Ok(metric)
}

/// Reads a metric point of any kind.
pub(super) fn point(json: &[u8]) -> Result<Point<'_>, Fault> {
    let mut point = Point::default();
    members(&mut Cursor::new(json), |cursor, key| {
        let measure = match key {
            "startTimeUnixNano" | "start_time_unix_nano" => {
                point.start = unsigned(&cursor.scalar()?);
                return Ok(());
            }
            "timeUnixNano" | "time_unix_nano" => {
                point.time = unsigned(&cursor.scalar()?);
                return Ok(());
            }
            "attributes" => {
                point.attributes = attributes(cursor)?;
                return Ok(());
            }
            "asInt" | "as_int" | "asDouble" | "as_double" => "value",
            "count" => "count",
            "sum" => "sum",
            "min" => "min",
            "max" => "max",
            "bucketCounts" | "bucket_counts" => "bucket_counts",
            "explicitBounds" | "explicit_bounds" => "explicit_bounds",
            "quantileValues" | "quantile_values" => "quantile_values",
            "scale" => "scale",
            "zeroCount" | "zero_count" => "zero_count",
            "positive" => "positive",
            "negative" => "negative",
            _ => return cursor.skip_value().map(|_| ()),
        };
        let value = measured(cursor)?;
        point.measures.push((measure.into(), value));
        Ok(())
    })?;
    Ok(point)
}

/// A number, which may be spelt as text, or a list or object of such.
fn measured<'a>(cursor: &mut Cursor<'a>) -> Result<AnyValue<'a>, Fault> {
    match cursor.peek() {
        Some(b'[') => {
            let mut list = Vec::new();
            cursor.array(|cursor| measured(cursor).map(|value| list.push(value)))?;
            // A list within a list, two bytes of text, would else take room for four values.
            list.shrink_to_fit();
            Ok(AnyValue::List(list))
        }
        Some(b'{') => {
            let mut map = Vec::new();
            cursor.object(|cursor, key| {
                let value = measured(cursor)?;
                map.push((key.text(), value));
                Ok::<(), Fault>(())
            })?;
            Ok(AnyValue::Map(map))
        }
        _ => {
            let value = plain(&cursor.scalar()?);
            let number = value.as_str().and_then(|text| {
                let integer = text.parse().ok().map(AnyValue::Int);
                integer.or_else(|| text.parse().ok().map(AnyValue::Double))
            });
            Ok(number.unwrap_or(value))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_of_a_log_record_reads_the_same() {
        let camel = br#"{"timeUnixNano":"1795264656034000000","observedTimeUnixNano":5,"severityNumber":9,"body":{"stringValue":"x"},
            "attributes":[{"key":"n","value":{"intValue":"7"}},{"key":"e","value":{}},{"key":"f","value":{"doubleValue":1.5}}],
            "traceId":"5B0965DA0D293E45BEB618CE926625A2","spanId":"85c17ca66cc022ce","eventName":"a","unheardOf":{"x":[1]}}"#;
        let snake = br#"{"time_unix_nano":1795264656034000000,"observed_time_unix_nano":"5","severity_number":"SEVERITY_NUMBER_INFO",
            "body":{"string_value":"x"},"attributes":[{"key":"n","value":{"int_value":7}},{"key":"e","value":null},{"key":"f","value":{"double_value":"1.5"}}],
            "trace_id":"Wwll2g0pPkW+thjOkmYlog==","span_id":"hcF8pmzAIs4","event_name":"a"}"#;
        let read = log(camel).unwrap();
        assert_eq!(read, log(snake).unwrap());
        assert_eq!((read.trace_id.as_str(), read.severity), ("5b0965da0d293e45beb618ce926625a2", 9));
        assert_eq!(read.attributes[0].1, AnyValue::Int(7));
        assert_eq!(read.attributes[1].1, AnyValue::Null);
    }

    #[test]
    fn codex_style_record_without_time_or_body_is_read() {
        let read =
            log(br#"{"timeUnixNano":"0","body":null,"attributes":null,"traceId":"","spanId":null}"#).unwrap();
        assert_eq!(read, Log::default());
        assert_eq!(severity(&Scalar::Number("21")), 21);
    }

    #[test]
    fn nested_values_and_bytes_are_kept() {
        let read = log(br#"{"body":{"kvlistValue":{"values":[{"key":"a","value":{"arrayValue":{"values":[{"boolValue":true},{"bytesValue":"AQI="}]}}}]}}}"#);
        let list = AnyValue::List(vec![AnyValue::Bool(true), AnyValue::Bytes(vec![1, 2])]);
        assert_eq!(read.unwrap().body, Some(AnyValue::Map(vec![("a".into(), list)])));
    }

    #[test]
    fn attributes_of_another_shape_are_a_fault() {
        assert!(log(br#"{"attributes":"x"}"#).is_err());
        assert!(log(br#"{"attributes":[{"key":1}]}"#).is_err());
        assert!(log(b"7").is_err());
    }
}
