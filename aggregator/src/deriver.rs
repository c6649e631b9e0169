//! Recomputes touched groups: reads all facts of each, derives, writes, and records how far it has come.
//!
//! One task, one recomputation at a time. It takes at most its share of the time, so that ClickHouse keeps the rest for
//! inserts and queries; what is touched meanwhile is recomputed together. A recomputation that fails is repeated under
//! a new version; one that is killed leaves versions that the next one replaces.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fleetlog_runtime::{Classified, ErrorClass, Shutdown};
use fleetlog_schemas::topic;
use fleetlog_store::derived::{DerivedGroup, GroupFilter, GroupHour, GroupKey, Progress, Sighting, Summary};
use fleetlog_store::{GroupKind, Store, StoreError};
use tokio::sync::Notify;

use crate::batch::Closed;
use crate::config::AggregatorConfig;
use crate::derive::derive;
use crate::facts::Facts;
use crate::metrics;
use crate::touched::{Gap, Pending, Touched};

const BACKOFF_START: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Rows asked for when a gap is filled.
const GAP_ROWS: usize = 20_000;
/// Hours known to be recorded. A forgotten one is recorded again, which is harmless.
const KNOWN_HOURS: usize = 200_000;
/// From this many rows a second on, storing has the first right to ClickHouse.
const BUSY_ROWS_PER_SECOND: f64 = 2000.0;

/// What partitions tell the deriver. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Deriver {
    touched: Arc<Mutex<Touched>>,
    /// Partitions assigned whose progress is not looked up yet, with the offset up to which they are stored.
    arrivals: Arc<Mutex<HashMap<i32, i64>>>,
    /// Rows stored by this process.
    rows: Arc<AtomicU64>,
    wake: Arc<Notify>,
}

impl Deriver {
    pub(crate) fn new(config: &AggregatorConfig) -> Self {
        Self {
            touched: Arc::new(Mutex::new(Touched::new(config.derive_max_pending))),
            arrivals: Arc::default(),
            rows: Arc::default(),
            wake: Arc::default(),
        }
    }

    /// A partition of the events topic is ours; everything up to `stored` is stored.
    pub(crate) fn assigned(&self, partition: i32, stored: i64) {
        lock(&self.arrivals).insert(partition, stored);
        self.wake.notify_one();
    }

    /// A partition is ours no longer.
    pub(crate) fn gone<F: Facts>(&self, partition: i32) {
        if F::TOPIC == topic::EVENTS {
            lock(&self.arrivals).remove(&partition);
            lock(&self.touched).gone(partition);
        }
    }

    /// A range is stored and touches these groups.
    pub(crate) fn stored(&self, partition: i32, closed: Closed, touches: Vec<GroupHour>) {
        let Closed { first, last, rows } = closed;
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        // Until its progress is known, all a partition says is how far it is stored: the rest is looked up.
        let waits = match lock(&self.arrivals).get_mut(&partition) {
            Some(stored) => {
                *stored = last.max(*stored);
                true
            }
            None => false,
        };
        if !waits && !lock(&self.touched).stored(Instant::now(), partition, (first, last), touches) {
            metrics::DERIVE_OVERFLOWS.add(1);
        }
        self.wake.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Recomputes until shutdown.
///
/// # Errors
/// None of the store's: a recomputation is repeated until it succeeds.
pub(crate) async fn run_deriver(
    deriver: Deriver,
    store: Store,
    config: Arc<AggregatorConfig>,
    shutdown: Shutdown,
) -> Result<(), StoreError> {
    let mut task = Task { deriver, store, config, known_hours: HashSet::new(), recorded: HashMap::new() };
    let mut backoff = BACKOFF_START;
    loop {
        let (started, rows) = (Instant::now(), task.deriver.rows.load(Ordering::Relaxed));
        let step = tokio::select! {
            step = task.step() => step,
            () = shutdown.triggered() => return Ok(()),
        };
        let rest = match step {
            Ok(()) => {
                backoff = BACKOFF_START;
                let stored = task.deriver.rows.load(Ordering::Relaxed) - rows;
                task.rest(started.elapsed(), stored)
            }
            Err(error) => {
                lock(&task.deriver.touched).failed();
                metrics::DERIVE_RETRIES.add_for("code", error.code(), 1);
                if error.class() == ErrorClass::Unavailable {
                    tracing::warn!(%error, "a recomputation is repeated");
                } else {
                    tracing::error!(%error, "a recomputation is repeated");
                }
                let wait = backoff;
                backoff = (backoff * 2).min(BACKOFF_MAX);
                wait
            }
        };
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = shutdown.triggered() => return Ok(()),
        }
        task.wait_for_work(&shutdown).await;
    }
}

struct Task {
    deriver: Deriver,
    store: Store,
    config: Arc<AggregatorConfig>,
    known_hours: HashSet<GroupHour>,
    /// Progress as it is recorded.
    recorded: HashMap<i32, i64>,
}

impl Task {
    /// How long to leave ClickHouse to others after working for `worked`, while `stored` rows were stored.
    fn rest(&self, worked: Duration, stored: u64) -> Duration {
        let busy = stored as f64 > BUSY_ROWS_PER_SECOND * worked.as_secs_f64();
        let share = self.config.derive_share_percent.clamp(1, 50) * if busy { 1 } else { 2 };
        let others = worked * (100 - share) / share;
        others.max(Duration::from_millis(self.config.derive_interval_ms).saturating_sub(worked))
    }

