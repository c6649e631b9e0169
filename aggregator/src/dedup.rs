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
//! An event without a time of its own has that of its receipt, and a retry of it another one. So its key is sought in all
//! of the window before it, in slices of their own. Where its sender gave it an id, it is new without a lookup only when
//! memory reaches so far back. Where it is known by its place in a request, only a request with an `Idempotency-Key` can
//! repeat it, and nothing tells the one from the other any more: it is recognised as far as memory reaches.
//!
//! Two events with one key are duplicates when they were received within the window of each other. What was decided
//! is not decided again: an event that is stored at its own place was new, and stays so when its record is read a second
//! time (INV-4.3). Whatever else of its key is stored was there before it, wherever that is: rows at or after its place are
//! its own range's, or those of a log that was cut off or made anew since.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use fleetlog_schemas::AgentEvent;
use fleetlog_schemas::event::TimestampSource;
use fleetlog_schemas::id::Key128;
use fleetlog_store::{KnownRow, Located};

/// The oldest slice is forgotten as a whole, so the one that is being filled must be a small part of the memory, at 50,000
/// events a second too.
const SLICE_NS: i64 = 20 * 1_000_000_000;
/// Of events without a time of their own: fewer slices, because all of the window's are searched.
const UNTIMED_SLICE_NS: i64 = 60 * 1_000_000_000;
/// Clocks are rarely further ahead.
const AHEAD_NS: i64 = 3600 * 1_000_000_000;
/// Share of the memory for times further ahead: a wrong clock must not push out everybody else's keys.
const AHEAD_SHARE: usize = 8;
/// A key, its control byte, and the eighth that a hash table keeps free: 10.3, rounded up.
const BYTES_PER_SLOT: usize = 11;
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
/// Every stored key of the partition whose timestamp lies in `horizon..ceiling` is in it; and every one without a time of
/// its own that was received from `untimed_horizon` on.
#[derive(Debug)]
pub(crate) struct Recent {
    slices: BTreeMap<i64, Keys>,
    untimed: BTreeMap<i64, Keys>,
    bytes: usize,
    budget: usize,
    horizon: i64,
    ceiling: i64,
    untimed_horizon: i64,
}

impl Recent {
    /// A filter of at most about `budget` bytes that knows nothing stored before `now`; all later keys must be
    /// [loaded](Self::load).
    pub(crate) const fn since(now: i64, budget: usize) -> Self {
        Self {
            slices: BTreeMap::new(),
            untimed: BTreeMap::new(),
            bytes: 0,
            budget,
            horizon: now,
            ceiling: i64::MAX,
            untimed_horizon: now,
        }
    }

    /// The time from which on keys are answered from memory.
    pub(crate) const fn horizon(&self) -> i64 {
        self.horizon
    }

    /// The receipt from which on events without a time of their own are recognised from memory.
    pub(crate) const fn untimed_horizon(&self) -> i64 {
        self.untimed_horizon
    }

    /// Bytes in use, about.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// From where on stored keys must be [loaded](Self::load) again, when the present has reached the ceiling: what lies
    /// beyond was not remembered, and everything would be looked up from now on.
    pub(crate) fn reaches_ceiling(&self, now: i64) -> Option<i64> {
        (self.ceiling <= now.saturating_add(SLICE_NS)).then_some(self.ceiling)
    }

    /// Takes the stored keys from the horizon, or from the ceiling, on; only those before `all_below` are known to be
    /// complete.
    pub(crate) fn load(&mut self, stored: impl IntoIterator<Item = (u128, i64)>, all_below: i64, now: i64) {
        self.ceiling = i64::MAX;
        for (key, timestamp) in stored {
            self.put(low(Key128::from_u128(key)), timestamp, now);
        }
        self.ceiling = self.ceiling.min(all_below);
    }

    /// Takes stored keys without a time of their own, by their receipt; from `all_from` on they are complete.
    pub(crate) fn load_untimed(&mut self, stored: impl IntoIterator<Item = (u128, i64)>, all_from: i64) {
        self.untimed_horizon = self.untimed_horizon.min(all_from);
        for (key, received_at) in stored {
            self.put_untimed(low(Key128::from_u128(key)), received_at);
        }
    }

