//! What calls to models and tool calls have in common: sightings gathered by identity and ranked by authority.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use fleetlog_schemas::event::{Channel, Status};
use fleetlog_store::derived::Sighting;

/// What makes two sightings the same call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Identity<'a> {
    /// They share the source's key of the call.
    Key(&'a str),
    /// They are the same event: nothing names the call.
    Event(u128),
}

/// The distinct sightings of each call, most authoritative first.
pub(super) fn gather<'a, R: Ord>(
    sightings: &'a [Sighting],
    identity: impl Fn(&'a Sighting) -> Option<Identity<'a>>,
    rank: impl Fn(&'a Sighting) -> R,
) -> Vec<(Identity<'a>, Vec<&'a Sighting>)> {
    let mut calls: HashMap<Identity<'a>, Vec<&'a Sighting>> = HashMap::new();
    let mut places: HashMap<(Identity<'a>, u128), usize> = HashMap::with_capacity(sightings.len());
    for sighting in sightings {
        let Some(identity) = identity(sighting) else { continue };
        let seen = calls.entry(identity).or_default();
        match places.entry((identity, sighting.dedup_key)) {
            Entry::Vacant(place) => {
                place.insert(seen.len());
                seen.push(sighting);
            }
            // The same event again: its first arrival stands for both.
            Entry::Occupied(place) => {
                let first = &mut seen[*place.get()];
                if position(sighting) < position(first) {
                    *first = sighting;
                }
            }
        }
    }
    let mut calls: Vec<_> = calls.into_iter().collect();
    for (_, seen) in &mut calls {
        seen.sort_by_cached_key(|sighting| (rank(sighting), position(sighting), sighting.dedup_key));
    }
    calls
}

/// Where in the raw log a sighting comes from; the earlier one wins where nothing else decides.
fn position(sighting: &Sighting) -> (i32, i64, u32) {
    (sighting.raw_partition, sighting.raw_offset, sighting.raw_index)
}

/// The channel of a sighting; the order of [`Channel`] is the order of authority.
pub(super) fn channel(sighting: &Sighting) -> Channel {
    Channel::parse(&sighting.channel).unwrap_or_default()
}

/// How a sighting says it ended.
pub(super) fn status(sighting: &Sighting) -> Status {
    Status::parse(&sighting.status).unwrap_or_default()
}

/// The first text that is said at all.
pub(super) fn text(seen: &[&Sighting], field: impl Fn(&Sighting) -> &String) -> String {
    seen.iter().map(|sighting| field(sighting)).find(|text| !text.is_empty()).cloned().unwrap_or_default()
}

/// The first value that is said at all.
pub(super) fn value<T>(seen: &[&Sighting], field: impl Fn(&Sighting) -> Option<T>) -> Option<T> {
    seen.iter().find_map(|sighting| field(sighting))
}

/// All channels of a call, most authoritative first.
pub(super) fn channels(seen: &[&Sighting]) -> String {
    let mut channels: Vec<Channel> = seen.iter().map(|sighting| channel(sighting)).collect();
    channels.sort_unstable();
    channels.dedup();
    channels.iter().map(|channel| channel.as_str()).collect::<Vec<_>>().join(",")
}

/// When the first sighting was received.
pub(super) fn first_received(seen: &[&Sighting]) -> i64 {
    seen.iter().map(|sighting| sighting.received_at).min().unwrap_or_default()
}

/// The number of sightings as the tables hold it.
pub(super) fn count(seen: &[&Sighting]) -> u32 {
    u32::try_from(seen.len()).unwrap_or(u32::MAX)
}
