//! Traces, scores, formats, and how a number came about, on a real engine.

mod support;

use fleetlog_query_api::QueryConfig;
use fleetlog_schemas::event::{Channel, Status, UsageRole};
use fleetlog_schemas::id::Key128;
use fleetlog_schemas::{AgentEvent, EventType};
use fleetlog_store::derived::SessionTrace;
use fleetlog_store::{Call, Trace};
use support::{NOON, S, call, event, seconds, service, session};

/// An observation of the trace, without a session of its own.
fn part(number: u32, id: &str, parent: &str) -> AgentEvent {
    AgentEvent {
        trace_id: "t1".to_owned(),
        span_id: id.to_owned(),
        parent_id: parent.to_owned(),
        channel: Channel::Span,
        event_type: EventType::Span,
        name: format!("step {id}"),
        source_format: "otlp.traces".to_owned(),
        source_version: "1.2".to_owned(),
        in_uncached: 0,
        cost_reported: None,
        ..event("p", "", number)
    }
}

fn score(number: u32, name: &str, observation: &str, data: &str) -> AgentEvent {
    AgentEvent {
        event_type: EventType::Score,
        channel: Channel::Api,
        name: name.to_owned(),
        data: data.to_owned(),
        ..part(number, observation, "")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_shows_its_tree_its_scores_and_its_sums() {
    let Some(service) = service(QueryConfig::default()).await else { return };
    let mut failed = part(3, "b", "root");
    failed.status = Status::Error;
    let begun = AgentEvent { revision: 1, name: "draft".to_owned(), ..part(2, "a", "root") };
    let ended = AgentEvent {
        revision: 2,
        event_type: EventType::LlmRequest,
        usage_role: UsageRole::Call,
        model: "gpt-5".to_owned(),
        in_uncached: 7,
        ..part(9, "a", "")
    };
    let events = [
        part(1, "root", ""),
        failed,
        ended,
        begun,
        part(4, "a1", "a"),
        score(5, "quality", "", r#"{"id":"q","value":0.5,"dataType":"NUMERIC","comment":"so so"}"#),
        score(6, "tone", "a", r#"{"value":"warm"}"#),
    ];
    service.store_events(0, &events).await;
    let started = NOON - 3_600 * S;
    let priced = Call {
        trace_id: "t1".to_owned(),
        span_id: "a".to_owned(),
        cost_computed: Some(8_750_000),
        ..call("a", started, "gpt-5")
    };
    let mut group = session("p", "s", started, &[priced], &[]);
    group.traces = vec![Trace {
        trace_id: "t1".to_owned(),
        name: "step root".to_owned(),
        started_at: started,
        ended_at: started + 9 * S,
        last_received_at: NOON,
        event_count: 7,
        observation_count: 4,
        error_count: 1,
        llm_call_count: 1,
        in_uncached: 7,
        cost_reported: 5_000_000,
        ..Trace::default()
    }];
    let mut other = session("p", "late", started, &[], &[]);
    other.traces = vec![Trace {
        trace_id: "t2".to_owned(),
        started_at: started + S,
        ended_at: started + S,
        last_received_at: NOON,
        event_count: 1,
        ..Trace::default()
    }];
    service.derive(&[group, other], 0).await;

    let ids = async |filter: &str| -> Vec<String> {
        let rows = service.all("viewer-p", &format!("/v1/traces?limit=1{filter}")).await;
        rows.iter().map(|row| row["trace_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids("").await, ["t2", "t1"], "newest first");
    assert_eq!(ids("&session=s").await, ["t1"]);
    assert_eq!(ids("&status=error").await, ["t1"]);
    assert_eq!(ids("&name=step%20root").await, ["t1"]);
    assert_eq!(ids("&to=2026-03-01T11:00:00.5Z").await, ["t1"]);
    assert!(service.all("viewer-q", "/v1/traces?limit=1").await.is_empty());

    let whole = service.ask("viewer-p", "/v1/traces/t1").await.good();
    let trace = &whole["data"];
    assert_eq!((&trace["session_id"], &trace["in_total"]), (&"s".into(), &7.into()));
    assert_eq!(trace["cost_reported"].to_string(), "0.005");
    let tree: Vec<_> = trace["observations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| (part["depth"].as_u64().unwrap(), part["observation_id"].as_str().unwrap()))
        .collect();
    assert_eq!(tree, [(0, "root"), (1, "a"), (2, "a1"), (1, "b")]);
    let merged = &trace["observations"][1];
    assert_eq!(
        (&merged["type"], &merged["name"], &merged["model"], &merged["pieces"]),
        (&"llm.request".into(), &"step a".into(), &"gpt-5".into(), &2.into())
    );
    assert_eq!(merged["cost_computed"].to_string(), "0.00875", "priced as the call of both pieces");
    assert_eq!(trace["observations"][0]["cost_computed"], serde_json::Value::Null);
    assert_eq!((&merged["score_count"], &trace["truncated"]), (&1.into(), &false.into()));
    let scores = trace["scores"].as_array().unwrap();
    assert_eq!((&scores[0]["text"], &scores[0]["value"]), (&"warm".into(), &serde_json::Value::Null));
    assert_eq!((&scores[1]["score_id"], &scores[1]["value"]), (&"q".into(), &0.5.into()));
    assert_eq!(service.ask("viewer-q", "/v1/traces/t1").await.refused(404), "not_found");

    assert_eq!(service.all("viewer-p", "/v1/scores?limit=1").await.len(), 2);
    assert_eq!(service.all("viewer-p", "/v1/scores?limit=1&name=tone&observation=a&trace=t1").await.len(), 1);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_score_that_names_an_observation_alone_is_shown_with_its_trace() {
    let Some(service) = service(QueryConfig::default()).await else { return };
    let of = |trace: &str, event: AgentEvent| AgentEvent { trace_id: trace.to_owned(), ..event };
    let named = |name: &str, number: u32, trace: &str, observation: &str| {
        let data = format!(r#"{{"id":"{name}","value":1}}"#);
        of(trace, score(number, name, observation, &data))
    };
    // Some come before what they judge.
    let events = [
        named("early", 1, "", "a"),
        named("stated", 2, "t1", "a"),
        of("t1", part(3, "a", "")),
        of("t2", part(4, "b", "")),
        named("late", 5, "", "a"),
        named("other", 6, "", "b"),
        named("elsewhere", 7, "t2", "a"),
        named("lost", 8, "", "gone"),
        named("of a session", 9, "", ""),
    ];
    service.store_events(0, &events).await;
    let mut group = session("p", "s", NOON - 3_600 * S, &[], &[]);
    group.traces = vec![Trace {
        trace_id: "t1".to_owned(),
        started_at: NOON,
        ended_at: NOON,
        last_received_at: NOON,
        event_count: 2,
        ..Trace::default()
    }];
    service.derive(&[group], 0).await;
    let names = |rows: &[serde_json::Value]| -> Vec<String> {
        rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    };
    let whole = service.ask("viewer-p", "/v1/traces/t1").await.good();
    assert_eq!(names(whole["data"]["scores"].as_array().unwrap()), ["late", "stated", "early"]);
    // Page by page, and with the other filters.
    let listed = service.all("viewer-p", "/v1/scores?limit=1&trace=t1").await;
    assert_eq!(names(&listed), ["late", "stated", "early"]);
    let listed = service.all("viewer-p", "/v1/scores?limit=1&trace=t2").await;
    assert_eq!(names(&listed), ["elsewhere", "other"]);
    let listed = service.all("viewer-p", "/v1/scores?limit=9&trace=t1&observation=a&name=early").await;
    assert_eq!(names(&listed), ["early"]);
    assert_eq!(service.all("viewer-p", "/v1/scores?limit=9").await.len(), 7);
    assert!(service.all("viewer-q", "/v1/scores?limit=9&trace=t1").await.is_empty());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_says_how_it_came_about() {
    let Some(service) = service(QueryConfig::default()).await else { return };
    let told = |number: u32, channel: Channel, session: &str, trace: &str| AgentEvent {
        channel,
        usage_role: UsageRole::Call,
        llm_call_key: "req".to_owned(),
        trace_id: trace.to_owned(),
        dedup_key: Key128::of([&number.to_be_bytes()[..]]),
        ..event("p", session, number)
    };
    let codex = |number: u32, channel: Channel| AgentEvent {
        call_family: "codex".to_owned(),
        llm_call_key: String::new(),
        ..told(number, channel, "c", "")
    };
    let events = [
        told(1, Channel::AgentLog, "s", ""),
        // Its session is known through its trace alone.
        told(2, Channel::Span, "", "t"),
        // The same again.
        told(2, Channel::Span, "", "t"),
        codex(11, Channel::AgentLog),
        codex(12, Channel::Transcript),
    ];
    service.store_events(0, &events).await;
    let at = events[0].timestamp;
    let mut counted = call("req", at, "opus");
    counted.event_id = "p-s-1".to_owned();
    counted.event_ids = vec!["p-s-1".to_owned(), "p--2".to_owned()];
    counted.trace_id = "t".to_owned();
    counted.sightings = 2;
    let mut of_codex = call("p-c-11", events[3].timestamp, "opus");
    of_codex.event_id = "p-c-11".to_owned();
    of_codex.event_ids = vec!["p-c-11".to_owned()];
    let groups = [session("p", "s", at, &[counted], &[]), session("p", "c", at, &[of_codex], &[])];
    service.derive(&groups, 0).await;
    let naming = SessionTrace {
        project_id: "p".to_owned(),
        trace_id: "t".to_owned(),
        session_id: "s".to_owned(),
        first_at: at,
        last_received_at: seconds(NOON),
    };
    service.store.add_trace_sessions(&[naming]).await.unwrap();

    for path in ["call=req&session=s", "call=req&trace=t", "event=p-s-1", "event=p--2"] {
        let answer = service.ask("viewer-p", &format!("/v1/usage/explain?{path}")).await.good();
        let data = &answer["data"];
        assert_eq!((&data["call"]["call_key"], &data["call"]["session_id"]), (&"req".into(), &"s".into()));
        let told: Vec<_> = data["sightings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|told| (told["event_id"].as_str().unwrap(), told["verdict"].as_str().unwrap()))
            .collect();
        assert_eq!(told, [("p-s-1", "counted"), ("p--2", "merged")], "{path}");
        assert_eq!(data["sightings"][1]["why"], "a lesser channel than the one that counts");
    }
    let answer = service.ask("viewer-p", "/v1/usage/explain?event=p-c-11").await.good();
    let told = answer["data"]["sightings"].as_array().unwrap();
    assert_eq!((told.len(), &told[1]["verdict"]), (2, &"apart".into()), "{answer}");
    for (path, code) in
        [("", "bad_parameter"), ("?call=req", "bad_parameter"), ("?call=req&event=x", "bad_parameter")]
    {
        assert_eq!(
            service.ask("viewer-p", &format!("/v1/usage/explain{path}")).await.refused(400),
            code,
            "{path}"
        );
    }
    for path in ["call=req&session=other", "event=nothing"] {
        service.ask("viewer-p", &format!("/v1/usage/explain?{path}")).await.refused(404);
    }
    assert_eq!(service.ask("viewer-q", "/v1/usage/explain?event=p-s-1").await.status, 404);
    // The session's list of calls says what was merged, too.
    let calls = service.all("viewer-p", "/v1/sessions/s/calls?limit=3").await;
    assert_eq!(calls[0]["event_ids"].as_array().unwrap().len(), 2);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_that_changes_shows_in_its_hour() {
    let Some(service) = service(QueryConfig::default()).await else { return };
    let mut unknown = part(2, "x", "");
    unknown.event_type = EventType::RawUnknown;
    unknown.unknown_reason = "bad_shape".to_owned();
    unknown.timestamp -= 3_600 * S;
    let mut empty = part(3, "y", "");
    empty.event_type = EventType::LlmRequest;
    empty.usage_role = UsageRole::Call;
    service.store_events(0, &[part(1, "z", ""), unknown, empty, event("p", "s", 4)]).await;
    let rows = service.all("viewer-p", "/v1/formats?limit=1&format=otlp.traces").await;
    let short: Vec<_> = rows
        .iter()
        .map(|row| {
            (row["hour"].as_str().unwrap(), row["events"].as_u64().unwrap(), row["unknown"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(short, [("2026-03-01T11:00:00.000000000Z", 2, 0), ("2026-03-01T10:00:00.000000000Z", 1, 1)]);
    assert_eq!((&rows[0]["calls_without_tokens"], &rows[0]["version"]), (&1.into(), &"1.2".into()));
    assert_eq!(rows[1]["unknown_reasons"][0], "bad_shape");
    assert_eq!(service.all("viewer-p", "/v1/formats?limit=1").await.len(), 3);
    service.stop().await;
}
