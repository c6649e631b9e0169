//! One recomputation: reads all facts of touched groups, derives, writes; or compares with what is stored.
//!
//! The order of the steps is what keeps it true beside other instances and after a crash (see
//! [`fleetlog_store::derived`] and [`crate::ownership`]); each can be repeated.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Instant;

use fleetlog_store::derived::{
    Adopted, Compared, DerivedGroup, Difference, GroupFilter, GroupHour, GroupKey, Part, RepricingMark,
    SessionTrace, Sighting, Summary, TraceShare,
};
use fleetlog_store::{Contribution, GroupKind, Store, StoreError};

use crate::derive::{Prices, Stored, derive, vacated};
use crate::expiry::Expiry;
use crate::metrics;
use crate::ownership::{self, Plan, Remembered};
use crate::touched::Pending;

/// Hours known to be recorded. A forgotten one is recorded again, which is harmless.
const KNOWN_HOURS: usize = 200_000;
/// Adopted traces that one statement names, unless a single session has more.
const ADOPTED_PER_STATEMENT: usize = 5000;

/// What becomes of recomputed groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// They are written.
    Write,
    /// They are compared with what is stored, and written where they differ if that is wanted.
    Compare {
        /// Whether they are.
        mends: bool,
        /// Minutes of usage before this one expire, and are left out.
        oldest_minute: u32,
    },
}

/// What a comparison found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Parts of groups that differ.
    pub(crate) differences: Vec<Difference>,
    /// Groups some of whose facts have expired: what is stored of these stays.
    pub(crate) expired: Vec<GroupKey>,
    /// Stored versions of the groups.
    pub(crate) versions: HashMap<GroupKey, u64>,
}

/// How many sightings are held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SightingBounds {
    /// At a time, unless a single group has more.
    pub(crate) at_once: u64,
    /// Of a single group; one of more is too large.
    pub(crate) of_group: u64,
}

/// A group that has more sightings than may be held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge {
    pub(crate) key: GroupKey,
    pub(crate) sightings: u64,
}

/// Recomputes groups, and remembers what it need not write again.
pub(crate) struct Recomputer {
    store: Store,
    prices: Prices,
    /// As of when the repricings are known.
    repriced: RepricingMark,
    bounds: SightingBounds,
    outcome: Outcome,
    known_hours: HashSet<GroupHour>,
    remembered: Remembered,
    expiry: Expiry,
}

/// What a recomputation came to.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// How many events each written group has.
    pub(crate) sizes: Vec<(GroupKey, u64)>,
    /// Groups that are to be recomputed next, each with the one that makes it necessary.
    pub(crate) next: Vec<(GroupKey, GroupKey)>,
    /// Groups that are too large to be recomputed, of which nothing is written.
    pub(crate) too_large: Vec<TooLarge>,
    /// What a comparison found.
    pub(crate) found: Found,
}

/// A recomputation under way.
struct Run {
    version: u64,
    spent: Spent,
    minutes: BTreeSet<(String, u32)>,
    sizes: Vec<(GroupKey, u64)>,
    /// Minutes in which sessions may have had calls that are another's.
    lost: HashMap<(String, String), BTreeSet<u32>>,
    too_large: Vec<TooLarge>,
    found: Found,
}

impl Recomputer {
    pub(crate) fn new(store: Store, prices: Prices, bounds: SightingBounds) -> Self {
        Self {
            store,
            prices,
            repriced: RepricingMark::default(),
            bounds,
            outcome: Outcome::Write,
            known_hours: HashSet::new(),
            remembered: Remembered::default(),
            expiry: Expiry::default(),
        }
    }

    /// The same, for comparing.
    pub(crate) fn comparing(self, mends: bool, oldest_minute: u32) -> Self {
        Self { outcome: Outcome::Compare { mends, oldest_minute }, ..self }
    }

