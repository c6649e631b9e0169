//! The spool: while Kafka does not acknowledge, requests are accepted to a bounded part of this machine's disk instead,
//! and published later, in order (INV-1). Off unless `gateway.spool_path` is set.
//!
//! - **Segments** of framed, checksummed records, each the encoded message as it will be published, with the partition
//!   that was chosen. A request is answered after one `fdatasync`, which all share that wait at the time.
//! - **In order, and without losing speed**: [`course`] decides which way a request goes.
//! - **Not published twice** in normal operation: a message that Kafka took without acknowledging in time stays in the
//!   idempotent producer's queue, for as long as it takes, and its spooled copy is only a safeguard: the drain waits for
//!   the first attempt's outcome, and publishes the copy only if that failed. What is published again after a crash
//!   carries the same request id, acceptance time and (gateway id, sequence), so its events have the same identity and
//!   are duplicates to the aggregator, those with neither id nor time included (INV-5, MAPPING §9).
//! - **Bounded** by bytes and by what the file system must keep free; full is 503, as without a spool.
//! - **Known**: what it holds is acknowledged and in no log yet, so it is told to whoever proves what is complete
//!   ([`standing`]), from before the first request on.
//!
//! [`format`], [`recovery`] and [`course`] are pure; [`store`] is the order of writes over a [`disk`] that a test can
//! crash; [`drain`] is the way back to Kafka. One process uses a folder at a time.

mod course;
mod disk;
mod drain;
mod format;
mod recovery;
mod standing;
mod store;
mod times;

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleetlog_log::{Delivery, LogError, Outgoing, Producer, Target};
use fleetlog_runtime::Clock;
use fleetlog_schemas::avro::to_single_object;
use fleetlog_schemas::id::Position;
use fleetlog_schemas::record::RawBatch;
use fleetlog_schemas::topic;
use rustix::process::Signal;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use self::course::{Course, Way};
use self::disk::Folder;
use self::format::Spot;
use self::standing::UnderWay;
use self::store::{Bounds, Entry, SpoolError, Store};
use self::times::Times;
use crate::config::GatewayConfig;
use crate::error::Refusal;
use crate::metrics;
use crate::publish::{Stored, refused};
use crate::throttle::Throttle;

/// Segments are removed whole, so they are a small part of the spool; larger ones only cost memory at the start.
const SEGMENT_MAX_BYTES: u64 = 32 * 1024 * 1024;
const SEGMENTS_MIN: u64 = 8;
/// What one sync covers at most; more waits for the next.
const GROUP_BYTES: usize = 16 * 1024 * 1024;
const LOCK: &str = "lock";
const GATEWAY_ID: &str = "gateway-id";

/// Why a folder cannot be used.
#[derive(Debug, Error)]
pub enum SpoolFault {
    /// Another process uses it.
    #[error(
        "the spool folder {path} is used by {holder}; each gateway needs a gateway.spool_path of its own"
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Who uses it, as far as is known.
        holder: String,
    },
    /// The disk refuses.
    #[error("the spool folder {path} cannot be used: {source}")]
    Disk {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// The spool of a gateway.
pub(crate) struct Spool {
    store: Store<Folder>,
    course: watch::Sender<Course>,
    queue: Mutex<Queue>,
    /// The first attempts of spooled messages, by sequence, whose outcome is not known yet.
    handed_over: Mutex<HashMap<u64, Delivery>>,
    /// The first attempts of refused requests, whose outcome is not known yet: of those that were under way when the
    /// first was refused, since then none is made.
    refused: Mutex<VecDeque<Delivery>>,
    /// When the requests were accepted that are on their way through here.
    under_way: Mutex<Times>,
    /// Told when there is more to drain, or to wait for.
    arrived: Notify,
    clock: Clock,
    /// Why the disk did not take something.
    faults: Throttle,
    /// How long Kafka may take to acknowledge.
    patience: Duration,
    /// Bytes of drained messages under way to Kafka.
    window_bytes: usize,
    id: String,
    // Released when this is dropped, and by the kernel when this process ends, however it does.
    lock: File,
}

/// What waits to be on disk.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Whether somebody is writing, and will look here again.
    is_served: bool,
}

