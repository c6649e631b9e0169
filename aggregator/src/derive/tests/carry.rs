//! What a group keeps of facts that have expired.

use fleetlog_store::derived::{DerivedGroup, GroupKey, Sighting, Summary, TraceShare};
use fleetlog_store::{GroupKind, Session};
use proptest::prelude::*;

use super::{NOON, SECOND, any_sighting, call_of, prices, summary, tool_of};
use crate::derive::{Stored, derive, vacated};

fn key() -> GroupKey {
    GroupKey { project_id: "p".to_owned(), kind: GroupKind::Session, id: "s".to_owned() }
}

/// What is stored of all of these sightings.
fn whole(sightings: &[Sighting]) -> DerivedGroup {
    derive(prices(), key(), &summary(), sightings, &[], None)
}

fn stored(group: &DerivedGroup, edge: i64) -> Stored {
    Stored { group: group.clone(), edge, since: None, shares_since: Vec::new() }
}

/// The group as it is derived from these sightings onto what is stored of it.
fn onto(before: &DerivedGroup, edge: i64, sightings: &[Sighting]) -> DerivedGroup {
    derive(prices(), key(), &summary(), sightings, &[], Some(&stored(before, edge)))
}

fn held(sightings: &[Sighting], edge: i64) -> Vec<Sighting> {
    sightings.iter().filter(|sighting| sighting.received_at >= edge).cloned().collect()
}

/// A sighting of which all channels share the call's key, received when it happened.
fn any_keyed() -> impl Strategy<Value = Sighting> {
    any_sighting().prop_map(|sighting| Sighting {
        call_family: String::new(),
        request_id: String::new(),
        // The line of a message names the call by itself.
        source: "sdk".to_owned(),
        // A decision alone is no call, so nothing of it stands.
        event_type: sighting.event_type.replace("tool.decision", "tool.call"),
        usage_role: sighting.usage_role.replace("cumulative", "call"),
        ..received(sighting)
    })
}

fn received(sighting: Sighting) -> Sighting {
    Sighting { received_at: sighting.timestamp, ..sighting }
}

