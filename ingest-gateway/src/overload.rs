//! What the gateway can take on, beside the bytes it holds: memory, a log that answers, and turns at the work.
//!
//! Whoever is refused is told as early as possible and when to come back; whoever is let in keeps its latency.

mod circuit;
mod concurrency;
mod memory;
mod turns;
mod turnstile;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fleetlog_log::{LogError, Producer};
use fleetlog_runtime::{Readiness, Shutdown};

use crate::error::Refusal;
use crate::metrics;
use circuit::{Circuit, Probe, Seen};
use memory::Pressure;
use turnstile::{Turn, Turnstile};

pub(crate) use concurrency::Range;
pub(crate) use turns::QueueBounds;

/// Memory and circuit are looked at so often, beside the looks that requests take.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OverloadBounds {
    pub(crate) queue: QueueBounds,
    pub(crate) range: Range,
    /// Most memory, bytes; 0 for a share of what there is only.
    pub(crate) memory_bytes: u64,
    /// Most memory as a share of what there is; 0 for none.
    pub(crate) memory_share: f64,
    /// Longest without an acknowledgement; 0 for ever.
    pub(crate) patience: Duration,
    /// Between two probes of a silent log.
    pub(crate) pause: Duration,
}

/// Refuses what cannot be done well now.
pub(crate) struct Overload {
    bounds: OverloadBounds,
    began: Instant,
    turnstile: Arc<Turnstile>,
    circuit: Mutex<Circuit>,
    memory_is_short: AtomicBool,
}

/// Leave to go on to the log. Dropped before it was used, it gives the probe back that it may be.
pub(crate) struct Pass<'a> {
    overload: &'a Overload,
    probe: Option<Probe>,
}

impl Pass<'_> {
    /// The request's records are about to be given to the log.
    pub(crate) fn used(mut self) {
        self.probe = None;
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(probe) = self.probe {
            self.overload.circuit().give_back(probe, self.overload.steady_ns());
        }
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

impl Overload {
    pub(crate) fn new(bounds: OverloadBounds) -> Self {
        Self {
            bounds,
            began: Instant::now(),
            turnstile: Arc::new(Turnstile::new(bounds.queue, bounds.range)),
            circuit: Mutex::new(Circuit::new(nanos(bounds.patience), nanos(bounds.pause))),
            memory_is_short: AtomicBool::new(false),
        }
    }

    /// Nanoseconds since the start, by a clock that only goes on.
    pub(crate) fn steady_ns(&self) -> i64 {
        nanos(self.began.elapsed())
    }

    /// Whether a request of this project may be read at all.
    ///
    /// # Errors
    /// [`Refusal::Memory`], [`Refusal::LogSilent`], [`Refusal::Busy`] or [`Refusal::ProjectShare`].
    pub(crate) fn enter(&self, producer: &Producer, project: &str) -> Result<Pass<'_>, Refusal> {
        if self.memory_is_short.load(Ordering::Relaxed) {
            return Err(Refusal::Memory);
        }
        self.turnstile.expect(project)?;
        // Last, since it may let the request through as the only one for a while.
        let probe = self.look(producer, |circuit, now| {
            circuit.pass(now).map_err(|wait| Refusal::LogSilent {
                wait: Duration::from_nanos(u64::try_from(wait).unwrap_or(0)),
            })
        })?;
        Ok(Pass { overload: self, probe })
    }

    /// Waits for a request's turn at the work.
    ///
    /// # Errors
    /// As [`Turnstile::turn`].
    pub(crate) async fn turn(&self, project: &Arc<str>, bytes: usize) -> Result<Turn, Refusal> {
        /// What a request costs beside its bytes, in bytes that cost as much.
        const REQUEST_COST: u64 = 4096;
        self.turnstile.turn(project, REQUEST_COST + bytes as u64).await
    }

    /// Takes note of what could not be published.
    pub(crate) fn not_published(&self, producer: &Producer, refusal: &Refusal) {
        if matches!(refusal, Refusal::NotPublished(LogError::QueueFull)) {
            let seen = seen(producer);
            let opened = self.circuit().queue_is_full(seen, self.steady_ns());
            said_if(opened);
        }
    }

    /// Looks at the log, and does something with the circuit.
    fn look<T>(&self, producer: &Producer, then: impl FnOnce(&mut Circuit, i64) -> T) -> T {
        let (seen, now) = (seen(producer), self.steady_ns());
        let mut circuit = self.circuit();
        let opened = circuit.look(seen, now);
        let done = then(&mut circuit, now);
        drop(circuit);
        said_if(opened);
        done
    }

    fn circuit(&self) -> std::sync::MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps looking at memory and log until shutdown.
    pub(crate) async fn watch(&self, producer: &Producer, readiness: Readiness, shutdown: &Shutdown) {
        let mut pressure = Pressure::default();
        readiness.ready();
        while !shutdown.is_triggered() {
            if let Some(memory) = memory::read() {
                let limit =
                    memory::limit(memory.available, self.bounds.memory_bytes, self.bounds.memory_share);
                let was_short = self.memory_is_short.load(Ordering::Relaxed);
                let is_short = pressure.look(memory.used, limit);
                self.memory_is_short.store(is_short, Ordering::Relaxed);
                metrics::MEMORY_BYTES.set(memory.used as f64);
                metrics::MEMORY_LIMIT.set(limit as f64);
                metrics::MEMORY_SHORT.set(f64::from(u8::from(is_short)));
                if is_short != was_short {
                    tracing::warn!(
                        used = memory.used,
                        limit,
                        is_short,
                        "memory: new requests are refused while short"
                    );
                }
            }
            let is_open = self.look(producer, |circuit, _| circuit.is_open());
            metrics::CIRCUIT_OPEN.set(f64::from(u8::from(is_open)));
            // Once everything has timed out nothing is known, and only a request can find out: it must be let come.
            if is_open && producer.acks().silent_for.is_some() {
                readiness.not_ready("Kafka does not acknowledge records");
            } else {
                readiness.ready();
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = shutdown.triggered() => {}
            }
        }
    }
}

fn seen(producer: &Producer) -> Seen {
    let acks = producer.acks();
    Seen { acknowledged: acks.acknowledged, silent_ns: acks.silent_for.map(nanos) }
}

fn said_if(opened: bool) {
    if opened {
        metrics::CIRCUIT_OPENED.add(1);
        tracing::warn!("Kafka does not acknowledge records; requests are refused until it does");
    }
}