/// A request that waits to be on disk.
struct Waiting {
    entries: Vec<Entry>,
    /// The first attempts, by their place in `entries`.
    handed_over: Vec<Option<Delivery>>,
    tell: oneshot::Sender<Result<(), SpoolError>>,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.batch.payload.0.len()).sum()
    }
}

impl Spool {
    /// Opens the configured folder; none is configured by default.
    ///
    /// # Errors
    /// [`SpoolFault`] when another process uses it or the disk refuses.
    pub(crate) fn open(config: &GatewayConfig, clock: Clock) -> Result<Option<Arc<Self>>, SpoolFault> {
        if config.spool_path.trim().is_empty() {
            return Ok(None);
        }
        let path = PathBuf::from(&config.spool_path);
        let at = |source| SpoolFault::Disk { path: path.clone(), source };
        fs::create_dir_all(&path).map_err(at)?;
        // A limit on the size of files is to be an error of the write, as a full disk is, and not this process's end: the
        // signal is caught from now on, and nobody needs to hear of it.
        drop(signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map_err(at)?);
        let lock = claim(&path)?;
        let id = if config.id.is_empty() { kept_id(&path).map_err(at)? } else { config.id.clone() };
        let bounds = Bounds {
            max_bytes: config.spool_max_bytes,
            min_free_bytes: config.spool_min_free_bytes,
            segment_bytes: (config.spool_max_bytes / SEGMENTS_MIN).min(SEGMENT_MAX_BYTES),
        };
        let (store, found) = Store::open(Folder::new(&path), bounds).map_err(at)?;
        metrics::SPOOL_TORN.add(found.torn);
        metrics::SPOOL_SET_ASIDE.add(found.set_aside);
        if found.records > 0 {
            tracing::info!(
                records = found.records,
                bytes = found.bytes,
                "the spool holds records of an earlier run"
            );
        }
        let spool = Self {
            store,
            course: watch::Sender::new(Course::resumed(found.records, found.bytes, found.held)),
            queue: Mutex::default(),
            handed_over: Mutex::default(),
            refused: Mutex::default(),
            under_way: Mutex::default(),
            arrived: Notify::new(),
            clock,
            faults: Throttle::default(),
            patience: Duration::from_millis(config.spool_after_ms),
            window_bytes: config.spool_drain_max_bytes,
            id,
            lock,
        };
        spool.show();
        Ok(Some(Arc::new(spool)))
    }

    /// The gateway's name, the same at every start.
    pub(crate) fn gateway_id(&self) -> &str {
        &self.id
    }

    /// Records that are not in Kafka.
    pub(crate) fn records(&self) -> u64 {
        self.course.borrow().records()
    }

    /// Publishes the messages of a request, or spools those of them that Kafka does not acknowledge in time.
    ///
    /// # Errors
    /// Why neither is done. Messages may be in Kafka by then: the sender sends the request again, and repeats are
    /// recognised (INV-5).
    pub(crate) async fn publish(
        self: &Arc<Self>,
        producer: &Producer,
        batches: Vec<RawBatch>,
        target: Target,
    ) -> Result<Stored, Refusal> {
        let Some(first) = batches.first() else {
            return Ok(Stored::Replicated { positions: Vec::new(), waited: false });
        };
        let _under_way = UnderWay::begin(&self.under_way, first.received_at);
        let mut attempts = Vec::new();
        let (is_direct, waited) = self.may_go_direct().await;
        if is_direct {
            attempts = self.attempt(producer, &batches, target)?;
            let positions = settle(&mut attempts, Instant::now() + self.patience).await?;
            if positions.len() == batches.len() {
                return Ok(Stored::Replicated { positions, waited });
            }
        }
        attempts.resize_with(batches.len(), || Attempt::Failed);
        let (mut entries, mut handed_over) = (Vec::new(), Vec::new());
        for (batch, attempt) in batches.into_iter().zip(attempts) {
            let pending = match attempt {
                Attempt::Stored => continue,
                Attempt::Pending(delivery) => Some(delivery),
                Attempt::Failed => None,
            };
            entries.push(Entry { batch, target: Spot::of(target) });
            handed_over.push(pending);
        }
        self.append(entries, handed_over).await?;
        Ok(Stored::Spooled)
    }

