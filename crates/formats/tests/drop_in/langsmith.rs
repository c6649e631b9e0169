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
