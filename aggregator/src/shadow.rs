//! Stores what a replay of raw records yields into a shadow database, and derives it there.
//!
//! What was a sender's retry when it was stored is one here too: an event whose identity is stored from another raw
//! record is left out, whether that record lies within the replay or before it. An event of an identity that is not
//! stored is new, the first time it comes. So a replay that changes nothing yields the rows that are there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use fleetlog_pricing::PriceTable;
use fleetlog_schemas::{AgentEvent, topic};
use fleetlog_store::{Attempt, FactRange, Located, PlaceRow, Store, StoreError};

use crate::config::AggregatorConfig;
use crate::derive::Prices;
use crate::deriver::derive_all;
use crate::error::AggregatorError;

/// How long an insert may wait before it starts.
const INSERT_WITHIN_MS: i64 = 60_000;

/// Writes one replay.
#[derive(Clone)]
pub struct ShadowWriter {
    live: Store,
    shadow: Store,
    prices: Prices,
    config: Arc<AggregatorConfig>,
}

impl ShadowWriter {
    /// A writer into `shadow`, whose tables exist, that recognises retries by what is stored in `live`.
    pub fn new(live: Store, shadow: Store, prices: PriceTable, config: AggregatorConfig) -> Self {
        Self { live, shadow, prices: Prices::new(prices), config: Arc::new(config) }
    }

    /// Events that are stored at once, about: the caller ends a batch there, with a whole raw record.
    pub fn batch_max_rows(&self) -> usize {
        self.config.batch_max_rows
    }

    /// Stores the events of some raw records of one partition, each record's in their order, and returns how many of
    /// them are new.
    ///
    /// # Errors
    /// The store's; after one, the shadow database is of no use.
    pub async fn store(&self, raw_partition: i32, events: &[AgentEvent]) -> Result<usize, StoreError> {
        let all: Vec<&AgentEvent> = events.iter().collect();
        let window_ns = i64::from(self.config.dedup_window_hours) * 3600 * 1_000_000_000;
        let stored = self.live.known_places(&all, window_ns).await?;
        let unstored = not_among(&all, &stored);
        let mut known = self.shadow.known_places(&unstored, window_ns).await?;
        known.extend(stored);
        let kept = fresh(events, &known, window_ns);
        let (Some(first), Some(last)) = (kept.first(), kept.last()) else { return Ok(0) };
        let range = FactRange {
            topic: topic::EVENTS,
            partition: raw_partition,
            first: first.raw_offset,
            last: last.raw_offset,
        };
        let insert_before_ms = self.shadow.now_ms().await? + INSERT_WITHIN_MS;
        let attempt = Attempt { number: 1, sends: 0, insert_before_ms };
        self.shadow.insert_events(&range, &attempt, located(&kept)).await?;
        Ok(kept.len())
    }

    /// Derives calls and sessions of both databases: of what was replayed, and of `stored`, a copy of what is compared.
    ///
    /// # Errors
    /// The store's, or that a group is too large.
    pub async fn derive(&self, stored: Store) -> Result<(), AggregatorError> {
        for store in [stored, self.shadow.clone()] {
            derive_all(store, self.prices.clone(), Arc::clone(&self.config)).await?;
        }
        Ok(())
    }
}

/// The events of identities that are not stored.
fn not_among<'e>(events: &[&'e AgentEvent], stored: &[PlaceRow]) -> Vec<&'e AgentEvent> {
    let known: HashSet<u128> = stored.iter().map(|row| row.dedup_key).collect();
    events.iter().copied().filter(|event| !known.contains(&event.dedup_key.as_u128())).collect()
}

