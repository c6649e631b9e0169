//! What calls to models and tool calls have in common: sightings gathered by what they name, and ranked by authority.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use fleetlog_schemas::event::{Channel, EventType, Status, TimestampSource};
use fleetlog_store::derived::Sighting;

use super::pieces;

/// Sightings whose ids a call lists; it counts all of them.
const LISTED: usize = 32;

/// What makes two sightings the same call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Identity<'a> {
    /// They share the source's key of the call.
    Key(&'a str),
    /// They are the same event: nothing names the call.
    Event(u128),
}

/// One account of a call: an event, or the pieces of one, merged.
#[derive(Clone, Debug)]
pub(super) struct Account<'a> {
    /// What it names.
    pub(super) identity: Identity<'a>,
    pub(super) says: Cow<'a, Sighting>,
}

/// All that is known of one call. Never empty.
#[derive(Clone, Debug)]
pub(super) struct Gathered<'a> {
    /// Most authoritative first.
    pub(super) accounts: Vec<Account<'a>>,
    /// The distinct events behind them, by time.
    pub(super) events: Vec<&'a Sighting>,
}

/// Each event once, by time: of an event that arrived again, the first arrival stands for both.
pub(super) fn distinct(sightings: &[Sighting]) -> Vec<&Sighting> {
    let mut first: HashMap<u128, &Sighting> = HashMap::with_capacity(sightings.len());
    for sighting in sightings {
        match first.entry(sighting.dedup_key) {
            Entry::Vacant(place) => {
                place.insert(sighting);
            }
            Entry::Occupied(mut place) => {
                if position(sighting) < position(place.get()) {
                    place.insert(sighting);
                }
            }
        }
    }
    let mut distinct: Vec<&Sighting> = first.into_values().collect();
    distinct.sort_unstable_by_key(|sighting| (sighting.timestamp, sighting.dedup_key));
    distinct
}

/// The calls that distinct sightings name. `root` says which identities are the same call's.
pub(super) fn gather<'a, R: Ord>(
    named: impl IntoIterator<Item = (Identity<'a>, &'a Sighting)>,
    root: impl Fn(Identity<'a>) -> Identity<'a>,
    rank: impl Fn(&Sighting) -> R,
) -> Vec<Gathered<'a>> {
    let mut calls: BTreeMap<Identity<'a>, Vec<(Identity<'a>, &'a Sighting)>> = BTreeMap::new();
    for (identity, sighting) in named {
        calls.entry(root(identity)).or_default().push((identity, sighting));
    }
    calls
        .into_values()
        .map(|named| {
            let mut accounts = accounts(&named);
            accounts.sort_by_cached_key(|account| {
                (rank(&account.says), position(&account.says), account.identity)
            });
            Gathered { accounts, events: named.into_iter().map(|(_, sighting)| sighting).collect() }
        })
        .collect()
}

/// Pieces of one identity and channel together make one account; a whole record is one of its own.
fn accounts<'a>(named: &[(Identity<'a>, &'a Sighting)]) -> Vec<Account<'a>> {
    let mut in_pieces: BTreeMap<(Identity<'a>, Channel), Vec<&'a Sighting>> = BTreeMap::new();
    let mut accounts = Vec::new();
    for (identity, sighting) in named {
        if sighting.revision > 0 {
            in_pieces.entry((*identity, channel(sighting))).or_default().push(sighting);
        } else {
            accounts.push(Account { identity: *identity, says: Cow::Borrowed(*sighting) });
        }
    }
    accounts.extend(
        in_pieces
            .into_iter()
            .map(|((identity, _), pieces)| Account { identity, says: pieces::merged(pieces) }),
    );
    accounts
}

impl Gathered<'_> {
    /// The most authoritative account.
    pub(super) fn best(&self) -> Option<&Sighting> {
        self.accounts.first().map(|account| account.says.as_ref())
    }

    /// What the call is called within its group: the key that its best account names, else that event's id.
    pub(super) fn key(&self) -> String {
        match self.accounts.first() {
            Some(Account { identity: Identity::Key(key), .. }) => (*key).to_owned(),
            Some(Account { identity: Identity::Event(_), says }) => says.event_id.clone(),
            None => String::new(),
        }
    }

    /// The accounts' words, most authoritative first.
    pub(super) fn says(&self) -> impl Iterator<Item = &Sighting> {
        self.accounts.iter().map(|account| account.says.as_ref())
    }

    /// The first text that is said at all.
    pub(super) fn said(&self, field: impl Fn(&Sighting) -> &String) -> &str {
        self.says().map(field).find(|text| !text.is_empty()).map_or("", String::as_str)
    }

    /// The same, to be kept.
    pub(super) fn text(&self, field: impl Fn(&Sighting) -> &String) -> String {
        self.said(field).to_owned()
    }

    /// The first value that is said at all.
    pub(super) fn value<T>(&self, field: impl Fn(&Sighting) -> Option<T>) -> Option<T> {
        self.says().find_map(field)
    }

    /// All channels that report it, most authoritative first.
    pub(super) fn channels(&self) -> String {
        let mut channels: Vec<Channel> = self.events.iter().map(|sighting| channel(sighting)).collect();
        channels.sort_unstable();
        channels.dedup();
        channels.iter().map(|channel| channel.as_str()).collect::<Vec<_>>().join(",")
    }

    /// When the first sighting was received.
    pub(super) fn first_received(&self) -> i64 {
        self.events.iter().map(|sighting| sighting.received_at).min().unwrap_or_default()
    }

    /// The number of sightings as the tables hold it.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.events.len()).unwrap_or(u32::MAX)
    }

    /// Ids of the first sightings.
    pub(super) fn event_ids(&self) -> Vec<String> {
        self.events.iter().take(LISTED).map(|sighting| sighting.event_id.clone()).collect()
    }
}

/// Where in the raw log a sighting comes from; the earlier one wins where nothing else decides.
fn position(sighting: &Sighting) -> (i32, i64, u32) {
    (sighting.raw_partition, sighting.raw_offset, sighting.raw_index)
}

/// The channel of a sighting; the order of [`Channel`] is the order of authority.
pub(super) fn channel(sighting: &Sighting) -> Channel {
    Channel::parse(&sighting.channel).unwrap_or_default()
}

/// Whether a sighting is a piece that does not say of what kind its thing is, and names it as a call to a model and as a
/// tool call alike: an update that repeats nothing. It adds to the one that other pieces make of it, and is none itself.
pub(super) fn is_untyped(sighting: &Sighting) -> bool {
    sighting.revision > 0 && sighting.event_type == EventType::Span.as_str()
}

/// Where a sighting's time comes from.
pub(super) fn timestamp_source(sighting: &Sighting) -> TimestampSource {
    TimestampSource::parse(&sighting.timestamp_source).unwrap_or(TimestampSource::Event)
}

/// How a sighting says it ended.
pub(super) fn status(sighting: &Sighting) -> Status {
    Status::parse(&sighting.status).unwrap_or_default()
}
