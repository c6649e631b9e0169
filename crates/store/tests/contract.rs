//! What this crate sends fits the tables, on a real engine.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::collections::BTreeSet;

use fleetlog_schemas::event::{Channel, Status, TimestampSource, UsageRole};
use fleetlog_schemas::id::{Key128, NanoUsd, Position};
use fleetlog_schemas::record::{DeadReason, PieceCount};
use fleetlog_schemas::{AgentEvent, DeadLetter, EventType, Settlement};
use fleetlog_store::derived::{
    Adopted, DerivedGroup, Difference, GroupFilter, GroupHour, GroupKey, Part, Progress, Repricing, Scale,
    hour_of, loose_id_of, minute_of,
};
use fleetlog_store::row::Row;
use fleetlog_store::{
    Attempt, Call, Contribution, FactTable, GroupKind, KnownRow, Located, PieceRow, ReaderLimits, Session,
    Store, StoreError, Stored, Tool, Trace, UsageRow,
};
use support::{NOON, at, attempt, engine, full_event, range, store_of};

#[derive(Row, serde::Deserialize, Debug, PartialEq)]
#[clickhouse(crate = "fleetlog_store::row")]
struct Counted {
    n: u64,
}

async fn count(store: &Store, project: &str, from: &str) -> u64 {
    let reader = store.reader(ReaderLimits::default()).await.unwrap().project(project).unwrap();
    let sql = format!("SELECT count() AS n FROM {from}");
    reader.query(&sql).fetch_all::<Counted>().await.unwrap()[0].n
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_fits_its_table_and_comes_back_as_it_was() {
    let Some(engine) = engine().await else { return };
    engine.store.migrate().await.unwrap();
    let store = engine.store.clone().validating_rows();
    let attempt = attempt(&store, 1).await;

    let mut event = full_event("p", "s", 1);
    event.status = Status::Error;
    let events = [event];
    store.insert_events(&range(0, 0), &attempt, at(0, &events)).await.unwrap();
    let letter = DeadLetter {
        project_id: "p".to_owned(),
        reason: DeadReason::BadCompression,
        failed_at: NOON,
        raw_index: -1,
        ..DeadLetter::default()
    };
    let place = Located { partition: 0, offset: 0, index: 0 };
    store.insert_dead_letters(&range(0, 0), &attempt, [(place, &letter)].into_iter()).await.unwrap();
    let settlement = Settlement {
        project_id: "p".to_owned(),
        received_at: NOON,
        pieces: vec![PieceCount { partition: 3, records: 4 }],
        ..Settlement::default()
    };
    store.insert_settlements(&range(0, 0), &attempt, [(place, &settlement)].into_iter()).await.unwrap();
    let piece = PieceRow {
        project_id: "p".to_owned(),
        raw_partition: 0,
        raw_offset: 0,
        received_at: NOON,
        first_index: 0,
        last_index: 0,
        stored: 1,
        duplicate: 0,
        events: 1,
    };
    store.insert_pieces(&range(0, 0), &attempt, [(place, &piece)].into_iter()).await.unwrap();
    for table in ["events", "dead_letters", "settlements", "piece_settlements"] {
        assert_eq!(count(&store, "p", table).await, 1, "{table}");
    }
    let same = "events WHERE status = 'error' AND cost_reported = 0.002643 AND exit_code = -1 \
         AND timestamp = toDateTime64('2026-03-01 12:00:01', 9, 'UTC') AND type = 'llm.request' \
         AND data LIKE '%Überraschung%' AND log_offset = 0 AND raw_offset = 2 AND duration_ms = 12.5";
    assert_eq!(count(&store, "p", same).await, 1);
    assert_eq!(count(&store, "p", "settlements WHERE pieces.records = [4]").await, 1);
    assert_eq!(
        count(&store, "p", "dead_letters WHERE reason = 'bad_compression' AND raw_index = -1").await,
        1
    );
    assert_eq!(count(&store, "p", "events WHERE hasAllTokens(data_words, 'text')").await, 1);
}

/// A raw record of partition 2 whose three pieces' records went to partitions 0 and 3, and which has a dead one too.
fn settlement(raw_offset: i64) -> Settlement {
    Settlement {
        project_id: "p".to_owned(),
        raw_partition: 2,
        raw_offset,
        received_at: NOON,
        records: 8,
        dead: 1,
        context: 1,
        pieces: vec![PieceCount { partition: 0, records: 4 }, PieceCount { partition: 3, records: 2 }],
        ..Settlement::default()
    }
}

fn piece(raw_offset: i64, stored: u32, duplicate: u32) -> PieceRow {
    PieceRow {
        project_id: "p".to_owned(),
        raw_partition: 2,
        raw_offset,
        received_at: NOON,
        first_index: 0,
        last_index: 9,
        stored,
        duplicate,
        events: stored,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_record_is_settled_once_everything_that_its_settlement_names_is_stored() {
    let Some(engine) = engine().await else { return };
    engine.store.migrate().await.unwrap();
    let store = engine.store.clone().validating_rows();
    let attempt = attempt(&store, 1).await;
    let place = |partition: i32, offset: i64| Located { partition, offset, index: 0 };
    let runs = async || -> Vec<(i64, i64)> {
        let runs = store.settled_runs(&[(2, 0..100), (7, 0..100)]).await.unwrap();
        assert!(runs.iter().all(|run| run.raw_partition == 2), "{runs:?}");
        runs.iter().map(|run| (run.first, run.last)).collect()
    };
    let settlements: Vec<Settlement> = (4..=6).map(settlement).collect();
    let located = settlements.iter().map(|one| (place(0, one.raw_offset), one));
    store.insert_settlements(&range(4, 6), &attempt, located).await.unwrap();
    assert_eq!(runs().await, [], "no piece is stored");

    // One partition's pieces of all three: what is too much here does not make up for what the other lacks.
    let pieces = [piece(4, 4, 0), piece(5, 3, 1), piece(6, 4, 2)];
    store
        .insert_pieces(&range(4, 6), &attempt, pieces.iter().map(|one| (place(0, one.raw_offset), one)))
        .await
        .unwrap();
    let other = [piece(4, 0, 2), piece(5, 2, 0)];
    let located = other.iter().map(|one| (place(3, one.raw_offset), one));
    store.insert_pieces(&range(14, 15), &attempt, located).await.unwrap();
    assert_eq!(runs().await, [], "the dead ones are not stored");
    let letters: Vec<DeadLetter> = (4..=6)
        .map(|raw_offset| DeadLetter {
            project_id: "p".to_owned(),
            records: 1,
            raw_partition: 2,
            raw_offset,
            failed_at: NOON,
            ..DeadLetter::default()
        })
        .collect();
    let located = letters.iter().map(|one| (place(0, one.raw_offset), one));
    store.insert_dead_letters(&range(4, 6), &attempt, located).await.unwrap();
    assert_eq!(runs().await, [(4, 5)]);

    // A piece that came in two messages, and one whose records are all context: no more than its settlement.
    let halves = [piece(6, 1, 0), piece(6, 0, 1)];
    let located = halves.iter().zip(20..).map(|(one, offset)| (place(3, offset), one));
    store.insert_pieces(&range(20, 21), &attempt, located).await.unwrap();
    let silent = [
        Settlement { records: 1, pieces: Vec::new(), dead: 0, ..settlement(7) },
        Settlement { records: 1, pieces: Vec::new(), dead: 0, ..settlement(9) },
    ];
    let located = silent.iter().map(|one| (place(1, one.raw_offset), one));
    store.insert_settlements(&range(7, 9), &attempt, located).await.unwrap();
    assert_eq!(runs().await, [(4, 7), (9, 9)]);
    assert_eq!(store.settled_runs(&[(2, 5..6)]).await.unwrap().len(), 1);
    assert_eq!(store.settled_runs(&[]).await.unwrap(), []);

    let at = |offset| Position { partition: 2, offset };
    let mut carried = store.carried_to(&[at(4), at(6)]).await.unwrap();
    carried.sort_unstable();
    // What was a duplicate altogether changes no derivation.
    assert_eq!(carried, [(0, 6), (3, 20)]);
}

fn key(id: &str) -> GroupKey {
    GroupKey { project_id: "p".to_owned(), kind: GroupKind::Session, id: id.to_owned() }
}

fn group(id: &str, calls: &[(&str, u64)], tools: usize) -> DerivedGroup {
    let minute = (NOON / 1_000_000_000) as u32;
    let sums = UsageRow {
        model: "m".to_owned(),
        calls: calls.len() as u64,
        in_uncached: calls.iter().map(|(_, tokens)| tokens).sum(),
        cost_reported: 1_000_000,
        ..UsageRow::default()
    };
    DerivedGroup {
        key: key(id),
        session: Session {
            started_at: NOON,
            ended_at: NOON,
            first_received_at: NOON,
            last_received_at: NOON,
            event_count: 9,
            agents: vec!["main".to_owned()],
            ..Session::default()
        },
        calls: calls
            .iter()
            .map(|(name, tokens)| Call {
                call_key: (*name).to_owned(),
                timestamp: NOON,
                received_at: NOON,
                status: "ok",
                in_uncached: *tokens,
                cost_reported: Some(2_643_000),
                ..Call::default()
            })
            .collect(),
        tools: (0..tools)
            .map(|n| Tool { call_key: n.to_string(), status: "error", exit_code: Some(1), ..Tool::default() })
            .collect(),
        contributions: vec![Contribution {
            minute,
            usage: if calls.is_empty() { Vec::new() } else { vec![sums] },
        }],
        traces: vec![Trace {
            trace_id: "trace".to_owned(),
            name: "answer".to_owned(),
            started_at: NOON,
            ended_at: NOON + 1_500_000_000,
            last_received_at: NOON,
            event_count: calls.len() as u64,
            llm_call_count: calls.len() as u64,
            in_uncached: calls.iter().map(|(_, tokens)| tokens).sum(),
            ..Trace::default()
        }],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn views_show_a_groups_highest_version_and_nothing_of_the_others() {
    let Some(engine) = engine().await else { return };
    engine.store.migrate().await.unwrap();
    let store = engine.store.clone().validating_rows();
    let minutes: BTreeSet<(String, u32)> = [("p".to_owned(), (NOON / 1_000_000_000) as u32)].into();

    let versions = [
        (vec![("a", 10), ("b", 20), ("c", 30)], 2),
        (vec![("a", 11), ("c", 31)], 1),
        // A late runner with an older version, written last, must not show.
        (vec![("x", 1)], 5),
    ];
    let (first, second) = (store.next_version().await.unwrap(), store.next_version().await.unwrap());
    assert!(second > first);
    for ((calls, tools), version) in versions.iter().zip([first, second, first - 1]) {
        store.write_groups(&[group("s", calls, *tools)], version).await.unwrap();
        store.recompute_usage(&minutes).await.unwrap();
    }
    assert_eq!(count(&store, "p", "llm_calls WHERE in_uncached IN (11, 31)").await, 2);
    assert_eq!(count(&store, "p", "llm_calls").await, 2);
    assert_eq!(count(&store, "p", "tool_calls WHERE exit_code = 1").await, 1);
    let session = "sessions WHERE llm_call_count = 2 AND in_uncached = 42 AND tool_error_count = 1 \
         AND cost_reported = 0.005286 AND agents = ['main'] AND cost_computed_calls = 0";
    assert_eq!(count(&store, "p", session).await, 1);
    for view in ["usage_1m", "usage_1h"] {
        let usage =
            format!("{view} WHERE calls = 2 AND in_uncached = 42 AND cost_reported = 0.001 AND model = 'm'");
        assert_eq!(count(&store, "p", &usage).await, 1, "{view}");
        assert_eq!(count(&store, "p", view).await, 1, "{view}");
    }

    // Two groups share the minute; then one of them has nothing in it any more.
    let third = store.next_version().await.unwrap();
    store.write_groups(&[group("t", &[("a", 100)], 0)], third).await.unwrap();
    store.recompute_usage(&minutes).await.unwrap();
    assert_eq!(count(&store, "p", "usage_1h WHERE calls = 3 AND in_uncached = 142").await, 1);
    let trace = "traces WHERE llm_call_count = 3 AND in_uncached = 142 AND name = 'answer' AND session_id = 's' \
         AND duration_ms = 1500";
    assert_eq!(count(&store, "p", trace).await, 1);
    let fourth = store.next_version().await.unwrap();
    store.write_groups(&[group("s", &[], 0), group("t", &[], 0)], fourth).await.unwrap();
    store.recompute_usage(&minutes).await.unwrap();
    assert_eq!(count(&store, "p", "usage_1m").await + count(&store, "p", "usage_1h").await, 0);
    assert_eq!(count(&store, "p", "llm_calls").await + count(&store, "p", "traces").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_compared_column_by_column() {
    let Some(engine) = engine().await else { return };
    engine.store.migrate().await.unwrap();
    let store = engine.store.clone().validating_rows();
    let stored = [group("a", &[("x", 5), ("y", 7)], 2), group("b", &[], 0)];
    let version = store.next_version().await.unwrap();
    store.write_groups(&stored, version).await.unwrap();
    let minute = stored[0].contributions[0].minute;
    store.recompute_usage(&[("p".to_owned(), minute)].into()).await.unwrap();
    let compared = store.compare_groups(&stored, 0).await.unwrap();
    assert_eq!((compared.differences.as_slice(), compared.versions[&key("a")]), (&[][..], version));
    let usage = async |scale: Scale| store.differing_usage(scale, "", (0, u32::MAX), 10).await.unwrap();
    assert!(usage(Scale::Minute).await.is_empty() && usage(Scale::Hour).await.is_empty());

    let differing = async |change: fn(&mut DerivedGroup)| {
        let mut groups = stored.clone();
        change(&mut groups[0]);
        let differences = store.compare_groups(&groups, 0).await.unwrap().differences;
        assert!(differences.iter().all(|Difference { key: of, .. }| *of == key("a")));
        let parts = differences.into_iter().map(|difference| (difference.part, difference.fields.join(" ")));
        parts.collect::<Vec<_>>()
    };
    let one = |part: Part, fields: &str| vec![(part, fields.to_owned())];
    let found = differing(|group| group.calls[1].cost_computed = Some(0)).await;
    assert_eq!(found, one(Part::Group, "calls.cost_computed"));
    let found = differing(|group| group.tools[0].duration_ms = Some(f64::NAN)).await;
    assert_eq!(found, one(Part::Group, "tools.duration_ms"));
    let found = differing(|group| group.calls[0].event_ids.push("e".to_owned())).await;
    assert_eq!(found, one(Part::Group, "calls.event_ids"));
    let found = differing(|group| group.session.ended = true).await;
    assert_eq!(found, one(Part::Group, "status"));
    let found = differing(|group| group.traces[0].guessed_calls = 1).await;
    assert_eq!(found, one(Part::Shares, "guessed_calls"));
    let found = differing(|group| group.contributions[0].usage[0].errors = 1).await;
    assert_eq!(found, one(Part::Contributions, "usage.errors"));
    let found = differing(|group| group.contributions[0].minute += 60).await;
    assert_eq!(found[0].0, Part::Contributions);
    assert!(found[0].1.contains("is missing") && found[0].1.contains("is left over"), "{found:?}");
    // What was stored has seen facts that are gone: it is all that is known.
    let found = differing(|group| group.session.first_received_at += 1).await;
    assert!(found.is_empty());

    // A minute that was not recomputed after its groups.
    let mut more = group("c", &[("z", 100)], 0);
    store.write_groups(std::slice::from_ref(&more), store.next_version().await.unwrap()).await.unwrap();
    let buckets = usage(Scale::Minute).await;
    assert_eq!((buckets.len(), buckets[0].start, buckets[0].project_id.as_str()), (1, minute, "p"));
    assert!(store.differing_usage(Scale::Minute, "q", (0, u32::MAX), 10).await.unwrap().is_empty());
    store.recompute_usage(&[("p".to_owned(), minute)].into()).await.unwrap();
    assert!(usage(Scale::Minute).await.is_empty() && usage(Scale::Hour).await.is_empty());
    // What is said to have happened before 1970 counts in its first minute.
    store.recompute_usage(&[("p".to_owned(), 0)].into()).await.unwrap();
    // Of a loose minute nothing but the calls is looked at; without any, it need not be there.
    let minute = GroupKey { kind: GroupKind::Loose, ..key("1772366400") };
    let loose = |mut group: DerivedGroup| {
        group.key = minute.clone();
        (group.contributions, group.traces) = (Vec::new(), Vec::new());
        group
    };
    let silent = loose(group("l", &[], 0));
    assert!(store.compare_groups(&[silent], 0).await.unwrap().differences.is_empty());
    let mut told = loose(group("l", &[("z", 1)], 0));
    assert_eq!(store.compare_groups(std::slice::from_ref(&told), 0).await.unwrap().differences.len(), 1);
    store.write_groups(std::slice::from_ref(&told), store.next_version().await.unwrap()).await.unwrap();
    told.session.event_count += 1;
    assert!(store.compare_groups(&[told], 0).await.unwrap().differences.is_empty());
    more.key = key("never written");
    let compared = store.compare_groups(&[more], 0).await.unwrap();
    assert_eq!(compared.differences[0].fields, ["is missing"]);
    assert_eq!(compared.differences.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_has_outlived_facts_comes_back_as_it_was_written() {
    let Some(engine) = engine().await else { return };
    engine.store.migrate().await.unwrap();
    let store = engine.store.clone().validating_rows();
    let written = [group("a", &[("x", 5), ("y", 7)], 2), group("b", &[("z", 1)], 0)];
    store.write_groups(&written, store.next_version().await.unwrap()).await.unwrap();
    let keys = [key("a"), key("b"), key("never written")];
    assert!(store.groups_before(NOON, &keys).await.unwrap().is_empty());
    assert_eq!(store.groups_before(NOON + 1, &keys).await.unwrap(), keys[..2]);
    assert!(store.outlived_groups(NOON, &keys, &[("p", "trace")]).await.unwrap().is_empty());
    let mut found = store.outlived_groups(NOON + 1, &keys, &[("p", "trace")]).await.unwrap();
    found.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(found.len(), 2);
    for (found, written) in found.iter().zip(&written) {
        assert_eq!((&found.key, &found.session), (&written.key, &written.session));
        assert_eq!((&found.calls, &found.tools), (&written.calls, &written.tools));
        assert_eq!(found.traces, written.traces);
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn repricings_come_back_last_first_and_their_mark_tells_of_every_new_one() {
    let Some(engine) = engine().await else { return };
    engine.store.migrate().await.unwrap();
    let store = engine.store.clone().validating_rows();
    let none = store.repricing_mark().await.unwrap();
    let repricing = |at: i64| Repricing {
        repriced_at: at,
        model: "gpt-*".to_owned(),
        from_time: NOON,
        until_time: i64::MAX,
        versions: vec!["own".to_owned(), "shipped".to_owned()],
        sheets: vec!["version = \"own\"".to_owned()],
        ..Repricing::default()
    };
    let mut marks = vec![none];
    for at in [NOON, NOON + 1] {
        store.add_repricing(&repricing(at)).await.unwrap();
        marks.push(store.repricing_mark().await.unwrap());
    }
    assert!(marks.windows(2).all(|pair| pair[0] != pair[1]), "{marks:?}");
    assert_eq!(store.repricings().await.unwrap(), [repricing(NOON + 1), repricing(NOON)]);
    assert_eq!(count(&store, "p", "repricings").await, 0, "operators only");
}

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
        .underived(0, (-1, i64::MAX), 100)
        .await
        .unwrap()
        .iter()
        .map(|group| GroupHour { key: group.key(), hour: group.hour, received_day: group.received_day })
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
    let underived = store.underived(0, (-1, i64::MAX), 100).await.unwrap();
    let hours: Vec<GroupHour> = underived
        .iter()
        .map(|group| GroupHour { key: group.key(), hour: group.hour, received_day: group.received_day })
        .collect();
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
    assert!(before > NOON && store.derived_through().await.unwrap() == NOON + 1);

    let underived = store.underived(0, (-1, i64::MAX), 100).await.unwrap();
    assert_eq!(underived.len(), 3);
    assert!(store.underived(0, (7, i64::MAX), 100).await.unwrap().is_empty());
    let hours: Vec<GroupHour> = underived
        .iter()
        .map(|group| GroupHour { key: group.key(), hour: group.hour, received_day: group.received_day })
        .collect();
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
    store.record_progress(&[Progress { partition: 0, derived_offset: 7, version }]).await.unwrap();
    assert_eq!(store.progress().await.unwrap()[&0], 7);
    assert!(store.derived_through().await.unwrap() > NOON + 1);
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

/// A minute that cannot be recomputed would keep every other one from it, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_and_the_last_minute_that_a_rollup_can_name_are_recomputed() {
    let Some(engine) = engine().await else { return };
    engine.store.migrate().await.unwrap();
    for minute in [0, 60, 7_200, 36_000, u32::MAX - u32::MAX % 60] {
        let minutes = BTreeSet::from([("p".to_owned(), minute)]);
        engine.store.recompute_usage(&minutes).await.unwrap_or_else(|e| panic!("minute {minute}: {e}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_sent_again_is_stored_once_and_a_late_one_not_at_all() {
    let Some(engine) = engine().await else { return };
    let store = &engine.store;
    store.migrate().await.unwrap();
    let events: Vec<_> = (0..1000).map(|n| full_event("p", "s", n)).collect();
    let nothing = store.stored_positions(FactTable::Events, &range(0, 9)).await.unwrap();
    assert_eq!(nothing, Stored::default());
    for sends in 0..3 {
        let attempt = Attempt { sends, ..attempt(store, 1).await };
        store.insert_events(&range(0, 9), &attempt, at(0, &events)).await.unwrap();
    }
    assert_eq!(count(store, "p", "events").await, 1000);
    assert!(!store.is_inserting(FactTable::Events, &range(0, 9)).await.unwrap());
    // A further attempt has a token of its own: what it holds is stored, and the positions tell what was there before.
    let missing = at(0, &events).take(1).map(|(at, event)| (Located { offset: 9, ..at }, event));
    store.insert_events(&range(0, 9), &attempt(store, 2).await, missing).await.unwrap();
    let stored = store.stored_positions(FactTable::Events, &range(0, 9)).await.unwrap();
    assert_eq!((stored.positions.len(), stored.repeats), (1001, 0));
    assert!(stored.positions.contains(&(9, 0)) && stored.positions.contains(&(0, 999)));
    // What is stored is known again by its identity, and nothing else is.
    let mut other = full_event("p", "s", 1);
    other.dedup_key = Key128::of([&b"other"[..]]);
    let known = store.known_events(&[&events[7], &other], 0).await.unwrap();
    assert_eq!(known.iter().map(KnownRow::position).collect::<Vec<_>>(), [(0, 0, 7)]);
    assert_eq!(known[0].dedup_key, events[7].dedup_key.as_u128());
    // Without a time of its own an event is as old as its receipt: a retry's is another hour, within the window.
    let untimed = |received_at: i64| AgentEvent {
        timestamp_source: TimestampSource::Ingest,
        timestamp: received_at,
        received_at,
        ..full_event("p", "s", 5000)
    };
    let first = [untimed(NOON - 1)];
    store.insert_events(&range(11, 11), &attempt(store, 1).await, at(11, &first)).await.unwrap();
    let hours = |hours: i64| hours * 3600 * 1_000_000_000;
    for (retried, found) in
        [(NOON + 1, 1), (NOON + hours(23), 1), (NOON - hours(23), 1), (NOON + hours(26), 0)]
    {
        let known = store.known_events(&[&untimed(retried)], hours(24)).await.unwrap();
        assert_eq!(known.len(), found, "{}", retried - NOON);
    }
    let (keys, complete_from) = store.untimed_keys(0, NOON - hours(1)).await.unwrap();
    assert_eq!((keys, complete_from), (vec![(first[0].dedup_key.as_u128(), NOON - 1)], NOON - hours(1)));
    let (later, complete_below) = store.later_keys(0, events[7].timestamp).await.unwrap();
    assert!(later.contains(&(events[7].dedup_key.as_u128(), events[7].timestamp)), "{}", later.len());
    assert_eq!(complete_below, i64::MAX);
    assert!(store.stored_positions(FactTable::Settlements, &range(0, 9)).await.unwrap().positions.is_empty());
    let mut late = attempt(store, 1).await;
    late.insert_before_ms -= 40_000;
    let refused = store.insert_events(&range(10, 10), &late, at(10, &events)).await.unwrap_err();
    assert!(matches!(refused, StoreError::TooLate), "{refused}");
    assert_eq!(count(store, "p", "events").await, 1002);
}

/// Runs a statement as an operator would.
async fn operator(url: &str, sql: &str) -> String {
    let answer = reqwest::Client::new().post(url).body(sql.to_owned()).send().await.unwrap();
    assert!(answer.status().is_success(), "{sql}");
    answer.text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_has_its_tables_columns_and_constraints_and_keeps_nothing() {
    let Some(engine) = engine().await else { return };
    let store = &engine.store;
    store.migrate().await.unwrap();
    let columns = async |table: &str| {
        let sql = format!(
            "SELECT name, type, default_kind, default_expression FROM system.columns \
             WHERE database = 'fleetlog' AND table = '{table}' ORDER BY position"
        );
        operator(&engine.url, &sql).await
    };
    let constraint = "ALTER TABLE fleetlog.events ADD CONSTRAINT short CHECK length(data) < 100";
    for altered in [false, true] {
        if altered {
            operator(&engine.url, constraint).await;
            operator(&engine.url, "ALTER TABLE fleetlog.events ADD COLUMN ours UInt8 DEFAULT 7").await;
            store.renew_probe(FactTable::Events).await.unwrap();
        }
        for table in FactTable::ALL {
            let (own, probes) = (columns(table.name()).await, columns(table.probe()).await);
            assert!(own.lines().count() > 5);
            assert_eq!(own, probes, "{}", table.name());
        }
        let text = r#"{"text":"secret of a customer"}"#;
        let long = AgentEvent { data: text.repeat(5), ..full_event("p", "s", 1) };
        let events = [full_event("p", "s", 0), long];
        let answers =
            (store.probe_events(at(0, &events[..1])).await, store.probe_events(at(0, &events)).await);
        assert!(answers.0.is_ok(), "{answers:?}");
        let attempt = attempt(store, 1).await;
        let offset = i64::from(altered);
        let stored = store.insert_events(&range(offset, offset), &attempt, at(offset, &events)).await;
        match (altered, answers.1, stored) {
            (false, Ok(()), Ok(())) => {}
            (
                true,
                Err(StoreError::Refused { code: a, message }),
                Err(StoreError::Refused { code: b, .. }),
            ) => {
                assert_eq!((a, b), (469, 469));
                assert!(message.contains("short") && !message.contains("secret"), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(count(store, "p", "events").await, 2);
    assert_eq!(operator(&engine.url, "SELECT count() FROM fleetlog.events_probe").await.trim(), "0");
}

/// What an event can carry, at its worst. ClickHouse keeps all of it as text and numbers, and has no reason to refuse any.
#[tokio::test(flavor = "multi_thread")]
async fn no_payload_is_refused_for_what_it_says() {
    let Some(engine) = engine().await else { return };
    let store = &engine.store;
    store.migrate().await.unwrap();
    let texts = [
        r#"{"a":1,"a":2,"A":3}"#.to_owned(),
        r#"{"a":1,"a.b":2,"a":{"b":3}}"#.to_owned(),
        r#"{"":{"":null}}"#.to_owned(),
        r#"{"n":1e999999,"m":-0.0,"k":123456789012345678901234567890123456789012345678901234567890}"#
            .to_owned(),
        r#"{"s":"\ud800","t":"\u0000"}"#.to_owned(),
        format!("{}1{}", r#"{"d":"#.repeat(20_000), "}".repeat(20_000)),
        format!("[{}1{}", "[".repeat(50_000), "]".repeat(50_000)),
        format!("{{{}\"z\":0}}", (0..20_000).map(|n| format!("\"k{n}\":{n},")).collect::<String>()),
        "x".repeat(8 << 20),
        "\0\u{fffe}\u{202e}\\'\"`\n\r\t".to_owned(),
        "{not json".to_owned(),
        String::new(),
    ];
    let mut events: Vec<AgentEvent> = Vec::new();
    for (number, text) in (0..).zip(&texts) {
        let mut event = full_event("p", "s", number);
        event.data = text.clone();
        event.context = text.clone();
        event.name = text.clone();
        event.model = text.clone();
        event.error_message = text.clone();
        event.tool_name = text.clone();
        events.push(event);
    }
    for number in 100..104 {
        let mut event = full_event("p", "s", number);
        let extreme = [i64::MIN, i64::MAX, -1, 0][number as usize - 100];
        (event.timestamp, event.end_timestamp, event.revision) = (extreme, Some(extreme), extreme);
        (event.cost_reported, event.cost_computed) = (Some(NanoUsd(extreme)), Some(NanoUsd(extreme)));
        let float = [f64::NAN, f64::INFINITY, f64::MIN, -0.0][number as usize - 100];
        (event.duration_ms, event.ttft_ms) = (Some(float), Some(float));
        (event.in_uncached, event.bytes_in, event.exit_code) = (u64::MAX, Some(u64::MAX), Some(i32::MIN));
        (event.raw_offset, event.raw_partition) = (extreme, i32::MIN);
        events.push(event);
    }
    for (index, event) in (0..).zip(&events) {
        let place = Located { partition: 0, offset: 0, index };
        let probed = store.probe_events([(place, event)].into_iter()).await;
        assert!(probed.is_ok(), "event {index}: {probed:?}");
    }
    store.insert_events(&range(0, 0), &attempt(store, 1).await, at(0, &events)).await.unwrap();
    let stored = store.stored_positions(FactTable::Events, &range(0, 0)).await.unwrap();
    assert_eq!(stored.positions.len(), events.len());
}

/// What the exact lookup of INV-5 costs; `FLEETLOG_LOOKUP_ROWS` makes it as many as in docs/deduplication.md.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_is_found_among_many() {
    let Some(engine) = engine().await else { return };
    let store = &engine.store;
    store.migrate().await.unwrap();
    let rows: u32 = std::env::var("FLEETLOG_LOOKUP_ROWS").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
    // An hour of one project, half of it in sessions of 500 events, half without a session.
    let of = |number: u32| {
        let session = if number.is_multiple_of(2) { String::new() } else { format!("s{}", number / 1000) };
        AgentEvent { timestamp: NOON + i64::from(number) * 1_000, ..full_event("p", &session, number) }
    };
    for (offset, first) in (0..).zip((0..rows).step_by(20_000)) {
        let events: Vec<_> = (first..rows.min(first + 20_000)).map(of).collect();
        store
            .insert_events(&range(offset, offset), &attempt(store, 1).await, at(offset, &events))
            .await
            .unwrap();
    }
    for (name, remainder, count) in
        [("sessions", 1, 1), ("sessions", 1, 1000), ("no session", 0, 1), ("no session", 0, 1000)]
    {
        let step = rows as usize / (count + 1) / 2 * 2;
        let wanted: Vec<_> = (0..count as u32).map(|n| of(n * step as u32 + remainder)).collect();
        let wanted: Vec<&AgentEvent> = wanted.iter().collect();
        let mut times = Vec::new();
        for _ in 0..5 {
            let started = std::time::Instant::now();
            assert_eq!(store.known_events(&wanted, 0).await.unwrap().len(), count, "{name}");
            times.push(started.elapsed());
        }
        times.sort();
        println!("{rows} rows, {count} keys of {name}: {:?}", times[2]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_reads_its_own_rows_whatever_it_asks() {
    let Some(engine) = engine().await else { return };
    let store = &engine.store;
    assert!(store.migrate().await.unwrap().confined);
    let attempt = attempt(store, 1).await;
    let events = [full_event("mine", "s", 1), full_event("theirs", "s", 2)];
    store.insert_events(&range(0, 0), &attempt, at(0, &events)).await.unwrap();
    let version = store.next_version().await.unwrap();
    for project in ["mine", "theirs"] {
        let mut group = group("s", &[("a", 1)], 1);
        group.key.project_id = project.to_owned();
        store.write_groups(&[group], version).await.unwrap();
        let minutes = [(project.to_owned(), (NOON / 1_000_000_000) as u32)].into();
        store.recompute_usage(&minutes).await.unwrap();
    }
    for from in [
        "events",
        "(SELECT * FROM events WHERE project_id = 'theirs' UNION ALL SELECT * FROM events)",
        "merge('fleetlog', '^events$')",
        "llm_calls",
        "tool_calls",
        "sessions",
        "usage_1m",
        "usage_1h",
        "session_groups",
        "(SELECT * FROM events AS a JOIN events AS b ON a.session_id = b.session_id)",
    ] {
        assert_eq!(count(store, "mine", from).await, 1, "{from}");
        assert_eq!(count(store, "nobody", from).await, 0, "{from}");
    }
    assert_eq!(count(store, "mine", "schema_migrations").await, 0);

    let reader = store.reader(ReaderLimits::default()).await.unwrap();
    assert!(matches!(reader.project(""), Err(StoreError::NoProject)));
    let mine = reader.project("mine").unwrap();
    for sql in [
        "SELECT count() AS n FROM events SETTINGS log_comment = ''",
        "SELECT count() AS n FROM events SETTINGS log_comment = 'theirs'",
        "INSERT INTO events (project_id) VALUES ('mine')",
        "SELECT count() AS n FROM file('/etc/hostname', 'LineAsString')",
    ] {
        assert!(mine.query(sql).fetch_all::<Counted>().await.is_err(), "{sql}");
    }
    let bound = mine.query("SELECT count() AS n FROM events WHERE session_id = {s:String}");
    assert_eq!(bound.param("s", "s'").fetch_all::<Counted>().await.unwrap(), [Counted { n: 0 }]);

    // A database that nobody confined must not get a reader.
    let other = store_of(&engine.url, "unconfined");
    assert!(!other.migrate().await.unwrap().confined);
    let refused = other.reader(ReaderLimits::default()).await.err().unwrap();
    assert!(
        matches!(refused, StoreError::NotConfined { ref tables } if tables.iter().any(|t| t == "events"))
    );
}
