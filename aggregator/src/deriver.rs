//! Has touched groups recomputed, and records how far the recomputation has come.
//!
//! One task, one recomputation at a time. It takes at most its share of the time, so that ClickHouse keeps the rest for
//! inserts and queries; what is touched meanwhile is recomputed together. A recomputation that fails is repeated under
//! a new version, without the group that it fails for; one that is killed leaves versions that the next one replaces.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fleetlog_runtime::{Classified, Shutdown};
use fleetlog_schemas::topic;
use fleetlog_store::derived::{GroupHour, GroupKey, Progress, Reflected};
use fleetlog_store::{Store, StoreError};
use tokio::sync::Notify;

use crate::batch::Closed;
use crate::config::AggregatorConfig;
use crate::derive::Prices;
use crate::error::AggregatorError;
use crate::facts::Facts;
use crate::metrics;
use crate::recompute::{Recomputer, TooLarge};
use crate::touched::{Failure, Gap, Touched};

const BACKOFF_START: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Rows asked for when a gap is filled, and offsets looked at for them: a group that is set aside for long leaves its
/// project a gap that no statement could go through at once.
const GAP_ROWS: usize = 20_000;
const GAP_OFFSETS: i64 = 100_000;
/// Offsets looked at for the groups of some projects alone.
const BEHIND_OFFSETS: i64 = 2_000_000;
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
    prices: Prices,
    config: Arc<AggregatorConfig>,
    shutdown: Shutdown,
) -> Result<(), StoreError> {
    let recomputer = Recomputer::new(store.clone(), prices, config.sighting_bounds());
    let mut task = Task { deriver, store, config, recomputer, recorded: HashMap::new() };
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
                metrics::DERIVE_RETRIES.add_for("code", error.code(), 1);
                let failure = failure(&error);
                let set_aside = lock(&task.deriver.touched).failed(Instant::now(), failure);
                if let Some(GroupKey { project_id, kind, id }) = set_aside {
                    tracing::error!(project_id, ?kind, id, %error, "a group cannot be recomputed and is set aside");
                } else if failure != Failure::Refused {
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

/// What an error says about the groups that were being recomputed.
fn failure(error: &StoreError) -> Failure {
    match error {
        StoreError::Refused { .. } | StoreError::Statement { .. } | StoreError::Limit { .. } => {
            Failure::Refused
        }
        StoreError::Overloaded { .. } => Failure::Passing,
        error if error.is_exception() => Failure::Passing,
        _ => Failure::Outage,
    }
}

/// Derives all of a store that nobody else writes to, then returns.
///
/// # Errors
/// The first of the store's, or that a group is too large; what was derived until then is of no use to anybody.
pub(crate) async fn derive_all(
    store: Store,
    prices: Prices,
    config: Arc<AggregatorConfig>,
) -> Result<(), AggregatorError> {
    /// Between recomputations; a large group rests longer than this, but then it is not alone.
    const REST: Duration = Duration::from_millis(20);
    let deriver = Deriver::new(&config);
    for (partition, stored) in store.stored_through().await? {
        deriver.assigned(partition, stored);
    }
    let recomputer = Recomputer::new(store.clone(), prices, config.sighting_bounds());
    let mut task = Task { deriver, store, config, recomputer, recorded: HashMap::new() };
    while task.has_work() {
        task.step().await?;
        if lock(&task.deriver.touched).set_aside() > 0 {
            return Err(AggregatorError::GroupTooLarge { most: task.config.derive_max_group_sightings });
        }
        tokio::time::sleep(REST).await;
    }
    Ok(())
}

struct Task {
    deriver: Deriver,
    store: Store,
    config: Arc<AggregatorConfig>,
    recomputer: Recomputer,
    /// Progress as it is recorded.
    recorded: HashMap<i32, Reflected>,
}

impl Task {
    /// How long to leave ClickHouse to others after working for `worked`, while `stored` rows were stored.
    fn rest(&self, worked: Duration, stored: u64) -> Duration {
        let busy = stored as f64 > BUSY_ROWS_PER_SECOND * worked.as_secs_f64();
        let share = self.config.derive_share_percent.clamp(1, 50) * if busy { 1 } else { 2 };
        let others = worked * (100 - share) / share;
        others.max(Duration::from_millis(self.config.derive_interval_ms).saturating_sub(worked))
    }

    fn has_work(&self) -> bool {
        lock(&self.deriver.touched).has_work()
            || !lock(&self.deriver.arrivals).is_empty()
            || !self.news().is_empty()
    }

    /// How far partitions are derived, where that is not recorded yet: a range need not touch any group.
    fn news(&self) -> Vec<(i32, Reflected)> {
        let derived = lock(&self.deriver.touched).derived();
        let is_new = |at: &(i32, Reflected)| at.1.others >= 0 && self.recorded.get(&at.0) != Some(&at.1);
        derived.into_iter().filter(is_new).collect()
    }

    async fn wait_for_work(&self, shutdown: &Shutdown) {
        loop {
            let notified = self.deriver.wake.notified();
            if self.has_work() {
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
        // Before anything is taken: that there is no store says nothing about a group.
        let version = self.store.next_version().await?;
        let gap = lock(&self.deriver.touched).gap();
        if let Some(gap) = gap {
            self.fill(gap).await?;
        }
        let taken = {
            let mut touched = lock(&self.deriver.touched);
            metrics::DERIVE_PENDING.set(touched.waiting() as f64);
            metrics::DERIVE_ASIDE.set(touched.set_aside() as f64);
            metrics::DERIVE_LAG.set(touched.oldest().map_or(0.0, |since| since.elapsed().as_secs_f64()));
            touched.take(Instant::now(), self.config.derive_max_groups)
        };
        if !taken.is_empty() {
            let started = Instant::now();
            let done = self.recomputer.run(&taken).await?;
            let now = Instant::now();
            let mut touched = lock(&self.deriver.touched);
            for (cause, next) in done.next {
                touched.touch_next(now, &cause, next);
            }
            let too_large: Vec<GroupKey> = done.too_large.iter().map(|group| group.key.clone()).collect();
            touched.done(now, done.sizes, &too_large);
            drop(touched);
            self.tell_of(done.too_large);
            metrics::DERIVE_SECONDS.record(started.elapsed().as_secs_f64());
            metrics::DERIVED_GROUPS.add((taken.len() - too_large.len()) as u64);
        }
        self.record_progress(version).await
    }

    fn tell_of(&self, too_large: Vec<TooLarge>) {
        for TooLarge { key: GroupKey { project_id, kind, id }, sightings } in too_large {
            metrics::DERIVE_RETRIES.add_for("code", "group_too_large", 1);
            let most = self.config.derive_max_group_sightings;
            tracing::error!(project_id, ?kind, id, sightings, most, "a group is too large and is set aside");
        }
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
            let reflected = recorded.get(&partition).cloned().unwrap_or(Reflected::up_to(-1));
            touched.assigned(partition, reflected, stored);
        }
        Ok(())
    }

    /// Finds the groups of events that are stored and not known to be derived.
    async fn fill(&self, gap: Gap) -> Result<(), StoreError> {
        let mut limit = GAP_ROWS;
        let offsets = if gap.projects.is_empty() { GAP_OFFSETS } else { BEHIND_OFFSETS };
        let through = gap.stored.min(gap.beyond.saturating_add(offsets));
        let (covered, rows) = loop {
            let range = (gap.beyond, through);
            let rows = self.store.underived(gap.partition, range, &gap.projects, limit).await?;
            // Rows come by their lowest offset: of a full page, everything below its last row's is there.
            match rows.last() {
                Some(last) if rows.len() == limit && last.first_offset <= gap.beyond + 1 => limit *= 2,
                Some(last) if rows.len() == limit => break (last.first_offset - 1, rows),
                _ => break (through, rows),
            }
        };
        let touches = rows.iter().map(|row| (row.group_hour(), row.first_offset));
        lock(&self.deriver.touched).found(Instant::now(), gap.partition, covered, touches);
        Ok(())
    }

    async fn record_progress(&mut self, version: u64) -> Result<(), StoreError> {
        let news: Vec<Progress> = self
            .news()
            .into_iter()
            .map(|(partition, reflected)| Progress { partition, reflected, version })
            .collect();
        self.store.record_progress(&news).await?;
        self.recorded.extend(news.into_iter().map(|news| (news.partition, news.reflected)));
        Ok(())
    }
}
