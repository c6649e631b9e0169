//! The last step of every decoder: columns stay small.
//!
//! A column is for grouping, filtering and joining. A text too long for that is kept whole in `data`; the column gets
//! its beginning and a hash of all of it, so that equal texts stay equal and different ones different.

use fleetlog_schemas::event::AgentEvent;
use fleetlog_schemas::id::Key128;

use crate::json::{Cursor, Fault, ObjectWriter};

/// Longest text in a column, bytes; ids, names and paths are far shorter.
const LONGEST: usize = 4096;
/// Longest error message, bytes: stack traces are read where they are.
const LONGEST_MESSAGE: usize = 64 * 1024;
/// How much of a longer text its column keeps, bytes.
const KEPT: usize = 256;

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
        let hash = Key128::of([text.as_bytes()]);
        let beginning = text.get(..text.floor_char_boundary(KEPT)).unwrap_or_default().to_owned();
        let whole = std::mem::replace(text, format!("{beginning}…{hash}"));
        // One text may stand in several columns, such as an id that is also the key of its call.
        if !moved.contains(&hash) {
            data = with_member(&data, name, &whole);
            moved.push(hash);
        }
    }
    event.data = data;
}

fn with_member(object: &str, name: &str, value: &str) -> String {
    let mut names = Vec::new();
    let listed = Cursor::new(object.as_bytes()).object(|cursor, key| {
        names.push(key.text());
        cursor.skip_value().map(|_| ())
    });
    let mut writer = match listed {
        Ok(()) => ObjectWriter::continuing(object.as_bytes(), names.iter().map(|name| &**name)),
        Err(Fault { .. }) => ObjectWriter::new(),
    };
    writer.field(name, value);
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
    fn ordinary_event_is_left_as_it_is() {
        let event = AgentEvent { error_message: "x".repeat(60_000), ..AgentEvent::default() };
        let mut confined = event.clone();
        confine(&mut confined);
        assert_eq!(confined, event);
    }
}
