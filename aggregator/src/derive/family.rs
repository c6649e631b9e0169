//! Calls of sources whose channels share no id: the unit that is counted is session × family × channel.
//!
//! | step | rule |
//! |---|---|
//! | family | `call_family`; running totals outside any family form one by their source, used only if nothing else of that source states usage |
//! | calls | within a channel, as everywhere: by `llm_call_key`, else each event; running totals by their increases |
//! | precedence | of the records of one channel and turn that state usage, those of the lowest `precedence` count (an empty turn is a turn) |
//! | winner | the most authoritative channel that states usage; all its calls count |
//! | others | then each further channel, those with usage first: its calls count where they lie outside the time that the channels before it cover (first start to last end of what they count), and are marked as guessed |
//!
//! Calls of two channels are never matched, neither by equal counts nor by near times.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

use fleetlog_schemas::event::{Channel, EventType, UsageRole};
use fleetlog_store::Call;
use fleetlog_store::derived::Sighting;

use super::carry::Past;
use super::cover::{Covers, Interval, Starts};
use super::merge::{self, Gathered};
use super::prices::ProjectPrices;
use super::{calls, series, tokens};

/// All calls of all families, by family and authority of their channels.
pub(super) fn calls(
    prices: &ProjectPrices<'_>,
    sightings: &[&Sighting],
    starts: &Starts,
    past: &Past,
) -> Vec<Call> {
    let mut families: BTreeMap<&str, Vec<&Sighting>> = BTreeMap::new();
    let mut totals: BTreeMap<&str, Vec<&Sighting>> = BTreeMap::new();
    for sighting in sightings {
        if !sighting.call_family.is_empty() && calls::may_count(sighting) {
            families.entry(&sighting.call_family).or_default().push(sighting);
        } else if names_series(sighting) {
            totals.entry(&sighting.source).or_default().push(sighting);
        }
    }
    totals.retain(|source, _| {
        !past.is_told_by(source)
            && !sightings.iter().any(|other| other.source == *source && tokens::stated(other) > 0)
    });
    families
        .into_values()
        .chain(totals.into_values())
        .flat_map(|family| counted(prices, &family, starts, past))
        .collect()
}

/// Whether a sighting is a point of a series of running totals.
pub(super) fn names_series(sighting: &Sighting) -> bool {
    tokens::role(sighting) == UsageRole::Cumulative
        && !sighting.llm_call_key.is_empty()
        && EventType::parse(&sighting.event_type).is_some_and(EventType::is_llm)
}

/// The calls of one family that count, beyond those that stand.
fn counted(prices: &ProjectPrices<'_>, family: &[&Sighting], starts: &Starts, past: &Past) -> Vec<Call> {
    let mut records = by_channel(family);
    for channel in past.channels() {
        records.entry(channel).or_default();
    }
    let mut channels: Vec<Told> = records
        .into_iter()
        .map(|(channel, records)| Told::new(prices, channel, &records, past))
        .filter(|told| !told.calls.is_empty() || past.cover(told.channel).is_some())
        .collect();
    channels.sort_by_key(|told| (Reverse(told.states_usage), told.channel));
    let order: Vec<Channel> = channels.iter().map(|told| told.channel).collect();
    let mut covers = Covers::default();
    let mut counted = Vec::new();
    for (at, told) in channels.into_iter().enumerate() {
        let intervals: Vec<Interval> = told.calls.iter().map(|(interval, _)| *interval).collect();
        let outside = past.outside(&covers, &order[at..], starts, &intervals);
        let guess = covers.guess();
        let mut counting: Vec<Interval> = past.cover(told.channel).into_iter().collect();
        let counts = |told: &((Interval, Call), bool)| {
            let ((_, call), outside) = told;
            *outside && !past.has(call.timestamp, call.end_timestamp)
        };
        for ((interval, mut call), _) in told.calls.into_iter().zip(outside).filter(counts) {
            if let Some(guess) = &guess {
                let separator = if call.guess.is_empty() { "" } else { "; " };
                call.guess = format!("{}{separator}{guess}", call.guess);
                call.guessed = true;
            }
            counting.push(interval);
            counted.push(call);
        }
        covers.add(told.channel, counting.into_iter());
    }
    counted
}

fn by_channel<'a>(family: &[&'a Sighting]) -> BTreeMap<Channel, Vec<&'a Sighting>> {
    let mut channels: BTreeMap<Channel, Vec<&Sighting>> = BTreeMap::new();
    for sighting in family {
        channels.entry(merge::channel(sighting)).or_default().push(sighting);
    }
    channels
}

/// The records of one channel without those whose usage better ones of the same turn state.
fn preceding(records: Vec<&Sighting>) -> Vec<&Sighting> {
    let mut lowest: HashMap<&str, u32> = HashMap::new();
    for record in records.iter().filter(|record| tokens::stated(record) > 0) {
        lowest
            .entry(&record.turn_id)
            .and_modify(|lowest| *lowest = record.precedence.min(*lowest))
            .or_insert(record.precedence);
    }
    let counts = |record: &&Sighting| {
        tokens::stated(record) == 0 || lowest.get(record.turn_id.as_str()) == Some(&record.precedence)
    };
    records.into_iter().filter(counts).collect()
}

/// What one channel tells of a family's calls, by the times at which they ended.
struct Told {
    channel: Channel,
    states_usage: bool,
    calls: Vec<(Interval, Call)>,
}

impl Told {
    fn new(prices: &ProjectPrices<'_>, channel: Channel, records: &[&Sighting], past: &Past) -> Self {
        // Before precedence is applied: a total that does not count is still what the next one adds to.
        let (totals, records): (Vec<&Sighting>, Vec<&Sighting>) =
            records.iter().copied().partition(|record| names_series(record));
        let increases = series::increases(&totals, past);
        // Between two totals there may have been any number of calls.
        let sums: HashSet<&str> = increases.iter().map(|increase| increase.llm_call_key.as_str()).collect();
        let named = preceding(records.into_iter().chain(&increases).collect())
            .into_iter()
            .filter_map(|record| calls::identity(record).map(|identity| (identity, record)));
        let gathered: Vec<Gathered<'_>> = merge::gather(named, |name| name, calls::rank);
        let mut calls: Vec<(Interval, Call)> = gathered
            .iter()
            .filter_map(|gathered| {
                let call = calls::call(prices, gathered, sums.contains(gathered.key().as_str()))?;
                let source = merge::timestamp_source(gathered.best()?);
                let lasted = Interval::of(call.timestamp, call.end_timestamp, call.duration_ms, source);
                Some((lasted, call))
            })
            .collect();
        calls.sort_by(|(a, one), (b, other)| (a, &one.call_key).cmp(&(b, &other.call_key)));
        let states_usage = past.states_usage(channel)
            || gathered.iter().any(|call| call.says().any(|says| tokens::stated(says) > 0));
        Self { channel, states_usage, calls }
    }
}