    /// Hands the messages to the producer, as far as it takes them.
    fn attempt(
        &self,
        producer: &Producer,
        batches: &[RawBatch],
        target: Target,
    ) -> Result<Vec<Attempt>, Refusal> {
        let mut attempts = Vec::with_capacity(batches.len());
        for batch in batches {
            let bytes = to_single_object(batch).map_err(|e| Refusal::Internal(e.to_string()))?;
            let outgoing = Outgoing { topic: topic::RAW, target, key: None, payload: Some(&bytes) };
            match producer.enqueue(outgoing) {
                Ok(delivery) => attempts.push(Attempt::Pending(delivery)),
                Err(error @ LogError::TooLarge { .. }) => return Err(refused(error)),
                Err(_) => break,
            }
        }
        Ok(attempts)
    }

    /// Whether a request may go straight to Kafka, and whether it waited to know.
    async fn may_go_direct(&self) -> (bool, bool) {
        let way = self.course.borrow().way();
        if way != Way::Closing {
            return (way == Way::Direct, false);
        }
        let mut course = self.course.subscribe();
        let settled = course.wait_for(|course| course.way() != Way::Closing);
        let is_direct = match tokio::time::timeout(self.patience, settled).await {
            Ok(Ok(course)) => course.way() == Way::Direct,
            Ok(Err(_)) | Err(_) => false,
        };
        (is_direct, true)
    }

    /// Returns when the entries are on disk.
    async fn append(
        self: &Arc<Self>,
        entries: Vec<Entry>,
        handed_over: Vec<Option<Delivery>>,
    ) -> Result<(), Refusal> {
        let (tell, outcome) = oneshot::channel();
        let is_served = {
            let mut queue = lock(&self.queue);
            self.course.send_modify(Course::begin);
            queue.waiting.push_back(Waiting { entries, handed_over, tell });
            std::mem::replace(&mut queue.is_served, true)
        };
        if !is_served {
            let spool = Arc::clone(self);
            drop(tokio::task::spawn_blocking(move || spool.commit()));
        }
        match outcome.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(SpoolError::Full)) => Err(Refusal::SpoolFull),
            Ok(Err(SpoolError::Unwritable(why))) => Err(Refusal::SpoolUnwritable(why)),
            Err(_) => Err(Refusal::Internal("the spool's writer has ended".to_owned())),
        }
    }

    /// Writes what waits, until nothing does: all that came while the last group was written, with one sync.
    fn commit(&self) {
        let _served = Served(self);
        loop {
            let group = self.take_group();
            if group.is_empty() {
                return;
            }
            let (mut requests, mut handed_over, mut tells) = (Vec::new(), Vec::new(), Vec::new());
            for waiting in group {
                let oldest = waiting.entries.first().map_or(0, |entry| entry.batch.received_at);
                requests.push(waiting.entries);
                handed_over.push((waiting.handed_over, oldest));
                tells.push(waiting.tell);
            }
            let outcomes = self.store.append(requests, |place, appended| {
                let Some((deliveries, oldest)) = handed_over.get_mut(place) else { return };
                let pending = (appended.first..).zip(std::mem::take(deliveries));
                let pending = pending.filter_map(|(sequence, delivery)| Some((sequence, delivery?)));
                lock(&self.handed_over).extend(pending);
                self.course.send_modify(|course| course.end(appended.records, appended.bytes, *oldest));
                metrics::SPOOL_APPENDED.add(appended.records);
            });
            self.show();
            for ((tell, outcome), (attempts, _)) in tells.into_iter().zip(outcomes).zip(handed_over) {
                if let Err(error) = &outcome {
                    self.refuse(error, attempts);
                }
                // The sender may have gone away; what is on disk is published all the same.
                let _nobody_waits = tell.send(outcome).is_err();
            }
            self.arrived.notify_one();
        }
    }

    /// A request is not on disk; Kafka may still take what of it was handed over.
    fn refuse(&self, error: &SpoolError, handed_over: Vec<Option<Delivery>>) {
        let pending: Vec<Delivery> = handed_over.into_iter().flatten().collect();
        let messages = pending.len() as u64;
        lock(&self.refused).extend(pending);
        self.course.send_modify(|course| course.refused(messages));
        let reason = match error {
            SpoolError::Full => "full",
            SpoolError::Unwritable(_) => {
                if let Some(unsaid) = self.faults.turn(self.clock.now_ms()) {
                    tracing::warn!(%error, unsaid, "a request is not on the spool's disk");
                }
                "unwritable"
            }
        };
        metrics::SPOOL_REFUSED.add_for("reason", reason, 1);
    }

    fn take_group(&self) -> Vec<Waiting> {
        let mut queue = lock(&self.queue);
        let mut bytes = 0;
        let fit = queue.waiting.iter().take_while(|waiting| {
            let is_first = bytes == 0;
            bytes += waiting.bytes().max(1);
            is_first || bytes <= GROUP_BYTES
        });
        let fit = fit.count();
        queue.is_served = fit > 0;
        queue.waiting.drain(..fit).collect()
    }

    fn show(&self) {
        let (records, oldest) = {
            let course = self.course.borrow();
            (course.records(), course.oldest())
        };
        metrics::SPOOL_BYTES.set(self.store.bytes() as f64);
        metrics::SPOOL_RECORDS.set(records as f64);
        let age = oldest.map_or(0, |oldest| self.clock.now_ns().saturating_sub(oldest));
        metrics::SPOOL_OLDEST.set(age as f64 / 1e9);
    }
}

