//! What a group keeps of facts that have expired.
//!
//! Events are kept for months, calls and sessions for longer. So a group that is touched again after some of its events
//! have expired is derived from the others, onto what is stored of it:
//!
//! | of | stands as it is stored | is derived from the facts |
//! |---|---|---|
//! | calls, tool calls | those first sighted before the edge: some of their sightings may be gone | all others |
//! | later sightings | | ignored where they make a call of the same name, of an event it lists, or of the answer's id |
//! | calls of families, whose channels share no id (of tool calls, those without one) | those up to the end of the last that stands ([`Past::through`]) | those after it; what a lesser channel tells counts outside the time of both |
//! | running totals | | by what they add to the last total, else to the sum of the increases that stand |
//! | counts of events, first and last time | what was stored | and what was received since the last event that was stored |
//! | names | what was stored | and all others |
//! | usage | by all of these calls; minutes without any fact stay as they are | |
//!
//! The edge is a time of receipt: whatever was received since is held. Of what was received before, calls and tool calls
//! stand as they are stored, whichever of their events happen to be there still.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use fleetlog_schemas::event::{Channel, TimestampSource};
use fleetlog_store::derived::{DerivedGroup, Sighting, Summary, TraceShare};
use fleetlog_store::{Call, Session, Tool, Trace};

use super::cover::{Covers, Interval, Starts};
use super::{family, session, tokens};

/// What is stored of a group that has seen facts which may have expired.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its version; what it contributes to usage follows from its calls.
    pub group: DerivedGroup,
    /// Events that were received at this time or later are held, nanoseconds.
    pub edge: i64,
    /// What its events say that were received after the last one of the stored version; `None` when there is none.
    pub since: Option<Summary>,
    /// What these share in traces.
    pub shares_since: Vec<TraceShare>,
}

/// The calls that stand as they are stored.
#[derive(Debug, Default)]
pub(super) struct Carried {
    pub(super) calls: Vec<Call>,
    pub(super) tools: Vec<Tool>,
    /// What the calls to models tell of families.
    pub(super) past_calls: Past,
    /// What the tool calls tell of families.
    pub(super) past_tools: Past,
}

impl Carried {
    /// Of what is stored, given the facts that are still there.
    pub(super) fn of(stored: &Stored, sightings: &[&Sighting]) -> Self {
        let events = |of_family: fn(&Sighting) -> bool| -> HashSet<&str> {
            let sightings = sightings.iter().filter(|sighting| of_family(sighting));
            sightings.map(|sighting| sighting.event_id.as_str()).collect()
        };
        let of_families = events(|event| !event.call_family.is_empty() || family::names_series(event));
        let (calls, through) = standing(&stored.group.calls, stored.edge, &of_families);
        let mut past_calls = Past::new(through, &calls);
        for call in &calls {
            past_calls.count(call);
        }
        let of_families = events(|event| !event.call_family.is_empty() && event.tool_call_id.is_empty());
        let (tools, through) = standing(&stored.group.tools, stored.edge, &of_families);
        let past_tools = Past::new(through, &tools);
        Self { calls, tools, past_calls, past_tools }
    }

    /// All calls: those that stand, and those derived that are not sightings of them.
    pub(super) fn with_calls(&self, derived: Vec<Call>) -> Vec<Call> {
        together(&self.calls, derived)
    }

    /// The same of tool calls.
    pub(super) fn with_tools(&self, derived: Vec<Tool>) -> Vec<Tool> {
        together(&self.tools, derived)
    }
}

/// What calls to models and tool calls have in common here.
trait Counted: Clone {
    fn call_key(&self) -> &str;
    /// A name that another sighting may have for its key.
    fn answer(&self) -> &str;
    fn event_id(&self) -> &str;
    fn event_ids(&self) -> &[String];
    fn received_at(&self) -> i64;
    fn timestamp(&self) -> i64;
    fn end_timestamp(&self) -> Option<i64>;
    fn duration_ms(&self) -> Option<f64>;
    fn channel(&self) -> &str;
    fn states_usage(&self) -> bool;
}

macro_rules! counted {
    ($name:ident, $answer:expr, $states_usage:expr) => {
        impl Counted for $name {
            fn call_key(&self) -> &str {
                &self.call_key
            }
            fn answer(&self) -> &str {
                let answer: fn(&Self) -> &str = $answer;
                answer(self)
            }
            fn event_id(&self) -> &str {
                &self.event_id
            }
            fn event_ids(&self) -> &[String] {
                &self.event_ids
            }
            fn received_at(&self) -> i64 {
                self.received_at
            }
            fn timestamp(&self) -> i64 {
                self.timestamp
            }
            fn end_timestamp(&self) -> Option<i64> {
                self.end_timestamp
            }
            fn duration_ms(&self) -> Option<f64> {
                self.duration_ms
            }
            fn channel(&self) -> &str {
                self.channel
            }
            fn states_usage(&self) -> bool {
                let states_usage: fn(&Self) -> bool = $states_usage;
                states_usage(self)
            }
        }
    };
}
counted!(Call, |call| &call.request_id, |call| tokens::sum(of_call(call)) > 0);
// Of tool calls, those that are named say most.
counted!(Tool, |_| "", |tool| tool.call_key != tool.event_id);