    /// Recomputes groups.
    ///
    /// # Errors
    /// Whatever the store says: then nothing of it may be taken for done.
    pub(crate) async fn run(&mut self, taken: &[(GroupKey, Pending)]) -> Result<Done, StoreError> {
        let mut spent = Spent::new();
        let mut found = Found::default();
        self.remember_hours(taken, &mut found).await?;
        spent.on(|spent| &mut spent.hours_ms);
        let of = |kind: GroupKind| -> Vec<GroupKey> {
            taken.iter().map(|(key, _)| key).filter(|key| key.kind == kind).cloned().collect()
        };
        let (sessions, traces, loose) = (of(GroupKind::Session), of(GroupKind::Trace), of(GroupKind::Loose));
        // The clock is read before whatever decides: the highest version has seen the most (design: versions).
        let version = self.next_version().await?;
        let mut run = Run {
            version,
            spent,
            minutes: BTreeSet::new(),
            sizes: Vec::with_capacity(taken.len()),
            lost: HashMap::new(),
            too_large: Vec::new(),
            found,
        };
        let traced = self.untraced(&mut run, sessions).await?;
        let namings = self.remember_namings(&traced, &mut run.found).await?;
        // Read again: who names whom is written before the version of what depends on it.
        run.version = self.next_version().await?;
        let plan = self.plan(&namings, &traces).await?;
        run.lost = self.lost(&plan.lost).await?;
        run.spent.on(|spent| &mut spent.ownership_ms);
        for (keys, adopted) in by_adoption(&traced, &plan.adopted) {
            self.groups(&mut run, GroupKind::Session, keys, adopted).await?;
        }
        self.groups(&mut run, GroupKind::Trace, plan.unowned, Vec::new()).await?;
        self.vacate(&mut run, plan.vacated.into_iter().collect()).await?;
        self.groups(&mut run, GroupKind::Loose, loose, Vec::new()).await?;
        self.store.recompute_usage(&run.minutes).await?;
        run.spent.on(|spent| &mut spent.usage_ms);
        if self.outcome == Outcome::Write {
            self.remembered.settled(&plan.adopted);
        }
        let (minutes, spent) = (run.minutes.len(), run.spent);
        tracing::debug!(groups = run.sizes.len(), minutes, ?spent, "recomputed");
        Ok(Done { sizes: run.sizes, next: plan.next, too_large: run.too_large, found: run.found })
    }

    /// A version, and then the repricings: like facts, they are read after the clock.
    async fn next_version(&mut self) -> Result<u64, StoreError> {
        let version = self.store.next_version().await?;
        let mark = self.store.repricing_mark().await?;
        if mark != self.repriced {
            let repricings = self.store.repricings().await?;
            self.prices = self
                .prices
                .with(repricings)
                .map_err(|e| StoreError::Answer(format!("the table of a repricing: {e}")))?;
            self.repriced = mark;
        }
        Ok(version)
    }

    /// Records the hours in which the groups have events, before anything of them is read.
    async fn remember_hours(
        &mut self,
        taken: &[(GroupKey, Pending)],
        found: &mut Found,
    ) -> Result<(), StoreError> {
        let mut new: Vec<GroupHour> = taken
            .iter()
            .filter(|(key, _)| key.kind != GroupKind::Loose)
            .flat_map(|(key, pending)| {
                pending.hours.iter().map(|(hour, received_day)| GroupHour {
                    key: key.clone(),
                    hour: *hour,
                    received_day: *received_day,
                })
            })
            .filter(|hour| !self.known_hours.contains(hour))
            .collect();
        if let Outcome::Compare { mends, .. } = self.outcome {
            new = self.store.unrecorded_hours(&new).await?;
            for hour in &new {
                found.lacks(&hour.key, Part::Hours, format!("hour {}", hour.hour));
            }
            if !mends {
                return Ok(());
            }
        }
        self.store.add_group_hours(&new).await?;
        if self.known_hours.len() + new.len() > KNOWN_HOURS {
            self.known_hours.clear();
        }
        self.known_hours.extend(new);
        Ok(())
    }

