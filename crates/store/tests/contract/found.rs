//! The facts of a group are found, and merged.

use std::collections::BTreeSet;

use fleetlog_schemas::event::{Channel, Status, TimestampSource, UsageRole};
use fleetlog_schemas::id::{Key128, NanoUsd};
use fleetlog_schemas::{AgentEvent, EventType};
use fleetlog_store::GroupKind;
use fleetlog_store::derived::{
    Adopted, GroupFilter, GroupHour, GroupKey, Progress, Reflected, UnderivedGroup, hour_of, loose_id_of,
    minute_of,
};

use crate::support::{NOON, at, attempt, engine, full_event, range};
use crate::{count, key, operator};

#[tokio::test(flavor = "multi_thread")]
async fn observations_and_scores_are_merged_from_their_pieces() {
    let Some(engine) = engine().await else { return };
    engine.store.migrate().await.unwrap();
    let store = &engine.store;
    let piece = |number: u32, revision: i64| AgentEvent {
        channel: Channel::Api,
        trace_id: "t".to_owned(),
        span_id: "o".to_owned(),
        revision,
        timestamp: NOON + i64::from(number),
        end_timestamp: None,
        duration_ms: None,
        usage_role: UsageRole::None,
        ..full_event("p", "", number)
    };
    let created = AgentEvent { name: "draft".to_owned(), model: "gpt-5".to_owned(), ..piece(1, 1) };
    let ended = AgentEvent {
        name: "answer".to_owned(),
        status: Status::Ok,
        usage_role: UsageRole::Call,
        in_uncached: 7,
        end_timestamp: Some(NOON + 2_000_000_001),
        ..piece(9, 3)
    };
    let between = AgentEvent { name: "name".to_owned(), cost_reported: Some(NanoUsd(5)), ..piece(5, 2) };
    let score = |number: u32, revision: i64, data: &str| AgentEvent {
        event_type: EventType::Score,
        name: "quality".to_owned(),
        event_id: "score".to_owned(),
        dedup_key: Key128::of([format!("score{number}").as_bytes()]),
        data: data.to_owned(),
        ..piece(number, revision)
    };
    let root = AgentEvent { span_id: "root".to_owned(), event_type: EventType::Span, ..piece(20, 0) };
    let events = [
        ended,
        created,
        score(30, 2, r#"{"id":"e2","body":{"id":"j","value":0.75,"dataType":"NUMERIC","comment":"good"}}"#),
        score(31, 1, r#"{"id":"j","value":true}"#),
        score(32, 1, r#"{"key":"tone","score":"kind \"x\""}"#),
        between,
        root,
    ];
    for offset in [3, 4] {
        let attempt = attempt(store, 1).await;
        store.insert_events(&range(offset, offset), &attempt, at(offset, &events)).await.unwrap();
    }
    assert_eq!(count(store, "p", "observations").await, 2);
    let merged = "observations WHERE trace_id = 't' AND observation_id = 'o' AND name = 'answer' AND model = 'gpt-5' \
         AND in_uncached = 7 AND status = 'ok' AND pieces = 3 AND score_count = 3 AND duration_ms = 2000 \
         AND cost_reported = 0.002643 AND usage_role = 'call' AND event_id = 'p--9'";
    assert_eq!(count(store, "p", merged).await, 1);
    let score = "scores WHERE trace_id = 't' AND name = 'quality' AND value = 0.75 AND data_type = 'NUMERIC' \
         AND comment = 'good' AND text = '0.75' AND score_id = 'j'";
    assert_eq!((count(store, "p", "scores").await, count(store, "p", score).await), (2, 1));
    assert_eq!(
        count(store, "p", "scores WHERE score_id = 'score' AND text = 'kind \"x\"' AND value IS NULL").await,
        1
    );
}

/// Events as the decoders make them of what real clients send.
#[tokio::test(flavor = "multi_thread")]
async fn scores_are_told_apart_and_corrected_as_their_senders_mean_it() {
    let Some(engine) = engine().await else { return };
    engine.store.migrate().await.unwrap();
    let store = &engine.store;
    let score = |number: u32, format: &str, name: &str, data: &str| AgentEvent {
        event_type: EventType::Score,
        channel: Channel::Api,
        source_format: format.to_owned(),
        event_id: format!("e{number}"),
        dedup_key: Key128::of([format!("score{number}").as_bytes()]),
        trace_id: "t".to_owned(),
        span_id: String::new(),
        name: name.to_owned(),
        data: data.to_owned(),
        revision: i64::from(number),
        timestamp: NOON + i64::from(number),
        ..full_event("p", "", number)
    };
    let of = |event: AgentEvent, id: &str| AgentEvent { event_id: id.to_owned(), ..event };
    let change = |number: u32, id: &str, data: &str| AgentEvent {
        trace_id: String::new(),
        ..of(score(number, "langsmith.feedback", "", data), id)
    };
    let again = r#"{"id":"w","body":{"id":"l","value":"bad","traceId":"t"}}"#;
    let both = r#"{"id":"b","key":"quality","score":0.9,"value":"good","comment":"c"}"#;
    let mut events = vec![
        score(1, "opik.feedback", "fluency", r#"{"id":"t","value":0.5,"reason":"reads well"}"#),
        score(
            2,
            "opik.feedback",
            "relevance",
            r#"{"id":"t","value":0.9,"category_name":"high","reason":"on topic"}"#,
        ),
        score(3, "opik.feedback", "fluency", r#"{"id":"t","value":0.7,"reason":null}"#),
        of(
            score(9, "langsmith.feedback", "upd", r#"{"id":"f","score":0.1,"value":null,"comment":"c"}"#),
            "f",
        ),
        // It came before what it changes, and by a clock that is behind.
        change(4, "f", r#"{"score":0.8,"comment":"better"}"#),
        change(5, "f", r#"{"value":"fine"}"#),
        change(6, "never came", r#"{"score":0.3}"#),
        of(score(7, "langsmith.feedback", "quality", both), "b"),
        score(8, "langfuse.scores", "tone", r#"{"id":"l","value":0.1,"traceId":"t"}"#),
        of(score(10, "langfuse.ingestion", "tone", again), "w"),
    ];
    store.insert_events(&range(3, 3), &attempt(store, 1).await, at(3, &events)).await.unwrap();
    // Order and repetition change nothing.
    events.reverse();
    store.insert_events(&range(4, 4), &attempt(store, 1).await, at(4, &events)).await.unwrap();
    for (number, expected) in [
        "name = 'fluency' AND value = 0.7 AND text = '0.7' AND comment = '' AND score_id = 't/fluency'",
        "name = 'relevance' AND value = 0.9 AND text = 'high' AND comment = 'on topic'",
        "name = 'upd' AND score_id = 'f' AND value = 0.8 AND text = 'fine' AND comment = 'better'",
        "name = 'quality' AND score_id = 'b' AND value = 0.9 AND text = 'good' AND comment = 'c'",
        "name = 'tone' AND score_id = 'l' AND value IS NULL AND text = 'bad'",
    ]
    .iter()
    .enumerate()
    {
        let found = count(store, "p", &format!("scores WHERE trace_id = 't' AND {expected}")).await;
        assert_eq!(found, 1, "{number}: {expected}");
    }
    assert_eq!(count(store, "p", "scores").await, 5);
    let found = "EXPLAIN indexes = 1 SELECT * FROM fleetlog.scores WHERE project_id = 'p' AND trace_id = 't'";
    let plan = operator(&engine.url, found).await;
    assert!(plan.contains("trace_id_filter"), "{plan}");
    // Those that name no trace, by what they judge.
    let found = "EXPLAIN indexes = 1 SELECT * FROM fleetlog.scores WHERE project_id = 'p' AND trace_id = '' \
         AND observation_id IN (SELECT span_id FROM fleetlog.events WHERE project_id = 'p' AND trace_id = 't')";
    let plan = operator(&engine.url, found).await;
    assert!(plan.contains("judged_span"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_traces_events_without_a_session_are_found_with_the_session_that_owns_it() {
    let Some(engine) = engine().await else { return };
    engine.store.migrate().await.unwrap();
    let store = engine.store.clone().validating_rows();
    let of = |session: &str, number: u32, span: &str| AgentEvent {
        trace_id: "t'\\".to_owned(),
        span_id: span.to_owned(),
        channel: Channel::Span,
        name: format!("{session}/{span}"),
        ..full_event("p", session, number)
    };
    // The earliest naming owns: `late` names it later, the same span is reported with and without a session.
    let events = [of("late", 9, "c"), of("s", 3, "a"), of("", 1, "root"), of("", 4, "a"), of("", 5, "b")];
    store.insert_events(&range(7, 7), &attempt(&store, 1).await, at(7, &events)).await.unwrap();
    let hours: Vec<GroupHour> = store
        .underived(0, (-1, i64::MAX), &[], 100)
        .await
        .unwrap()
        .iter()
        .map(UnderivedGroup::group_hour)
        .collect();
    store.add_group_hours(&hours).await.unwrap();
    let filter = store.group_filter(GroupKind::Session, vec![key("s"), key("late")]).await.unwrap();
    let named = store.session_traces(&filter).await.unwrap();
    assert_eq!(named.len(), 2);
    // Any number of times and in any order.
    for trace in named.iter().chain(named.iter().rev()) {
        store.add_trace_sessions(std::slice::from_ref(trace)).await.unwrap();
    }
    let traces = [("p", "t'\\"), ("p", "unknown")];
    let namings = store.trace_namings(&traces).await.unwrap();
    assert_eq!(namings.len(), 1);
    assert_eq!(namings[0].sessions, ["s", "late"]);
    let hours = store.trace_hours(&traces).await.unwrap();
    assert_eq!(hours.len(), 1);
    let adopted = Adopted {
        project_id: "p".to_owned(),
        trace_id: traces[0].1.to_owned(),
        session_id: "s".to_owned(),
        hours: vec![hours[0].hour],
    };
    let filter = GroupFilter { adopted: vec![adopted], ..filter };
    let mut summaries = store.summaries(&filter).await.unwrap();
    summaries.sort_by(|a, b| b.group_id.cmp(&a.group_id));
    let counts: Vec<_> = summaries.iter().map(|s| (s.group_id.as_str(), s.event_count)).collect();
    assert_eq!(counts, [("s", 4), ("late", 1)]);
    let mut shares = store.trace_shares(&filter).await.unwrap();
    shares.sort_by(|a, b| b.group_id.cmp(&a.group_id));
    let counts: Vec<_> = shares
        .iter()
        .map(|s| (s.group_id.as_str(), s.event_count, s.observation_count, s.root_name.as_str()))
        .collect();
    assert_eq!(counts, [("s", 4, 3, "/root"), ("late", 1, 1, "late/c")]);
    let mut sightings = store.sightings(&filter).unwrap();
    let mut groups = Vec::new();
    while let Some(sighting) = sightings.next().await.unwrap() {
        groups.push(sighting.group_id);
    }
    groups.sort();
    assert_eq!(groups, ["late", "s", "s", "s", "s"]);
}

/// Two channels tell of the same prompts, and what has no time of its own came hours after the session.
#[tokio::test(flavor = "multi_thread")]
async fn a_summary_counts_prompts_once_and_lasts_as_long_as_its_own_times_say() {
    use fleetlog_schemas::event::{Channel, EventType};
    let Some(engine) = engine().await else { return };
    engine.store.migrate().await.unwrap();
    let store = engine.store.clone().validating_rows();
    let attempt = attempt(&store, 1).await;
    let mut events: Vec<_> = (0..6).map(|n| full_event("p", "s", n)).collect();
    for (event, channel) in events.iter_mut().zip([Channel::AgentLog, Channel::AgentLog, Channel::Transcript])
    {
        (event.event_type, event.channel) = (EventType::UserPrompt, channel);
    }
    for event in &mut events {
        (event.timestamp_source, event.end_timestamp) = (TimestampSource::Event, None);
    }
    let own: Vec<i64> = events[..5].iter().map(|event| event.timestamp).collect();
    events[5].timestamp_source = TimestampSource::Ingest;
    events[5].timestamp += 5 * 3600 * 1_000_000_000;
    store.insert_events(&range(7, 7), &attempt, at(7, &events)).await.unwrap();
    let underived = store.underived(0, (-1, i64::MAX), &[], 100).await.unwrap();
    let hours: Vec<GroupHour> = underived.iter().map(UnderivedGroup::group_hour).collect();
    store.add_group_hours(&hours).await.unwrap();
    let filter = store.group_filter(GroupKind::Session, vec![key("s")]).await.unwrap();
    let summary = &store.summaries(&filter).await.unwrap()[0];
    assert_eq!((summary.event_count, summary.prompt_count), (6, 2));
    assert_eq!(Some(&summary.started_at), own.iter().min());
    assert_eq!(Some(&summary.ended_at), own.iter().max());
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_are_found_by_group_and_progress_says_what_is_missing() {
    let Some(engine) = engine().await else { return };
    engine.store.migrate().await.unwrap();
    let store = engine.store.clone().validating_rows();
    let attempt = attempt(&store, 1).await;
    let mut events: Vec<_> = (0..4).map(|n| full_event("p", "s", n)).collect();
    events[1].timestamp -= 5 * 3600 * 1_000_000_000;
    events[2].event_type = fleetlog_schemas::EventType::UserPrompt;
    // The same event again, and another session's.
    events.push(events[0].clone());
    events.push(full_event("p", "other", 9));
    let before = store.derived_through().await.unwrap();
    store.insert_events(&range(7, 7), &attempt, at(7, &events)).await.unwrap();
    assert!(before.of("p") > NOON && store.derived_through().await.unwrap().of("p") == NOON + 1);

    let underived = store.underived(0, (-1, i64::MAX), &[], 100).await.unwrap();
    assert_eq!(underived.len(), 3);
    assert!(store.underived(0, (7, i64::MAX), &[], 100).await.unwrap().is_empty());
    let hours: Vec<GroupHour> = underived.iter().map(UnderivedGroup::group_hour).collect();
    store.add_group_hours(&hours).await.unwrap();
    let filter = store.group_filter(GroupKind::Session, vec![key("s")]).await.unwrap();
    assert_eq!(filter.hours.len(), 2);
    let summaries = store.summaries(&filter).await.unwrap();
    assert_eq!(summaries.len(), 1);
    let summary = &summaries[0];
    assert_eq!((summary.group_id.as_str(), summary.event_count, summary.prompt_count), ("s", 4, 1));
    assert_eq!(summary.sighting_count, 4);
    assert_eq!(summary.last_end_at, 0);
    let mut sightings = store.sightings(&filter).unwrap();
    let mut read = Vec::new();
    while let Some(sighting) = sightings.next().await.unwrap() {
        read.push(sighting);
    }
    assert_eq!(read.len(), 4);
    assert!(
        read.iter().all(|sighting| sighting.cost_reported == Some(2_643_000) && sighting.project_id == "p")
    );

    let version = store.next_version().await.unwrap();
    let reflected = Reflected::up_to(7);
    store.record_progress(&[Progress { partition: 0, reflected: reflected.clone(), version }]).await.unwrap();
    assert_eq!(store.progress().await.unwrap()[&0], reflected);
    assert!(store.derived_through().await.unwrap().of("p") > NOON + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_that_is_behind_holds_back_no_other() {
    let Some(engine) = engine().await else { return };
    engine.store.migrate().await.unwrap();
    let store = engine.store.clone().validating_rows();
    for (offset, received_at) in [(3, NOON + 3), (5, NOON + 5)] {
        let of = |project: &str| AgentEvent { received_at, ..full_event(project, "s", offset) };
        let offset = i64::from(offset);
        let events = [of("p"), of("q'\\")];
        store
            .insert_events(&range(offset, offset), &attempt(&store, 1).await, at(offset, &events))
            .await
            .unwrap();
    }
    let record = async |reflected: Reflected| {
        let version = store.next_version().await.unwrap();
        store.record_progress(&[Progress { partition: 0, reflected, version }]).await.unwrap();
        store.derived_through().await.unwrap()
    };
    let behind = |offset: i64| Reflected { others: 5, behind: [("q'\\".to_owned(), offset)].into() };
    for (offset, first) in [(-1, NOON + 3), (3, NOON + 5)] {
        let through = record(behind(offset)).await;
        assert_eq!(store.progress().await.unwrap()[&0], behind(offset));
        assert_eq!(through.of("q'\\"), first);
        assert!(through.of("p") > NOON + 5 && through.of("unknown") > NOON + 5);
        let unsettled = store.unsettled_groups(10).await.unwrap();
        assert_eq!(unsettled.iter().map(|key| key.project_id.as_str()).collect::<Vec<_>>(), ["q'\\"]);
    }
    let found = store.underived(0, (-1, 5), &["q'\\".to_owned()], 10).await.unwrap();
    assert_eq!(found.iter().map(UnderivedGroup::key).map(|key| key.project_id).collect::<Vec<_>>(), ["q'\\"]);
    // What an earlier version recorded holds for all projects.
    operator(
        &engine.url,
        "INSERT INTO fleetlog.derivation_progress (log_partition, derived_offset, version) \
         VALUES (0, 3, 9000000000000000000)",
    )
    .await;
    assert_eq!(store.progress().await.unwrap()[&0], Reflected::up_to(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absurd_time_hides_an_event_from_nobody() {
    let Some(engine) = engine().await else { return };
    let store = &engine.store;
    store.migrate().await.unwrap();
    let mut events: Vec<_> = (0..20_000).map(|n| full_event("p", &format!("s{}", n % 100), n)).collect();
    // 1900 and 2262 are the ends of what the column holds; formats keep times within them.
    let times = [-2_208_988_800_000_000_000, -1, 0, (i64::from(u32::MAX) + 7) * 1_000_000_000, i64::MAX];
    for (n, timestamp) in (0..).zip(times) {
        let mut absurd = full_event("p", "absurd", n);
        absurd.timestamp = timestamp;
        absurd.end_timestamp = None;
        events.push(absurd);
        let mut loose = full_event("p", "", n);
        loose.timestamp = timestamp;
        events.push(loose);
    }
    store.insert_events(&range(0, 0), &attempt(store, 1).await, at(0, &events)).await.unwrap();
    assert_eq!(count(store, "p", "events WHERE timestamp > '2106-02-07 06:28:16'").await, 4);
    assert_eq!(count(store, "p", "events WHERE timestamp < '1970-01-01'").await, 4);
    assert_eq!(
        count(store, "p", "events WHERE timestamp >= '2026-01-01' AND timestamp < '2200-01-01'").await,
        20_002
    );

    let hours: Vec<GroupHour> = times
        .iter()
        .map(|timestamp| GroupHour {
            key: key("absurd"),
            hour: hour_of(*timestamp),
            received_day: 1_772_323_200,
        })
        .collect();
    store.add_group_hours(&hours).await.unwrap();
    let filter = store.group_filter(GroupKind::Session, vec![key("absurd")]).await.unwrap();
    assert_eq!(store.summaries(&filter).await.unwrap()[0].event_count, 5);
    let loose: BTreeSet<GroupKey> = times
        .iter()
        .map(|timestamp| GroupKey { kind: GroupKind::Loose, ..key(&loose_id_of(*timestamp).to_string()) })
        .collect();
    let filter = store.group_filter(GroupKind::Loose, loose.into_iter().collect()).await.unwrap();
    let found = store.summaries(&filter).await.unwrap();
    assert_eq!(found.iter().map(|summary| summary.event_count).sum::<u64>(), 5);
    assert_eq!((minute_of(i64::MIN), minute_of(i64::MAX) % 60), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_received_since_the_edge_is_held() {
    const DAY: i64 = 86_400_000_000_000;
    let Some(engine) = engine().await else { return };
    engine.store.migrate().await.unwrap();
    let store = &engine.store;
    let of_retention = store.expiry_edge().await.unwrap();
    let kept = i64::from(store.retention_days()) * DAY;
    let now = store.now_ms().await.unwrap() * 1_000_000;
    assert!((now - kept..=now - kept + DAY).contains(&of_retention) && of_retention % DAY == 0);
    let mut events = vec![full_event("p", "s", 0), full_event("p", "s", 1)];
    events[1].received_at += DAY;
    store.insert_events(&range(0, 0), &attempt(store, 0).await, at(0, &events)).await.unwrap();
    assert_eq!(store.expiry_edge().await.unwrap(), NOON - NOON % DAY);
    operator(&engine.url, "ALTER TABLE fleetlog.events DROP PARTITION '2026-03-01'").await;
    assert_eq!(store.expiry_edge().await.unwrap(), NOON - NOON % DAY + DAY);
}

/// What a list in several parts rests on: that the engine puts them together before it looks where to read.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_in_parts_leads_through_the_keys_of_a_table_as_one_does() {
    let Some(engine) = engine().await else { return };
    let store = &engine.store;
    store.migrate().await.unwrap();
    let events: Vec<_> = (0..40_000)
        .map(|n| AgentEvent {
            trace_id: format!("t{}", n / 10),
            ..full_event("p", &format!("s{:05}", n / 10), n / 100)
        })
        .collect();
    store.insert_events(&range(0, 0), &attempt(store, 1).await, at(0, &events)).await.unwrap();
    // Received so late that none of it expires.
    let hours: Vec<GroupHour> = (0..40_000)
        .map(|n| GroupHour {
            key: key(&format!("s{n:05}")),
            hour: hour_of(NOON),
            received_day: 2_000_000_000,
        })
        .collect();
    store.add_group_hours(&hours).await.unwrap();
    // Granules read, after each key and index.
    let read = async |sql: String| {
        let parts = [
            ("a_0", "[('p','s00003')]"),
            ("a_1", "[('p','s00005')]"),
            ("a", "[('p','s00003'),('p','s00005')]"),
            ("s_0", "['s00003']"),
            ("s_1", "['s00005']"),
            ("s", "['s00003','s00005']"),
            ("h_0", "[492324]"),
            ("h_1", "[492323]"),
            ("h", "[492324,492323]"),
        ];
        let mut url = reqwest::Url::parse(&engine.url).unwrap();
        url.query_pairs_mut().extend_pairs(parts.map(|(name, value)| (format!("param_{name}"), value)));
        let plan =
            operator(url.as_str(), &format!("EXPLAIN indexes = 1 SELECT count() FROM fleetlog.{sql}")).await;
        plan.lines()
            .filter(|line| line.contains("Granules: "))
            .map(|line| line.trim().to_owned())
            .collect::<Vec<_>>()
    };
    let hour = "intDiv(toUnixTimestamp64Nano(timestamp), 3600000000000)";
    let texts = |name: &str| format!("arrayConcat({{{name}_0:Array(String)}}, {{{name}_1:Array(String)}})");
    let pairs = "arrayConcat({a_0:Array(Tuple(String, String))}, {a_1:Array(Tuple(String, String))})";
    let pair = "{a:Array(Tuple(String, String))}";
    let many = "arrayConcat({h_0:Array(Int64)}, {h_1:Array(Int64)})";
    for (whole, parts) in [
        (
            format!("events WHERE (project_id, session_id) IN {pair} AND {hour} IN {{h:Array(Int64)}}"),
            format!("events WHERE (project_id, session_id) IN {pairs} AND {hour} IN {many}"),
        ),
        (
            format!(
                "events WHERE project_id = 'p' AND session_id IN {{s:Array(String)}} AND {hour} IN {{h:Array(Int64)}}"
            ),
            format!("events WHERE project_id = 'p' AND session_id IN {} AND {hour} IN {many}", texts("s")),
        ),
        (
            format!("group_hours WHERE group_kind = 'session' AND (project_id, group_id) IN {pair}"),
            format!("group_hours WHERE group_kind = 'session' AND (project_id, group_id) IN {pairs}"),
        ),
    ] {
        let (of_whole, of_parts) = (read(whole.clone()).await, read(parts).await);
        assert_eq!(of_whole, of_parts, "{whole}");
        let narrows = |line: &String| {
            let (read, of) = line.strip_prefix("Granules: ")?.split_once('/')?;
            Some(read.parse::<u32>().ok()? < of.parse().ok()?)
        };
        assert!(of_parts.iter().any(|line| narrows(line) == Some(true)), "{whole}: {of_parts:?}");
    }
}
