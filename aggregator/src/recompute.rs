//! One recomputation: reads all facts of touched groups, derives, writes.
//!
//! The order of the steps is what keeps it true beside other instances and after a crash (see
//! [`fleetlog_store::derived`] and [`crate::ownership`]); each can be repeated.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Instant;

use fleetlog_store::derived::{
    Adopted, DerivedGroup, GroupFilter, GroupHour, GroupKey, SessionTrace, Sighting, Summary, TraceShare,
};
use fleetlog_store::{GroupKind, Store, StoreError};

use crate::derive::{derive, vacated};
use crate::metrics;
use crate::ownership::{self, Plan, Remembered};
use crate::touched::Pending;

/// Hours known to be recorded. A forgotten one is recorded again, which is harmless.
const KNOWN_HOURS: usize = 200_000;
/// Adopted traces that one statement names, unless a single session has more.
const ADOPTED_PER_STATEMENT: usize = 5000;

/// Recomputes groups, and remembers what it need not write again.
pub(crate) struct Recomputer {
    store: Store,
    /// Most sightings held at a time, unless a single group has more.
    max_sightings: u64,
    known_hours: HashSet<GroupHour>,
    remembered: Remembered,
}

/// What a recomputation came to.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// How many events each written group has.
    pub(crate) sizes: Vec<(GroupKey, u64)>,
    /// Groups that are to be recomputed next, each with the one that makes it necessary.
    pub(crate) next: Vec<(GroupKey, GroupKey)>,
}

/// A recomputation under way.
struct Run {
    version: u64,
    spent: Spent,
    minutes: BTreeSet<(String, u32)>,
    sizes: Vec<(GroupKey, u64)>,
}

impl Recomputer {
    pub(crate) fn new(store: Store, max_sightings: u64) -> Self {
        Self { store, max_sightings, known_hours: HashSet::new(), remembered: Remembered::default() }
    }

    /// Recomputes groups.
    ///
    /// # Errors
    /// Whatever the store says: then nothing of it may be taken for done.
    pub(crate) async fn run(&mut self, taken: &[(GroupKey, Pending)]) -> Result<Done, StoreError> {
        let mut spent = Spent::new();
        self.remember_hours(taken).await?;
        spent.on(|spent| &mut spent.hours_ms);
        let of = |kind: GroupKind| -> Vec<GroupKey> {
            taken.iter().map(|(key, _)| key).filter(|key| key.kind == kind).cloned().collect()
        };
        let (sessions, traces, loose) = (of(GroupKind::Session), of(GroupKind::Trace), of(GroupKind::Loose));
        // The clock is read before whatever decides: the highest version has seen the most (design: versions).
        let version = self.store.next_version().await?;
        let mut run =
            Run { version, spent, minutes: BTreeSet::new(), sizes: Vec::with_capacity(taken.len()) };
        let traced = self.untraced(&mut run, sessions).await?;
        let namings = self.remember_namings(&traced).await?;
        // Read again: who names whom is written before the version of what depends on it.
        run.version = self.store.next_version().await?;
        let plan = self.plan(&namings, &traces).await?;
        run.spent.on(|spent| &mut spent.ownership_ms);
        for (keys, adopted) in by_adoption(&traced, &plan.adopted) {
            self.groups(&mut run, GroupKind::Session, keys, adopted).await?;
        }
        self.groups(&mut run, GroupKind::Trace, plan.unowned, Vec::new()).await?;
        self.vacate(&mut run, plan.vacated.into_iter().collect()).await?;
        self.groups(&mut run, GroupKind::Loose, loose, Vec::new()).await?;
        self.store.recompute_usage(&run.minutes).await?;
        run.spent.on(|spent| &mut spent.usage_ms);
        self.remembered.settled(&plan.adopted);
        let (minutes, spent) = (run.minutes.len(), run.spent);
        tracing::debug!(groups = run.sizes.len(), minutes, ?spent, "recomputed");
        Ok(Done { sizes: run.sizes, next: plan.next })
    }

    /// Records the hours in which the groups have events, before anything of them is read.
    async fn remember_hours(&mut self, taken: &[(GroupKey, Pending)]) -> Result<(), StoreError> {
        let new: Vec<GroupHour> = taken
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
        self.store.add_group_hours(&new).await?;
        if self.known_hours.len() + new.len() > KNOWN_HOURS {
            self.known_hours.clear();
        }
        self.known_hours.extend(new);
        Ok(())
    }

    /// Records which traces name the sessions, before any owner is looked up, and returns them.
    async fn remember_namings(&mut self, sessions: &[GroupKey]) -> Result<Vec<SessionTrace>, StoreError> {
        if sessions.is_empty() {
            return Ok(Vec::new());
        }
        let filter = self.store.group_filter(GroupKind::Session, sessions.to_vec()).await?;
        let namings = self.store.session_traces(&filter).await?;
        let news = self.remembered.news(&namings);
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

    /// Recomputes the sessions that name no trace, which therefore own none, and returns the others.
    async fn untraced(&self, run: &mut Run, sessions: Vec<GroupKey>) -> Result<Vec<GroupKey>, StoreError> {
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
        &self,
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
        &self,
        run: &mut Run,
        filter: &GroupFilter,
        summaries: Vec<Summary>,
        mut shares: HashMap<(String, String), Vec<TraceShare>>,
    ) -> Result<(), StoreError> {
        for portion in portions(summaries, self.max_sightings) {
            let (filter, mut sightings) = self.sightings(filter, &portion).await?;
            let mut groups = Vec::with_capacity(portion.len());
            for (key, summary) in filter.keys.into_iter().zip(&portion) {
                let name = (key.project_id.clone(), key.id.clone());
                let seen = sightings.remove(&name).unwrap_or_default();
                let shares = shares.remove(&name).unwrap_or_default();
                groups.push(derive(key, summary, &seen, &shares));
                // Deriving is all computation; the inserts of other partitions must not wait for the last group.
                tokio::task::yield_now().await;
            }
            run.spent.on(|spent| &mut spent.sightings_ms);
            self.write(run, groups).await?;
        }
        Ok(())
    }

    /// Writes the groups of traces empty whose events are a session's.
    async fn vacate(&self, run: &mut Run, keys: Vec<GroupKey>) -> Result<(), StoreError> {
        if keys.is_empty() {
            return Ok(());
        }
        let filter = self.store.group_filter(GroupKind::Trace, keys).await?;
        for portion in portions(self.summaries(&filter).await?, self.max_sightings) {
            let (filter, mut sightings) = self.sightings(&filter, &portion).await?;
            let groups = filter
                .keys
                .into_iter()
                .zip(&portion)
                .map(|(key, summary)| {
                    let seen =
                        sightings.remove(&(key.project_id.clone(), key.id.clone())).unwrap_or_default();
                    vacated(key, summary, &seen)
                })
                .collect();
            self.write(run, groups).await?;
        }
        Ok(())
    }

    async fn write(&self, run: &mut Run, groups: Vec<DerivedGroup>) -> Result<(), StoreError> {
        self.store.write_groups(&groups, run.version).await?;
        run.spent.on(|spent| &mut spent.write_ms);
        for group in groups {
            for contribution in &group.contributions {
                run.minutes.insert((group.key.project_id.clone(), contribution.minute));
            }
            run.sizes.push((group.key, group.session.event_count));
        }
        Ok(())
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
        let filter = GroupFilter { adopted, keys, kind: filter.kind, hours: filter.hours.clone() };
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
