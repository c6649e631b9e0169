//! Recomputes what is derived from the facts of a range, and compares it with what is stored.
//!
//! It may run beside aggregators at work, as one more of them. A recomputation reads ClickHouse's clock, then the facts,
//! then what is stored; what it writes is under the version read first. Every fact that was stored before that is in it,
//! and a fact stored later is followed by a recomputation that begins later still, under a higher version. So whichever
//! of two versions is the higher has seen everything, and nothing written here can hide a later one.
//!
//! A comparison alone is not atomic: a fact may have come between the two readings, or wait for its aggregator. So what
//! differs is looked at again, and counts only if nothing of it waits and its stored version is still the same.
//!
//! What is held is bounded: a page of groups, the sightings of one portion, and the suspects of one page.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use fleetlog_store::derived::{Bucket, Difference, GroupHour, GroupKey, Range, Scale};
use fleetlog_store::{GroupKind, Store, StoreError};

use crate::config::Config;
use crate::derive::Prices;
use crate::error::AggregatorError;
use crate::recompute::{Done, Recomputer};
use crate::touched::Pending;

/// Groups of an hour that are read at once.
const PAGE: usize = 20_000;
/// Groups remembered, so that one with events in many hours is recomputed once. A forgotten one is recomputed again.
const REMEMBERED: usize = 1_000_000;
/// Differences described; all are counted.
const EXAMPLES: usize = 20;
/// Groups that wait for their derivation, as far as they are told apart.
const UNSETTLED: usize = 1_000_000;
/// Buckets of usage that one statement reports.
const BUCKETS: usize = 2000;
/// Hours of usage that one statement compares.
const WINDOW_HOURS: u32 = 24;
/// Pauses before a suspect is looked at again: longer than a recomputation in progress, in the end.
const LOOKS: [Duration; 4] =
    [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(5)];
/// Derived rows this close to their expiry are not compared, seconds: merges remove them when they like.
const EXPIRY_MARGIN: u32 = 2 * 86_400;

/// What is to be recomputed.
#[derive(Clone, Debug, Default)]
pub struct Rederivation {
    /// Of which facts the groups are.
    pub range: Range,
    /// Whether nothing is written.
    pub check: bool,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Hours done.
    pub hours: usize,
    /// Hours in all.
    pub of: usize,
    /// Groups compared.
    pub groups: u64,
    /// Of which differ, as far as is known.
    pub differing: u64,
}

/// What it came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Groups compared: sessions, traces, loose minutes.
    pub groups: u64,
    /// Of which differ from their facts; written anew unless it is a check.
    pub differing: u64,
    /// What differs, by table. Usage is compared with what it is the sum of.
    pub by_table: BTreeMap<&'static str, u64>,
    /// Groups some of whose facts have expired: what is stored of these stays, and stands beside the others.
    pub expired: u64,
    /// Groups that differ and cannot be judged: facts of theirs wait for an aggregator, or one wrote them anew between any
    /// two looks.
    pub waiting: u64,
    /// Whether usage differs in more places than were counted: then what is counted of it is the least.
    pub more_usage: bool,
    /// Some of the differences, in words.
    pub examples: Vec<String>,
}

impl Report {
    /// Whether what is stored is what the facts say.
    pub fn agrees(&self) -> bool {
        self.by_table.is_empty()
    }

    fn differs(&mut self, table: &'static str, example: impl FnOnce() -> String) {
        *self.by_table.entry(table).or_default() += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(example());
        }
    }

    fn count(&mut self, differences: &[Difference]) {
        let groups: BTreeSet<&GroupKey> = differences.iter().map(|difference| &difference.key).collect();
        self.differing += groups.len() as u64;
        for Difference { key, part, fields } in differences {
            self.differs(part.table(), || {
                let (project, kind, id) = (&key.project_id, key.kind.as_str(), &key.id);
                format!("{}: project {project}, {kind} {id}: {}", part.table(), fields.join(", "))
            });
        }
    }
}

