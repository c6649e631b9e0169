//! Recognising a sender's retry (INV-5): the same event again is counted, not stored.
//!
//! Nearly every event is new, and [`Recent`] knows that without asking: within its range of times it holds every key that
//! is stored, so a key that is not in it is new. A key that is in it, or a time outside of its range, is looked up
//! exactly, among the stored rows; so a filter that forgets costs time and never a wrong answer.
//!
//! ```text
//!        always looked up      │ answered from memory          │ looked up when too many are this far ahead
//! ─────────────────────────────┼───────────────────────────────┼────────────────────────▶ event's own timestamp
//!                           horizon                       now + 1 h          ceiling
//! ```
//!
//! Two events with one key are duplicates when they were received within the window of each other. What was decided
//! is not decided again: a row that is stored was new, and a range that is stored a second time after a crash ignores
//! whatever is stored at or after its own positions (INV-4.3).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use fleetlog_schemas::AgentEvent;
use fleetlog_schemas::id::Key128;
use fleetlog_store::{KnownRow, Located};

const SLICE_NS: i64 = 5 * 60 * 1_000_000_000;
/// Clocks are rarely further ahead.
const AHEAD_NS: i64 = 3600 * 1_000_000_000;
/// Share of the memory for times further ahead: a wrong clock must not push out everybody else's keys.
const AHEAD_SHARE: usize = 8;
/// A key, its control byte, and the room that a hash table keeps free.
const BYTES_PER_SLOT: usize = 10;
const BYTES_PER_SLICE: usize = 160;

/// The keys are hashes already.
#[derive(Default)]
pub(crate) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

type Keys = HashSet<u64, BuildHasherDefault<Identity>>;

/// The keys of what was stored lately, by the events' own times.
///
/// # Invariants
/// Every stored key of the partition whose timestamp lies in `horizon..ceiling` is in it.
#[derive(Debug)]
pub(crate) struct Recent {
    slices: BTreeMap<i64, Keys>,
    bytes: usize,
    budget: usize,
    horizon: i64,
    ceiling: i64,
}

impl Recent {
    /// A filter of at most about `budget` bytes that knows nothing stored before `now`; all later keys must be
    /// [loaded](Self::load).
    pub(crate) const fn since(now: i64, budget: usize) -> Self {
        Self { slices: BTreeMap::new(), bytes: 0, budget, horizon: now, ceiling: i64::MAX }
    }

    /// The time from which on keys are answered from memory.
    pub(crate) const fn horizon(&self) -> i64 {
        self.horizon
    }

    /// Bytes in use, about.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a stored key; only those before `all_below` are known to be complete.
    pub(crate) fn load(&mut self, stored: impl IntoIterator<Item = (u128, i64)>, all_below: i64, now: i64) {
        for (key, timestamp) in stored {
            self.put(low(Key128::from_u128(key)), timestamp, now);
        }
        self.ceiling = self.ceiling.min(all_below);
    }

    /// Takes the key of an event that is about to be stored. Returns whether it is certainly new; if not, only a lookup
    /// can tell.
    pub(crate) fn take(&mut self, event: &AgentEvent, now: i64) -> bool {
        let timestamp = event.timestamp;
        let known_range = timestamp >= self.horizon && timestamp < self.ceiling;
        self.put(low(event.dedup_key), timestamp, now) && known_range
    }

    /// Whether the key was added; false when it was there, or when it does not fit in.
    fn put(&mut self, key: u64, timestamp: i64, now: i64) -> bool {
        if timestamp < self.horizon || timestamp >= self.ceiling {
            return false;
        }
        let slice = timestamp.div_euclid(SLICE_NS);
        if timestamp > now.saturating_add(AHEAD_NS) && !self.slices.contains_key(&slice) {
            let ahead = now.saturating_add(AHEAD_NS).div_euclid(SLICE_NS);
            let bytes: usize = self.slices.range(ahead..).map(|(_, keys)| size(keys)).sum();
            if bytes > self.budget / AHEAD_SHARE {
                self.ceiling = slice.saturating_mul(SLICE_NS);
                self.drop_beyond_ceiling();
                return false;
            }
        }
        let keys = self.slices.entry(slice).or_default();
        let before = if keys.capacity() == 0 { 0 } else { size(keys) };
        let added = keys.insert(key);
        self.bytes += size(keys) - before;
        while self.bytes > self.budget
            && let Some((oldest, keys)) = self.slices.pop_first()
        {
            self.bytes -= size(&keys);
            self.horizon = oldest.saturating_add(1).saturating_mul(SLICE_NS);
        }
        added
    }

    fn drop_beyond_ceiling(&mut self) {
        let beyond = self.slices.split_off(&self.ceiling.div_euclid(SLICE_NS));
        self.bytes -= beyond.values().map(size).sum::<usize>();
    }
}

fn size(keys: &Keys) -> usize {
    BYTES_PER_SLICE + keys.capacity() * BYTES_PER_SLOT
}

fn low(key: Key128) -> u64 {
    key.as_u128() as u64
}

/// What a partition remembers of its events.
#[derive(Debug)]
pub(crate) struct Dedup {
    pub(crate) recent: Recent,
    /// Events with one key are duplicates when they were received within it of each other, nanoseconds.
    pub(crate) window_ns: i64,
}

/// Which of a range's events are duplicates, given the stored rows of every key that is in doubt. `doubtful` names
/// events by their place in `events`, and holds every event whose key is in doubt but may miss its first occurrence.
pub(crate) fn duplicates(
    events: &[(Located, AgentEvent)],
    doubtful: &[usize],
    known: &[KnownRow],
    window_ns: i64,
) -> HashSet<usize> {
    let mut stored: HashMap<u128, Vec<&KnownRow>> = HashMap::new();
    for row in known {
        stored.entry(row.dedup_key).or_default().push(row);
    }
    let keys: HashSet<Key128> =
        doubtful.iter().filter_map(|place| events.get(*place)).map(|(_, event)| event.dedup_key).collect();
    let mut first_new: HashMap<Key128, Vec<i64>> = HashMap::new();
    let mut duplicates = HashSet::new();
    for (place, (at, event)) in
        events.iter().enumerate().filter(|(_, (_, event))| keys.contains(&event.dedup_key))
    {
        let rows = stored.get(&event.dedup_key.as_u128()).map_or(&[][..], Vec::as_slice);
        let near = |received_at: i64| received_at.abs_diff(event.received_at) <= window_ns.unsigned_abs();
        let own = |row: &&KnownRow| row.position() == (at.partition, at.offset, at.index);
        // In this partition, what is stored at or after the event's own place was judged after it.
        let earlier = |row: &&KnownRow| {
            row.log_partition != at.partition || row.position() < (at.partition, at.offset, at.index)
        };
        let already_stored = rows.iter().any(own);
        let repeats = rows.iter().any(|row| earlier(row) && near(row.received_at))
            || first_new.get(&event.dedup_key).is_some_and(|times| times.iter().any(|time| near(*time)));
        if repeats && !already_stored {
            duplicates.insert(place);
        } else {
            first_new.entry(event.dedup_key).or_default().push(event.received_at);
        }
    }
    duplicates
}

#[cfg(test)]
mod tests;