    /// Takes the key of an event that is about to be stored. Returns whether it is certainly new; if not, only a lookup
    /// can tell.
    pub(crate) fn take(&mut self, event: &AgentEvent, now: i64, window_ns: i64) -> bool {
        let key = low(event.dedup_key);
        if event.timestamp_source == TimestampSource::Ingest {
            let from = event.received_at.saturating_sub(window_ns);
            // One that is named after its request is new as long as its request is; a replayed one is not.
            let of_this_request = !has_id_of_its_own(event) && event.received_at >= self.untimed_horizon;
            let known_range = from >= self.untimed_horizon || of_this_request;
            // Later ones too: a replay judges what was received before them.
            let mut near = self.untimed.range(from.div_euclid(UNTIMED_SLICE_NS)..);
            let is_new = !near.any(|(_, keys)| keys.contains(&key));
            self.put_untimed(key, event.received_at);
            return known_range && is_new;
        }
        let timestamp = event.timestamp;
        let known_range = timestamp >= self.horizon && timestamp < self.ceiling;
        self.put(key, timestamp, now) && known_range
    }

    /// Whether the key was added; false when it was there, or when it does not fit in.
    fn put(&mut self, key: u64, timestamp: i64, now: i64) -> bool {
        if timestamp < self.horizon || timestamp >= self.ceiling {
            return false;
        }
        let slice = timestamp.div_euclid(SLICE_NS);
        let grows = self.slices.get(&slice).is_none_or(|keys| keys.len() == keys.capacity());
        if grows && timestamp > now.saturating_add(AHEAD_NS) {
            let ahead = now.saturating_add(AHEAD_NS).div_euclid(SLICE_NS);
            let bytes: usize = self.slices.range(ahead..).map(|(_, keys)| size(keys)).sum();
            if bytes > self.budget / AHEAD_SHARE {
                self.ceiling = slice.saturating_mul(SLICE_NS);
                self.drop_beyond_ceiling();
                return false;
            }
        }
        let added = insert(&mut self.slices, slice, key, &mut self.bytes);
        self.shrink();
        added
    }

    fn put_untimed(&mut self, key: u64, received_at: i64) {
        if received_at >= self.untimed_horizon {
            insert(&mut self.untimed, received_at.div_euclid(UNTIMED_SLICE_NS), key, &mut self.bytes);
            self.shrink();
        }
    }

    /// Forgets the oldest keys until the rest fits the budget.
    fn shrink(&mut self) {
        while self.bytes > self.budget {
            let end = |first: Option<(&i64, &Keys)>, length: i64| {
                first.map_or(i64::MAX, |(slice, _)| slice.saturating_add(1).saturating_mul(length))
            };
            let timed = end(self.slices.first_key_value(), SLICE_NS);
            let untimed = end(self.untimed.first_key_value(), UNTIMED_SLICE_NS);
            let forgotten = if timed <= untimed {
                self.horizon = timed;
                self.slices.pop_first()
            } else {
                self.untimed_horizon = untimed;
                self.untimed.pop_first()
            };
            let Some((_, keys)) = forgotten else { return };
            self.bytes -= size(&keys);
        }
    }

    fn drop_beyond_ceiling(&mut self) {
        let beyond = self.slices.split_off(&self.ceiling.div_euclid(SLICE_NS));
        self.bytes -= beyond.values().map(size).sum::<usize>();
    }
}

/// Whether its sender gave it an id; otherwise its id is its key.
fn has_id_of_its_own(event: &AgentEvent) -> bool {
    event.event_id.len() != 32
        || u128::from_str_radix(&event.event_id, 16).ok() != Some(event.dedup_key.as_u128())
}

/// Adds a key to a slice and the memory that it takes to `bytes`; false when it was there.
fn insert(slices: &mut BTreeMap<i64, Keys>, slice: i64, key: u64, bytes: &mut usize) -> bool {
    let keys = slices.entry(slice).or_default();
    let before = if keys.capacity() == 0 { 0 } else { size(keys) };
    let added = keys.insert(key);
    *bytes += size(keys) - before;
    added
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
        let own = |row: &&KnownRow| {
            row.position() == (at.partition, at.offset, at.index) && row.received_at == event.received_at
        };
        let already_stored = rows.iter().any(own);
        let repeats = rows.iter().any(|row| near(row.received_at))
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
