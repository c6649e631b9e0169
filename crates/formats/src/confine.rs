//! The last step of every decoder: columns stay small.
//!
//! A column is for grouping, filtering and joining. A text too long for that is kept whole in `data`; the column gets
//! its beginning and a hash of all of it, so that equal texts stay equal and different ones different.
//!
//! What many records share (a resource, the facts of a stream) is shortened before it is given to each of them, and all
//! events of one body together have a budget: a small body never becomes events of many times its size.

use fleetlog_schemas::event::AgentEvent;
use fleetlog_schemas::id::Key128;
use fleetlog_schemas::record::StreamContext;

use crate::input::Decoded;
use crate::json::{Cursor, Fault, ObjectWriter};

/// Longest text in a column, bytes; ids, names and paths are far shorter.
const LONGEST: usize = 4096;
/// Longest error message, bytes: stack traces are read where they are.
const LONGEST_MESSAGE: usize = 64 * 1024;
/// How much of a longer text its column keeps, bytes.
const KEPT: usize = 256;

/// What the events of a body may take at least, bytes.
const BUDGET: usize = 16 << 20;
/// What the events of a body may take for each of its bytes, bytes: a small record with a large resource takes as much.
const BUDGET_PER_BYTE: usize = 64;

/// Moves texts that are too long for their columns into `data`.
pub(crate) fn confine(event: &mut AgentEvent) {
    let too_long = |(name, text): &(&str, &str)| {
        text.len() > if *name == "error_message" { LONGEST_MESSAGE } else { LONGEST }
    };
    if !event.texts().any(|column| too_long(&column)) {
        return;
    }
    let mut data = std::mem::take(&mut event.data);
    let mut moved = Vec::new();
    for (name, text) in event.texts_mut() {
        if !too_long(&(name, text)) {
            continue;
        }
        let (short, hash) = shortened(text);
        let whole = std::mem::replace(text, short);
        // One text may stand in several columns, such as an id that is also the key of its call.
        if !moved.contains(&hash) {
            data = with_member(&data, name, &whole);
            moved.push(hash);
        }
    }
    event.data = data;
}

/// A text's beginning and a hash of all of it.
fn shortened(text: &str) -> (String, Key128) {
    let hash = Key128::of([text.as_bytes()]);
    let beginning = text.get(..text.floor_char_boundary(KEPT)).unwrap_or_default();
    (format!("{beginning}…{hash}"), hash)
}

/// What stands in the column of a text that many records share; `None` when it is short enough to stay.
pub(crate) fn brief(text: &str) -> Option<String> {
    (text.len() > LONGEST).then(|| shortened(text).0)
}

/// Shortens the facts of a stream, which every later record of it repeats.
pub(crate) fn confine_stream(context: &mut StreamContext) {
    // INVARIANT: every text of the context is listed, which the compiler checks.
    let StreamContext {
        format,
        stream_id,
        first_line: _,
        session_id,
        model,
        cwd,
        turn_id,
        provider,
        source,
        version,
        agent_id,
        noted,
    } = context;
    // What only a format understands is of no use in part.
    if noted.len() > LONGEST {
        noted.clear();
    }
    for text in [format, stream_id, session_id, model, cwd, turn_id, provider, source, version, agent_id] {
        if let Some(short) = brief(text) {
            *text = short;
        }
    }
}

/// What the events of one body may take together.
#[derive(Debug)]
pub(crate) struct Budget {
    left: usize,
    /// Events that have been charged.
    charged: usize,
}

impl Budget {
    /// The budget of a body of so many bytes.
    pub(crate) fn of(body: usize) -> Self {
        Self { left: BUDGET.max(body.saturating_mul(BUDGET_PER_BYTE)), charged: 0 }
    }

    /// Charges what was made since the last time; whether another record may be decoded.
    pub(crate) fn allows(&mut self, out: &mut Decoded) -> bool {
        for event in out.events.iter_mut().skip(self.charged) {
            confine(event);
            let texts: usize = event.texts().map(|(_, text)| text.len()).sum();
            let size = size_of::<AgentEvent>() + texts + event.data.len() + event.context.len();
            self.left = self.left.saturating_sub(size);
        }
        self.charged = out.events.len();
        self.left > 0
    }
}

fn with_member(object: &str, name: &str, value: &str) -> String {
    continued(object, |writer| writer.field(name, value))
}

/// An object's text with a further member, of this JSON text.
pub(crate) fn with_raw_member(object: &str, name: &str, value: &str) -> String {
    continued(object, |writer| writer.raw(name, value.as_bytes()))
}

fn continued(object: &str, add: impl FnOnce(&mut ObjectWriter)) -> String {
    let mut names = Vec::new();
    let listed = Cursor::new(object.as_bytes()).object(|cursor, key| {
        names.push(key.text());
        cursor.skip_value().map(|_| ())
    });
    let mut writer = match listed {
        Ok(()) => ObjectWriter::continuing(object.as_bytes(), names.iter().map(|name| &**name)),
        Err(Fault { .. }) => ObjectWriter::new(),
    };
    add(&mut writer);
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_moves_to_data_and_its_column_stays_distinct() {
        let long = |last: char| AgentEvent {
            session_id: "é".repeat(5000) + &last.to_string(),
            user_id: "u".into(),
            data: r#"{"session_id":1}"#.into(),
            ..AgentEvent::default()
        };
        let (mut a, mut b, mut again) = (long('a'), long('b'), long('a'));
        for event in [&mut a, &mut b, &mut again] {
            confine(event);
            assert!(event.session_id.len() < 300 && event.user_id == "u", "{}", event.session_id);
        }
        assert_ne!(a.session_id, b.session_id);
        assert_eq!(a, again);
        let data: serde_json::Value = serde_json::from_str(&a.data).unwrap();
        assert_eq!((&data["session_id"], data["session_id#2"].as_str().unwrap().len()), (&1.into(), 10_001));
    }

    #[test]
    fn a_body_whose_events_are_too_large_together_is_stopped() {
        let mut out = Decoded::default();
        let mut budget = Budget::of(10);
        let large = AgentEvent { data: "d".repeat(1 << 20), ..AgentEvent::default() };
        let mut allowed = 0;
        while budget.allows(&mut out) {
            out.events.push(large.clone());
            allowed += 1;
        }
        assert_eq!(allowed, 16);
    }

    #[test]
    fn ordinary_event_is_left_as_it_is() {
        let event = AgentEvent { error_message: "x".repeat(60_000), ..AgentEvent::default() };
        let mut confined = event.clone();
        confine(&mut confined);
        assert_eq!(confined, event);
    }
}