    /// Records which traces name the sessions, before any owner is looked up, and returns them.
    async fn remember_namings(
        &mut self,
        sessions: &[GroupKey],
        found: &mut Found,
    ) -> Result<Vec<SessionTrace>, StoreError> {
        if sessions.is_empty() {
            return Ok(Vec::new());
        }
        let filter = self.store.group_filter(GroupKind::Session, sessions.to_vec()).await?;
        let namings = self.store.session_traces(&filter).await?;
        let mut news = self.remembered.news(&namings);
        if let Outcome::Compare { mends, .. } = self.outcome {
            news = self.store.unrecorded_namings(&namings).await?;
            for naming in &news {
                let (project_id, id) = (naming.project_id.clone(), naming.session_id.clone());
                let key = GroupKey { project_id, kind: GroupKind::Session, id };
                found.lacks(&key, Part::Traces, format!("trace {}", naming.trace_id));
            }
            if !mends {
                return Ok(namings);
            }
        }
        self.store.add_trace_sessions(&news).await?;
        self.remembered.written(news);
        Ok(namings)
    }

    /// Looks up whose the traces are.
    async fn plan(&self, namings: &[SessionTrace], traces: &[GroupKey]) -> Result<Plan, StoreError> {
        let named: Vec<(&str, &str)> = namings
            .iter()
            .map(|naming| (naming.project_id.as_str(), naming.trace_id.as_str()))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let own = traces.iter().map(|trace| (trace.project_id.as_str(), trace.id.as_str()));
        let all: Vec<(&str, &str)> =
            named.iter().copied().chain(own).collect::<BTreeSet<_>>().into_iter().collect();
        let owners = self.store.trace_namings(&all).await?;
        let hours = self.store.trace_hours(&named).await?;
        Ok(ownership::plan(&self.remembered, namings, traces, &owners, &hours))
    }

    /// The minutes of traces that sessions name and do not own.
    async fn lost(&self, traces: &[Adopted]) -> Result<HashMap<(String, String), BTreeSet<u32>>, StoreError> {
        let mut lost: HashMap<(String, String), BTreeSet<u32>> = HashMap::new();
        for traces in traces.chunks(ADOPTED_PER_STATEMENT) {
            let mut minutes: HashMap<(String, String), BTreeSet<u32>> = HashMap::new();
            for (project, trace, minute) in self.store.homeless_minutes(traces).await? {
                minutes.entry((project, trace)).or_default().insert(minute);
            }
            for trace in traces {
                let of = minutes.get(&(trace.project_id.clone(), trace.trace_id.clone()));
                let session = (trace.project_id.clone(), trace.session_id.clone());
                lost.entry(session).or_default().extend(of.into_iter().flatten());
            }
        }
        Ok(lost)
    }

    /// Recomputes the sessions that name no trace, which therefore own none, and returns the others.
    async fn untraced(
        &mut self,
        run: &mut Run,
        sessions: Vec<GroupKey>,
    ) -> Result<Vec<GroupKey>, StoreError> {
        if sessions.is_empty() {
            return Ok(Vec::new());
        }
        let filter = self.store.group_filter(GroupKind::Session, sessions).await?;
        let (traced, untraced): (Vec<Summary>, Vec<Summary>) =
            self.summaries(&filter).await?.into_iter().partition(|summary| summary.traced);
        run.spent.on(|spent| &mut spent.summaries_ms);
        self.portions(run, &filter, untraced, HashMap::new()).await?;
        Ok(traced.iter().map(|summary| key_of(GroupKind::Session, summary)).collect())
    }

