//! Facts are stored, and what is derived follows them.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn facts_are_stored_and_calls_counted_once_however_often_they_are_reported() {
    let Some(mut system) = system().await else { return };
    let logs: Vec<_> = (0..8).map(|n| call("s", n, Channel::AgentLog, 21)).collect();
    let spans: Vec<_> = (0..8).map(|n| call("s", n, Channel::Span, 22)).collect();
    system.publish(topic::EVENTS, 0, &batch(spans.clone())).await;
    system.becomes("llm_calls WHERE in_uncached = 22", 8).await;
    // The better channel comes later, through another partition, and takes over.
    system.publish(topic::EVENTS, 1, &batch(logs.clone())).await;
    system.becomes("llm_calls WHERE in_uncached = 21 AND channel = 'agent_log' AND sightings = 2", 8).await;
    // A record that does not decode stops nothing.
    system.publish_bytes(topic::EVENTS, 0, b"not avro").await;
    let letter = DeadLetter {
        project_id: PROJECT.to_owned(),
        reason: DeadReason::Undecodable,
        failed_at: logs[0].received_at,
        received_at: logs[0].received_at,
        ..DeadLetter::default()
    };
    system.publish(topic::DEAD, 0, &letter).await;
    // The same again: counted as duplicates, and not stored (INV-5).
    system.publish(topic::EVENTS, 0, &batch(logs)).await;
    system.publish(topic::EVENTS, 1, &batch(spans)).await;
    system.becomes("(SELECT sum(duplicate) AS d FROM piece_settlements) WHERE d = 16", 1).await;
    system.becomes("events", 16).await;
    system.derived().await;
    let session = "sessions WHERE llm_call_count = 8 AND event_count = 16 AND in_uncached = 168 \
         AND cost_reported = 0.021144 AND models = ['m']";
    system.becomes(session, 1).await;
    system
        .becomes(
            "(SELECT sum(calls) AS c, sum(cost_reported) AS r FROM usage_1m) WHERE c = 8 AND r = 0.021144",
            1,
        )
        .await;
    system
        .becomes("(SELECT sum(calls) AS c, sum(in_uncached) AS i FROM usage_1h) WHERE c = 8 AND i = 168", 1)
        .await;
    system.becomes("settlements", 4).await;
    system.becomes("piece_settlements WHERE stored > 0 AND duplicate = 0", 2 * 8).await;
    system.becomes("dead_letters", 1).await;
    system.stop().await;
}

/// INV-7: whoever waits for the derivations does not wait for an event that they do not need.
#[tokio::test(flavor = "multi_thread")]
async fn what_touches_no_group_is_reflected_as_soon_as_it_is_stored() {
    let Some(mut system) = system().await else { return };
    let alone = AgentEvent {
        event_type: EventType::Log,
        session_id: String::new(),
        usage_role: UsageRole::None,
        llm_call_key: String::new(),
        ..call("", 0, Channel::Api, 0)
    };
    system.publish(topic::EVENTS, 0, &batch(vec![alone])).await;
    system.becomes("events", 1).await;
    system.derived().await;
    system.stop().await;
}

/// A server refuses a parameter above 128 KiB, and the names of these traces are more.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_very_many_traces_is_derived() {
    const TRACES: u32 = 10_000;
    let Some(mut system) = system().await else { return };
    let trace = |number: u32| format!("{number:032x}");
    // The session names each trace once, and one more call of each finds its session through it alone.
    let naming = (0..TRACES).map(|n| span(&trace(n), "s", n, 1)).collect();
    let unnamed = (0..TRACES).map(|n| span(&trace(n), "", TRACES + n, 70)).collect();
    system.publish(topic::EVENTS, 0, &batch(naming)).await;
    system.publish(topic::EVENTS, 1, &batch(unnamed)).await;
    system.becomes("events", 2 * u64::from(TRACES)).await;
    system.becomes("sessions WHERE session_id = 's' AND llm_call_count = 20000", 1).await;
    system.derived().await;
    system.becomes("(SELECT sum(calls) AS c FROM usage_1h) WHERE c = 20000", 1).await;
    system.becomes("traces WHERE session_id = 's' AND llm_call_count = 2", u64::from(TRACES)).await;
    system.stop().await;
}

