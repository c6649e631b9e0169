//! Whose the events are that name a trace and no session. Pure: the store is asked by the caller.
//!
//! The earliest naming event of a trace (by time, then by the session's id) makes its session the owner. Whatever the
//! order in which spans and their session's events arrive, and whichever instance has which, the same groups result:
//!
//! | recomputed | the trace | then |
//! |---|---|---|
//! | session | it owns, with events that name no session | it takes them in; once a process, the trace's own group is written empty and the other sessions that the trace names are recomputed |
//! | session | another one owns | it keeps its own events only; in minutes of the others it contributes nothing to usage, for it may have owned them |
//! | trace | a session owns | the trace's group is written empty, and the owner is recomputed |
//! | trace | nobody owns | it stands for itself |
//!
//! # Invariants
//! Who names whom is written before the version is read under which a session is recomputed, owners are read after it,
//! and a trace's hours are recorded before its owner is looked up. So of two recomputations at once, either the trace's
//! sees the owner, or the session's sees the trace's hours and has the later version.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use fleetlog_store::GroupKind;
use fleetlog_store::derived::{Adopted, GroupKey, Naming, SessionTrace, TraceHour};

/// Entries remembered. A forgotten one is written again, which is harmless.
const REMEMBERED: usize = 200_000;

/// Project and trace.
type TraceName = (String, String);

/// What this process has written of traces already.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    /// Namings by project, trace and session: since when, and the day of the last one.
    namings: HashMap<(String, String, String), (i64, u32)>,
    /// Traces whose own group was written empty for an owner, with that owner.
    settled: HashSet<(TraceName, String)>,
}

impl Remembered {
    /// The namings that say something that is not written yet.
    pub(crate) fn news(&self, namings: &[SessionTrace]) -> Vec<SessionTrace> {
        let new = |naming: &&SessionTrace| {
            self.namings
                .get(&naming_key(naming))
                .is_none_or(|(since, day)| naming.first_at < *since || naming.last_received_at > *day)
        };
        namings.iter().filter(new).cloned().collect()
    }

    /// These namings are written.
    pub(crate) fn written(&mut self, namings: Vec<SessionTrace>) {
        if self.namings.len() + namings.len() > REMEMBERED {
            self.namings.clear();
        }
        for naming in namings {
            let said = self.namings.entry(naming_key(&naming)).or_insert((i64::MAX, 0));
            *said = (said.0.min(naming.first_at), said.1.max(naming.last_received_at));
        }
    }

    /// Everything that follows from these adoptions is written.
    pub(crate) fn settled(&mut self, adopted: &[Adopted]) {
        if self.settled.len() + adopted.len() > REMEMBERED {
            self.settled.clear();
        }
        self.settled.extend(adopted.iter().map(settlement));
    }
}

fn naming_key(naming: &SessionTrace) -> (String, String, String) {
    (naming.project_id.clone(), naming.trace_id.clone(), naming.session_id.clone())
}

fn settlement(adopted: &Adopted) -> (TraceName, String) {
    ((adopted.project_id.clone(), adopted.trace_id.clone()), adopted.session_id.clone())
}

/// What ownership makes of the groups that are to be recomputed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Traces whose events without a session are taken in by sessions of this recomputation.
    pub(crate) adopted: Vec<Adopted>,
    /// Traces with such events that a session of this recomputation names and another one owns: the former, with them.
    pub(crate) lost: Vec<Adopted>,
    /// Traces that stand for themselves.
    pub(crate) unowned: Vec<GroupKey>,
    /// Traces whose own group is to be written empty.
    pub(crate) vacated: BTreeSet<GroupKey>,
    /// Groups that are to be recomputed next, each with the one of this recomputation that makes it necessary.
    pub(crate) next: Vec<(GroupKey, GroupKey)>,
}