    /// Recomputes groups of one kind.
    async fn groups(
        &mut self,
        run: &mut Run,
        kind: GroupKind,
        keys: Vec<GroupKey>,
        adopted: Vec<Adopted>,
    ) -> Result<(), StoreError> {
        if keys.is_empty() {
            return Ok(());
        }
        let filter = GroupFilter { adopted, ..self.store.group_filter(kind, keys).await? };
        let summaries = self.summaries(&filter).await?;
        let shares = match kind {
            GroupKind::Session | GroupKind::Trace => self.shares(&filter).await?,
            GroupKind::Loose => HashMap::new(),
        };
        run.spent.on(|spent| &mut spent.summaries_ms);
        self.portions(run, &filter, summaries, shares).await
    }

    /// Derives and writes groups, a portion at a time.
    async fn portions(
        &mut self,
        run: &mut Run,
        filter: &GroupFilter,
        summaries: Vec<Summary>,
        mut shares: HashMap<(String, String), Vec<TraceShare>>,
    ) -> Result<(), StoreError> {
        let summaries = self.small_enough(run, filter.kind, summaries);
        for portion in portions(summaries, self.bounds.at_once) {
            let (filter, mut sightings) = self.sightings(filter, &portion).await?;
            let stored = self.stored(run, &filter, &shares).await?;
            let filter_kind = filter.kind;
            let mut groups = Vec::with_capacity(portion.len());
            for (key, summary) in filter.keys.into_iter().zip(&portion) {
                let name = (key.project_id.clone(), key.id.clone());
                let seen = sightings.remove(&name).unwrap_or_default();
                let shares = shares.remove(&name).unwrap_or_default();
                let outlived = stored.get(&key);
                let mut group = derive(&self.prices, key, summary, &seen, &shares, outlived);
                if filter_kind == GroupKind::Session
                    && let Some(minutes) = run.lost.get(&name)
                {
                    empty(&mut group, minutes);
                }
                groups.push(group);
                // Deriving is all computation; the inserts of other partitions must not wait for the last group.
                tokio::task::yield_now().await;
            }
            run.spent.on(|spent| &mut spent.sightings_ms);
            self.write(run, groups).await?;
        }
        Ok(())
    }

    /// Writes the groups of traces empty whose events are a session's.
    async fn vacate(&mut self, run: &mut Run, keys: Vec<GroupKey>) -> Result<(), StoreError> {
        if keys.is_empty() {
            return Ok(());
        }
        let filter = self.store.group_filter(GroupKind::Trace, keys).await?;
        let summaries = self.summaries(&filter).await?;
        let summaries = self.small_enough(run, GroupKind::Trace, summaries);
        for portion in portions(summaries, self.bounds.at_once) {
            let (filter, mut sightings) = self.sightings(&filter, &portion).await?;
            let stored = self.stored(run, &filter, &HashMap::new()).await?;
            let groups = filter
                .keys
                .into_iter()
                .zip(&portion)
                .map(|(key, summary)| {
                    let seen =
                        sightings.remove(&(key.project_id.clone(), key.id.clone())).unwrap_or_default();
                    let outlived = stored.get(&key);
                    vacated(key, summary, &seen, outlived)
                })
                .collect();
            self.write(run, groups).await?;
        }
        Ok(())
    }

    /// What stands for expired facts of groups whose facts are read.
    async fn stored(
        &mut self,
        run: &mut Run,
        filter: &GroupFilter,
        shares: &HashMap<(String, String), Vec<TraceShare>>,
    ) -> Result<HashMap<GroupKey, Stored>, StoreError> {
        let stored = self.expiry.stored(&self.store, filter, shares).await?;
        run.found.expired.extend(stored.keys().cloned());
        run.spent.on(|spent| &mut spent.expiry_ms);
        Ok(stored)
    }