    async fn wait_for_work(&self, shutdown: &Shutdown) {
        loop {
            let notified = self.deriver.wake.notified();
            let idle = {
                let touched = lock(&self.deriver.touched);
                !touched.has_work() && lock(&self.deriver.arrivals).is_empty()
            };
            if !idle {
                return;
            }
            tokio::select! {
                () = notified => {}
                () = shutdown.triggered() => return,
            }
        }
    }

    /// One recomputation: new partitions, gaps, the groups that are due, progress.
    async fn step(&mut self) -> Result<(), StoreError> {
        self.welcome_partitions().await?;
        let gap = lock(&self.deriver.touched).gap();
        if let Some(gap) = gap {
            self.fill(gap).await?;
        }
        let taken = {
            let mut touched = lock(&self.deriver.touched);
            metrics::DERIVE_PENDING.set(touched.waiting() as f64);
            metrics::DERIVE_LAG.set(touched.oldest().map_or(0.0, |since| since.elapsed().as_secs_f64()));
            touched.take(Instant::now(), self.config.derive_max_groups)
        };
        let version = self.store.next_version().await?;
        if !taken.is_empty() {
            let started = Instant::now();
            let sizes = self.recompute(&taken).await?;
            lock(&self.deriver.touched).done(Instant::now(), sizes);
            metrics::DERIVE_SECONDS.record(started.elapsed().as_secs_f64());
            metrics::DERIVED_GROUPS.add(taken.len() as u64);
        }
        self.record_progress(version).await
    }

    /// Looks up how far new partitions are derived, so that what was touched before a crash is touched again.
    async fn welcome_partitions(&self) -> Result<(), StoreError> {
        if lock(&self.deriver.arrivals).is_empty() {
            return Ok(());
        }
        let recorded = self.store.progress().await?;
        let mut arrivals = lock(&self.deriver.arrivals);
        let mut touched = lock(&self.deriver.touched);
        for (partition, stored) in arrivals.drain() {
            let derived = recorded.get(&partition).copied().unwrap_or(-1);
            touched.assigned(partition, derived, stored);
        }
        Ok(())
    }

    /// Finds the groups of events that are stored and not known to be derived.
    async fn fill(&self, gap: Gap) -> Result<(), StoreError> {
        let mut limit = GAP_ROWS;
        let (covered, rows) = loop {
            let rows = self.store.underived(gap.partition, gap.beyond, limit).await?;
            // Rows come by their lowest offset: of a full page, everything below its last row's is there.
            match rows.last() {
                Some(last) if rows.len() == limit && last.first_offset <= gap.beyond + 1 => limit *= 2,
                Some(last) if rows.len() == limit => break (last.first_offset - 1, rows),
                _ => break (gap.stored, rows),
            }
        };
        let touches = rows.into_iter().map(|row| {
            let hour = GroupHour { key: row.key(), hour: row.hour, received_day: row.received_day };
            (hour, row.first_offset)
        });
        lock(&self.deriver.touched).found(Instant::now(), gap.partition, covered, touches);
        Ok(())
    }

