//! LangSmith.

use std::path::{Path, PathBuf};

use fleetlog_formats::{Body, inspect};
use fleetlog_schemas::event::{AgentEvent, EventType, Status, TokenBasis, UsageRole};
use fleetlog_schemas::record::Route;
use serde_json::{Value, json};

use crate::Request;
use crate::support::{fixture, view};

const FORM: &str = "multipart/form-data; boundary=4847206e510e471992e1ae263d7a0562";

fn sent(body: &[u8]) -> Vec<AgentEvent> {
    Request { hint: "langsmith.multipart", content_type: FORM, body, id: "" }.events()
}

fn posted(body: &Value) -> Vec<AgentEvent> {
    Request::json("langsmith.runs", body.to_string().as_bytes()).events()
}

#[test]
fn python_sdk() {
    let mut events = sent(&fixture("langsmith-py-0.15/runs.form"));
    events.extend(sent(&fixture("langsmith-py-0.15/feedback.form")));
    insta::assert_json_snapshot!(view(&events));
}

#[test]
fn form_of_runs_is_what_its_client_did() {
    let events = sent(&fixture("langsmith-py-0.15/runs.form"));
    assert_eq!(events.len(), 8, "a creation and a completion of each of four runs");
    assert!(events.iter().all(|event| event.session_id == "s1" && event.source == "langsmith-py"));
    let call = events.iter().find(|event| event.usage_role == UsageRole::Call).unwrap();
    assert_eq!((call.model.as_str(), call.model_requested.as_str()), ("gpt-4o-2024-08-06", "gpt-4o"));
    assert_eq!((call.in_uncached, call.cache_read, call.out_visible, call.out_reasoning), (8, 4, 2, 1));
    assert_eq!((call.token_basis, call.finish_reason.as_str()), (TokenBasis::Inclusive, "stop"));
    let failed = events.iter().find(|event| event.status == Status::Error).unwrap();
    assert_eq!((failed.tool_name.as_str(), failed.error_type.as_str()), ("Bad", "ValueError"));
    for pair in events.iter().filter(|event| event.end_timestamp.is_some()) {
        let created = events.iter().find(|event| event.span_id == pair.span_id).unwrap();
        assert!(created.revision < pair.revision && created.end_timestamp.is_none());
    }
}

#[test]
fn form_and_batch_say_the_same() {
    let body = fixture("langsmith-py-0.15/runs.form");
    let (mut post, mut patch) = (Vec::<Value>::new(), Vec::<Value>::new());
    for event in sent(&body) {
        let run: Value = serde_json::from_str(&event.data).unwrap();
        if event.end_timestamp.is_some() { &mut patch } else { &mut post }.push(run);
    }
    let batch = posted(&json!({"post": post, "patch": patch}));
    let plain = |events: Vec<AgentEvent>| {
        let mut events: Vec<AgentEvent> =
            events.into_iter().map(|event| AgentEvent { raw_index: 0, ..event }).collect();
        events.sort_by_key(|event| event.dedup_key);
        events
    };
    similar_asserts::assert_eq!(view(&plain(sent(&body))), view(&plain(batch)));
}

