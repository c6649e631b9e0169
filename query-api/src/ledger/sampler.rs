//! Looks again and again where the logs stand and what is settled: the ledger's only IO.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant as Stopwatch};

use fleetlog_log::LogError;
use fleetlog_runtime::{Classified, Clock, Shutdown};
use fleetlog_schemas::record::SpoolStanding;
use fleetlog_store::{Store, StoreError};
use thiserror::Error;

use super::book::{Book, Standing};
use super::spools::{held_through, logged_through};
use super::watermark::Watermark;
use super::{Logs, Look, Shown};
use crate::metrics;
use crate::time_range::NS_PER_S;

/// Between two looks while somebody waits for one.
const HASTE: Duration = Duration::from_millis(100);
/// How long a partition stands still before the pipeline is asked whether that is a loss, nanoseconds.
const SUSPECT_AFTER_NS: i64 = 5 * NS_PER_S;
/// Between two questions to the pipeline.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// Between two looks whether what was lost is stored after all.
const FORGIVE_EVERY: Duration = Duration::from_secs(10);
/// Losses that one statement names, thrice each: ClickHouse takes 256 KiB of it.
const LOSSES_A_STATEMENT: usize = 500;
/// Questions to the store in one look: a backlog is worked off in several, each with a new sample.
const ROUNDS_MAX: usize = 20;

/// How often and how much is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Between two looks.
    pub(crate) every: Duration,
    /// Raw records of a partition looked up at once.
    pub(crate) window: i64,
    /// How far back a start looks, and how long a loss holds back what is complete.
    pub(crate) memory: Duration,
}

/// Keeps a ledger.
#[derive(Debug)]
pub(crate) struct Sampler {
    store: StoreLooks,
    clock: Clock,
    bounds: Bounds,
    shown: Shown,
    book: Option<Book>,
    /// What the gateways hold in their spools.
    spools: Arc<Vec<SpoolStanding>>,
    /// The gateways whose spools were measured last.
    measured: BTreeSet<String>,
    watermark: Watermark,
    asked: Option<Stopwatch>,
    forgiven: Option<Stopwatch>,
}

/// The store, for what belongs to no project.
struct StoreLooks(Store);

impl std::fmt::Debug for StoreLooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store").field(&self.0.database()).finish()
    }
}

/// Why a look was not finished.
#[derive(Debug, Error)]
enum LookError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LookError {
    fn code(&self) -> &'static str {
        match self {
            Self::Log(error) => error.code(),
            Self::Store(error) => error.code(),
        }
    }
}

impl Sampler {
    pub(crate) fn new(store: Store, clock: Clock, bounds: Bounds, shown: Shown) -> Self {
        Self {
            store: StoreLooks(store),
            clock,
            bounds,
            shown,
            book: None,
            spools: Arc::default(),
            measured: BTreeSet::new(),
            watermark: Watermark::default(),
            asked: None,
            forgiven: None,
        }
    }

    /// Looks until shutdown. What fails is tried again: nothing depends on it but what can be proved.
    ///
    /// # Errors
    /// None; it is a task like others.
    pub(crate) async fn run(mut self, logs: Arc<dyn Logs>, shutdown: Shutdown) -> Result<(), LogError> {
        while !shutdown.is_triggered() {
            let begun = Stopwatch::now();
            let looked = tokio::select! {
                looked = self.look(&*logs, begun) => looked,
                () = shutdown.triggered() => return Ok(()),
            };
            metrics::LEDGER_LOOK_SECONDS.record(begun.elapsed().as_secs_f64());
            if let Err(error) = looked {
                metrics::LEDGER_FAILURES.add_for("code", error.code(), 1);
                tracing::warn!(%error, "the ledger is not up to date");
            }
            self.measure();
            tokio::select! {
                () = self.until_next(begun) => {}
                () = shutdown.triggered() => return Ok(()),
            }
        }
        Ok(())
    }