/// Recomputes and compares; tells after every hour how far it has come.
///
/// It can be ended at any time and begun again, with the hour it had come to or from the start: what is right already is
/// not written.
///
/// # Errors
/// [`AggregatorError`] when the store cannot be used or the price table is broken.
pub async fn rederive(
    config: &Config,
    what: &Rederivation,
    mut tell: impl FnMut(Step),
) -> Result<Report, AggregatorError> {
    let store = Store::new(&config.clickhouse)?;
    let prices = Prices::new(config.prices.table()?);
    let now = u32::try_from(store.now_ms().await? / 1000).unwrap_or(u32::MAX);
    let kept = store.derived_retention_days().saturating_mul(86_400);
    let oldest_minute = now.saturating_sub(kept.saturating_sub(EXPIRY_MARGIN.min(kept / 2)));
    let recomputer = Recomputer::new(store.clone(), prices, config.aggregator.sighting_bounds())
        .comparing(!what.check, oldest_minute);
    let mut run = Run {
        store,
        recomputer,
        what,
        batch: config.aggregator.derive_max_groups,
        oldest_minute,
        seen: HashSet::new(),
        report: Report::default(),
    };
    let hours = run.store.fact_hours(&what.range).await?;
    for (done, hour) in hours.iter().enumerate() {
        run.hour(*hour).await?;
        tell(Step {
            hours: done + 1,
            of: hours.len(),
            groups: run.report.groups,
            differing: run.report.differing,
        });
    }
    for scale in [Scale::Minute, Scale::Hour] {
        for window in windows(&hours, oldest_minute) {
            run.usage(scale, window).await?;
        }
    }
    Ok(run.report)
}

/// A group with the hours in which it is known to have events.
type Taken = (GroupKey, Pending);

struct Run<'w> {
    store: Store,
    recomputer: Recomputer,
    what: &'w Rederivation,
    batch: usize,
    oldest_minute: u32,
    /// Sessions and traces that are done.
    seen: HashSet<GroupKey>,
    report: Report,
}

