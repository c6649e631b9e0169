//! Facts are stored as they are, once, and known again.

use std::collections::BTreeSet;

use fleetlog_schemas::event::{Status, TimestampSource};
use fleetlog_schemas::id::Key128;
use fleetlog_schemas::record::{DeadReason, PieceCount};
use fleetlog_schemas::{AgentEvent, DeadLetter, Settlement};
use fleetlog_store::{Attempt, FactTable, KnownRow, Located, PieceRow, StoreError, Stored};

use crate::count;
use crate::support::{NOON, at, attempt, engine, full_event, range};

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
        raw_partition: -1,
        raw_offset: i64::MIN,
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
        raw_partition: 3,
        raw_offset: 1 << 40,
        received_at: NOON,
        first_index: 7,
        last_index: 7,
        stored: 1,
        duplicate: 0,
        events: 1,
    };
    store.insert_pieces(&range(0, 0), &attempt, [(place, &piece)].into_iter()).await.unwrap();
    for table in ["events", "dead_letters", "settlements", "piece_settlements"] {
        assert_eq!(count(&store, "p", table).await, 1, "{table}");
    }
    // Each is known by its place and by what it is, and another one at that place is not.
    let stored = async |table| store.stored_facts(table, &range(0, 0)).await.unwrap();
    let later = NOON + 7;
    let found = stored(FactTable::Events).await;
    assert!(found.has(&place, &events[0]));
    assert!(!found.has(&place, &AgentEvent { received_at: later, ..events[0].clone() }));
    let found = stored(FactTable::DeadLetters).await;
    assert!(found.has(&place, &letter) && !found.has(&place, &DeadLetter { raw_index: 0, ..letter.clone() }));
    let found = stored(FactTable::Settlements).await;
    assert!(found.has(&place, &settlement));
    assert!(!found.has(&place, &Settlement { received_at: later, ..settlement.clone() }));
    let found = stored(FactTable::Pieces).await;
    assert!(found.has(&place, &piece) && !found.has(&place, &PieceRow { raw_offset: 0, ..piece.clone() }));
    let end = async |partition, from| store.stored_end(&FactTable::ALL, partition, from).await.unwrap();
    assert_eq!((end(0, 0).await, end(0, 1).await, end(1, 0).await, end(1, 5).await), (1, 1, 0, 5));
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

#[tokio::test(flavor = "multi_thread")]
async fn a_range_sent_again_is_stored_once_and_a_late_one_not_at_all() {
    let Some(engine) = engine().await else { return };
    let store = &engine.store;
    store.migrate().await.unwrap();
    let events: Vec<_> = (0..1000).map(|n| full_event("p", "s", n)).collect();
    let nothing = store.stored_facts(FactTable::Events, &range(0, 9)).await.unwrap();
    assert_eq!(nothing, Stored::default());
    let first_attempt = attempt(store, 1).await;
    for sends in 0..3 {
        let attempt = Attempt { sends, ..first_attempt };
        store.insert_events(&range(0, 9), &attempt, at(0, &events)).await.unwrap();
    }
    assert_eq!(count(store, "p", "events").await, 1000);
    assert!(!store.is_inserting(FactTable::Events, &range(0, 9)).await.unwrap());
    // A further attempt has a token of its own: what it holds is stored, and the positions tell what was there before.
    let missing = at(0, &events).take(1).map(|(at, event)| (Located { offset: 9, ..at }, event));
    store.insert_events(&range(0, 9), &attempt(store, 2).await, missing).await.unwrap();
    let stored = store.stored_facts(FactTable::Events, &range(0, 9)).await.unwrap();
    assert_eq!((stored.facts.len(), stored.repeats), (1001, 0));
    let place = |offset, index| Located { partition: 0, offset, index };
    assert!(stored.has(&place(9, 0), &events[0]) && stored.has(&place(0, 999), &events[999]));
    assert!(!stored.has(&place(0, 999), &events[998]), "another event at that place");
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
        let places = store.known_places(&[&untimed(retried)], hours(24)).await.unwrap();
        assert_eq!(places.len(), found, "{}", retried - NOON);
    }
    let (keys, complete_from) = store.untimed_keys(0, NOON - hours(1)).await.unwrap();
    assert_eq!((keys, complete_from), (vec![(first[0].dedup_key.as_u128(), NOON - 1)], NOON - hours(1)));
    let (later, complete_below) = store.later_keys(0, events[7].timestamp).await.unwrap();
    assert!(later.contains(&(events[7].dedup_key.as_u128(), events[7].timestamp)), "{}", later.len());
    assert_eq!(complete_below, i64::MAX);
    assert!(store.stored_facts(FactTable::Settlements, &range(0, 9)).await.unwrap().facts.is_empty());
    let mut late = attempt(store, 1).await;
    late.insert_before_ms -= 40_000;
    let refused = store.insert_events(&range(10, 10), &late, at(10, &events)).await.unwrap_err();
    assert!(matches!(refused, StoreError::TooLate), "{refused}");
    assert_eq!(count(store, "p", "events").await, 1002);
}

/// A server refuses a parameter above 128 KiB, and these are 4 MB and more.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_is_found_however_long_its_names_are() {
    let Some(engine) = engine().await else { return };
    let store = &engine.store;
    store.migrate().await.unwrap();
    let sessions = |filler: &str| -> Vec<AgentEvent> {
        let of = |number: u32| {
            let session = format!("{number:04}{}", filler.repeat(3996 / filler.len()));
            AgentEvent { event_id: String::new(), ..full_event("p", &session, number) }
        };
        (0..1000).map(of).collect()
    };
    for (offset, filler) in (0..).zip(["x", "'", "\\", "\t", "`\n"]) {
        let events = sessions(filler);
        let attempt = attempt(store, 1).await;
        store.insert_events(&range(offset, offset), &attempt, at(offset, &events)).await.unwrap();
        let asked: Vec<&AgentEvent> = events.iter().collect();
        let known = store.known_events(&asked, 0).await.unwrap();
        let places: BTreeSet<_> = known.iter().map(KnownRow::position).collect();
        assert_eq!((known.len(), places.len()), (1000, 1000), "{filler:?}");
        assert!(places.iter().all(|(_, at, _)| *at == offset), "{filler:?}");
    }
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
