//! Things reported in pieces: whatever the order and however often the pieces arrive, they merge to the same.

use std::collections::BTreeMap;

use fleetlog_schemas::event::AgentEvent;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::Request;
use crate::support::{fixture, view};

/// A thing, by what its pieces share.
type Key = (String, String);

/// Every thing with its fields, each from the piece of the highest revision that says it; a repeated piece is one.
fn merged(events: &[AgentEvent]) -> BTreeMap<Key, Map<String, Value>> {
    let mut distinct: Vec<&AgentEvent> = Vec::new();
    for event in events {
        if distinct.iter().all(|seen| seen.dedup_key != event.dedup_key) {
            distinct.push(event);
        }
    }
    distinct.sort_by_key(|event| event.revision);
    let mut things = BTreeMap::<Key, Map<String, Value>>::new();
    for event in distinct {
        let key = if event.event_type.as_str() == "score" {
            ("score".to_owned(), event.event_id.clone())
        } else {
            (event.trace_id.clone(), event.span_id.clone())
        };
        let Value::Array(mut shown) = view(std::slice::from_ref(event)) else { panic!("a view is a list") };
        let Some(Value::Object(fields)) = shown.pop() else { panic!("of objects") };
        let thing = things.entry(key).or_default();
        // What says where a piece came from is not what it says.
        let of_the_piece = ["event_id", "dedup_key", "raw_index", "revision", "data"];
        let observed = fields.get("timestamp_source") == Some(&json!("observed"));
        for (name, value) in fields {
            let no_statement = observed && matches!(name.as_str(), "timestamp" | "timestamp_source");
            if of_the_piece.contains(&name.as_str()) || no_statement && thing.contains_key(&name) {
                continue;
            }
            thing.insert(name, value);
        }
    }
    things
}

/// A batch of these records, in this order, each as often as it is named.
fn batch(hint: &str, member: &str, records: &[Value], order: &[usize]) -> Vec<AgentEvent> {
    let list: Vec<&Value> = order.iter().map(|&index| &records[index]).collect();
    Request::json(hint, json!({member: list}).to_string().as_bytes()).events()
}

fn langfuse(name: &str) -> Vec<Value> {
    let body: Value = serde_json::from_slice(&fixture(name)).unwrap();
    body["batch"].as_array().unwrap().clone()
}

/// Every record at least once, in any order, some again.
fn orders(records: usize) -> impl Strategy<Value = Vec<usize>> {
    let all: Vec<usize> = (0..records).collect();
    (Just(all), prop::collection::vec(0..records, 0..records))
        .prop_map(|(all, again)| [all, again].concat())
        .prop_shuffle()
}

proptest! {
    #[test]
    fn langfuse_pieces_merge_in_any_order(
        python in orders(8),
        javascript in orders(7),
    ) {
        for (name, order) in [("langfuse-py-2.60", python), ("langfuse-js-3.39", javascript)] {
            let records = langfuse(&format!("{name}/ingestion.json"));
            let straight: Vec<usize> = (0..records.len()).collect();
            let expected = merged(&batch("langfuse.ingestion", "batch", &records, &straight));
            let found = merged(&batch("langfuse.ingestion", "batch", &records, &order));
            prop_assert_eq!(expected, found);
        }
    }

    #[test]
    fn opik_pieces_merge_in_any_order(order in orders(4)) {
        let base = json!({"id": "s1", "project_name": "p", "trace_id": "t1", "type": "llm", "start_time": "2026-11-21T12:00:00Z"});
        let piece = |updated: &str, more: Value| {
            let mut piece = base.clone();
            piece["last_updated_at"] = updated.into();
            for (name, value) in more.as_object().unwrap() {
                piece[name] = value.clone();
            }
            piece
        };
        let records = [
            piece("2026-11-21T12:00:00.1Z", json!({"name": "first", "model": "a"})),
            piece("2026-11-21T12:00:00.2Z", json!({"name": "second", "provider": "openai"})),
            piece("2026-11-21T12:00:00.3Z", json!({"end_time": "2026-11-21T12:00:01Z", "usage": {"prompt_tokens": 3, "completion_tokens": 1}})),
            piece("2026-11-21T12:00:00.4Z", json!({"model": "b"})),
        ];
        let found = merged(&batch("opik.spans", "spans", &records, &order));
        let thing = &found[&("t1".to_owned(), "s1".to_owned())];
        prop_assert_eq!((&thing["name"], &thing["model"]), (&json!("second"), &json!("b")));
        prop_assert_eq!((&thing["in_uncached"], &thing["status"]), (&json!(3), &json!("ok")));
    }
}

#[test]
fn what_the_pieces_of_a_generation_say_is_all_there() {
    let records = langfuse("langfuse-js-3.39/ingestion.json");
    let order: Vec<usize> = (0..records.len()).rev().collect();
    let things = merged(&batch("langfuse.ingestion", "batch", &records, &order));
    let call = things.values().find(|thing| thing.contains_key("llm_call_key")).unwrap();
    assert_eq!(
        (&call["model"], &call["in_uncached"], &call["name"]),
        (&json!("gpt-4o"), &json!(10), &json!("llm"))
    );
    let tool = things.values().find(|thing| thing.get("name") == Some(&json!("Bash"))).unwrap();
    assert_eq!((&tool["status"], &tool["level"]), (&json!("error"), &json!("error")));
}
