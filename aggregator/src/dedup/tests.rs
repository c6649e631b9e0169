//! Against a model that remembers everything: whatever the filter forgets, whatever crashes and whatever repeats, each
//! event is stored once within its window.

use proptest::prelude::*;

use super::*;

const MINUTE: i64 = 60 * 1_000_000_000;
const NOW: i64 = 1_000_000 * MINUTE;
const WINDOW: i64 = 24 * 60 * MINUTE;

fn event(key: u8, timestamp: i64, received_at: i64) -> AgentEvent {
    AgentEvent {
        dedup_key: Key128::of([&[key][..]]),
        timestamp,
        timestamp_source: TimestampSource::Event,
        received_at,
        ..AgentEvent::default()
    }
}

fn at(offset: i64, index: u32) -> Located {
    Located { partition: 0, offset, index }
}

/// What ClickHouse holds.
#[derive(Default)]
struct Table(Vec<(Located, AgentEvent)>);

impl Table {
    fn known(&self, events: &[(Located, AgentEvent)], doubtful: &[usize]) -> Vec<KnownRow> {
        let asked: HashSet<Key128> = doubtful.iter().map(|place| events[*place].1.dedup_key).collect();
        let of_key = |(_, event): &&(Located, AgentEvent)| asked.contains(&event.dedup_key);
        self.0
            .iter()
            .filter(of_key)
            .map(|(at, event)| KnownRow {
                dedup_key: event.dedup_key.as_u128(),
                received_at: event.received_at,
                log_partition: at.partition,
                log_offset: at.offset,
                log_index: at.index,
            })
            .collect()
    }

    /// One range, as the aggregator stores it; only the rows at `stored_places` get through before a crash.
    fn store(&mut self, recent: &mut Recent, range: &[(Located, AgentEvent)], now: i64, through: usize) {
        let doubtful: Vec<usize> =
            (0..range.len()).filter(|place| !recent.take(&range[*place].1, now, WINDOW)).collect();
        let known = self.known(range, &doubtful);
        let duplicates = duplicates(range, &doubtful, &known, WINDOW);
        let present: HashSet<(i64, u32)> = self.0.iter().map(|(at, _)| (at.offset, at.index)).collect();
        let new = range.iter().enumerate().filter(|(place, _)| !duplicates.contains(place));
        let missing = new.map(|(_, row)| row).filter(|(at, _)| !present.contains(&(at.offset, at.index)));
        self.0.extend(missing.take(through).cloned());
    }
}

#[test]
fn what_is_not_in_the_filter_is_new_and_what_is_outside_of_it_is_asked_for() {
    let mut recent = Recent::since(NOW, 1_000_000);
    assert!(recent.take(&event(1, NOW + 1, NOW), NOW, WINDOW));
    assert!(!recent.take(&event(1, NOW + 1, NOW), NOW, WINDOW));
    assert!(!recent.take(&event(2, NOW - 1, NOW), NOW, WINDOW), "older than the filter");
    assert!(recent.take(&event(2, NOW + 1, NOW), NOW, WINDOW));
    recent.load([(Key128::of([&[3][..]]).as_u128(), NOW + 5)], NOW + 10, NOW);
    assert!(!recent.take(&event(3, NOW + 5, NOW), NOW, WINDOW));
    assert!(!recent.take(&event(4, NOW + 10, NOW), NOW, WINDOW), "beyond what was loaded");
}

#[test]
fn what_is_named_after_its_request_is_new_unless_its_request_is_old() {
    let mut recent = Recent::since(NOW, 1_000_000);
    let mut named = |key: u8, received_at| {
        let event = AgentEvent { timestamp_source: TimestampSource::Ingest, ..event(key, NOW, received_at) };
        let event = AgentEvent { event_id: format!("{:032x}", event.dedup_key.as_u128()), ..event };
        recent.take(&event, NOW, WINDOW)
    };
    assert!(named(1, NOW + 1));
    assert!(!named(1, NOW + 1));
    assert!(!named(2, NOW - 3 * WINDOW), "a replay, and nothing is known of that day: looked up");
}

#[test]
fn a_full_filter_forgets_the_oldest_and_says_so() {
    let mut recent = Recent::since(NOW, 20_000);
    for n in 0..200_i64 {
        for key in 0..=255_u8 {
            recent.take(&event(key, NOW + n * MINUTE, NOW), NOW + n * MINUTE, WINDOW);
        }
        assert!(recent.bytes() <= 20_000);
    }
    assert!(recent.horizon() > NOW + 100 * MINUTE && recent.horizon() < NOW + 200 * MINUTE);
    assert!(!recent.take(&event(0, NOW, NOW), NOW, WINDOW), "forgotten, so looked up");
}