    /// Waits for the time of the next look: sooner when somebody waits for it.
    async fn until_next(&self, begun: Stopwatch) {
        loop {
            let haste = self.shown.haste.waiting.load(Ordering::Relaxed) > 0;
            let every = if haste { HASTE.min(self.bounds.every) } else { self.bounds.every };
            let wait = every.saturating_sub(begun.elapsed());
            if wait.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => return,
                () = self.shown.haste.wake.notified() => {}
            }
        }
    }

    /// Takes a sample, looks up what is settled, and shows what is known then.
    async fn look(&mut self, logs: &dyn Logs, begun: Stopwatch) -> Result<(), LookError> {
        // The clock first: what is acknowledged before this time lies below the ends that are read after it, or is told of
        // by the gateways that are asked in between.
        let at_ns = self.clock.now_ns();
        self.spools = Arc::new(logs.spools().await?);
        let through_ns = logged_through(at_ns, &self.spools);
        let ends = logs.raw().await?;
        let mut book = match self.book.take() {
            Some(book) => book,
            None => self.open(logs, &ends, at_ns).await?,
        };
        for partition in book.sampled(at_ns, through_ns, &ends) {
            tracing::error!(partition, "the raw log ends before what was stored of it: it was made anew");
        }
        // Where the logs end is known now, whatever the store says; and what is learnt from here on is kept.
        self.show(&book, begun);
        let result = self.settle(&mut book, logs, begun, at_ns).await;
        self.show(&book, begun);
        self.book = Some(book);
        result
    }

    async fn open(&self, logs: &dyn Logs, ends: &[Range<i64>], at_ns: i64) -> Result<Book, LookError> {
        let memory = i64::try_from(self.bounds.memory.as_millis()).unwrap_or(i64::MAX);
        let since = logs.raw_since((at_ns / 1_000_000).saturating_sub(memory)).await?;
        let start = |(log, since): (&Range<i64>, &Option<i64>)| since.unwrap_or(log.end);
        let starts: Vec<i64> = ends.iter().zip(&since).map(start).collect();
        tracing::info!(?starts, ?ends, "the ledger is opened");
        Ok(Book::new(ends, &starts))
    }

    async fn settle(
        &mut self,
        book: &mut Book,
        logs: &dyn Logs,
        begun: Stopwatch,
        at_ns: i64,
    ) -> Result<(), LookError> {
        for _ in 0..ROUNDS_MAX {
            let asked = book.unsettled(self.bounds.window);
            if asked.is_empty() {
                break;
            }
            let runs = self.store.0.settled_runs(&asked).await?;
            let risen = book.found(&runs, at_ns);
            self.show(book, begun);
            let full = |(_, offsets): &(i32, Range<i64>)| offsets.end - offsets.start >= self.bounds.window;
            if !risen || !asked.iter().any(full) {
                break;
            }
        }
        if book.stands_since(at_ns - SUSPECT_AFTER_NS) {
            if is_due(&mut self.asked, ASK_EVERY) {
                self.suspect(book, logs, at_ns).await?;
            }
        } else {
            self.watermark = Watermark::default();
        }
        if is_due(&mut self.forgiven, FORGIVE_EVERY) {
            self.forgive(book, at_ns).await?;
        }
        Ok(())
    }

    /// Asks the pipeline whether what stands still is on its way.
    async fn suspect(&mut self, book: &mut Book, logs: &dyn Logs, at_ns: i64) -> Result<(), LookError> {
        let seen = logs.pipeline().await?;
        let passed = self.watermark.observe(&seen);
        // After the pipeline's word, or what was stored in between would count as lost.
        let asked = book.unsettled(self.bounds.window);
        let runs = self.store.0.settled_runs(&asked).await?;
        book.found(&runs, at_ns);
        for (partition, records) in book.conclude(&asked, &seen, passed.as_deref(), at_ns) {
            metrics::LEDGER_LOST.add_for("partition", partition.to_string(), records);
            tracing::error!(
                partition,
                records,
                "acknowledged raw records are lost: they are neither stored nor on their way"
            );
        }
        Ok(())
    }

    /// Forgets what was lost long ago, and looks whether the rest is stored after all.
    async fn forgive(&self, book: &mut Book, at_ns: i64) -> Result<(), LookError> {
        let memory = i64::try_from(self.bounds.memory.as_nanos()).unwrap_or(i64::MAX);
        book.expire(at_ns.saturating_sub(memory));
        for losses in book.losses().chunks(LOSSES_A_STATEMENT) {
            let stored = self.store.0.settled_runs(losses).await?;
            book.forgive(&stored);
        }
        Ok(())
    }

    fn show(&self, book: &Book, begun: Stopwatch) {
        let standing = Standing { spools: Arc::clone(&self.spools), ..book.standing() };
        self.shown.show.send_replace(Some(Look { begun, standing }));
    }

    fn measure(&mut self) {
        self.measure_spools();
        let Some(book) = &self.book else { return };
        let standing = book.standing();
        for (number, partition) in standing.partitions.iter().enumerate() {
            metrics::LEDGER_IN_FLIGHT.set_for("partition", number.to_string(), partition.in_flight() as f64);
        }
        if let Some(complete_ns) = standing.complete_ns {
            let lag_ns = self.clock.now_ns().saturating_sub(complete_ns);
            metrics::LEDGER_LAG.set(lag_ns as f64 / 1e9);
        }
    }

    fn measure_spools(&mut self) {
        let now_ns = self.clock.now_ns();
        let mut gone = std::mem::take(&mut self.measured);
        for spool in self.spools.iter() {
            gone.remove(&spool.gateway_id);
            self.measured.insert(spool.gateway_id.clone());
            measure_spool(&spool.gateway_id, spool.records, now_ns.saturating_sub(held_through(spool)));
        }
        // A gauge that was shown once is shown for ever.
        gone.iter().for_each(|gateway| measure_spool(gateway, 0, 0));
    }
}

/// What of a spool is measured, by its gateway.
fn measure_spool(gateway: &str, records: u64, lag_ns: i64) {
    metrics::SPOOL_RECORDS.set_for("gateway", gateway, records as f64);
    metrics::SPOOL_LAG.set_for("gateway", gateway, lag_ns as f64 / 1e9);
}

/// Whether so much time has passed since it was due last.
fn is_due(last: &mut Option<Stopwatch>, every: Duration) -> bool {
    let due = last.is_none_or(|last| last.elapsed() >= every);
    if due {
        *last = Some(Stopwatch::now());
    }
    due
}
