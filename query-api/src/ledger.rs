//! The ledger: which acknowledged records are stored, and up to when all of them are (INV-6, INV-7).
//!
//! The gateway's producer is not transactional, so the raw log has no gaps: every offset below its end is a record that
//! was acknowledged or is about to be. The [`sampler`] looks every second which of them are settled in the store and
//! keeps, per partition, how far everything is ([`partition`]); together with samples of the logs' ends that gives a time
//! up to which everything is stored ([`book`]), the `complete_through` of every answer. What a gateway's spool holds is
//! acknowledged and not in the log, and holds that time back ([`spools`]). What stays open although the pipeline itself
//! says that it is stored is lost ([`watermark`]).
//!
//! ```text
//! the clock, then the gateways' spools, then the raw log's ends
//!                                ▼
//! settled runs of offsets ─▶ sampler ─▶ book ─▶ standing ─▶ complete_through, wait_for, /v1/completeness
//!                                         ▲
//! offsets of processor, aggregator ───────┴ only while something stands still
//! ```
//!
//! Decisions are pure; only the sampler touches Kafka and ClickHouse, and whatever fails there delays what is proved and
//! never makes it wrong.

mod book;
mod kafka;
mod partition;
mod receipt;
mod sampler;
mod spools;
#[cfg(test)]
mod tests;
mod watermark;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant as Stopwatch;

use fleetlog_log::LogError;
use fleetlog_schemas::id::Position;
use fleetlog_schemas::record::SpoolStanding;
use futures::future::BoxFuture;
use tokio::sync::{Notify, watch};

pub(crate) use book::Standing;
pub(crate) use kafka::{Groups, sample_kafka};
pub(crate) use partition::{Fate, Partition};
pub(crate) use receipt::Receipt;
pub use receipt::ReceiptError;
pub(crate) use sampler::{Bounds, Sampler};
pub use watermark::{Outlet, Pipeline};

/// Where the logs stand.
pub trait Logs: Send + Sync + 'static {
    /// First offset and next offset of each partition of the raw log.
    fn raw(&self) -> BoxFuture<'_, Result<Vec<Range<i64>>, LogError>>;

    /// The last word of each gateway with a spool; all that Kafka had acknowledged when this was called are in it.
    fn spools(&self) -> BoxFuture<'_, Result<Vec<SpoolStanding>, LogError>>;

    /// Offset of the first raw record at or after a time (milliseconds UTC) of each partition that has one.
    fn raw_since(&self, time_ms: i64) -> BoxFuture<'_, Result<Vec<Option<i64>>, LogError>>;

    /// Where processor and aggregator stand, looked up in the order in which [`Pipeline`] lists it.
    fn pipeline(&self) -> BoxFuture<'_, Result<Pipeline, LogError>>;
}

/// What one look showed.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// The logs' ends were looked up after this.
    begun: Stopwatch,
    pub(crate) standing: Standing,
}

/// What the sampler has found, for whoever answers. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    looks: watch::Receiver<Option<Look>>,
    haste: Arc<Haste>,
}

/// Somebody waits for the next look.
#[derive(Debug, Default)]
struct Haste {
    waiting: AtomicUsize,
    wake: Notify,
}

/// Makes the sampler look more often for as long as it is kept.
#[derive(Debug)]
pub(crate) struct Hurry(Arc<Haste>);

impl Drop for Hurry {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is known of a receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Redeemed {
    /// Everything that it stands for is stored.
    Stored,
    /// These places are older than what is looked at, the others are stored.
    Old(Vec<Position>),
    /// It is on its way.
    Open,
    /// The log has no such place: nobody was given this receipt.
    Unknown,
    /// Something of it is lost.
    Lost,
}

impl Ledger {
    /// A ledger without a look, and what shows it what is found.
    pub(crate) fn new() -> (Self, Shown) {
        let (show, looks) = watch::channel(None);
        let haste = Arc::<Haste>::default();
        (Self { looks, haste: Arc::clone(&haste) }, Shown { show, haste })
    }

    /// What is known.
    pub(crate) fn standing(&self) -> Standing {
        self.looks.borrow().as_ref().map(|look| look.standing.clone()).unwrap_or_default()
    }

    /// The looks as they come; `None` before the first.
    pub(crate) fn looks(&self) -> watch::Receiver<Option<Look>> {
        self.looks.clone()
    }

    /// Has the sampler look at once, and often from then on.
    pub(crate) fn hurry(&self) -> Hurry {
        self.haste.waiting.fetch_add(1, Ordering::Relaxed);
        self.haste.wake.notify_one();
        Hurry(Arc::clone(&self.haste))
    }
}

impl Look {
    /// What is known of a receipt that was shown at a time.
    pub(crate) fn redeem(&self, receipt: &Receipt, shown: Stopwatch) -> Redeemed {
        let fates: Vec<(Position, Fate)> =
            receipt.positions().iter().map(|at| (*at, self.standing.fate(*at))).collect();
        let any = |wanted: Fate| fates.iter().any(|(_, fate)| *fate == wanted);
        if any(Fate::Beyond) {
            // An older look knows an older end.
            return if self.begun >= shown { Redeemed::Unknown } else { Redeemed::Open };
        }
        if any(Fate::Lost) {
            return Redeemed::Lost;
        }
        if any(Fate::InFlight) {
            return Redeemed::Open;
        }
        let old: Vec<Position> =
            fates.iter().filter(|(_, fate)| *fate == Fate::Before).map(|(at, _)| *at).collect();
        if old.is_empty() { Redeemed::Stored } else { Redeemed::Old(old) }
    }
}

/// Where the sampler shows what it finds.
#[derive(Debug)]
pub(crate) struct Shown {
    show: watch::Sender<Option<Look>>,
    haste: Arc<Haste>,
}