/// A group that does not fit into memory ends no aggregator: it is set aside, and its project says that it is behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_too_large_holds_back_its_own_project_and_is_derived_once_it_is_allowed() {
    const OTHER: &str = "q";
    let Some(mut system) = system().await else { return };
    system.stop().await;
    system.config.aggregator.derive_max_group_sightings = 20;
    system.start();
    let of_other = |event: AgentEvent| AgentEvent { project_id: OTHER.to_owned(), ..event };
    let large: Vec<_> = (0..21).map(|n| of_other(call("large", n, Channel::Api, 1))).collect();
    let received_at = large[0].received_at;
    system.publish(topic::EVENTS, 0, &batch(large)).await;
    let small = vec![call("s", 30, Channel::Api, 1), of_other(call("small", 31, Channel::Api, 1))];
    system.publish(topic::EVENTS, 0, &batch(small)).await;
    system.becomes("sessions WHERE session_id = 's' AND llm_call_count = 1", 1).await;
    system.derived().await;
    let behind = system.store.derived_through().await.unwrap();
    assert!(behind.of(OTHER) <= received_at, "{behind:?}");
    // The project's other groups are recomputed all the same.
    let store = system.store.clone();
    let derived = |project: &'static str, from: &'static str| {
        let store = store.clone();
        async move {
            let reader = store.reader(ReaderLimits::default()).await.unwrap().project(project).unwrap();
            let rows = reader.query(&format!("SELECT count() AS n FROM {from}")).fetch_all::<Counted>().await;
            rows.unwrap()[0].n
        }
    };
    assert_eq!(derived(OTHER, "sessions WHERE session_id = 'small'").await, 1);
    assert_eq!(derived(OTHER, "sessions WHERE session_id = 'large'").await, 0);
    // Who looks for differences is told of it.
    let report = system.rederived(true).await;
    assert_eq!((report.waiting, report.agrees()), (1, true), "{report:?}");

    // The next owner knows of it, and those who are not behind do not go back.
    system.stop().await;
    let now = Clock::system().now_ns();
    system.config.aggregator.derive_max_group_sightings = 21;
    assert!(system.store.derived_through().await.unwrap().of(PROJECT) >= now);
    system.start();
    let deadline = Instant::now() + DEADLINE;
    loop {
        let through = system.store.derived_through().await.unwrap();
        assert!(through.of(PROJECT) >= now, "{through:?}");
        if through.of(OTHER) >= now {
            break;
        }
        assert!(Instant::now() < deadline, "{through:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(derived(OTHER, "sessions WHERE session_id = 'large' AND llm_call_count = 21").await, 1);
    assert_eq!(system.rederived(true).await.examples, Vec::<String>::new());
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spans_session_is_found_through_its_trace_whichever_arrives_first() {
    let Some(mut system) = system().await else { return };
    for (trace, session, spans_first) in [("t1", "s1", true), ("t2", "s2", false)] {
        // In another minute than the naming event, which alone stays when the trace changes hands.
        let unnamed: Vec<_> = (10..14).map(|n| span(trace, "", n, 70)).collect();
        let naming = vec![span(trace, session, 5, 1)];
        let (first, then) = if spans_first { (unnamed, naming) } else { (naming, unnamed) };
        let alone = first.len() as u64;
        system.publish(topic::EVENTS, 0, &batch(first)).await;
        system.becomes(&format!("llm_calls WHERE trace_id = '{trace}'"), alone).await;
        system.publish(topic::EVENTS, 1, &batch(then)).await;
        system.becomes(&format!("llm_calls WHERE session_id = '{session}'"), 5).await;
        system.derived().await;
        let calls = format!("llm_calls WHERE trace_id = '{trace}' AND group_kind = 'session'");
        system.becomes(&calls, 5).await;
        system.becomes(&format!("llm_calls WHERE trace_id = '{trace}'"), 5).await;
        let traces = format!(
            "traces WHERE trace_id = '{trace}' AND session_id = '{session}' AND llm_call_count = 5 \
             AND observation_count = 5 AND in_uncached = 35 AND event_count = 5 AND name = 'step 5'"
        );
        system.becomes(&traces, 1).await;
        system.becomes(&format!("sessions WHERE session_id = '{session}' AND event_count = 5"), 1).await;
    }
    system.becomes("sessions", 2).await;
    system.becomes("traces", 2).await;
    let sums = "(SELECT sum(calls) AS c, sum(in_uncached) AS i FROM usage_1m) WHERE c = 10 AND i = 70";
    system.becomes(sums, 1).await;

    // A judgement long after makes the trace no longer.
    let judged = AgentEvent {
        event_type: EventType::Score,
        llm_call_key: String::new(),
        ..span("t2", "s2", 30, 90_000)
    };
    system.publish(topic::EVENTS, 0, &batch(vec![judged])).await;
    let seconds = "dateDiff('second', started_at, ended_at)";
    system.becomes(&format!("traces WHERE trace_id = 't2' AND score_count = 1 AND {seconds} < 100"), 1).await;

    // An earlier event names another session: the trace's events are that one's.
    let mut earlier = span("t1", "s0", 1, 0);
    earlier.timestamp -= 1_000_000_000;
    system.publish(topic::EVENTS, 0, &batch(vec![earlier])).await;
    system.becomes("sessions WHERE session_id = 's0' AND llm_call_count = 5", 1).await;
    system.becomes("sessions WHERE session_id = 's1' AND llm_call_count = 1", 1).await;
    let trace =
        "traces WHERE trace_id = 't1' AND session_id = 's0' AND llm_call_count = 6 AND event_count = 6";
    system.becomes(trace, 1).await;
    system.becomes("llm_calls", 11).await;
    system.becomes("(SELECT sum(calls) AS c FROM usage_1h) WHERE c = 11", 1).await;

    // Nothing of it is kept in memory alone: a new process comes to the same.
    system.running.abort_all();
    while system.running.join_next().await.is_some() {}
    system.publish(topic::EVENTS, 1, &batch(vec![span("t1", "", 20, 3)])).await;
    system.start();
    system.becomes("sessions WHERE session_id = 's0' AND llm_call_count = 6", 1).await;
    system.becomes("llm_calls WHERE group_kind = 'session'", 12).await;
    system.derived().await;
    system.becomes("llm_calls", 12).await;
    let report = system.rederived(true).await;
    assert!(report.agrees() && report.waiting == 0 && report.groups == 5, "{report:?}");
    system.stop().await;
}
