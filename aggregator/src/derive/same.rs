//! Which names are the same call's, beyond the key that sightings share.
//!
//! | sightings | are one call when |
//! |---|---|
//! | lines of Claude transcripts | they carry the same message id (`span_id`): a sub-agent's file repeats its parent's messages under request ids of its own. The parent's line names the call |
//! | spans of calls, one directly within the other | there is one within: two instrumentations report it at two layers. Where there are several (attempts, parts) each of them is a call, and the span around them a sum |
//! | calls that carry the provider's id of the answer (`request_id`) beside a key of their own | the id names at most one call in each channel of the trace; an id that repeats (a provider that answers with a constant) joins nothing |
//!
//! A call without a trace may be joined to one with, unless the id occurs in several traces.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fleetlog_schemas::event::Channel;
use fleetlog_store::derived::Sighting;

use super::merge::{Identity, channel};
use super::tokens;

/// Names sightings of one message after the line that was written first, a parent's before a sub-agent's.
pub(super) fn join_messages<'a>(named: &mut [(Identity<'a>, &'a Sighting)]) {
    let mut original: HashMap<&'a str, (bool, i64, Identity<'a>)> = HashMap::new();
    for (identity, sighting) in named.iter() {
        if let Some(message) = message(sighting) {
            let line = (!sighting.agent_id.is_empty(), sighting.timestamp, *identity);
            original.entry(message).and_modify(|first| *first = line.min(*first)).or_insert(line);
        }
    }
    for (identity, sighting) in named {
        if let Some((_, _, name)) = message(sighting).and_then(|message| original.get(message)) {
            *identity = *name;
        }
    }
}

/// The id of the message that a line of a Claude transcript holds.
fn message(sighting: &Sighting) -> Option<&str> {
    let transcript = channel(sighting) == Channel::Transcript && sighting.source.starts_with("claude");
    (transcript && !sighting.span_id.is_empty()).then_some(sighting.span_id.as_str())
}

/// Gives what spans within spans report one name, and takes out what only sums others up.
///
/// Instrumentations of a framework, of a provider's SDK and of the SDK by itself each make a span of the same call; only
/// their nesting tells, since they share neither span nor, mostly, the answer's id.
pub(super) fn join_layers<'a>(named: &mut Vec<(Identity<'a>, &'a Sighting)>) {
    let spans: HashMap<(&str, &str), Identity<'a>> = named
        .iter()
        .filter_map(|(identity, sighting)| Some((layer(sighting, &sighting.span_id)?, *identity)))
        .collect();
    let mut within: BTreeMap<Identity<'a>, BTreeSet<Identity<'a>>> = BTreeMap::new();
    let mut states_usage: BTreeSet<Identity<'a>> = BTreeSet::new();
    for (identity, sighting) in named.iter() {
        let outer = layer(sighting, &sighting.parent_id).and_then(|outer| spans.get(&outer));
        if let Some(outer) = outer.filter(|outer| *outer != identity) {
            within.entry(*outer).or_default().insert(*identity);
        }
        if tokens::stated(sighting) > 0 {
            states_usage.insert(*identity);
        }
    }
    let mut same = Same::default();
    let mut sums = BTreeSet::new();
    for (outer, inner) in &within {
        match inner.first() {
            Some(only) if inner.len() == 1 => same.join(*outer, *only),
            _ if inner.iter().any(|inner| states_usage.contains(inner)) => {
                sums.insert(*outer);
            }
            _ => {}
        }
    }
    named.retain(|(identity, _)| !sums.contains(identity));
    for (identity, _) in named {
        *identity = same.root(*identity);
    }
}

/// A span of a trace, where a sighting is one.
fn layer<'a>(sighting: &'a Sighting, span: &'a str) -> Option<(&'a str, &'a str)> {
    let is_span = channel(sighting) == Channel::Span && !sighting.trace_id.is_empty() && !span.is_empty();
    is_span.then_some((sighting.trace_id.as_str(), span))
}

/// Names that stand for one call: each is led to the smallest of them.
#[derive(Debug, Default)]
pub(super) struct Same<'a>(HashMap<Identity<'a>, Identity<'a>>);

impl<'a> Same<'a> {
    /// What the ids of answers join.
    pub(super) fn by_answer(named: &[(Identity<'a>, &'a Sighting)]) -> Self {
        let mut answers: BTreeMap<&str, Vec<(Identity<'a>, &Sighting)>> = BTreeMap::new();
        for (identity, sighting) in named {
            // A message's line names the request that wrote it down, which for a repeated message is another call's.
            if !sighting.request_id.is_empty() && message(sighting).is_none() {
                answers.entry(&sighting.request_id).or_default().push((*identity, sighting));
            }
        }
        // A source that keys its calls by the answer's id says so with the key alone.
        for (identity, sighting) in named {
            if let Identity::Key(key) = identity
                && let Some(seen) = answers.get_mut(key)
            {
                seen.push((*identity, sighting));
            }
        }
        let mut same = Self::default();
        for seen in answers.values() {
            let traces: BTreeSet<&str> =
                seen.iter().map(|(_, sighting)| sighting.trace_id.as_str()).collect();
            let named_traces = traces.iter().filter(|trace| !trace.is_empty()).count();
            if named_traces <= 1 {
                same.join_if_unique(seen.iter());
            } else {
                for trace in traces.iter().filter(|trace| !trace.is_empty()) {
                    same.join_if_unique(seen.iter().filter(|(_, sighting)| sighting.trace_id == *trace));
                }
            }
        }
        same
    }

    fn join_if_unique<'b>(&mut self, seen: impl Iterator<Item = &'b (Identity<'a>, &'b Sighting)>)
    where
        'a: 'b,
    {
        let names: BTreeSet<(Channel, Identity<'a>)> =
            seen.map(|(identity, sighting)| (channel(sighting), *identity)).collect();
        let channels: BTreeSet<Channel> = names.iter().map(|(channel, _)| *channel).collect();
        if channels.len() == names.len() {
            let mut names = names.into_iter().map(|(_, identity)| identity);
            if let Some(first) = names.next() {
                names.for_each(|name| self.join(first, name));
            }
        }
    }

    fn join(&mut self, a: Identity<'a>, b: Identity<'a>) {
        let (a, b) = (self.root(a), self.root(b));
        if a != b {
            self.0.insert(a.max(b), a.min(b));
        }
    }

    /// The name that stands for all that are the same call's.
    pub(super) fn root(&self, mut name: Identity<'a>) -> Identity<'a> {
        while let Some(smaller) = self.0.get(&name) {
            name = *smaller;
        }
        name
    }
}
