//! OTLP records in protobuf.

use opentelemetry_proto::tonic::common::v1 as common;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1 as logs;
use opentelemetry_proto::tonic::metrics::v1 as metrics;
use opentelemetry_proto::tonic::resource::v1 as resources;
use opentelemetry_proto::tonic::trace::v1 as traces;
use prost::{DecodeError, Message};

use super::model::{AnyValue, Attributes, Link, Log, Metric, Point, Resource, Scope, Span, SpanEvent};

fn any_value(value: Option<common::AnyValue>) -> AnyValue<'static> {
    match value.and_then(|value| value.value) {
        None => AnyValue::Null,
        Some(Value::StringValue(text)) => AnyValue::Text(text.into()),
        Some(Value::BoolValue(flag)) => AnyValue::Bool(flag),
        Some(Value::IntValue(number)) => AnyValue::Int(number),
        Some(Value::DoubleValue(number)) => AnyValue::Double(number),
        Some(Value::BytesValue(bytes)) => AnyValue::Bytes(bytes),
        Some(Value::ArrayValue(list)) => {
            AnyValue::List(list.values.into_iter().map(|value| any_value(Some(value))).collect())
        }
        Some(Value::KvlistValue(list)) => AnyValue::Map(attributes(list.values)),
        // Index into a string table that only profiles carry.
        Some(_) => AnyValue::Null,
    }
}

fn attributes(list: Vec<common::KeyValue>) -> Attributes<'static> {
    list.into_iter().map(|entry| (entry.key.into(), any_value(entry.value))).collect()
}

/// An id as lower-case hexadecimal; empty when it has not `len` bytes, or only zeros.
pub(super) fn id(bytes: &[u8], len: usize) -> String {
    if bytes.len() == len && bytes.iter().any(|byte| *byte != 0) { hex::encode(bytes) } else { String::new() }
}

/// Reads a resource.
pub(super) fn resource(bytes: &[u8]) -> Result<Resource<'static>, DecodeError> {
    let resource = resources::Resource::decode(bytes)?;
    Ok(Resource { attributes: attributes(resource.attributes) })
}

/// Reads a scope.
pub(super) fn scope(bytes: &[u8]) -> Result<Scope<'static>, DecodeError> {
    let scope = common::InstrumentationScope::decode(bytes)?;
    Ok(Scope { name: scope.name, version: scope.version, attributes: attributes(scope.attributes) })
}

/// Reads a log record.
pub(super) fn log(bytes: &[u8]) -> Result<Log<'static>, DecodeError> {
    let log = logs::LogRecord::decode(bytes)?;
    Ok(Log {
        time: log.time_unix_nano,
        observed: log.observed_time_unix_nano,
        severity: log.severity_number,
        severity_text: log.severity_text,
        body: Some(any_value(log.body)).filter(|body| *body != AnyValue::Null),
        attributes: attributes(log.attributes),
        dropped_attributes: u64::from(log.dropped_attributes_count),
        trace_id: id(&log.trace_id, 16),
        span_id: id(&log.span_id, 8),
        event_name: log.event_name,
    })
}

/// Reads a span.
pub(super) fn span(bytes: &[u8]) -> Result<Span<'static>, DecodeError> {
    let span = traces::Span::decode(bytes)?;
    let event = |event: traces::span::Event| SpanEvent {
        name: event.name,
        time: event.time_unix_nano,
        attributes: attributes(event.attributes),
    };
    let link = |link: traces::span::Link| Link {
        trace_id: id(&link.trace_id, 16),
        span_id: id(&link.span_id, 8),
        attributes: attributes(link.attributes),
    };
    let dropped = [span.dropped_attributes_count, span.dropped_events_count, span.dropped_links_count];
    let status = span.status.unwrap_or_default();
    Ok(Span {
        trace_id: id(&span.trace_id, 16),
        span_id: id(&span.span_id, 8),
        parent_id: id(&span.parent_span_id, 8),
        name: span.name,
        kind: span.kind,
        start: span.start_time_unix_nano,
        end: span.end_time_unix_nano,
        attributes: attributes(span.attributes),
        dropped: dropped.into_iter().map(u64::from).sum(),
        events: span.events.into_iter().map(event).collect(),
        links: span.links.into_iter().map(link).collect(),
        status: status.code,
        status_message: status.message,
    })
}