fn of_call(call: &Call) -> tokens::Vector {
    [
        call.in_uncached,
        call.cache_read,
        call.cache_write_5m,
        call.cache_write_1h,
        call.out_visible,
        call.out_reasoning,
    ]
}

/// The end of what something tells of.
pub(super) fn end_of(timestamp: i64, end_timestamp: Option<i64>) -> i64 {
    end_timestamp.map_or(timestamp, |end| end.max(timestamp))
}

/// The calls that stand, and the end of the last of them.
fn standing<C: Counted>(stored: &[C], edge: i64, of_families: &HashSet<&str>) -> (Vec<C>, i64) {
    let end = |call: &C| end_of(call.timestamp(), call.end_timestamp());
    let expired = |call: &&C| call.received_at() < edge;
    // Nothing can have been received before it ended, so a later end is a clock that runs ahead.
    let through = stored.iter().filter(expired).map(end).max().map_or(i64::MIN, |last| last.min(edge));
    let stands = |call: &&C| expired(call) || end(call) <= through && of_families.contains(call.event_id());
    (stored.iter().filter(stands).cloned().collect(), through)
}

/// The calls that stand with the derived ones that are not theirs, by time.
fn together<C: Counted>(standing: &[C], derived: Vec<C>) -> Vec<C> {
    if standing.is_empty() {
        return derived;
    }
    let keys: HashSet<&str> = standing.iter().map(C::call_key).collect();
    let answers: HashSet<&str> = standing.iter().map(C::answer).filter(|id| !id.is_empty()).collect();
    let events: HashSet<&str> = standing.iter().flat_map(C::event_ids).map(String::as_str).collect();
    let is_sighting = |call: &C| {
        keys.contains(call.call_key())
            || answers.contains(call.call_key())
            || keys.contains(call.answer())
            || call.event_ids().iter().any(|id| events.contains(id.as_str()))
    };
    let mut calls: Vec<C> = derived.into_iter().filter(|call| !is_sighting(call)).collect();
    calls.extend(standing.iter().cloned());
    calls.sort_by(|a, b| (a.timestamp(), a.call_key()).cmp(&(b.timestamp(), b.call_key())));
    calls
}

/// What the calls that stand tell of families, whose channels share no id of a call.
#[derive(Debug)]
pub(super) struct Past {
    /// Everything that families told of up to here has been counted or left out, nanoseconds.
    through: i64,
    /// From when to when the calls of each channel lasted.
    covers: BTreeMap<Channel, Interval>,
    /// Channels whose calls state usage; of tool calls, whose calls have ids.
    states_usage: BTreeSet<Channel>,
    /// Running totals by the names of their series: how many increases, and their sum.
    totals: HashMap<String, (usize, Sighting)>,
    /// Sources with usage that is no increase of a running total.
    sources: BTreeSet<String>,
}

impl Default for Past {
    fn default() -> Self {
        Self::new::<Call>(i64::MIN, &[])
    }
}

impl Past {
    fn new<C: Counted>(through: i64, standing: &[C]) -> Self {
        let mut past = Self {
            through,
            covers: BTreeMap::new(),
            states_usage: BTreeSet::new(),
            totals: HashMap::new(),
            sources: BTreeSet::new(),
        };
        for call in standing {
            let channel = Channel::parse(call.channel()).unwrap_or_default();
            let (at, end, lasted) = (call.timestamp(), call.end_timestamp(), call.duration_ms());
            let own = Interval::of(at, end, lasted, TimestampSource::Event);
            past.covers.entry(channel).and_modify(|cover| *cover = cover.with(own)).or_insert(own);
            if call.states_usage() {
                past.states_usage.insert(channel);
            }
        }
        past
    }

    fn count(&mut self, call: &Call) {
        let name = call.call_key.split_once('@').map_or(call.call_key.as_str(), |(name, _)| name);
        let increase = name.rsplit_once('#').and_then(|(series, n)| Some((series, n.parse::<usize>().ok()?)));
        let Some((series, number)) = increase else {
            if call.states_usage() {
                self.sources.insert(call.source.clone());
            }
            return;
        };
        let (last, total) = self.totals.entry(series.to_owned()).or_default();
        *last = number.max(*last);
        let mut sum = tokens::vector(total);
        for (sum, more) in sum.iter_mut().zip(of_call(call)) {
            *sum = sum.saturating_add(more);
        }
        tokens::set(total, sum);
        let add = |sum: Option<i64>, more: Option<i64>| match (sum, more) {
            (Some(sum), Some(more)) => Some(sum.saturating_add(more)),
            (sum, more) => sum.or(more),
        };
        total.cost_reported = add(total.cost_reported, call.cost_reported);
        total.cost_computed = add(total.cost_computed, call.cost_computed);
    }

    /// Whether what has these times is counted or left out already.
    pub(super) fn has(&self, timestamp: i64, end_timestamp: Option<i64>) -> bool {
        end_of(timestamp, end_timestamp) <= self.through
    }