#[test]
fn broken_part_costs_only_what_it_said() {
    let body = String::from_utf8(fixture("langsmith-py-0.15/runs.form")).unwrap();
    let broken = body.replace(r#"{"q":"hi"}"#, r#"{"q":"hi""#).replacen("name=\"patch.", "nome=\"patch.", 1);
    let bytes = Body {
        route: Route::Raw,
        content_type: FORM,
        format_hint: "langsmith.multipart",
        bytes: broken.as_bytes(),
    };
    let found = inspect::inspect(&bytes, "p1").unwrap();
    // The answer has no place to say it, so nothing is rejected: what is broken is kept whole.
    assert_eq!(found.rejected, []);
    let events = sent(broken.as_bytes());
    let unknown = events.iter().filter(|event| event.event_type == EventType::RawUnknown).count();
    assert_eq!((events.len(), unknown), (10, 2));
    assert!(!events[0].data.contains("inputs"));
    let cut = Body { bytes: &broken.as_bytes()[..broken.len() / 2], ..bytes };
    assert_eq!(inspect::inspect(&cut, "p1").unwrap_err().code, "malformed_multipart");
}

#[test]
fn attachments_stay_with_their_run() {
    let part = |name: &str, kind: &str, content: &str| {
        format!(
            "--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\nContent-Type: {kind}\r\n\r\n{content}\r\n"
        )
    };
    let body = part("attachment.r1.note.txt", "text/plain", "hello")
        + &part(
            "post.r1",
            "application/json",
            r#"{"id":"r1","trace_id":"r1","run_type":"chain","name":"n"}"#,
        )
        + &part("attachment.r1.big", "image/png", &"x".repeat(70_000))
        + &part("mystery", "text/plain", "?")
        + "--b--";
    let request = Request {
        hint: "langsmith.multipart",
        content_type: "multipart/form-data; boundary=b",
        body: body.as_bytes(),
        id: "",
    };
    let events = request.events();
    let [run, unknown] = &events[..] else { panic!("{events:?}") };
    let data: Value = serde_json::from_str(&run.data).unwrap();
    assert_eq!(
        data["attachments"]["note.txt"],
        json!({"content_type": "text/plain", "size": 5, "text": "hello"})
    );
    assert_eq!(
        data["attachments"]["big"],
        json!({"content_type": "image/png", "size": 70_000, "omitted": true})
    );
    assert_eq!(unknown.event_type, EventType::RawUnknown);
}

#[test]
fn run_of_a_patch_is_named_by_its_path_or_its_order() {
    let body = br#"{"outputs":{"x":1},"end_time":1728803138285}"#;
    let by_path = Request { id: "r1", ..Request::json("langsmith.run.patch", body) }.events();
    assert_eq!((by_path[0].span_id.as_str(), by_path[0].status), ("r1", Status::Ok));
    let by_order =
        posted(&json!({"patch": [{"dotted_order": "20241013T070537Za.20241013T070538Zb", "trace_id": "a"}]}));
    assert_eq!((by_order[0].span_id.as_str(), by_order[0].trace_id.as_str()), ("b", "a"));
    let nameless = posted(&json!({"post": [{"name": "x"}]}));
    assert_eq!(nameless[0].event_type, EventType::RawUnknown);
}

#[test]
fn usage_is_found_wherever_clients_put_it() {
    let usage = json!({"input_tokens": 12, "output_tokens": 3, "input_token_details": {"cache_read": 4}, "total_cost": 0.5});
    let openai =
        json!({"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}});
    for outputs in [
        json!({"usage_metadata": usage}),
        json!({"llm_output": {"token_usage": openai}}),
        json!({"generations": [[{"message": {"kwargs": {"usage_metadata": usage}}}]]}),
        json!({"usage": openai}),
    ] {
        let run = json!({"id": "r", "trace_id": "t", "run_type": "llm", "outputs": outputs});
        let call = &posted(&run)[0];
        assert_eq!((call.in_uncached, call.cache_read, call.out_visible), (8, 4, 3), "{outputs}");
        assert_eq!((call.usage_role, call.llm_call_key.as_str()), (UsageRole::Call, "r"));
    }
    let in_metadata = json!({"id": "r", "trace_id": "t", "run_type": "llm", "extra": {"metadata": {"usage_metadata": usage}}});
    let call = &posted(&in_metadata)[0];
    assert_eq!((call.cache_read, call.cost_reported.map(|cost| cost.0)), (4, Some(500_000_000)));
    let chain =
        json!({"id": "r", "trace_id": "t", "run_type": "chain", "outputs": {"usage_metadata": usage}});
    assert_eq!((posted(&chain)[0].usage_role, posted(&chain)[0].in_uncached), (UsageRole::None, 0));
}

#[test]
fn cost_is_the_total_or_what_its_parts_come_to() {
    let cost = |usage: Value| {
        let run = json!({"id": "r", "run_type": "llm", "outputs": {"usage_metadata": usage}});
        posted(&run)[0].cost_reported.map(|cost| cost.0)
    };
    let parts = json!({"input_tokens": 1, "output_tokens": 1, "input_cost": 0.01, "output_cost": 0.02});
    assert_eq!(cost(parts.clone()), Some(30_000_000));
    let mut total = parts;
    total["total_cost"] = 0.04.into();
    assert_eq!(cost(total), Some(40_000_000));
    assert_eq!(cost(json!({"input_cost": 0.01})), Some(10_000_000), "without any tokens");
    assert_eq!(cost(json!({"input_tokens": 1})), None);
}

#[test]
fn pieces_of_a_run_without_a_trace_are_one_call_of_one_trace() {
    // The REST example of the server's documentation: digits in the bodies, dashes in the paths.
    let ids = ["3f2a8c0e4b7d4e61a5c9d2b8f0e7a613", "9b1d6e2f80c34a7fb6e5d4c3b2a19f08"];
    let dashed = ["3f2a8c0e-4b7d-4e61-a5c9-d2b8f0e7a613", "9b1d6e2f-80c3-4a7f-b6e5-d4c3b2a19f08"];
    let patched = |id: &str, body: Value| {
        let body = body.to_string();
        Request { id, ..Request::json("langsmith.run.patch", body.as_bytes()) }.events().remove(0)
    };
    let root =
        json!({"id": ids[0], "name": "pipeline", "run_type": "chain", "start_time": "2026-11-21T12:00:00"});
    let call = json!({"id": ids[1], "name": "call", "run_type": "llm", "start_time": "2026-11-21T12:00:01",
        "parent_run_id": ids[0], "extra": {"metadata": {"session_id": "s1"}}});
    let answer = json!({"end_time": "2026-11-21T12:00:02", "outputs": {"usage": {"prompt_tokens": 12, "completion_tokens": 3}}});
    let failure = json!({"end_time": "2026-11-21T12:00:02", "error": "ValueError('boom')"});
    let (root, call) = (posted(&root).remove(0), posted(&call).remove(0));
    assert_eq!((root.trace_id.as_str(), root.span_id.as_str()), (dashed[0], dashed[0]));
    assert_eq!((call.parent_id.as_str(), call.session_id.as_str()), (dashed[0], "s1"));
    for piece in [patched(dashed[1], answer), patched(&dashed[1].to_uppercase(), failure.clone())] {
        assert_eq!((&piece.trace_id, &piece.span_id), (&call.trace_id, &call.span_id));
        assert_eq!(piece.llm_call_key, call.llm_call_key);
        assert!(piece.revision > call.revision);
    }
    let failed = patched(dashed[1], failure);
    assert_eq!((failed.status, failed.error_type.as_str()), (Status::Error, "ValueError"));
    // The newest clients state that they know none.
    let unknown = json!({"id": dashed[0], "trace_id": null, "parent_run_id": null, "dotted_order": null});
    assert_eq!(patched(dashed[0], unknown).trace_id, dashed[0]);
}

#[test]
fn trace_is_as_stated_or_the_first_of_the_order() {
    let order = "20241013T070537123456Za1.20241013T070538123456Zb2";
    let of = |run: Value| posted(&json!({"patch": [run]})).remove(0).trace_id;
    assert_eq!(of(json!({"id": "b2", "dotted_order": order})), "a1");
    assert_eq!(of(json!({"id": "b2", "dotted_order": order, "trace_id": "t"})), "t");
    assert_eq!(of(json!({"id": "b2", "dotted_order": "broken"})), "b2");
}

#[test]
fn only_what_is_a_uuid_is_written_as_one() {
    let digits = "3f2a8c0e4b7d4e61a5c9d2b8f0e7a613";
    for (said, kept) in [
        (digits.to_uppercase().as_str(), "3f2a8c0e-4b7d-4e61-a5c9-d2b8f0e7a613"),
        ("3F2A8C0E-4B7D-4E61-A5C9-D2B8F0E7A613", "3f2a8c0e-4b7d-4e61-a5c9-d2b8f0e7a613"),
        ("My-Session", "My-Session"),
        (&digits[1..], &digits[1..]),
        ("sesja-ąęółżźćńś-ąęółżźćńś", "sesja-ąęółżźćńś-ąęółżźćńś"),
    ] {
        let run = json!({"id": said, "run_type": "tool", "extra": {"metadata": {"thread_id": said}}});
        let event = posted(&run).remove(0);
        assert_eq!((event.span_id.as_str(), event.session_id.as_str()), (kept, kept), "{said}");
        assert_eq!((event.tool_call_id.as_str(), event.trace_id.as_str()), (kept, kept));
    }
}

#[test]
fn project_is_no_session() {
    let run = json!({"id": "r", "trace_id": "t", "run_type": "chain", "session_name": "proj", "session_id": "uuid"});
    assert_eq!(posted(&run)[0].session_id, "");
    for name in ["session_id", "thread_id", "conversation_id"] {
        let mut run = run.clone();
        run["extra"] = json!({"metadata": {name: "s"}});
        assert_eq!(posted(&run)[0].session_id, "s");
    }
}

#[test]
fn feedback_can_be_changed() {
    let body = br#"{"id":"f","run_id":"r","trace_id":"t","key":"quality","score":0.9,"created_at":"2026-11-21T12:00:00Z"}"#;
    let created = &Request::json("langsmith.feedback", body).events()[0];
    let changed =
        &Request { id: "f", ..Request::json("langsmith.feedback.patch", br#"{"score":0.1}"#) }.events()[0];
    for score in [created, changed] {
        assert_eq!((score.event_type, score.event_id.as_str()), (EventType::Score, "f"));
    }
    assert_ne!(created.dedup_key, changed.dedup_key);
    assert_eq!((changed.name.as_str(), changed.trace_id.as_str()), ("", ""));
    assert_eq!((created.name.as_str(), created.span_id.as_str()), ("quality", "r"));
    assert!(changed.revision > created.revision);
}

#[test]
fn published_batches_are_read_without_a_hint() {
    let Some(folder) = samples() else {
        eprintln!("skipped: no folder of samples (FLEETLOG_SAMPLES)");
        return;
    };
    let mut calls = 0;
    for file in std::fs::read_dir(folder.join("langsmith-runs-batch")).unwrap() {
        let path = file.unwrap().path();
        let body = std::fs::read(&path).unwrap();
        let events = Request { content_type: "", ..Request::json("", &body) }.events();
        assert!(
            !events.is_empty() && events.iter().all(|event| event.event_type == EventType::LlmRequest),
            "{path:?}"
        );
        let keys: std::collections::BTreeSet<_> = events.iter().map(|event| &event.llm_call_key).collect();
        assert_eq!(keys.len(), 1, "{path:?}: the pieces of one run");
        calls += events.iter().filter(|event| event.usage_role == UsageRole::Call).count();
    }
    assert!(calls >= 6, "{calls}");
}

/// The folder of third-party samples, which are not part of the repository.
fn samples() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/formats/samples");
    let folder = std::env::var_os("FLEETLOG_SAMPLES").map_or_else(beside, PathBuf::from);
    folder.is_dir().then_some(folder)
}