/// Decides for the sessions' namings and the traces of one recomputation.
pub(crate) fn plan(
    remembered: &Remembered,
    namings: &[SessionTrace],
    traces: &[GroupKey],
    owners: &[Naming],
    hours: &[TraceHour],
) -> Plan {
    let owners: HashMap<(&str, &str), &[String]> = owners
        .iter()
        .map(|naming| ((naming.project_id.as_str(), naming.trace_id.as_str()), naming.sessions.as_slice()))
        .collect();
    let mut homeless: BTreeMap<(&str, &str), Vec<i32>> = BTreeMap::new();
    for hour in hours {
        homeless.entry((&hour.project_id, &hour.trace_id)).or_default().push(hour.hour);
    }
    let mut plan = Plan::default();
    for naming in namings {
        let name = (naming.project_id.as_str(), naming.trace_id.as_str());
        let Some([owner, others @ ..]) = owners.get(&name) else { continue };
        let Some(hours) = homeless.get(&name) else { continue };
        let adopted = Adopted {
            project_id: naming.project_id.clone(),
            trace_id: naming.trace_id.clone(),
            session_id: naming.session_id.clone(),
            hours: hours.clone(),
        };
        if *owner != naming.session_id {
            plan.lost.push(adopted);
            continue;
        }
        if !remembered.settled.contains(&settlement(&adopted)) {
            plan.vacated.insert(key(name.0, GroupKind::Trace, name.1));
            plan.next.extend(others.iter().map(|other| {
                (key(name.0, GroupKind::Session, owner), key(name.0, GroupKind::Session, other))
            }));
        }
        plan.adopted.push(adopted);
    }
    for trace in traces {
        match owners.get(&(trace.project_id.as_str(), trace.id.as_str())) {
            Some([owner, ..]) => {
                let settled = ((trace.project_id.clone(), trace.id.clone()), owner.clone());
                if !remembered.settled.contains(&settled) {
                    plan.vacated.insert(trace.clone());
                }
                plan.next.push((trace.clone(), key(&trace.project_id, GroupKind::Session, owner)));
            }
            Some([]) | None => plan.unowned.push(trace.clone()),
        }
    }
    plan
}

fn key(project_id: &str, kind: GroupKind, id: &str) -> GroupKey {
    GroupKey { project_id: project_id.to_owned(), kind, id: id.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naming(trace: &str, session: &str, first_at: i64) -> SessionTrace {
        SessionTrace {
            project_id: "p".to_owned(),
            trace_id: trace.to_owned(),
            session_id: session.to_owned(),
            first_at,
            last_received_at: 0,
        }
    }

    fn named(trace: &str, sessions: &[&str]) -> Naming {
        Naming {
            project_id: "p".to_owned(),
            trace_id: trace.to_owned(),
            sessions: sessions.iter().map(|id| (*id).to_owned()).collect(),
        }
    }

    fn hour(trace: &str, hour: i32) -> TraceHour {
        TraceHour { project_id: "p".to_owned(), trace_id: trace.to_owned(), hour }
    }

    fn session(id: &str) -> GroupKey {
        key("p", GroupKind::Session, id)
    }

    fn trace(id: &str) -> GroupKey {
        key("p", GroupKind::Trace, id)
    }

    #[test]
    fn an_owner_takes_a_traces_events_in_and_its_others_lose_them() {
        let mut remembered = Remembered::default();
        let namings = [naming("t", "s", 1), naming("whole", "s", 1)];
        let owners = [named("t", &["s", "u"]), named("whole", &["s"])];
        let hours = [hour("t", 4), hour("t", 9)];
        let decided = plan(&remembered, &namings, &[], &owners, &hours);
        assert_eq!(decided.adopted.len(), 1);
        assert_eq!((decided.adopted[0].trace_id.as_str(), &decided.adopted[0].hours), ("t", &vec![4, 9]));
        assert_eq!(decided.vacated, [trace("t")].into());
        assert_eq!(decided.next, [(session("s"), session("u"))]);
        // Said once, it is not said again; it is taken in every time.
        remembered.settled(&decided.adopted);
        let again = plan(&remembered, &namings, &[], &owners, &hours);
        assert_eq!((again.adopted.len(), again.vacated.len(), again.next.len()), (1, 0, 0));
        // The one that does not own it adopts nothing and touches nobody, and knows what it may have had.
        let mut other = plan(&Remembered::default(), &[naming("t", "u", 2)], &[], &owners, &hours);
        let lost = other.lost.pop().unwrap();
        assert_eq!((lost.session_id.as_str(), lost.trace_id.as_str(), &lost.hours), ("u", "t", &vec![4, 9]));
        assert_eq!(other, Plan::default());
    }

    #[test]
    fn a_trace_with_an_owner_is_emptied_and_one_without_stands_for_itself() {
        let decided =
            plan(&Remembered::default(), &[], &[trace("t"), trace("free")], &[named("t", &["s"])], &[]);
        assert_eq!(decided.unowned, [trace("free")]);
        assert_eq!(decided.vacated, [trace("t")].into());
        assert_eq!(decided.next, [(trace("t"), session("s"))]);
    }

    #[test]
    fn a_naming_is_written_again_when_it_says_more() {
        let mut remembered = Remembered::default();
        remembered.written(vec![naming("t", "s", 5)]);
        assert!(remembered.news(&[naming("t", "s", 5), naming("t", "s", 7)]).is_empty());
        assert_eq!(remembered.news(&[naming("t", "s", 4), naming("t", "u", 7)]).len(), 2);
        let later = SessionTrace { last_received_at: 86_400, ..naming("t", "s", 9) };
        assert_eq!(remembered.news(&[later]).len(), 1);
    }
}