    /// For each of a channel's intervals, in order of their ends, whether it lies outside what the channels before it
    /// cover, and outside the time of the calls that stand of those after it. The channel is the first of `from_here`.
    pub(super) fn outside(
        &self,
        before: &Covers,
        from_here: &[Channel],
        starts: &Starts,
        intervals: &[Interval],
    ) -> Vec<bool> {
        let [channel, after @ ..] = from_here else { return Vec::new() };
        let mut standing = Covers::default();
        for other in after {
            standing.add(*other, self.cover(*other).into_iter());
        }
        let outside = before.outside(*channel, starts, intervals).into_iter();
        outside.zip(standing.outside(*channel, starts, intervals)).map(|(one, other)| one && other).collect()
    }

    /// Channels with calls that stand.
    pub(super) fn channels(&self) -> impl Iterator<Item = Channel> {
        self.covers.keys().copied()
    }

    /// The time of a channel's calls.
    pub(super) fn cover(&self, channel: Channel) -> Option<Interval> {
        self.covers.get(&channel).copied()
    }

    /// Whether a channel's calls state usage, or have ids.
    pub(super) fn states_usage(&self, channel: Channel) -> bool {
        self.states_usage.contains(&channel)
    }

    /// The number of increases of a series that are counted, and the total that they make.
    pub(super) fn total(&self, series: &str) -> Option<(usize, &Sighting)> {
        self.totals.get(series).map(|(number, total)| (*number, total))
    }

    /// Whether a source has said more than running totals.
    pub(super) fn is_told_by(&self, source: &str) -> bool {
        self.sources.contains(source)
    }
}

/// What a group says as a whole, with what is stored of it.
pub(super) fn session(stored: &Stored, found: Session) -> Session {
    let (before, since) = (&stored.group.session, stored.since.as_ref());
    let count = |found: u64, before: u64, of: fn(&Summary) -> u64| {
        found.max(before.saturating_add(since.map_or(0, of)))
    };
    let begins_or_ends = since.is_some_and(|since| since.last_end_at > 0 || since.last_begin_at > 0);
    Session {
        // Not from all that is left: where every event with a time of its own is gone, the others would say when they came.
        started_at: since.map_or(before.started_at, |since| since.started_at.min(before.started_at)),
        ended_at: since.map_or(before.ended_at, |since| since.ended_at.max(before.ended_at)),
        first_received_at: before.first_received_at.min(found.first_received_at),
        last_received_at: before.last_received_at.max(found.last_received_at),
        ended: if begins_or_ends { found.ended } else { before.ended },
        event_count: count(found.event_count, before.event_count, |since| since.event_count),
        error_count: count(found.error_count, before.error_count, |since| since.error_count),
        prompt_count: count(found.prompt_count, before.prompt_count, |since| since.prompt_count),
        agents: names(&before.agents, found.agents),
        models: found.models,
        users: names(&before.users, found.users),
        hosts: names(&before.hosts, found.hosts),
        sources: names(&before.sources, found.sources),
    }
}

fn names(before: &[String], found: Vec<String>) -> Vec<String> {
    let all: BTreeSet<String> = found.into_iter().chain(before.iter().cloned()).collect();
    all.into_iter().take(session::NAMES).collect()
}

/// What the group shares in its traces, with what is stored of them. The sums over calls are right already.
pub(super) fn traces(stored: &Stored, shares: &[TraceShare], found: &mut [Trace]) {
    for trace in found {
        let before = stored.group.traces.iter().find(|before| before.trace_id == trace.trace_id);
        let Some(before) = before.filter(|before| before.event_count > 0) else { continue };
        if before.first_received_at >= stored.edge {
            continue;
        }
        let of_trace = |share: &&TraceShare| share.trace_id == trace.trace_id;
        let since = stored.shares_since.iter().find(of_trace);
        let count = |found: u64, before: u64, of: fn(&TraceShare) -> u64| {
            found.max(before.saturating_add(since.map_or(0, of)))
        };
        // A name of the trace's own record takes the place of any; that of what seems its root now, of none.
        let own_name = shares.iter().find(of_trace).is_some_and(|share| !share.record_name.is_empty());
        if !own_name && !before.name.is_empty() {
            trace.name.clone_from(&before.name);
        }
        if trace.user_id.is_empty() {
            trace.user_id.clone_from(&before.user_id);
        }
        trace.started_at = since.map_or(before.started_at, |since| since.started_at.min(before.started_at));
        trace.ended_at = since.map_or(before.ended_at, |since| since.ended_at.max(before.ended_at));
        trace.first_received_at = trace.first_received_at.min(before.first_received_at);
        trace.last_received_at = trace.last_received_at.max(before.last_received_at);
        trace.event_count = count(trace.event_count, before.event_count, |since| since.event_count);
        trace.observation_count =
            count(trace.observation_count, before.observation_count, |since| since.observation_count);
        trace.error_count = count(trace.error_count, before.error_count, |since| since.error_count);
        trace.score_count = count(trace.score_count, before.score_count, |since| since.score_count);
    }
}