    /// Recomputes groups and returns how many events each has.
    async fn recompute(&mut self, taken: &[(GroupKey, Pending)]) -> Result<Vec<(GroupKey, u64)>, StoreError> {
        let mut spent = Spent::new();
        self.remember_hours(taken).await?;
        spent.on(|spent| &mut spent.hours_ms);
        let mut sizes = Vec::with_capacity(taken.len());
        let mut minutes = BTreeSet::new();
        for kind in [GroupKind::Session, GroupKind::Trace, GroupKind::Loose] {
            let keys: Vec<GroupKey> =
                taken.iter().map(|(key, _)| key).filter(|key| key.kind == kind).cloned().collect();
            if keys.is_empty() {
                continue;
            }
            // The clock is read before the facts are: the highest version has seen the most (design: versions).
            let version = self.store.next_version().await?;
            let filter = self.store.group_filter(kind, keys).await?;
            let mut summaries = self.store.summaries(&filter).await?;
            // Neighbours in the order of `events` together, so that each portion reads a part of it and not all.
            summaries
                .sort_unstable_by(|a, b| (&a.project_id, &a.group_id).cmp(&(&b.project_id, &b.group_id)));
            spent.on(|spent| &mut spent.summaries_ms);
            for portion in portions(summaries, self.config.derive_max_sightings) {
                let groups = self.derive_portion(&filter, portion).await?;
                spent.on(|spent| &mut spent.sightings_ms);
                self.store.write_groups(&groups, version).await?;
                spent.on(|spent| &mut spent.write_ms);
                for group in groups {
                    for contribution in &group.contributions {
                        minutes.insert((group.key.project_id.clone(), contribution.minute));
                    }
                    sizes.push((group.key, group.session.event_count));
                }
            }
        }
        self.store.recompute_usage(&minutes).await?;
        spent.on(|spent| &mut spent.usage_ms);
        tracing::debug!(groups = sizes.len(), minutes = minutes.len(), ?spent, "recomputed");
        Ok(sizes)
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

    async fn derive_portion(
        &self,
        filter: &GroupFilter,
        portion: Vec<Summary>,
    ) -> Result<Vec<DerivedGroup>, StoreError> {
        let keys: Vec<GroupKey> = portion
            .iter()
            .map(|summary| GroupKey {
                project_id: summary.project_id.clone(),
                kind: filter.kind,
                id: summary.group_id.clone(),
            })
            .collect();
        let filter = GroupFilter { keys, ..filter.clone() };
        let mut sightings: HashMap<(String, String), Vec<Sighting>> = HashMap::new();
        let mut rows = self.store.sightings(&filter)?;
        let mut count = 0;
        while let Some(mut sighting) = rows.next().await? {
            count += 1;
            let group = (std::mem::take(&mut sighting.project_id), std::mem::take(&mut sighting.group_id));
            sightings.entry(group).or_default().push(sighting);
        }
        metrics::DERIVED_SIGHTINGS.add(count);
        let mut groups = Vec::with_capacity(portion.len());
        for (key, summary) in filter.keys.into_iter().zip(&portion) {
            let seen = sightings.remove(&(key.project_id.clone(), key.id.clone())).unwrap_or_default();
            groups.push(derive(key, summary, &seen));
            // Deriving is all computation; the inserts of other partitions must not wait for the last group.
            tokio::task::yield_now().await;
        }
        Ok(groups)
    }

    async fn record_progress(&mut self, version: u64) -> Result<(), StoreError> {
        let derived = lock(&self.deriver.touched).derived();
        let news: Vec<Progress> = derived
            .into_iter()
            .filter(|(partition, offset)| *offset >= 0 && self.recorded.get(partition) != Some(offset))
            .map(|(partition, derived_offset)| Progress { partition, derived_offset, version })
            .collect();
        self.store.record_progress(&news).await?;
        self.recorded.extend(news.iter().map(|news| (news.partition, news.derived_offset)));
        Ok(())
    }
}

/// Where the time of a recomputation went, milliseconds.
#[derive(Debug)]
struct Spent {
    since: Instant,
    hours_ms: u128,
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
