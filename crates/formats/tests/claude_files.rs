//! Claude Code's transcripts, hooks and printed streams: real captures in, events out.

#![cfg(test)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use fleetlog_formats::{Body, Fate, Input, decode, follow, inspect};
use fleetlog_schemas::event::{AgentEvent, Channel, EventType, Status, UsageRole};
use fleetlog_schemas::record::{Route, StreamContext};
use support::{decoded, fixture, input, view};

const SESSION: &str = "claude-code-2.1/transcripts/session.jsonl";
const SUBAGENT: &str = "claude-code-2.1/transcripts/subagent.jsonl";
const SHORT: &str = "claude-code-2.1-short/transcript.jsonl";
const FORKED: &str = "claude-code-2.1-fork/forked.jsonl";
const HOOKS: &str = "claude-code-2.1-hooks/hooks.jsonl";
const PRINTED: &str = "claude-code-2.1-stream/two-turns.jsonl";
const RESUMED: &str = "claude-code-2.1-stream/resumed.jsonl";

fn raw<'a>(body: &'a [u8], stream: Option<&'a StreamContext>) -> Input<'a> {
    Input { content_type: "application/x-ndjson", stream, ..input(Route::Raw, "", body) }
}

fn events(body: &[u8]) -> Vec<AgentEvent> {
    let decoded = decode(&raw(body, None)).unwrap();
    assert!(decoded.eventless.is_empty(), "{:?}", decoded.eventless);
    decoded.events
}

/// Main and sub-agent file, each sent whole.
fn session() -> Vec<AgentEvent> {
    [SESSION, SUBAGENT].iter().flat_map(|name| events(&fixture(name))).collect()
}

/// The calls of a session as they stand when the last line of each has been written.
fn calls(events: &[AgentEvent]) -> BTreeMap<&str, &AgentEvent> {
    let mut calls: BTreeMap<&str, &AgentEvent> = BTreeMap::new();
    for event in events.iter().filter(|event| event.usage_role == UsageRole::Call) {
        let call = calls.entry(&event.llm_call_key).or_insert(event);
        if event.revision >= call.revision {
            *call = event;
        }
    }
    calls
}

#[test]
fn transcript_of_a_session() {
    insta::assert_json_snapshot!(view(&events(&fixture(SESSION))));
}

#[test]
fn transcript_of_a_sub_agent() {
    insta::assert_json_snapshot!(view(&events(&fixture(SUBAGENT))));
}

#[test]
fn transcript_of_a_short_session() {
    insta::assert_json_snapshot!(view(&events(&fixture(SHORT))));
}

#[test]
fn hooks() {
    insta::assert_json_snapshot!(view(&events(&fixture(HOOKS))));
}

#[test]
fn printed_stream() {
    insta::assert_json_snapshot!(view(&events(&fixture(PRINTED))));
}

#[test]
fn a_session_is_counted_right_from_its_transcripts_alone() {
    let events = session();
    assert!(events.iter().all(|event| event.session_id == "ec31950f-465d-4586-9bf8-1990d065cae4"));
    assert!(events.iter().all(|event| event.channel == Channel::Transcript && event.source == "claude-code"));
    let calls = calls(&events);
    let sum = |bucket: fn(&AgentEvent) -> u64| calls.values().map(|call| bucket(call)).sum::<u64>();
    assert_eq!(calls.len(), 8);
    let sums =
        [sum(|c| c.in_uncached), sum(|c| c.out_visible), sum(|c| c.cache_read), sum(|c| c.cache_write_5m)];
    assert_eq!(sums, [168, 136, 32_000, 2_400]);

    let mut tools: BTreeMap<&str, Vec<&AgentEvent>> = BTreeMap::new();
    for event in events.iter().filter(|event| event.event_type.is_tool()) {
        tools.entry(&event.tool_call_id).or_default().push(event);
    }
    assert_eq!(tools.len(), 6);
    let ended = |seen: &Vec<&AgentEvent>| seen.iter().map(|event| event.status).find(|s| *s != Status::Unset);
    assert_eq!(tools.values().filter(|seen| ended(seen) == Some(Status::Error)).count(), 2);
    assert!(
        tools.values().all(|seen| seen.len() == 2 && seen.iter().any(|event| !event.tool_name.is_empty()))
    );
    let lines: (u64, u64) = events.iter().fold((0, 0), |(added, removed), event| {
        (added + event.lines_added.unwrap_or(0), removed + event.lines_removed.unwrap_or(0))
    });
    assert_eq!(lines, (4, 1));
}