proptest! {
    #[test]
    fn expiry_changes_no_call_whose_channels_share_its_key(
        sightings in prop::collection::vec(any_keyed(), 0..40),
        second in 0i64..42,
    ) {
        let (before, edge) = (whole(&sightings), NOON + second * SECOND);
        let after = onto(&before, edge, &held(&sightings, edge));
        prop_assert_eq!(&after.calls, &before.calls);
        prop_assert_eq!(&after.tools, &before.tools);
        for contribution in &after.contributions {
            prop_assert!(before.contributions.contains(contribution));
        }
    }

    #[test]
    fn whatever_has_expired_stands_and_is_derived_the_same_again(
        sightings in prop::collection::vec(any_sighting().prop_map(received), 0..40),
        late in prop::collection::vec(any_sighting(), 0..10),
        second in 0i64..42,
    ) {
        let (before, edge) = (whole(&sightings), NOON + second * SECOND);
        let late = late.into_iter().map(|late| Sighting { received_at: NOON + 1000 * SECOND, ..late });
        let all: Vec<Sighting> = sightings.into_iter().chain(late).collect();
        let after = onto(&before, edge, &held(&all, edge));
        for call in before.calls.iter().filter(|call| call.received_at < edge) {
            prop_assert!(after.calls.contains(call));
        }
        for tool in before.tools.iter().filter(|tool| tool.received_at < edge) {
            prop_assert!(after.tools.contains(tool));
        }
        let mut keys: Vec<&str> = after.calls.iter().map(|call| call.call_key.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        prop_assert_eq!(keys.len(), after.calls.len());
        let rows = || after.contributions.iter().flat_map(|contribution| &contribution.usage);
        prop_assert_eq!(rows().map(|row| row.calls).sum::<u64>(), after.calls.len() as u64);
        // Again, and with what retention has not dropped yet.
        for facts in [held(&all, edge), all] {
            let again = onto(&after, edge, &facts);
            prop_assert_eq!(&again.calls, &after.calls);
            prop_assert_eq!(&again.tools, &after.tools);
            prop_assert_eq!(&again.session, &after.session);
        }
    }

    /// Each channel tells of every call, a few milliseconds apart; whatever of it expires, and whether the channel that
    /// counts goes on or not, no call is counted twice and none is lost.
    #[test]
    fn expiry_changes_no_call_of_a_family(
        gaps in prop::collection::vec(20i64..10_000, 1..20),
        ends in prop::collection::vec((1i64..3, 3i64..5, 5i64..8), 20),
        expired in 0usize..20,
        channels in prop::sample::subsequence(vec!["agent_log", "span", "transcript"], 1..=3),
        totals in any::<bool>(),
    ) {
        let sightings = told(&gaps, &ends, &channels, totals);
        let before = whole(&sightings);
        prop_assert_eq!(before.calls.len(), gaps.len());
        // Between the sightings of two calls: a day ends when nobody speaks.
        let edge = NOON + 1_000_000 * gaps.iter().take(expired).sum::<i64>() + 9_000_000;
        let after = onto(&before, edge, &held(&sightings, edge));
        prop_assert_eq!(&after.calls, &before.calls);
        prop_assert_eq!(&after.tools, &before.tools);
        // The file of the session, sent after the fact, tells nothing new of what has expired.
        let late = told(&gaps, &ends, &["transcript"], totals).into_iter().map(|mut late| {
            late.dedup_key += 1 << 40;
            late.event_id = format!("late {}", late.event_id);
            Sighting { received_at: NOON + 1_000_000 * SECOND, ..late }
        });
        let late: Vec<Sighting> = late.chain(held(&sightings, edge)).collect();
        let again = onto(&before, edge, &late);
        let expired = |group: &DerivedGroup| {
            group.calls.iter().filter(|call| call.timestamp < edge).cloned().collect::<Vec<_>>()
        };
        prop_assert_eq!(expired(&again), expired(&before));
    }
}

/// Calls of a family and their tools, each `gaps` milliseconds after the one before it, as channels tell of them.
fn told(gaps: &[i64], ends: &[(i64, i64, i64)], channels: &[&str], totals: bool) -> Vec<Sighting> {
    let mut at = NOON;
    let mut sightings = Vec::new();
    for (number, (gap, ends)) in (1u32..).zip(gaps.iter().zip(ends)) {
        at += gap * 1_000_000;
        for (place, channel) in (0u32..).zip(["agent_log", "span", "transcript"]) {
            let end = at + [ends.0, ends.1, ends.2][place as usize] * 1_000_000;
            if !channels.contains(&channel) {
                continue;
            }
            let n = number * 10 + place;
            let family = |sighting: Sighting| Sighting {
                call_family: "codex".to_owned(),
                timestamp: end,
                received_at: end,
                ..sighting
            };
            let tokens = u64::from(number) * 3;
            if totals && channel == "transcript" {
                sightings.push(family(Sighting {
                    usage_role: "cumulative".to_owned(),
                    cost_reported: Some(i64::from(number) * 5),
                    ..call_of(n, channel, "thread", tokens)
                }));
            } else {
                sightings.push(family(call_of(n, channel, "", tokens)));
            }
            sightings.push(family(tool_of(n + 1_000_000, "tool.call", "", "ok")));
            if let Some(tool) = sightings.last_mut() {
                channel.clone_into(&mut tool.channel);
            }
        }
    }
    sightings
}

#[test]
fn a_later_sighting_of_a_call_that_stands_is_ignored() {
    let log = received(call_of(1, "agent_log", "req", 21));
    let span = Sighting { request_id: "req".to_owned(), ..received(call_of(2, "span", "t:1", 21)) };
    let before = whole(&[log, span.clone()]);
    assert_eq!(before.calls.len(), 1);
    let edge = NOON + 100 * SECOND;
    let late = |sighting: Sighting| Sighting { received_at: edge, ..sighting };
    let seen = [
        late(call_of(3, "transcript", "req", 900)),
        // Under another name: by the answer's id, and an event that arrives again.
        late(Sighting { request_id: "req".to_owned(), ..call_of(4, "hook", "other", 5) }),
        late(span),
        late(call_of(5, "agent_log", "new", 7)),
    ];
    let after = onto(&before, edge, &seen);
    assert_eq!(after.calls.len(), 2);
    assert_eq!(after.calls[0], before.calls[0]);
    assert_eq!(after.calls[1].in_uncached, 7);
    let usage: Vec<(u64, u64)> = after
        .contributions
        .iter()
        .flat_map(|one| &one.usage)
        .map(|row| (row.calls, row.in_uncached))
        .collect();
    assert_eq!(usage, [(2, 28)]);
}

#[test]
fn a_running_total_goes_on_from_what_stands() {
    let total = |n: u32, tokens: u64| {
        let cumulative =
            Sighting { usage_role: "cumulative".to_owned(), ..call_of(n, "api", "thread", tokens) };
        received(Sighting { source: "openhands".to_owned(), out_visible: 0, ..cumulative })
    };
    let before = whole(&[total(1, 100), total(2, 250)]);
    let edge = NOON + 10 * SECOND;
    let after = onto(&before, edge, &[total(20, 300)]);
    let counts: Vec<_> = after.calls.iter().map(|call| (call.call_key.as_str(), call.in_uncached)).collect();
    assert_eq!(counts, [("thread#1", 100), ("thread#2", 150), ("thread#3", 50)]);
    // Its calls are gone, and still it is what the calls have told of.
    let called =
        whole(&[Sighting { source: "openhands".to_owned(), ..received(call_of(1, "span", "c", 100)) }]);
    assert_eq!(onto(&called, edge, &[total(20, 100)]).calls, called.calls);
}

#[test]
fn a_session_keeps_its_counts_and_adds_what_was_received_since() {
    let before = DerivedGroup {
        session: Session {
            started_at: NOON - 500,
            ended_at: NOON - 100,
            first_received_at: NOON - 500,
            last_received_at: NOON - 100,
            ended: true,
            event_count: 100,
            error_count: 3,
            prompt_count: 7,
            hosts: vec!["old".to_owned()],
            ..Session::default()
        },
        ..whole(&[])
    };
    let found = Summary { event_count: 5, prompt_count: 1, hosts: vec!["new".to_owned()], ..summary() };
    let since = Summary { event_count: 2, prompt_count: 1, ..summary() };
    let mut of = stored(&before, NOON);
    let session = |of: &Stored| derive(prices(), key(), &found, &[], &[], Some(of)).session;
    // Everything that is found was counted.
    let same = session(&of);
    assert_eq!((same.event_count, same.error_count, same.prompt_count, same.ended), (100, 3, 7, true));
    assert_eq!(
        (same.started_at, same.ended_at, same.first_received_at),
        (NOON - 500, NOON - 100, NOON - 500)
    );
    assert_eq!(same.hosts, ["new", "old"]);
    of.since = Some(since.clone());
    let more = session(&of);
    assert_eq!((more.event_count, more.error_count, more.prompt_count, more.ended), (102, 3, 8, true));
    assert_eq!((more.started_at, more.ended_at, more.last_received_at), (NOON - 500, NOON, NOON));
    of.since = Some(Summary { last_begin_at: NOON, ..since });
    assert!(!session(&of).ended);
}

#[test]
fn a_trace_keeps_its_counts_and_its_calls() {
    let called = Sighting { trace_id: "t".to_owned(), ..received(call_of(1, "span", "c", 100)) };
    let share = |events: u64, at: i64, root: &str| TraceShare {
        trace_id: "t".to_owned(),
        root_name: root.to_owned(),
        started_at: at,
        first_received_at: at,
        last_received_at: at,
        event_count: events,
        observation_count: events,
        ..TraceShare::default()
    };
    let before = derive(prices(), key(), &summary(), &[called], &[share(9, NOON, "root")], None);
    let mut of = stored(&before, NOON + 10 * SECOND);
    let after = |of: &Stored| {
        let share = share(2, NOON + 20 * SECOND, "branch");
        let traces = derive(prices(), key(), &summary(), &[], &[share], Some(of)).traces;
        let trace = &traces[0];
        let sums = (trace.llm_call_count, trace.in_uncached);
        (traces.len(), trace.event_count, trace.observation_count, sums, trace.name.clone(), trace.started_at)
    };
    assert_eq!(after(&of), (1, 9, 9, (1, 100), "root".to_owned(), NOON));
    of.shares_since = vec![share(2, NOON + 20 * SECOND, "branch")];
    assert_eq!(after(&of), (1, 11, 11, (1, 100), "root".to_owned(), NOON));
}

#[test]
fn a_trace_that_has_become_a_sessions_keeps_only_what_nobody_finds_any_more() {
    let key = GroupKey { kind: GroupKind::Trace, id: "t".to_owned(), ..key() };
    let old = Sighting { trace_id: "t".to_owned(), ..received(call_of(1, "span", "old", 100)) };
    let new = Sighting { trace_id: "t".to_owned(), ..received(call_of(70, "span", "new", 7)) };
    let share = TraceShare { trace_id: "t".to_owned(), event_count: 2, ..TraceShare::default() };
    let sightings = [old, new.clone()];
    let before = derive(prices(), key.clone(), &summary(), &sightings, &[share], None);
    let of = stored(&before, NOON + 10 * SECOND);
    let after = vacated(key.clone(), &summary(), &[new], Some(&of));
    assert_eq!(after.calls, before.calls[..1]);
    assert_eq!((after.traces[0].llm_call_count, after.traces[0].event_count), (1, 1));
    let calls: Vec<usize> = after.contributions.iter().map(|one| one.usage.len()).collect();
    assert_eq!(calls, [1, 0]);
    let empty = vacated(key, &summary(), &sightings, None);
    assert!(empty.calls.is_empty() && empty.session.event_count == 0 && empty.traces[0].event_count == 0);
}
