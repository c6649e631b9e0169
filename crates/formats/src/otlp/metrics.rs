//! OTLP metric points. Each is an event of its own and is never added to usage.

use fleetlog_schemas::event::{AgentEvent, Channel, EventType};

use super::frames::Group;
use super::model::{Metric, Object, Point};
use super::origin::Origin;
use super::{Decoder, Encoding, json, proto};
use crate::confine::brief;
use crate::genai::Gathered;
use crate::json::ObjectWriter;
use crate::moment::Moment;

/// The format's name in `source_format`.
pub(crate) const FORMAT: &str = "otlp.metrics";

/// Decodes the points of one metric.
pub(super) fn decode<'a>(decoder: &mut Decoder<'_>, group: &Group<'a>, origin: &Origin<'a>) {
    let read = match decoder.encoding {
        Encoding::Json => {
            json::metric(group.metric).map(|metric| (metric, None)).map_err(|fault| fault.message())
        }
        Encoding::Protobuf => match proto::metric(group.metric) {
            Ok((metric, points)) if points.len() == group.records.len() => Ok((metric, Some(points))),
            Ok(_) => Err("a metric with points of more than one kind".to_owned()),
            Err(error) => Err(error.to_string()),
        },
    };
    let (metric, points) = match read {
        Ok((metric, points)) => (Ok(metric), points),
        Err(fault) => (Err(fault), None),
    };
    // Its points share a metric's name and unit: long ones are kept whole with the first, and short with the others.
    let short = metric.as_ref().ok().map(|metric| Metric {
        name: brief(&metric.name).unwrap_or_else(|| metric.name.clone()),
        unit: brief(&metric.unit).unwrap_or_else(|| metric.unit.clone()),
        ..*metric
    });
    let mut told = false;
    let mut points = points.into_iter().flatten();
    for record in &group.records {
        let read = points.next();
        let Some(index) = decoder.next_index(record) else { continue };
        let metric = match &metric {
            Ok(metric) => metric,
            Err(fault) => {
                decoder.misshapen(index, record, fault);
                continue;
            }
        };
        let point = match read {
            Some(point) => Ok(point),
            None => json::point(record).map_err(|fault| fault.message()),
        };
        match point {
            Ok(point) => {
                let shown = short.as_ref().filter(|_| std::mem::replace(&mut told, true)).unwrap_or(metric);
                let event = event(decoder, origin, index, [metric, shown], point, group);
                decoder.out.events.push(event);
            }
            Err(fault) => decoder.misshapen(index, record, &fault),
        }
    }
}

fn event<'a>(
    decoder: &Decoder<'_>,
    origin: &Origin<'a>,
    index: u32,
    [metric, shown]: [&Metric; 2],
    point: Point<'a>,
    group: &Group<'_>,
) -> AgentEvent {
    let mut event = origin.event(decoder, index, FORMAT);
    event.channel = Channel::Other;
    event.event_type = EventType::MetricPoint;
    event.name.clone_from(&shown.name);
    // The series is the metric, its labels, and who emitted it (MAPPING §9, "metric points").
    let labels = serde_json::to_vec(&Object(&point.attributes)).unwrap_or_default();
    let (start, time) = (point.start.to_le_bytes(), point.time.to_le_bytes());
    let [resource, scope] = group.identity();
    let series: [&[u8]; 6] = [resource, scope, metric.name.as_bytes(), &labels, &start, &time];
    event.dedup_key = if point.time == 0 {
        decoder.identities.arrival(index)
    } else {
        decoder.identities.stated(FORMAT, &series)
    };
    event.event_id = event.dedup_key.to_string();
    let mut data = ObjectWriter::new();
    if point.time != 0 {
        let moment = Moment::of_nanos(i128::from(point.time));
        event.timestamp = moment.nanos;
        event.timestamp_source = moment.source();
        if moment.clamped {
            data.field("timestamp_original", &point.time.to_string());
        }
    }
    data.field("kind", metric.kind);
    if !metric.unit.is_empty() {
        data.field("unit", &shown.unit);
    }
    match metric.temporality {
        1 => data.field("temporality", "delta"),
        2 => data.field("temporality", "cumulative"),
        _ => {}
    }
    if metric.kind == "sum" {
        data.field("monotonic", &metric.monotonic);
    }
    if point.start != 0 {
        data.field("start_time", &point.start.to_string());
    }
    for (name, value) in &point.measures {
        data.field(name, value);
    }
    let mut gathered = Gathered::of(point.attributes);
    gathered.identity_into(&mut event, origin);
    gathered.rest_into(&mut data);
    event.data = data.finish();
    event
}