#[test]
fn a_wrong_clock_far_ahead_does_not_push_out_the_others() {
    let mut recent = Recent::since(NOW, 50_000);
    for n in 0..10_000 {
        recent.take(&event(7, NOW + (100 + n) * 60 * MINUTE, NOW), NOW, WINDOW);
    }
    assert_eq!(recent.horizon(), NOW);
    assert!(recent.bytes() <= 50_000 / AHEAD_SHARE + 1_000, "{}", recent.bytes());
    assert!(recent.take(&event(8, NOW + MINUTE, NOW), NOW, WINDOW));
}

/// Many events within one slice: a fast clock that hardly moves.
#[test]
fn one_busy_slice_far_ahead_does_not_push_out_the_others() {
    let mut recent = Recent::since(NOW, 50_000);
    for number in 0..20_000_u32 {
        let mut event = event(0, NOW + 3 * 60 * MINUTE, NOW);
        event.dedup_key = Key128::of([&number.to_be_bytes()[..]]);
        recent.take(&event, NOW, WINDOW);
    }
    assert_eq!(recent.horizon(), NOW);
    assert!(recent.bytes() <= 50_000 / AHEAD_SHARE * 3, "{}", recent.bytes());
    assert!(recent.take(&event(8, NOW + MINUTE, NOW), NOW, WINDOW));
}

/// The time that a fast clock was cut off at comes; from then on memory answers again.
#[test]
fn what_was_cut_off_far_ahead_is_loaded_when_its_time_comes() {
    let mut recent = Recent::since(NOW, 50_000);
    let mut stored: Vec<(u128, i64)> = Vec::new();
    for n in 0..10_000 {
        let ahead = event(7, NOW + (100 + n) * 60 * MINUTE, NOW);
        recent.take(&ahead, NOW, WINDOW);
        stored.push((ahead.dedup_key.as_u128(), ahead.timestamp));
    }
    assert_eq!(recent.reaches_ceiling(NOW), None);
    let later =
        (1..20_000).map(|hours| NOW + hours * 60 * MINUTE).find(|now| recent.reaches_ceiling(*now).is_some());
    let now = later.unwrap();
    let ceiling = recent.reaches_ceiling(now).unwrap();
    assert!(!recent.take(&event(9, ceiling + MINUTE, now), now, WINDOW), "not remembered, so looked up");
    recent.load(stored.into_iter().filter(|(_, timestamp)| *timestamp >= ceiling), i64::MAX, now);
    assert_eq!(recent.reaches_ceiling(now), None);
    assert!(recent.take(&event(10, ceiling + MINUTE, now), now, WINDOW));
    let hour = 60 * MINUTE;
    let seen = event(7, NOW + (ceiling + hour - NOW).div_euclid(hour) * hour, now);
    assert!(!recent.take(&seen, now, WINDOW), "stored before the cut, and known again");
}

/// Without a time of its own an event is as old as its receipt, and a retry of it was received later.
#[test]
fn a_retry_without_a_time_of_its_own_is_looked_up_however_much_later_it_comes() {
    let untimed = |key: u8, received_at: i64| AgentEvent {
        timestamp_source: TimestampSource::Ingest,
        ..event(key, received_at, received_at)
    };
    let mut recent = Recent::since(NOW, 1_000_000);
    recent.load_untimed([(Key128::of([&[1][..]]).as_u128(), NOW - 20 * 60 * MINUTE)], NOW - WINDOW);
    for minutes in [0, 4, 6, 61, 23 * 60] {
        let now = NOW + minutes * MINUTE;
        assert!(recent.take(&untimed(100 + minutes as u8, now), now, WINDOW), "{minutes}");
        assert!(!recent.take(&untimed(100, now), now, WINDOW), "{minutes}");
    }
    assert!(!recent.take(&untimed(1, NOW + MINUTE), NOW + MINUTE, WINDOW), "loaded");
    // What was received before memory reaches back is asked for.
    assert!(!recent.take(&untimed(2, NOW - MINUTE), NOW, WINDOW));
    // Known by its place in a request: as far as memory reaches.
    let placed = |key: u8, received_at: i64| AgentEvent {
        event_id: Key128::of([&[key][..]]).to_string(),
        ..untimed(key, received_at)
    };
    assert!(recent.take(&placed(3, NOW - MINUTE), NOW, WINDOW));
    assert!(recent.take(&placed(4, NOW + MINUTE), NOW, WINDOW));
    assert!(!recent.take(&placed(4, NOW + 300 * MINUTE), NOW, WINDOW));
    let mut fresh = Recent::since(NOW, 1_000_000);
    assert!(!fresh.take(&untimed(1, NOW + MINUTE), NOW + MINUTE, WINDOW));
    assert!(fresh.take(&untimed(2, NOW + WINDOW), NOW + WINDOW, WINDOW));
}