impl Run<'_> {
    /// All groups that have events in an hour.
    async fn hour(&mut self, hour: i32) -> Result<(), StoreError> {
        let project = &self.what.range.project_id;
        let mut after: Option<GroupKey> = None;
        loop {
            let page = self.store.groups_of_hour(project, hour, after.as_ref(), PAGE).await?;
            let full = page.len() == PAGE;
            after = page.last().map(|found| found.key.clone());
            self.forget_incomplete(&page).await?;
            let new: Vec<Taken> = page.into_iter().filter_map(|found| self.take(found)).collect();
            for groups in new.chunks(self.batch.max(1)) {
                self.groups(groups.to_vec()).await?;
            }
            if !full {
                return Ok(());
            }
        }
    }

    fn take(&mut self, found: GroupHour) -> Option<Taken> {
        let GroupHour { key, hour, received_day } = found;
        if key.kind != GroupKind::Loose {
            if self.seen.len() >= REMEMBERED {
                self.seen.clear();
            }
            if !self.seen.insert(key.clone()) {
                return None;
            }
        }
        Some((key, Pending::in_hours([(hour, received_day)].into())))
    }

    /// A group that is done, although not all of its hours were known to whoever derives it, is not done.
    async fn forget_incomplete(&mut self, page: &[GroupHour]) -> Result<(), StoreError> {
        let done: Vec<GroupHour> =
            page.iter().filter(|found| self.seen.contains(&found.key)).cloned().collect();
        for hours in done.chunks(self.batch.max(1)) {
            for hour in self.store.unrecorded_hours(hours).await? {
                self.seen.remove(&hour.key);
            }
        }
        Ok(())
    }

    /// Groups, and those that have to do with them.
    async fn groups(&mut self, mut groups: Vec<Taken>) -> Result<(), StoreError> {
        let mut known: BTreeSet<GroupKey> = BTreeSet::new();
        while !groups.is_empty() {
            known.extend(groups.iter().map(|(key, _)| key.clone()));
            let done = self.recomputer.run(&groups).await?;
            self.report.groups += groups.len() as u64;
            self.report.expired += done.found.expired.len() as u64;
            let mut next = self.owners(&done);
            if self.what.check {
                self.confirm(&groups, done.found.differences, done.found.versions).await?;
            } else {
                next.extend(follow(&done));
                self.report.count(&done.found.differences);
            }
            next.retain(|key| !known.contains(key));
            groups = next.into_iter().map(|key| (key, Pending::in_hours(BTreeSet::new()))).collect();
        }
        Ok(())
    }

    /// The sessions whose the events of these traces are, unless they are done: they may have none in the range.
    fn owners(&mut self, done: &Done) -> BTreeSet<GroupKey> {
        let of_traces = done.next.iter().filter(|(cause, _)| cause.kind == GroupKind::Trace);
        of_traces
            .filter(|(_, owner)| self.seen.insert(owner.clone()))
            .map(|(_, owner)| owner.clone())
            .collect()
    }

    /// Looks at suspects again, until they agree or are sure to differ.
    async fn confirm(
        &mut self,
        groups: &[Taken],
        mut differences: Vec<Difference>,
        mut versions: HashMap<GroupKey, u64>,
    ) -> Result<(), StoreError> {
        let mut unsure = HashSet::new();
        for pause in LOOKS {
            if differences.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            let suspects: HashSet<&GroupKey> = differences.iter().map(|difference| &difference.key).collect();
            // What is named beside its group (a trace's own, emptied for a session) is not in the list of this page.
            let again: Vec<Taken> = suspects
                .iter()
                .map(|key| {
                    let known = groups.iter().find(|(known, _)| known == *key);
                    known.cloned().unwrap_or_else(|| ((*key).clone(), Pending::in_hours(BTreeSet::new())))
                })
                .collect();
            let before = self.store.unsettled_groups(UNSETTLED).await?;
            let found = self.recomputer.run(&again).await?.found;
            let after = self.store.unsettled_groups(UNSETTLED).await?;
            let waiting = before.union(&after).cloned().collect();
            unsure = cannot_be_judged(&found.differences, &waiting, &versions, &found.versions);
            (differences, versions) = (found.differences, found.versions);
            if unsure.is_empty() {
                break;
            }
        }
        differences.retain(|difference| !unsure.contains(&difference.key));
        self.report.waiting += unsure.len() as u64;
        self.report.count(&differences);
        Ok(())
    }

    /// Usage from `first` until before `end`.
    async fn usage(&mut self, scale: Scale, window: (u32, u32)) -> Result<(), StoreError> {
        let project = &self.what.range.project_id;
        let mut differing = self.store.differing_usage(scale, project, window, BUCKETS).await?;
        if !self.what.check {
            while !differing.is_empty() {
                self.tell_of(scale, &differing);
                let minutes = self.minutes_of(scale, &differing);
                self.store.recompute_usage(&minutes).await?;
                let found: BTreeSet<Bucket> = differing.into_iter().collect();
                differing = self.store.differing_usage(scale, project, window, BUCKETS).await?;
                differing.retain(|bucket| !found.contains(bucket));
            }
            return Ok(());
        }
        for pause in LOOKS {
            if differing.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            let again = self.store.differing_usage(scale, project, window, BUCKETS).await?;
            // Another version since: somebody is at work on it.
            let found: BTreeSet<Bucket> = differing.into_iter().collect();
            let settled = again.iter().all(|bucket| found.contains(bucket));
            differing = again;
            if settled && pause >= Duration::from_secs(3) {
                break;
            }
        }
        self.report.more_usage |= differing.len() >= BUCKETS;
        self.tell_of(scale, &differing);
        Ok(())
    }

    fn tell_of(&mut self, scale: Scale, differing: &[Bucket]) {
        for bucket in differing {
            self.report.differs(scale.table(), || {
                let Bucket { project_id, start, .. } = bucket;
                format!("{}: project {project_id}, {start} is not the sum of its parts", scale.table())
            });
        }
    }

    /// The minutes whose recomputation makes these buckets right.
    fn minutes_of(&self, scale: Scale, buckets: &[Bucket]) -> BTreeSet<(String, u32)> {
        let first = |bucket: &Bucket| match scale {
            Scale::Minute => bucket.start,
            // Any minute of the hour has the hour recomputed.
            Scale::Hour => bucket.start.max(self.oldest_minute - self.oldest_minute % 60),
        };
        buckets.iter().map(|bucket| (bucket.project_id.clone(), first(bucket))).collect()
    }
}