/// The events that would be stored, given where events of the same identities are stored.
fn fresh<'e>(events: &'e [AgentEvent], known: &[PlaceRow], window_ns: i64) -> Vec<&'e AgentEvent> {
    let mut stored: HashMap<u128, Vec<&PlaceRow>> = HashMap::new();
    for row in known {
        stored.entry(row.dedup_key).or_default().push(row);
    }
    let mut taken: HashMap<u128, Vec<i64>> = HashMap::new();
    let mut fresh = Vec::with_capacity(events.len());
    for event in events {
        let near = |time: i64| time.abs_diff(event.received_at) <= window_ns.unsigned_abs();
        let key = event.dedup_key.as_u128();
        let rows = stored.get(&key).map_or(&[][..], Vec::as_slice);
        let own = |row: &&&PlaceRow| {
            (row.raw_partition, row.raw_offset, row.raw_index)
                == (event.raw_partition, event.raw_offset, event.raw_index)
        };
        let repeats = rows.iter().find(own).is_none() && rows.iter().any(|row| near(row.received_at));
        let came_before = taken.get(&key).is_some_and(|times| times.iter().any(|time| near(*time)));
        if !repeats && !came_before {
            taken.entry(key).or_default().push(event.received_at);
            fresh.push(event);
        }
    }
    fresh
}

/// Each event at the place of its raw record, numbered within it.
fn located<'e>(events: &[&'e AgentEvent]) -> impl Iterator<Item = (Located, &'e AgentEvent)> + Send {
    let mut at = Located { partition: -1, offset: -1, index: 0 };
    events.iter().copied().map(move |event| {
        let same = (at.partition, at.offset) == (event.raw_partition, event.raw_offset);
        let index = if same { at.index + 1 } else { 0 };
        at = Located { partition: event.raw_partition, offset: event.raw_offset, index };
        (at, event)
    })
}

#[cfg(test)]
mod tests {
    use fleetlog_schemas::id::Key128;

    use super::*;

    const HOUR: i64 = 3600 * 1_000_000_000;

    fn event(key: u128, raw_offset: i64, received_at: i64) -> AgentEvent {
        AgentEvent { dedup_key: Key128::from_u128(key), raw_offset, received_at, ..AgentEvent::default() }
    }

    fn row(dedup_key: u128, raw_offset: i64, received_at: i64) -> PlaceRow {
        PlaceRow { dedup_key, received_at, raw_partition: 0, raw_offset, raw_index: 0 }
    }

    fn offsets(events: &[AgentEvent], known: &[PlaceRow]) -> Vec<i64> {
        fresh(events, known, 24 * HOUR).iter().map(|event| event.raw_offset).collect()
    }

    #[test]
    fn what_was_stored_is_stored_again_and_what_was_a_retry_is_one_again() {
        // The first copy of 1 was stored before the replay's window, that of 2 from its second record.
        let events = [event(1, 5, 0), event(2, 6, 0), event(2, 7, 0), event(3, 8, 0)];
        let known = [row(1, 2, 0), row(2, 7, 0)];
        assert_eq!(offsets(&events, &known), [7, 8]);
    }

    #[test]
    fn an_identity_that_is_new_is_stored_the_first_time_within_the_window() {
        let events = [event(1, 1, 0), event(1, 2, HOUR), event(1, 3, 25 * HOUR), event(1, 3, 25 * HOUR)];
        assert_eq!(offsets(&events, &[]), [1, 3]);
        assert_eq!(offsets(&events, &[row(1, 0, HOUR)]), Vec::<i64>::new(), "all within 24 h of it");
    }

    #[test]
    fn only_identities_that_are_not_stored_are_asked_for_again() {
        let (a, b) = (event(1, 0, 0), event(2, 0, 0));
        let asked: Vec<u128> =
            not_among(&[&a, &b], &[row(1, 0, 0)]).iter().map(|event| event.dedup_key.as_u128()).collect();
        assert_eq!(asked, [2]);
    }

    #[test]
    fn events_of_one_raw_record_have_places_of_their_own() {
        let events = [event(1, 4, 0), event(2, 4, 0), event(3, 5, 0)];
        let refs: Vec<&AgentEvent> = events.iter().collect();
        let places: Vec<(i64, u32)> = located(&refs).map(|(at, _)| (at.offset, at.index)).collect();
        assert_eq!(places, [(4, 0), (4, 1), (5, 0)]);
    }
}