#[test]
fn transcripts_and_otlp_channels_name_the_same_calls_and_tools() {
    let named = |events: &[AgentEvent]| -> (BTreeSet<String>, BTreeSet<String>) {
        let calls = events.iter().filter(|event| event.usage_role == UsageRole::Call);
        let tools = events.iter().filter(|event| event.event_type.is_tool());
        (calls.map(|e| e.llm_call_key.clone()).collect(), tools.map(|e| e.tool_call_id.clone()).collect())
    };
    let from_files = named(&session());
    assert_eq!(from_files, named(&decoded(Route::OtlpLogs, "claude-code-2.1/logs.json")));
    assert_eq!(from_files.0, named(&decoded(Route::OtlpTraces, "claude-code-2.1/spans.json")).0);
}

/// Its first 15 lines with a time are the other session's, under the fork's id and with their old times.
#[test]
fn what_a_forked_session_copied_is_its_history_and_not_counted_again() {
    let events = events(&fixture(FORKED));
    let own: Vec<&str> = calls(&events).into_keys().collect();
    assert_eq!(own, ["req_0ea39179d51e0022"], "three more calls are copied");
    assert!(events.iter().all(|event| !event.event_type.is_tool()), "its only tool call is copied");
    let prompts = events.iter().filter(|event| event.event_type == EventType::UserPrompt).count();
    assert_eq!((prompts, events.len()), (1, 22), "a copied line is kept as what it is: history");
}

