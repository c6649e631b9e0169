//! What the drop-in APIs have in common: a thing is reported in pieces, by a path that says what its records are.
//!
//! A piece carries the id of its thing and its revision. Clients write the pieces of one thing within a clock tick, and
//! send them in any order, so the revision's lowest bit says which of two equally old pieces came second.

use fleetlog_schemas::event::{AgentEvent, EventType, TimestampSource};
use fleetlog_schemas::record::StreamContext;
use serde_json::Value;

use crate::input::Input;
use crate::moment::Moment;
use crate::records::{Object, text};

/// The first part of the names of formats that are APIs.
const APIS: [&str; 4] = ["langfuse.", "langsmith.", "openai.", "opik."];

/// Whether a format is an API's, whose path decides what its records are.
pub(crate) fn owns(format: &str) -> bool {
    APIS.iter().any(|api| format.starts_with(api))
}

/// Takes what a request says about its sender, which stands outside its records.
pub(crate) fn introduce(stream: &mut StreamContext, input: &Input<'_>) {
    if crate::langfuse::is_batch(&stream.format) {
        crate::langfuse::introduce(stream, input.body);
    }
}

/// The moment that a member says.
pub(crate) fn time(object: &Object, name: &str) -> Option<Moment> {
    match object.get(name)? {
        Value::String(text) => Moment::of_text(text),
        Value::Number(number) => Moment::of_text(&number.to_string()),
        _ => None,
    }
}

/// Which of a thing's pieces is the later one.
///
/// `written` is when its sender wrote the piece; `second` tells an update from the creation in the same clock tick.
/// Clocks of senders count micro- or milliseconds, so the lowest bit is free.
pub(crate) fn revision(written: Moment, second: bool) -> i64 {
    (written.nanos & !1) | i64::from(second)
}

/// Sets when a thing began and ended, as far as a piece says so. A piece without a beginning happened when it was
/// `written`, which is no statement about the thing: `timestamp_source` is then not `event`.
pub(crate) fn set_span(
    event: &mut AgentEvent,
    start: Option<Moment>,
    end: Option<Moment>,
    written: Option<Moment>,
) {
    if let Some(start) = start {
        event.timestamp = start.nanos;
        event.timestamp_source = start.source();
    } else if let Some(seen) = end.or(written) {
        event.timestamp = seen.nanos;
        event.timestamp_source = TimestampSource::Observed;
    }
    event.end_timestamp = end.map(|end| end.nanos);
    event.duration_ms = milliseconds(start, end);
}

/// The milliseconds between two moments, if the second is not before the first.
pub(crate) fn milliseconds(from: Option<Moment>, to: Option<Moment>) -> Option<f64> {
    let nanos = to?.nanos.checked_sub(from?.nanos)?;
    (nanos >= 0).then_some(nanos as f64 / 1e6)
}

/// Marks a piece that does not say of what kind its thing is. It names the thing as a call to a model and as a tool call
/// alike, so that whichever the other pieces make of it takes it up; alone it makes neither.
pub(crate) fn untyped(event: &mut AgentEvent) {
    event.event_type = EventType::Span;
    event.llm_call_key.clone_from(&event.span_id);
    event.tool_call_id.clone_from(&event.span_id);
}

/// The first member that is a text and not empty.
pub(crate) fn first_text<'o>(object: &'o Object, names: &[&str]) -> &'o str {
    names.iter().map(|name| text(object, name)).find(|text| !text.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn update_is_later_than_the_creation_of_the_same_tick_only() {
        let at = |nanos| Moment { nanos, clamped: false };
        assert!(revision(at(1_000_000), true) > revision(at(1_000_000), false));
        assert!(revision(at(1_000_000), true) < revision(at(1_001_000), false));
    }

    #[test]
    fn piece_without_a_beginning_does_not_state_one() {
        let at = |nanos| Some(Moment { nanos, clamped: false });
        let mut event = AgentEvent::default();
        set_span(&mut event, None, at(7), at(9));
        assert_eq!((event.timestamp, event.timestamp_source), (7, TimestampSource::Observed));
        assert_eq!((event.end_timestamp, event.duration_ms), (Some(7), None));
        set_span(&mut event, at(3_000_000), at(5_000_000), None);
        assert_eq!((event.timestamp_source, event.duration_ms), (TimestampSource::Event, Some(2.0)));
        assert_eq!(milliseconds(at(2), at(1)), None);
    }
}