    async fn write(&self, run: &mut Run, mut groups: Vec<DerivedGroup>) -> Result<(), StoreError> {
        if let Outcome::Compare { mends, oldest_minute } = self.outcome {
            let compared = self.store.compare_groups(&groups, oldest_minute).await?;
            run.sizes.extend(groups.iter().map(|group| (group.key.clone(), group.session.event_count)));
            groups = if mends { to_mend(groups, &compared) } else { Vec::new() };
            run.found.add(compared);
        }
        self.store.write_groups(&groups, run.version).await?;
        run.spent.on(|spent| &mut spent.write_ms);
        for group in groups {
            for contribution in &group.contributions {
                run.minutes.insert((group.key.project_id.clone(), contribution.minute));
            }
            if self.outcome == Outcome::Write {
                run.sizes.push((group.key, group.session.event_count));
            }
        }
        Ok(())
    }

    /// Leaves out the groups that are too large, before any of their sightings is read.
    fn small_enough(&self, run: &mut Run, kind: GroupKind, summaries: Vec<Summary>) -> Vec<Summary> {
        let most = self.bounds.of_group;
        let (small, large): (Vec<_>, Vec<_>) =
            summaries.into_iter().partition(|summary| summary.sighting_count <= most);
        for summary in large {
            let (key, sightings) = (key_of(kind, &summary), summary.sighting_count);
            if self.outcome != Outcome::Write {
                let what =
                    format!("cannot be compared: it has {sightings} sightings and {most} are the most");
                run.found.differences.push(Difference {
                    key: key.clone(),
                    part: Part::Group,
                    fields: vec![what],
                });
            }
            run.too_large.push(TooLarge { key, sightings });
        }
        small
    }

    /// Neighbours in the order of `events` together, so that each portion reads a part of it and not all.
    async fn summaries(&self, filter: &GroupFilter) -> Result<Vec<Summary>, StoreError> {
        let mut summaries = self.store.summaries(filter).await?;
        summaries.sort_unstable_by(|a, b| (&a.project_id, &a.group_id).cmp(&(&b.project_id, &b.group_id)));
        Ok(summaries)
    }

    /// What the groups share in traces, by group.
    async fn shares(
        &self,
        filter: &GroupFilter,
    ) -> Result<HashMap<(String, String), Vec<TraceShare>>, StoreError> {
        let mut shares: HashMap<(String, String), Vec<TraceShare>> = HashMap::new();
        for share in self.store.trace_shares(filter).await? {
            shares.entry((share.project_id.clone(), share.group_id.clone())).or_default().push(share);
        }
        Ok(shares)
    }

    /// The sightings of a portion's groups, and the filter that names just these groups, in the portion's order.
    async fn sightings(
        &self,
        filter: &GroupFilter,
        portion: &[Summary],
    ) -> Result<(GroupFilter, HashMap<(String, String), Vec<Sighting>>), StoreError> {
        let keys: Vec<GroupKey> = portion.iter().map(|summary| key_of(filter.kind, summary)).collect();
        let named: HashSet<(&str, &str)> =
            keys.iter().map(|key| (key.project_id.as_str(), key.id.as_str())).collect();
        let adopted = filter
            .adopted
            .iter()
            .filter(|adopted| named.contains(&(adopted.project_id.as_str(), adopted.session_id.as_str())))
            .cloned()
            .collect();
        let filter =
            GroupFilter { adopted, keys, kind: filter.kind, hours: filter.hours.clone(), since: Vec::new() };
        let mut sightings: HashMap<(String, String), Vec<Sighting>> = HashMap::new();
        let mut rows = self.store.sightings(&filter)?;
        let mut count = 0;
        while let Some(mut sighting) = rows.next().await? {
            count += 1;
            let group = (std::mem::take(&mut sighting.project_id), std::mem::take(&mut sighting.group_id));
            sightings.entry(group).or_default().push(sighting);
        }
        metrics::DERIVED_SIGHTINGS.add(count);
        Ok((filter, sightings))
    }
}