/// Reads what the points of a metric share, and the points.
pub(super) fn metric(bytes: &[u8]) -> Result<(Metric, Vec<Point<'static>>), DecodeError> {
    use metrics::metric::Data;

    let metric = metrics::Metric::decode(bytes)?;
    let (kind, temporality, monotonic, points) = match metric.data {
        None => ("", 0, false, Vec::new()),
        Some(Data::Gauge(data)) => ("gauge", 0, false, data.data_points.into_iter().map(number).collect()),
        Some(Data::Sum(data)) => (
            "sum",
            data.aggregation_temporality,
            data.is_monotonic,
            data.data_points.into_iter().map(number).collect(),
        ),
        Some(Data::Histogram(data)) => (
            "histogram",
            data.aggregation_temporality,
            false,
            data.data_points.into_iter().map(histogram).collect(),
        ),
        Some(Data::ExponentialHistogram(data)) => (
            "exponential_histogram",
            data.aggregation_temporality,
            false,
            data.data_points.into_iter().map(exponential).collect(),
        ),
        Some(Data::Summary(data)) => {
            ("summary", 0, false, data.data_points.into_iter().map(summary).collect())
        }
    };
    Ok((Metric { name: metric.name, unit: metric.unit, kind, temporality, monotonic }, points))
}

fn unsigned(number: u64) -> AnyValue<'static> {
    i64::try_from(number).map_or(AnyValue::Double(number as f64), AnyValue::Int)
}

fn list<T>(items: Vec<T>, value: impl Fn(T) -> AnyValue<'static>) -> AnyValue<'static> {
    AnyValue::List(items.into_iter().map(value).collect())
}

fn point(
    start: u64,
    time: u64,
    labels: Vec<common::KeyValue>,
    measures: impl IntoIterator<Item = (&'static str, Option<AnyValue<'static>>)>,
) -> Point<'static> {
    let measures = measures.into_iter().filter_map(|(name, value)| Some((name.into(), value?))).collect();
    Point { start, time, attributes: attributes(labels), measures }
}

fn number(data: metrics::NumberDataPoint) -> Point<'static> {
    use metrics::number_data_point::Value;
    let value = data.value.map(|value| match value {
        Value::AsDouble(number) => AnyValue::Double(number),
        Value::AsInt(number) => AnyValue::Int(number),
    });
    point(data.start_time_unix_nano, data.time_unix_nano, data.attributes, [("value", value)])
}

fn histogram(data: metrics::HistogramDataPoint) -> Point<'static> {
    let measures = [
        ("count", Some(unsigned(data.count))),
        ("sum", data.sum.map(AnyValue::Double)),
        ("min", data.min.map(AnyValue::Double)),
        ("max", data.max.map(AnyValue::Double)),
        ("bucket_counts", Some(list(data.bucket_counts, unsigned))),
        ("explicit_bounds", Some(list(data.explicit_bounds, AnyValue::Double))),
    ];
    point(data.start_time_unix_nano, data.time_unix_nano, data.attributes, measures)
}

fn exponential(data: metrics::ExponentialHistogramDataPoint) -> Point<'static> {
    let buckets = |buckets: metrics::exponential_histogram_data_point::Buckets| {
        AnyValue::Map(vec![
            ("offset".into(), AnyValue::Int(i64::from(buckets.offset))),
            ("bucketCounts".into(), list(buckets.bucket_counts, unsigned)),
        ])
    };
    let measures = [
        ("count", Some(unsigned(data.count))),
        ("sum", data.sum.map(AnyValue::Double)),
        ("min", data.min.map(AnyValue::Double)),
        ("max", data.max.map(AnyValue::Double)),
        ("scale", Some(AnyValue::Int(i64::from(data.scale)))),
        ("zero_count", Some(unsigned(data.zero_count))),
        ("positive", data.positive.map(buckets)),
        ("negative", data.negative.map(buckets)),
    ];
    point(data.start_time_unix_nano, data.time_unix_nano, data.attributes, measures)
}

fn summary(data: metrics::SummaryDataPoint) -> Point<'static> {
    let quantile = |at: metrics::summary_data_point::ValueAtQuantile| {
        AnyValue::Map(vec![
            ("quantile".into(), AnyValue::Double(at.quantile)),
            ("value".into(), AnyValue::Double(at.value)),
        ])
    };
    let measures = [
        ("count", Some(unsigned(data.count))),
        ("sum", Some(AnyValue::Double(data.sum))),
        ("quantile_values", Some(list(data.quantile_values, quantile))),
    ];
    point(data.start_time_unix_nano, data.time_unix_nano, data.attributes, measures)
}