/// Of the groups that differ, those of which that says nothing: facts of theirs wait to be derived, or what is stored of
/// them is another version than it was at the look before.
fn cannot_be_judged(
    differences: &[Difference],
    waiting: &HashSet<GroupKey>,
    before: &HashMap<GroupKey, u64>,
    now: &HashMap<GroupKey, u64>,
) -> HashSet<GroupKey> {
    let keys = differences.iter().map(|difference| &difference.key);
    keys.filter(|key| waiting.contains(key) || before.get(key) != now.get(key)).cloned().collect()
}

/// The groups that have to be recomputed because others were not right: a trace that changes hands changes who had it.
fn follow(done: &Done) -> BTreeSet<GroupKey> {
    let differing: HashSet<&GroupKey> =
        done.found.differences.iter().map(|difference| &difference.key).collect();
    done.next.iter().filter(|(cause, _)| differing.contains(cause)).map(|(_, next)| next.clone()).collect()
}

/// The times in which usage is compared, seconds since the epoch: the days that have facts, without what expires.
fn windows(hours: &[i32], oldest_minute: u32) -> Vec<(u32, u32)> {
    // An hour that is only partly kept would not be the sum of its minutes.
    let oldest = oldest_minute.next_multiple_of(3600);
    let days: BTreeSet<u32> = hours
        .iter()
        .map(|hour| u32::try_from((*hour).max(0)).unwrap_or(0))
        .map(|hour| (hour - hour % WINDOW_HOURS).min(u32::MAX / 3600 - WINDOW_HOURS))
        .collect();
    days.into_iter()
        .map(|hour| ((hour * 3600).max(oldest), (hour + WINDOW_HOURS) * 3600))
        .filter(|(first, end)| first < end)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_compared_by_days_that_have_facts_and_are_kept() {
        let day = 86_400;
        assert_eq!(windows(&[0, 1, 23, 24, 49], 0), [(0, day), (day, 2 * day), (2 * day, 3 * day)]);
        assert_eq!(windows(&[0, 30], day + 1), [(day + 3600, 2 * day)]);
        let absurd = windows(&[-2_000_000, i32::MAX], 0);
        assert_eq!(absurd.len(), 2);
        assert!(absurd.iter().all(|(first, end)| first < end));
    }

    #[test]
    fn a_group_that_waits_or_was_written_between_two_looks_is_not_judged() {
        let key =
            |id: &str| GroupKey { project_id: "p".to_owned(), kind: GroupKind::Session, id: id.to_owned() };
        let differences: Vec<Difference> = ["still", "waits", "busy", "busy", "new"]
            .map(|id| Difference {
                key: key(id),
                part: fleetlog_store::derived::Part::Group,
                fields: Vec::new(),
            })
            .into();
        let versions = |all: [(&str, u64); 3]| HashMap::from(all.map(|(id, version)| (key(id), version)));
        let before = versions([("still", 1), ("waits", 1), ("busy", 1)]);
        let mut now = versions([("still", 1), ("waits", 1), ("busy", 2)]);
        now.insert(key("new"), 1);
        let unsure = cannot_be_judged(&differences, &[key("waits")].into(), &before, &now);
        assert_eq!(unsure, HashSet::from(["waits", "busy", "new"].map(key)));
    }

    #[test]
    fn every_difference_is_counted_and_some_are_described() {
        let mut report = Report::default();
        let difference = |n: usize| Difference {
            key: GroupKey { project_id: "p".to_owned(), kind: GroupKind::Session, id: format!("s{}", n / 2) },
            part: if n.is_multiple_of(2) {
                fleetlog_store::derived::Part::Group
            } else {
                fleetlog_store::derived::Part::Contributions
            },
            fields: vec!["calls.cost_computed".to_owned()],
        };
        report.count(&(0..60).map(difference).collect::<Vec<_>>());
        assert_eq!((report.differing, report.by_table["session_groups"]), (30, 30));
        assert_eq!((report.examples.len(), report.agrees()), (EXAMPLES, false));
        assert_eq!(report.examples[0], "session_groups: project p, session s0: calls.cost_computed");
    }
}