/// Whoever sets the clock back during a session takes nothing away.
#[test]
fn a_line_older_than_its_file_counts_once_own_lines_have_begun() {
    let line = |kind: &str, time: &str, rest: &str| {
        format!(r#"{{"type":"{kind}","sessionId":"s","timestamp":"2026-11-30T01:{time}:00Z"{rest}}}"#)
    };
    let answer = |uuid: &str| {
        let message = r#"{"id":"MSG","role":"assistant","model":"m","content":[],"usage":{"input_tokens":1,"output_tokens":1}}"#;
        format!(r#","uuid":"{uuid}","requestId":"{uuid}","message":{}"#, message.replace("MSG", uuid))
    };
    let lines = [
        line("queue-operation", "10", ""),
        line("assistant", "05", &answer("copied")),
        line("assistant", "11", &answer("own")),
        line("assistant", "06", &answer("late")),
    ];
    let events = events(lines.join("\n").as_bytes());
    assert_eq!(calls(&events).into_keys().collect::<Vec<_>>(), ["late", "own"]);
}

#[test]
fn a_tool_call_without_a_result_has_not_failed() {
    let text = fixture(SESSION);
    let asked = text.split_inclusive(|byte| *byte == b'\n').take(7).collect::<Vec<_>>().concat();
    let events = events(&asked);
    let tools: Vec<_> = events.iter().filter(|event| event.event_type.is_tool()).collect();
    assert_eq!(
        (tools.len(), tools[0].status, tools[0].event_type),
        (1, Status::Unset, EventType::FileCreate)
    );
}

/// design.md, "Stream context": a chunk carries what the lines before it said.
#[test]
fn a_file_cut_at_any_line_gives_the_same_events() {
    let places = |events: Vec<AgentEvent>| -> Vec<AgentEvent> {
        events.into_iter().map(|event| AgentEvent { raw_index: 0, ..event }).collect()
    };
    for text in [SESSION, SUBAGENT, SHORT, FORKED, PRINTED, RESUMED].map(fixture) {
        let fresh = StreamContext { stream_id: "f".into(), ..StreamContext::default() };
        let whole = places(decode(&raw(&text, Some(&fresh))).unwrap().events);
        let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        for cut in 0..=lines.len() {
            let (before, after) = lines.split_at(cut);
            let mut context = fresh.clone();
            before.iter().for_each(|line| follow(&mut context, line));
            context.first_line = cut as i64;
            let mut pieces = Vec::new();
            for (lines, context) in [(before, &fresh), (after, &context)] {
                if !lines.is_empty() {
                    pieces.extend(places(decode(&raw(&lines.concat(), Some(context))).unwrap().events));
                }
            }
            similar_asserts::assert_eq!(view(&pieces), view(&whole), "cut at line {cut}");
        }
    }
}

#[test]
fn gateway_and_processor_count_the_same_records() {
    for text in [fixture(SESSION), fixture(HOOKS), fixture(PRINTED)] {
        let body = Body {
            route: Route::Raw,
            content_type: "application/x-ndjson",
            format_hint: "auto",
            bytes: &text,
        };
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
        assert_eq!(inspect::inspect(&body, "p1").unwrap().records as usize, lines);
        let indexes: BTreeSet<u32> = events(&text).iter().map(|event| event.raw_index).collect();
        assert_eq!(indexes.len(), lines);
    }
}

#[test]
fn a_tools_hook_told_twice_is_one_event_and_anything_else_is_its_arrival() {
    let events = events(&fixture(HOOKS));
    let kinds: Vec<EventType> = events.iter().map(|event| event.event_type).collect();
    assert_eq!(kinds[0], EventType::SessionStart);
    assert_eq!(kinds.last(), Some(&EventType::SessionEnd));
    let tools: BTreeMap<_, _> = events
        .iter()
        .filter(|event| event.event_type.is_tool())
        .map(|event| (event.dedup_key, (event.tool_call_id.as_str(), event.status, event.event_type)))
        .collect();
    let mut tools: Vec<_> = tools.into_values().collect();
    tools.sort();
    let run = EventType::CommandRun;
    assert_eq!(tools, [("toolu_01AAA", Status::Unset, run), ("toolu_01AAA", Status::Ok, run)]);
    let keys: BTreeSet<_> = events.iter().map(|event| event.dedup_key).collect();
    assert_eq!(keys.len(), events.len() - 2);
    assert!(events.iter().all(|event| event.usage_role == UsageRole::None && event.channel == Channel::Hook));
}

/// The rows of an answer state what was known when it began, and a sub-agent's are missing; the totals state it all.
#[test]
fn a_printed_stream_counts_by_its_totals_and_never_by_its_rows() {
    let (turns, resumed) = (events(&fixture(PRINTED)), events(&fixture(RESUMED)));
    let totals = |events: &[AgentEvent]| -> Vec<(String, [u64; 4], i64)> {
        assert!(events.iter().all(|event| event.usage_role != UsageRole::Call));
        let totals = events.iter().filter(|event| event.usage_role == UsageRole::Cumulative);
        let buckets = |e: &AgentEvent| [e.in_uncached, e.out_visible, e.cache_read, e.cache_write_5m];
        totals.map(|e| (e.llm_call_key.clone(), buckets(e), e.cost_reported.unwrap().0)).collect()
    };
    let process = "8d509b9e-";
    let [first, second] = &totals(&turns)[..] else { panic!("a total for each turn") };
    assert!(first.0.starts_with(process) && first.0 == second.0, "one series: {first:?} {second:?}");
    assert_eq!((first.1, first.2), ([105, 85, 20_000, 1_500], 15_465_000));
    assert_eq!((second.1, second.2), ([126, 102, 24_000, 1_800], 18_558_000));
    let [other] = &totals(&resumed)[..] else { panic!("one total") };
    assert!(other.0 != first.0 && other.1 == [21, 17, 4_000, 300], "a process of its own: {other:?}");
    assert_eq!(turns[0].session_id, resumed[0].session_id);

    let ends: Vec<_> = turns.iter().filter(|event| event.event_type == EventType::SessionEnd).collect();
    assert!(ends.len() == 2 && ends.iter().all(|end| end.usage_role == UsageRole::Rollup));
    let mut contents = turns.iter().filter(|event| event.event_type == EventType::LlmResponse);
    assert!(contents.all(|event| event.llm_call_key.is_empty() && event.request_id.starts_with("req_")));
}

fn one(line: &str) -> Vec<AgentEvent> {
    events(line.as_bytes())
}

#[test]
fn rows_of_qwen_code_are_not_taken_for_claudes() {
    for row in [
        r#"{"type":"assistant","session_id":"s","message":{"id":"m","role":"assistant","content":[],"usage":{"input_tokens":121,"output_tokens":33,"cache_read_input_tokens":100,"total_tokens":154}}}"#,
        r#"{"type":"system","subtype":"init","session_id":"s","qwen_code_version":"0.15.10"}"#,
        r#"{"type":"result","session_id":"s","usage":{"input_tokens":1261,"output_tokens":67,"total_tokens":1328}}"#,
        r#"{"type":"assistant","sessionId":"s","uuid":"u","message":{"role":"model","parts":[{"text":"a"}]},"usageMetadata":{"promptTokenCount":121}}"#,
        r#"{"type":"system","sessionId":"s","uuid":"u","subtype":"ui_telemetry","systemPayload":{"uiEvent":{}}}"#,
    ] {
        let events = one(row);
        assert!(!events.is_empty());
        for event in events {
            assert!(event.source_format.starts_with("qwen."), "{row}: {}", event.source_format);
            assert_eq!((event.source.as_str(), event.unknown_reason.as_str()), ("qwen-code", ""), "{row}");
        }
    }
}

#[test]
fn old_rows_without_a_type_state_usage_and_cost() {
    let row = r#"{"timestamp":"2025-01-01T00:00:00.000Z","version":"1.0.0","message":{"usage":{"input_tokens":100,"output_tokens":50,"cache_creation_input_tokens":25,"cache_read_input_tokens":10}},"costUSD":0.12,"requestId":"req-1"}"#;
    let events = one(row);
    let [call] = &events[..] else { panic!("one event: {events:?}") };
    assert_eq!((call.event_type, call.llm_call_key.as_str()), (EventType::LlmRequest, "req-1"));
    assert_eq!([call.in_uncached, call.out_visible, call.cache_write_5m, call.cache_read], [100, 50, 25, 10]);
    assert_eq!(call.cost_reported.unwrap().0, 120_000_000);
}

#[test]
fn what_was_written_to_caches_is_parted_by_lifetime_and_the_rest_is_short() {
    let row = |split: &str| {
        format!(
            r#"{{"type":"assistant","sessionId":"s","uuid":"u","requestId":"r","message":{{"id":"m","model":"x","content":[],"usage":{{"input_tokens":1,"cache_creation_input_tokens":300,"cache_creation":{split}}}}}}}"#
        )
    };
    for (split, expected) in [
        (r#"{"ephemeral_5m_input_tokens":100,"ephemeral_1h_input_tokens":200}"#, (100, 200)),
        (r#"{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":200}"#, (100, 200)),
        (r#"{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0}"#, (300, 0)),
        ("null", (300, 0)),
    ] {
        let events = one(&row(split));
        assert_eq!((events[0].cache_write_5m, events[0].cache_write_1h), expected, "{split}");
    }
}

#[test]
fn what_the_program_writes_itself_is_no_call() {
    let line = |more: &str, model: &str| {
        format!(
            r#"{{"type":"assistant","sessionId":"s","uuid":"u","requestId":"r",{more}"message":{{"id":"m","model":"{model}","content":[{{"type":"text","text":"API Error: 529"}}],"usage":{{"input_tokens":0,"output_tokens":0}}}}}}"#
        )
    };
    let failed = one(&line(r#""isApiErrorMessage":true,"error":"overloaded","#, "<synthetic>"));
    assert_eq!((failed[0].event_type, failed[0].error_type.as_str()), (EventType::Error, "overloaded"));
    assert_eq!((failed[0].status, failed[0].error_message.as_str()), (Status::Error, "API Error: 529"));
    assert_eq!(one(&line("", "<synthetic>"))[0].event_type, EventType::Log);
    let copied = one(&line(r#""forkedFrom":{"sessionId":"other","messageUuid":"u"},"#, "claude"));
    assert_eq!((copied[0].event_type, copied[0].usage_role), (EventType::Log, UsageRole::None));
}

#[test]
fn lines_that_no_user_wrote_are_no_prompts() {
    let line = |more: &str, content: &str| {
        format!(
            r#"{{"type":"user","sessionId":"s","uuid":"u",{more}"message":{{"role":"user","content":"{content}"}}}}"#
        )
    };
    let of = |more: &str, content: &str| one(&line(more, content))[0].event_type;
    assert_eq!(of("", "do it"), EventType::UserPrompt);
    assert_eq!(of("", "<command-name>/clear</command-name>"), EventType::UserPrompt);
    assert_eq!(of(r#""isMeta":true,"#, "Caveat"), EventType::Log);
    assert_eq!(of("", "<local-command-stdout>x</local-command-stdout>"), EventType::Log);
    assert_eq!(of(r#""isCompactSummary":true,"#, "This session is continued"), EventType::AgentCompaction);
    assert_eq!(of(r#""isSidechain":true,"agentId":"a","parentUuid":null,"#, "job"), EventType::AgentStart);
    let boundary = r#"{"type":"system","subtype":"compact_boundary","sessionId":"s","uuid":"u","compactMetadata":{"trigger":"auto","preTokens":9}}"#;
    assert_eq!(one(boundary)[0].event_type, EventType::AgentCompaction);
}

#[test]
fn several_results_in_one_line_are_several_tool_calls() {
    let line = r#"{"type":"user","sessionId":"s","uuid":"u","toolUseResult":"Error: x","message":{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":"ok"},{"type":"tool_result","tool_use_id":"b","is_error":true,"content":[{"type":"text","text":"Exit code 2\nno"}]},{"type":"tool_result","tool_use_id":"c","is_error":true,"content":"The user doesn't want to proceed with this tool use."}]}}"#;
    let events = one(line);
    let seen: Vec<_> = events.iter().map(|e| (e.tool_call_id.as_str(), e.status, e.exit_code)).collect();
    assert_eq!(seen, [("a", Status::Ok, None), ("b", Status::Error, Some(2)), ("c", Status::Denied, None)]);
    let keys: BTreeSet<_> = events.iter().map(|event| event.dedup_key).collect();
    assert_eq!(keys.len(), 3);
}

#[test]
fn transcripts_of_other_projects_are_understood() {
    let Some(folder) = samples().map(|samples| samples.join("claude-code-transcripts")) else {
        println!("skipped: no samples; FLEETLOG_SAMPLES names their folder");
        return;
    };
    let read = |name: &str| events(&std::fs::read(folder.join(name)).unwrap());
    let count =
        |events: &[AgentEvent], kind: EventType| events.iter().filter(|e| e.event_type == kind).count();

    let old = read("session-alpha__chat.jsonl");
    let calls = calls(&old);
    assert_eq!((calls.len(), calls.values().map(|call| call.in_uncached).sum::<u64>()), (3, 600));
    assert_eq!(
        calls.values().filter_map(|call| call.cost_reported).map(|cost| cost.0).sum::<i64>(),
        1_020_000_000
    );

    let bare = read("sample_session.jsonl");
    assert_eq!((count(&bare, EventType::UserPrompt), count(&bare, EventType::LlmRequest)), (2, 0));
    assert_eq!(bare.iter().filter(|event| event.event_type.is_tool()).count(), 4);

    let representative = read("test_data__representative_messages.jsonl");
    assert_eq!(count(&representative, EventType::UserPrompt), 4);
    assert_eq!(count(&representative, EventType::LlmRequest), 5);
    assert_eq!(count(&representative, EventType::RawUnknown), 0);

    // Malformed on purpose: each bad line is kept whole and costs no other.
    let edges = read("test_data__edge_cases.jsonl");
    assert_eq!(count(&edges, EventType::RawUnknown), 7);
    assert!(edges.iter().all(|event| !event.session_id.is_empty() || event.name == "summary"));
}

fn samples() -> Option<PathBuf> {
    let sibling = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/formats/samples");
    let named = std::env::var_os("FLEETLOG_SAMPLES").map(PathBuf::from);
    named.or(Some(sibling)).filter(|folder| folder.is_dir())
}

#[test]
fn nothing_of_a_session_is_only_context() {
    for name in [SESSION, SUBAGENT, HOOKS] {
        let decoded = decode(&raw(&fixture(name), None)).unwrap();
        assert!(!decoded.eventless.iter().any(|eventless| eventless.fate == Fate::Context), "{name}");
    }
}
