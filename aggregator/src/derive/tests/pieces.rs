//! Things reported in pieces or again, and names that stand for one call.

use fleetlog_store::derived::Sighting;

use super::{SECOND, call_of, calls, sighting, tools};

fn piece(n: u32, revision: i64) -> Sighting {
    Sighting {
        llm_call_key: "generation".to_owned(),
        channel: "api".to_owned(),
        revision,
        status: "unset".to_owned(),
        ..sighting(n, "api", "llm.request")
    }
}

#[test]
fn pieces_merge_field_by_field_whichever_comes_first() {
    let mut create = piece(5, 10);
    create.model = "gpt-5".to_owned();
    create.agent_name = "planner".to_owned();
    let mut update = piece(2, 20);
    update.model = "gpt-5-mini".to_owned();
    update.end_timestamp = Some(update.timestamp + SECOND);
    update.status = "error".to_owned();
    let mut usage = piece(9, 15);
    (usage.in_uncached, usage.out_visible) = (7, 3);
    usage.usage_role = "call".to_owned();
    usage.token_basis = "disjoint".to_owned();
    usage.cost_reported = Some(12);
    for pieces in [[&create, &update, &usage], [&usage, &create, &update], [&update, &usage, &create]] {
        let found = calls(&pieces.map(Clone::clone));
        assert_eq!(found.len(), 1);
        let call = &found[0];
        assert_eq!((call.model.as_str(), call.agent_name.as_str()), ("gpt-5-mini", "planner"));
        assert_eq!((call.in_uncached, call.out_visible, call.cost_reported), (7, 3, Some(12)));
        assert_eq!((call.status, call.token_basis.as_str()), ("error", "disjoint"));
        assert_eq!((call.timestamp, call.end_timestamp), (update.timestamp, update.end_timestamp));
        assert_eq!((call.event_id.as_str(), call.sightings), ("e9", 3));
        assert_eq!(call.event_ids, ["e2", "e5", "e9"]);
    }
}

#[test]
fn a_later_piece_replaces_the_token_counts_whole() {
    let counts = |n: u32, revision: i64, input: u64, cached: u64| Sighting {
        usage_role: "call".to_owned(),
        in_uncached: input,
        cache_read: cached,
        ..piece(n, revision)
    };
    let found = calls(&[counts(1, 1, 100, 50), counts(2, 2, 30, 0), counts(3, 3, 0, 0)]);
    assert_eq!((found[0].in_uncached, found[0].cache_read), (30, 0));
}

#[test]
fn pieces_of_a_tool_call_merge_by_its_id() {
    let of = |n: u32, revision: i64| Sighting {
        tool_call_id: "call_1".to_owned(),
        revision,
        ..sighting(n, "transcript", "tool.call")
    };
    let mut begun = of(1, 1);
    begun.tool_name = "shell".to_owned();
    begun.status = "unset".to_owned();
    begun.event_type = "command.run".to_owned();
    let mut ended = of(2, 2);
    ended.exit_code = Some(3);
    ended.status = "error".to_owned();
    let found = tools(&[ended, begun]);
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].tool_name.as_str(), found[0].exit_code, found[0].status, found[0].event_type),
        ("shell", Some(3), "error", "command.run")
    );
}

fn line(n: u32, request: &str, message: &str, agent: &str) -> Sighting {
    Sighting {
        source: "claude-code".to_owned(),
        span_id: message.to_owned(),
        agent_id: agent.to_owned(),
        request_id: request.to_owned(),
        ..call_of(n, "transcript", request, 21)
    }
}

#[test]
fn a_message_that_a_sub_agents_file_repeats_is_counted_once() {
    let log = Sighting { request_id: "req_1".to_owned(), ..call_of(9, "agent_log", "req_1", 21) };
    let parent = line(5, "req_1", "msg_1", "");
    let repeated = line(2, "req_77", "msg_1", "sub");
    let own = line(6, "req_2", "msg_2", "sub");
    let found = calls(&[repeated.clone(), own, log.clone(), parent.clone()]);
    let keys: Vec<_> = found.iter().map(|call| (call.call_key.as_str(), call.sightings)).collect();
    assert_eq!(keys, [("req_2", 1), ("req_1", 3)]);
    // The request that the repetition names is somebody's own.
    let other = Sighting { request_id: "req_77".to_owned(), ..call_of(10, "agent_log", "req_77", 5) };
    assert_eq!(calls(&[repeated, log, parent, other]).len(), 2);
}

fn answered(n: u32, channel: &str, key: &str, trace: &str, answer: &str) -> Sighting {
    Sighting { trace_id: trace.to_owned(), request_id: answer.to_owned(), ..call_of(n, channel, key, 5) }
}

#[test]
fn an_answers_id_joins_channels_while_it_names_one_call_in_each() {
    let span = answered(1, "span", "t:s1", "t", "chatcmpl-1");
    let sdk = answered(2, "api", "run-1", "t", "chatcmpl-1");
    let log = answered(3, "agent_log", "chatcmpl-1", "", "");
    let found = calls(&[span.clone(), sdk.clone(), log]);
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].call_key.as_str(), found[0].channels.as_str()),
        ("chatcmpl-1", "agent_log,span,api")
    );
    // A provider that answers with a constant: the id says nothing.
    let second = answered(4, "span", "t:s2", "t", "chatcmpl-1");
    assert_eq!(calls(&[span.clone(), second, sdk.clone()]).len(), 3);
    // Another trace's call is another call.
    let elsewhere = answered(5, "api", "run-2", "u", "chatcmpl-1");
    assert_eq!(calls(&[span, elsewhere]).len(), 2);
}

#[test]
fn a_piece_that_does_not_say_of_what_adds_to_what_the_others_make_of_it() {
    let mut update = Sighting {
        llm_call_key: "generation".to_owned(),
        tool_call_id: "generation".to_owned(),
        revision: 20,
        status: "error".to_owned(),
        ..sighting(2, "api", "span")
    };
    update.end_timestamp = Some(update.timestamp + SECOND);
    let mut begun = piece(1, 10);
    let found = calls(&[update.clone(), begun.clone()]);
    assert_eq!((found.len(), found[0].status, found[0].end_timestamp), (1, "error", update.end_timestamp));
    assert!(tools(&[update.clone(), begun.clone()]).is_empty());
    begun.tool_call_id = std::mem::take(&mut begun.llm_call_key);
    begun.event_type = "tool.call".to_owned();
    let found = tools(&[update.clone(), begun.clone()]);
    assert_eq!((found.len(), found[0].status), (1, "error"));
    assert!(calls(&[update.clone(), begun]).is_empty());
    assert!(calls(&[update.clone()]).is_empty() && tools(&[update]).is_empty());
}
