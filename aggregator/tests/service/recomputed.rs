//! What is derived is compared, mended, repriced, and kept when its events have expired.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn rederiving_finds_what_is_wrong_and_makes_it_right_beside_a_running_aggregator() {
    let Some(mut system) = system().await else { return };
    let of_session =
        |session: &str| (0..8).map(|n| call(session, n, Channel::AgentLog, 21)).collect::<Vec<_>>();
    let one = of_session("one");
    let minute = minute_of(one[0].timestamp);
    system.publish(topic::EVENTS, 0, &batch([one, of_session("two"), of_session("")].concat())).await;
    system.becomes("llm_calls", 24).await;
    system.derived().await;
    let report = system.rederived(true).await;
    assert!(report.agrees() && report.waiting == 0, "{report:?}");
    let groups = report.groups;
    assert!((3..=4).contains(&groups), "two sessions, one or two loose minutes: {report:?}");

    // A version that no facts say: a session without its calls, that contributes to a minute of its own.
    let usage = vec![UsageRow { calls: 5, in_uncached: 500, ..UsageRow::default() }];
    let wrong = DerivedGroup {
        key: GroupKey { project_id: PROJECT.to_owned(), kind: GroupKind::Session, id: "two".to_owned() },
        session: Session {
            first_received_at: Clock::system().now_ns(),
            last_received_at: Clock::system().now_ns(),
            event_count: 1,
            ..Session::default()
        },
        calls: Vec::new(),
        tools: Vec::new(),
        contributions: vec![Contribution { minute: minute - 600, usage }],
        traces: Vec::new(),
    };
    let version = system.store.next_version().await.unwrap();
    system.store.write_groups(&[wrong], version).await.unwrap();
    system.becomes("llm_calls", 16).await;
    for _ in 0..2 {
        let report = system.rederived(true).await;
        let tables: Vec<_> = report.by_table.iter().map(|(table, n)| (*table, *n)).collect();
        let expected = [("session_groups", 1), ("usage_1m_groups", 1), ("usage_contributions", 1)];
        assert_eq!((report.groups, report.differing, tables.as_slice()), (groups, 1, &expected[..]));
        assert!(report.examples.iter().any(|example| example.contains("calls.call_key")), "{report:?}");
    }

    // Facts that arrive meanwhile are no difference, and nothing that is written hides them.
    let done = AtomicBool::new(false);
    let mended = async {
        let mended = system.rederived(false).await;
        let checked = system.rederived(true).await;
        done.store(true, Ordering::Relaxed);
        (mended, checked)
    };
    let busy = async {
        let mut number = 100;
        while !done.load(Ordering::Relaxed) {
            system.publish(topic::EVENTS, 1, &batch(vec![call("one", number, Channel::AgentLog, 21)])).await;
            number += 1;
        }
        number
    };
    let ((mended, checked), number) = tokio::join!(mended, busy);
    assert!(mended.by_table.contains_key("session_groups"), "{mended:?}");
    assert!(checked.agrees(), "{checked:?}");
    let calls = 24 + u64::from(number - 100);
    system.becomes("llm_calls", calls).await;
    system.derived().await;
    system.becomes(&format!("(SELECT sum(calls) AS c FROM usage_1m) WHERE c = {calls}"), 1).await;
    system.becomes(&format!("(SELECT sum(calls) AS c FROM usage_1h) WHERE c = {calls}"), 1).await;
    let report = system.rederived(true).await;
    assert!(report.agrees() && report.waiting == 0 && report.groups >= groups, "{report:?}");
    system.stop().await;
}