/// The figures of docs/deduplication.md. `FLEETLOG_DEDUP_KEYS` makes it as large as they are.
#[test]
fn a_key_costs_what_the_documentation_says() {
    let keys: u64 = std::env::var("FLEETLOG_DEDUP_KEYS").ok().and_then(|n| n.parse().ok()).unwrap_or(60_000);
    for rate in [1_000_u64, 10_000, 50_000] {
        let mut recent = Recent::since(NOW, usize::MAX);
        let started = std::time::Instant::now();
        for number in 0..keys {
            let timestamp = NOW + (number * 1_000_000_000 / rate) as i64;
            let mut event = event(0, timestamp, timestamp);
            event.dedup_key = Key128::of([&number.to_be_bytes()[..]]);
            assert!(recent.take(&event, timestamp, WINDOW));
        }
        let each = recent.bytes() as f64 / keys as f64;
        let took = started.elapsed().as_nanos() / u128::from(keys);
        println!("{rate} events/s, {keys} keys: {each:.1} bytes and {took} ns a key");
        // A table doubles when it is full to seven eighths.
        assert!((11.0..23.0).contains(&each), "{each}");
    }
}

#[test]
fn a_repeat_beyond_the_window_is_an_event_of_its_own() {
    let events = [(at(5, 0), event(1, NOW, NOW + WINDOW + 1)), (at(5, 1), event(1, NOW, NOW + WINDOW + 2))];
    let row = |received_at| KnownRow {
        dedup_key: events[0].1.dedup_key.as_u128(),
        received_at,
        log_partition: 0,
        log_offset: 1,
        log_index: 0,
    };
    assert_eq!(duplicates(&events, &[0, 1], &[row(NOW)], WINDOW), HashSet::from([1]));
    assert_eq!(duplicates(&events, &[0, 1], &[row(NOW + 2)], WINDOW), HashSet::from([0, 1]));
}

#[derive(Clone, Debug)]
enum Happening {
    /// A range of events: keys and minutes of their times.
    Range(Vec<(u8, i64)>),
    /// The last range is stored up to this many rows, the process dies, and the next owner stores the range again.
    Crash(Vec<(u8, i64)>, usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    let range = prop::collection::vec((0u8..12, -90i64..130), 1..12);
    prop_oneof![
        3 => range.clone().prop_map(Happening::Range),
        1 => (range, 0usize..12).prop_map(|(range, through)| Happening::Crash(range, through)),
    ]
}

proptest! {
    /// An event is its key and time here; within the window each is stored exactly once, whatever happened.
    #[test]
    fn each_event_is_stored_once(happenings in prop::collection::vec(happening(), 1..25), budget in 300usize..20_000) {
        let mut table = Table::default();
        let mut sent: HashSet<Key128> = HashSet::new();
        let mut now = NOW;
        let mut recent = Recent::since(now, budget);
        for (offset, happening) in (0_i64..).zip(happenings) {
            now += MINUTE;
            let (Happening::Range(keys) | Happening::Crash(keys, _)) = &happening;
            let range: Vec<(Located, AgentEvent)> = (0_u32..)
                .zip(keys)
                .map(|(index, (key, minute))| {
                    // The time is part of the identity, as it is for a sender's retry.
                    let mut event = event(*key, NOW + minute * MINUTE, now);
                    event.dedup_key = Key128::of([&[*key][..], &minute.to_le_bytes()]);
                    if key % 3 == 0 {
                        // It has none of its own.
                        event.dedup_key = Key128::of([&[*key][..]]);
                        (event.timestamp, event.timestamp_source) = (now, TimestampSource::Ingest);
                    }
                    (at(offset, index), event)
                })
                .collect();
            sent.extend(range.iter().map(|(_, event)| event.dedup_key));
            match happening {
                Happening::Range(_) => table.store(&mut recent, &range, now, usize::MAX),
                Happening::Crash(_, through) => {
                    table.store(&mut recent, &range, now, through);
                    recent = Recent::since(now, budget);
                    let later = table.0.iter().filter(|(_, event)| event.timestamp >= now);
                    recent.load(later.map(|(_, e)| (e.dedup_key.as_u128(), e.timestamp)), i64::MAX, now);
                    if through.is_multiple_of(2) {
                        let untimed = |e: &AgentEvent| e.timestamp_source == TimestampSource::Ingest;
                        let keys = table.0.iter().filter(|(_, e)| untimed(e));
                        recent.load_untimed(keys.map(|(_, e)| (e.dedup_key.as_u128(), e.received_at)), now - WINDOW);
                    }
                    table.store(&mut recent, &range, now, usize::MAX);
                }
            }
        }
        let stored: HashSet<Key128> = table.0.iter().map(|(_, event)| event.dedup_key).collect();
        prop_assert_eq!(&stored, &sent, "nothing is lost");
        prop_assert_eq!(stored.len(), table.0.len(), "nothing is stored twice");
    }
}