impl Found {
    fn lacks(&mut self, key: &GroupKey, part: Part, what: String) {
        let fields = vec![format!("{what} is missing")];
        self.differences.push(Difference { key: key.clone(), part, fields });
    }

    fn add(&mut self, compared: Compared) {
        self.differences.extend(compared.differences);
        self.expired.extend(compared.expired);
        self.versions.extend(compared.versions);
    }
}

/// The groups that differ, each with the minutes emptied to which it is only stored to contribute.
fn to_mend(groups: Vec<DerivedGroup>, compared: &Compared) -> Vec<DerivedGroup> {
    let differing: HashSet<&GroupKey> =
        compared.differences.iter().map(|difference| &difference.key).collect();
    let mut groups: Vec<DerivedGroup> =
        groups.into_iter().filter(|group| differing.contains(&group.key)).collect();
    for group in &mut groups {
        if let Some(minutes) = compared.stale.get(&group.key) {
            empty(group, minutes);
        }
    }
    groups
}

/// Has a group contribute nothing in those of these minutes in which it does not.
fn empty(group: &mut DerivedGroup, minutes: &BTreeSet<u32>) {
    let known: BTreeSet<u32> = group.contributions.iter().map(|contribution| contribution.minute).collect();
    let others = minutes.difference(&known);
    group.contributions.extend(others.map(|minute| Contribution { minute: *minute, usage: Vec::new() }));
}

fn key_of(kind: GroupKind, summary: &Summary) -> GroupKey {
    GroupKey { project_id: summary.project_id.clone(), kind, id: summary.group_id.clone() }
}

/// Sessions with what they adopt, in parts whose statements stay small.
fn by_adoption(sessions: &[GroupKey], adopted: &[Adopted]) -> Vec<(Vec<GroupKey>, Vec<Adopted>)> {
    let mut by_session: HashMap<(&str, &str), Vec<Adopted>> = HashMap::new();
    for trace in adopted {
        by_session.entry((&trace.project_id, &trace.session_id)).or_default().push(trace.clone());
    }
    let mut parts: Vec<(Vec<GroupKey>, Vec<Adopted>)> = Vec::new();
    for session in sessions {
        let own = by_session.remove(&(session.project_id.as_str(), session.id.as_str())).unwrap_or_default();
        match parts.last_mut() {
            Some((keys, held)) if held.len() + own.len() <= ADOPTED_PER_STATEMENT => {
                keys.push(session.clone());
                held.extend(own);
            }
            _ => parts.push((vec![session.clone()], own)),
        }
    }
    parts
}

/// Where the time of a recomputation went, milliseconds.
#[derive(Debug)]
struct Spent {
    since: Instant,
    hours_ms: u128,
    ownership_ms: u128,
    summaries_ms: u128,
    sightings_ms: u128,
    expiry_ms: u128,
    write_ms: u128,
    usage_ms: u128,
}

impl Spent {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            hours_ms: 0,
            ownership_ms: 0,
            summaries_ms: 0,
            sightings_ms: 0,
            expiry_ms: 0,
            write_ms: 0,
            usage_ms: 0,
        }
    }

    /// Books the time since the last call.
    fn on(&mut self, step: impl FnOnce(&mut Self) -> &mut u128) {
        let now = Instant::now();
        let elapsed = now.duration_since(std::mem::replace(&mut self.since, now)).as_millis();
        *step(self) += elapsed;
    }
}

/// Cuts summaries into portions of at most `most` sightings, or of one group that has more.
fn portions(summaries: Vec<Summary>, most: u64) -> Vec<Vec<Summary>> {
    let mut portions: Vec<Vec<Summary>> = Vec::new();
    let mut held = 0;
    for summary in summaries {
        let size = summary.sighting_count;
        match portions.last_mut() {
            Some(portion) if held + size <= most => {
                held += size;
                portion.push(summary);
            }
            _ => {
                held = size;
                portions.push(vec![summary]);
            }
        }
    }
    portions
}