/// Design, retention: calls, tool calls, sessions and rollups outlive events.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_derived_outlives_its_events_and_counts_once() {
    const DAY: i64 = 86_400_000_000_000;
    let Some(mut system) = system().await else { return };
    let yesterday = |event: AgentEvent| AgentEvent {
        timestamp: *SPANS_BEGIN - DAY,
        received_at: event.received_at - DAY,
        timestamp_source: TimestampSource::Event,
        trace_id: "t".to_owned(),
        ..event
    };
    let mut old: Vec<_> = (0..4).map(|n| yesterday(call("s", n, Channel::AgentLog, 21))).collect();
    old.push(AgentEvent {
        event_type: EventType::CommandRun,
        usage_role: UsageRole::None,
        tool_call_id: "tool".to_owned(),
        tool_name: "Bash".to_owned(),
        llm_call_key: String::new(),
        cost_reported: None,
        ..yesterday(call("s", 4, Channel::AgentLog, 0))
    });
    let day = old[0].received_at / 1_000_000_000;
    // Of one of its calls something was received today as well.
    let both = AgentEvent { trace_id: "t".to_owned(), ..call("s", 3, Channel::Span, 22) };
    let timed =
        AgentEvent { timestamp_source: TimestampSource::Event, ..call("s", 10, Channel::AgentLog, 21) };
    let sent = [old, vec![both, timed]].concat();
    system.publish(topic::EVENTS, 0, &batch(sent)).await;
    // What is the session's through its trace, what stands for itself, and what belongs to nothing.
    let homeless =
        |number: u32| AgentEvent { trace_id: "u".to_owned(), ..call("", number, Channel::Span, 9) };
    let adopted = yesterday(call("", 20, Channel::Span, 5));
    let alone = AgentEvent { trace_id: "u".to_owned(), ..yesterday(homeless(40)) };
    let loose = call("", 21, Channel::AgentLog, 21);
    system.publish(topic::EVENTS, 1, &batch(vec![adopted, alone, loose])).await;
    system.becomes("llm_calls", 8).await;
    system.derived().await;
    let session = |calls: u64, tokens: u64, events: u64| {
        format!(
            "sessions WHERE session_id = 's' AND llm_call_count = {calls} AND in_uncached = {tokens} \
             AND tool_call_count = 1 AND event_count = {events} AND duration_ms > 86000000"
        )
    };
    system.becomes(&session(6, 110, 8), 1).await;

    let events = "ALTER TABLE fleetlog.events DROP PARTITION";
    system.operator(&format!("{events} tuple(toDate(toDateTime({day}, 'UTC'), 'UTC'))")).await;
    system.becomes("events", 3).await;
    // Nothing has been derived since, and what is stored is all that is known.
    let report = system.rederived(true).await;
    assert!(report.agrees() && report.expired > 0, "{report:?}");

    for round in 0..2 {
        // A later sighting of an old call, and a new call; then the same for a process that remembers nothing.
        let late = AgentEvent {
            timestamp: *SPANS_BEGIN - DAY,
            trace_id: "t".to_owned(),
            ..call("s", round, Channel::Transcript, 900)
        };
        let new = call("s", 30 + round, Channel::AgentLog, 21);
        system.publish(topic::EVENTS, 0, &batch(vec![late, new, homeless(50 + round)])).await;
        let more = u64::from(round) + 1;
        system.becomes(&session(6 + more, 110 + 21 * more, 8 + 2 * more), 1).await;
        let calls = 8 + 2 * more;
        system.becomes("llm_calls", calls).await;
        system.becomes("llm_calls WHERE channels = 'agent_log,span' AND in_uncached = 21", 1).await;
        system.becomes("tool_calls", 1).await;
        system.derived().await;
        let tokens = 110 + 21 * more + 9 * (1 + more) + 21;
        for usage in ["usage_1m", "usage_1h"] {
            let sums = format!("(SELECT sum(calls) AS c, sum(in_uncached) AS i FROM {usage})");
            system.becomes(&format!("{sums} WHERE c = {calls} AND i = {tokens}"), 1).await;
        }
        let trace = format!(
            "traces WHERE trace_id = 't' AND llm_call_count = 5 AND tool_call_count = 1 AND event_count = {}",
            7 + more
        );
        system.becomes(&trace, 1).await;
        let trace =
            format!("traces WHERE trace_id = 'u' AND llm_call_count = {0} AND event_count = {0}", 1 + more);
        system.becomes(&trace, 1).await;
        let report = system.rederived(true).await;
        assert!(report.agrees() && report.waiting == 0 && report.expired > 0, "{report:?}");
        system.running.abort_all();
        while system.running.join_next().await.is_some() {}
        system.start();
    }
    let report = system.rederived(false).await;
    assert!(report.agrees(), "nothing to mend: {report:?}");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repricing_changes_what_calls_cost_and_nothing_undoes_it() {
    let Some(mut system) = system().await else { return };
    let priced = |session: &str, number: u32| AgentEvent {
        model: "gpt-5".to_owned(),
        cost_computed: Some(NanoUsd(7_000)),
        price_version: "then".to_owned(),
        ..call(session, number, Channel::AgentLog, 100_000)
    };
    let other = AgentEvent { model: "o3".to_owned(), ..priced("one", 9) };
    let first = priced("one", 0);
    let start = first.timestamp - 600_000_000_000;
    system.publish(topic::EVENTS, 0, &batch(vec![first, priced("one", 1), other])).await;
    system.becomes("llm_calls WHERE price_version = 'then' AND cost_computed = 0.000007", 3).await;
    system.derived().await;

    let sheet = "version=\"contract\"\nsource=\"\"\nlicence=\"\"\n[[price]]\nmodel=\"gpt-5\"\ninput=1.0\noutput=0.0\n";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), sheet).unwrap();
    let mut config = system.config.clone();
    config.prices.file = file.path().to_owned();
    let which = Repricings {
        project_id: PROJECT.to_owned(),
        model: "gpt-*".to_owned(),
        from: start,
        until: start + 3_600_000_000_000,
    };
    let report = reprice(&config, &which, |_| ()).await.unwrap();
    assert_eq!((report.differing, report.by_table["session_groups"]), (1, 1), "{report:?}");
    let new = "llm_calls WHERE price_version = 'contract' AND cost_computed = 0.1";
    assert_eq!(system.count(new).await, Some(2));
    assert_eq!(system.count("llm_calls WHERE price_version = 'then'").await, Some(1));
    let sums = "(SELECT sum(cost_computed) AS c FROM usage_1m) WHERE c = 0.200007";
    assert_eq!(system.count(sums).await, Some(1));
    // The facts stay as they are.
    assert_eq!(system.count("events WHERE cost_computed = 0.000007").await, Some(3));

    // The running aggregator has another table, and derives the same; a call that arrives late costs the same too.
    system.publish(topic::EVENTS, 1, &batch(vec![priced("one", 2), priced("two", 3)])).await;
    system.becomes(new, 4).await;
    system.becomes("sessions WHERE session_id = 'one' AND cost_computed = 0.300007", 1).await;
    system.derived().await;
    let later = AgentEvent { timestamp: start + 3_600_000_000_000, ..priced("one", 4) };
    system.publish(topic::EVENTS, 1, &batch(vec![later])).await;
    system.becomes("llm_calls WHERE price_version = 'then'", 2).await;
    system.derived().await;
    let report = system.rederived(true).await;
    assert!(report.agrees() && report.waiting == 0, "{report:?}");
    system.stop().await;
}