/// Ends the service of the queue. After a panic nobody would come for those who wait: they are told.
struct Served<'a>(&'a Spool);

impl Drop for Served<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut queue = lock(&self.0.queue);
            queue.is_served = false;
            queue.waiting.clear();
        }
    }
}

/// What became of a message that was to go to Kafka directly.
enum Attempt {
    Stored,
    Pending(Delivery),
    Failed,
}

impl Drop for Spool {
    fn drop(&mut self) {
        // Closing is not enough: a process that is just being started has its own copy of the file until it executes its
        // program, and would hold the folder for as long.
        self.lock.unlock().ok();
    }
}

/// Waits for acknowledgements until the deadline, and returns the positions of those that came.
async fn settle(attempts: &mut [Attempt], deadline: Instant) -> Result<Vec<Position>, Refusal> {
    let mut positions = Vec::with_capacity(attempts.len());
    for attempt in attempts {
        let Attempt::Pending(delivery) = attempt else { continue };
        match tokio::time::timeout_at(deadline, delivery).await {
            Ok(Ok(position)) => {
                positions.push(position);
                *attempt = Attempt::Stored;
            }
            Ok(Err(error @ LogError::TooLarge { .. })) => return Err(refused(error)),
            Ok(Err(_)) => *attempt = Attempt::Failed,
            Err(_) => {}
        }
    }
    Ok(positions)
}

/// Takes the folder for this process.
fn claim(path: &Path) -> Result<File, SpoolFault> {
    let at = |source| SpoolFault::Disk { path: path.to_owned(), source };
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path.join(LOCK))
        .map_err(at)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).map_err(at)?;
            let holder = match holder.trim() {
                "" => "another process".to_owned(),
                pid => format!("process {pid}"),
            };
            return Err(SpoolFault::InUse { path: path.to_owned(), holder });
        }
        Err(TryLockError::Error(source)) => return Err(at(source)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(at)?;
    Ok(file)
}

/// The gateway's name, made at the first start: with the sequence it names a batch for ever.
fn kept_id(path: &Path) -> io::Result<String> {
    let file = path.join(GATEWAY_ID);
    match fs::read_to_string(&file) {
        Ok(kept) if !kept.trim().is_empty() => return Ok(kept.trim().to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(_) | Err(_) => {}
    }
    let id = crate::random_id();
    let mut made = File::create(&file)?;
    writeln!(made, "{id}")?;
    made.sync_all()?;
    File::open(path)?.sync_all()?;
    Ok(id)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
