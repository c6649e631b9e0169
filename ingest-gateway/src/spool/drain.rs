//! From the spool to Kafka: in order, some under way at a time, each noted once Kafka has it.
//!
//! The producer keeps trying for as long as Kafka is away and repeats nothing itself, so a record is handed to it once.
//! Acknowledgements are taken in the order of the records: what is noted as drained is always a prefix.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use fleetlog_log::{Delivery, LogError, Outgoing, Producer};
use fleetlog_runtime::Shutdown;
use fleetlog_schemas::topic;
use tokio::time::{Instant, MissedTickBehavior};

use super::course::Course;
use super::format::{HEAD_BYTES, Record};
use super::store::{Chunk, Place};
use super::{Spool, lock};
use crate::metrics;

/// Bytes read from disk at once.
const READ_BYTES: usize = 1024 * 1024;
/// Records under way at once, however small.
const WINDOW_RECORDS: usize = 1_000;
/// What a crash publishes again at most, beside what was under way.
const NOTE_EVERY: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A record on its way, or why the producer did not take it; it keeps its place either way.
struct Flying {
    record: Record,
    delivery: Result<Delivery, LogError>,
}

impl Flying {
    /// What became of it; asked again, an error stays the same.
    ///
    /// # Cancellation
    /// Safe.
    async fn outcome(&mut self) -> Result<(), LogError> {
        let outcome = match &mut self.delivery {
            Ok(delivery) => delivery.await.map(|_| ()),
            Err(error) => return Err(error.clone()),
        };
        // A delivery can be waited for only once, and one that failed keeps its place.
        if let Err(error) = &outcome {
            self.delivery = Err(error.clone());
        }
        outcome
    }
}

/// Where the drain is.
struct Drain {
    spool: Arc<Spool>,
    producer: Producer,
    partitions: u32,
    place: Place,
    /// Read and not yet handed to the producer.
    ready: VecDeque<Record>,
    flying: VecDeque<Flying>,
    flying_bytes: usize,
    /// What is under way of requests that were refused.
    refused: VecDeque<Delivery>,
    /// Everything up to here is in Kafka.
    drained: u64,
    pause: Duration,
}

impl Spool {
    /// Publishes what is spooled until shutdown; what is under way then has `budget` to be acknowledged.
    ///
    /// # Errors
    /// What the producer does not recover from: a restart drains from where it was noted.
    pub(crate) async fn drain(
        self: Arc<Self>,
        producer: Producer,
        partitions: u32,
        budget: Duration,
        shutdown: Shutdown,
    ) -> Result<(), LogError> {
        let drained = self.store.drained();
        let mut drain = Drain {
            spool: self,
            producer,
            partitions,
            place: Place::after(drained),
            ready: VecDeque::new(),
            flying: VecDeque::new(),
            flying_bytes: 0,
            refused: VecDeque::new(),
            drained,
            pause: PAUSE,
        };
        let worked = drain.work(&shutdown).await;
        // From now on nobody drains, so nobody may wait for it.
        drain.spool.course.send_modify(Course::stalled);
        let deadline = Instant::now() + budget;
        while let Ok(Some(outcome)) = tokio::time::timeout_at(deadline, outcome_of(&mut drain.flying)).await {
            if outcome.is_err() {
                break;
            }
            drain.landed().await;
        }
        drain.spool.course.send_modify(Course::stalled);
        drain.note().await;
        worked
    }
}

impl Drain {
    async fn work(&mut self, shutdown: &Shutdown) -> Result<(), LogError> {
        let mut tick = tokio::time::interval(NOTE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let spool = Arc::clone(&self.spool);
        while !shutdown.is_triggered() {
            let has_more = self.launch().await?;
            self.refused.append(&mut lock(&spool.refused));
            tokio::select! {
                Some(outcome) = outcome_of(&mut self.flying) => match outcome {
                    Ok(()) => self.landed().await,
                    Err(error) => self.failed(error).await?,
                },
                Some(()) = end_of(&mut self.refused) => spool.course.send_modify(Course::resolved),
                // There is room and there was nothing to read, or the producer's queue is full.
                () = spool.arrived.notified(), if !has_more => {}
                () = tokio::time::sleep(PAUSE), if has_more && self.flying.is_empty() => {}
                _ = tick.tick() => self.note().await,
                () = shutdown.triggered() => {}
            }
        }
        Ok(())
    }

    /// Hands records to the producer while there is room; whether there is more to hand.
    async fn launch(&mut self) -> Result<bool, LogError> {
        while self.flying.len() < WINDOW_RECORDS && self.flying_bytes < self.spool.window_bytes {
            if self.ready.is_empty() {
                self.read().await;
            }
            let Some(record) = self.ready.pop_front() else { return Ok(false) };
            // Its first attempt may still succeed; nobody else publishes it.
            let first = lock(&self.spool.handed_over).remove(&record.sequence);
            let delivery = match first.map_or_else(|| self.enqueue(&record), Ok) {
                Err(error @ LogError::Fatal { .. }) => return Err(error),
                Err(error) if !matches!(error, LogError::TooLarge { .. }) => {
                    self.ready.push_front(record);
                    return Ok(true);
                }
                delivery => delivery,
            };
            self.flying_bytes += record.payload.len();
            self.flying.push_back(Flying { record, delivery });
        }
        Ok(true)
    }

    fn enqueue(&self, record: &Record) -> Result<Delivery, LogError> {
        let target = record.target.within(self.partitions);
        self.producer.enqueue(Outgoing {
            topic: topic::RAW,
            target,
            key: None,
            payload: Some(&record.payload),
        })
    }

    async fn read(&mut self) {
        let (spool, mut place) = (Arc::clone(&self.spool), self.place);
        let read = tokio::task::spawn_blocking(move || {
            let chunk = spool.store.read(&mut place, READ_BYTES);
            (chunk, place)
        });
        match read.await {
            Ok((Ok(chunk), place)) => {
                self.place = place;
                self.take(chunk);
            }
            Ok((Err(error), _)) => {
                tracing::error!(%error, "the spool cannot be read; trying again");
                self.wait().await;
            }
            Err(error) => tracing::error!(%error, "reading the spool failed"),
        }
    }

    fn take(&mut self, chunk: Chunk) {
        self.ready.extend(chunk.records);
        if chunk.set_aside > 0 {
            metrics::SPOOL_SET_ASIDE.add(chunk.set_aside);
            let close_below = 0;
            self.spool.course.send_modify(|course| {
                course.drained(chunk.lost, chunk.lost_bytes, None, close_below);
            });
        }
    }

    /// The oldest record under way is in Kafka.
    async fn landed(&mut self) {
        self.pause = PAUSE;
        metrics::SPOOL_DRAINED.add(1);
        self.done().await;
    }

    /// The oldest record under way needs nothing more.
    async fn done(&mut self) {
        let Some(Flying { record, .. }) = self.flying.pop_front() else { return };
        self.flying_bytes = self.flying_bytes.saturating_sub(record.payload.len());
        self.drained = record.sequence;
        let (bytes, close_below) =
            ((record.payload.len() + HEAD_BYTES) as u64, self.spool.window_bytes as u64);
        let mut is_empty = false;
        self.spool.course.send_modify(|course| {
            course.drained(1, bytes, Some(record.received_at), close_below);
            is_empty = course.records() == 0;
        });
        let (spool, drained) = (Arc::clone(&self.spool), self.drained);
        if is_empty {
            self.on_disk(move || spool.store.release_all(drained)).await;
        } else if spool.store.has_released(drained) {
            self.on_disk(move || spool.store.release(drained)).await;
        } else {
            return;
        }
        self.spool.show();
    }

    /// The oldest record under way was not taken.
    async fn failed(&mut self, error: LogError) -> Result<(), LogError> {
        if matches!(error, LogError::Fatal { .. }) {
            return Err(error);
        }
        let Some(record) = self.flying.front().map(|flying| flying.record.clone()) else { return Ok(()) };
        if matches!(error, LogError::TooLarge { .. }) {
            self.give_up(record).await;
            return Ok(());
        }
        tracing::warn!(%error, sequence = record.sequence, "Kafka did not take a spooled record; trying again");
        self.wait().await;
        let delivery = self.enqueue(&record);
        if let Some(front) = self.flying.front_mut() {
            front.delivery = delivery;
        }
        Ok(())
    }

    /// Kafka will never take the oldest record under way: it is kept as a file, and the others go on.
    async fn give_up(&mut self, record: Record) {
        tracing::error!(
            sequence = record.sequence,
            "Kafka refuses a spooled record for its size; it is set aside"
        );
        let spool = Arc::clone(&self.spool);
        if self.on_disk(move || spool.store.keep_refused(&record)).await {
            metrics::SPOOL_SET_ASIDE.add(1);
            self.done().await;
        } else {
            self.wait().await;
        }
    }

    async fn wait(&mut self) {
        self.spool.course.send_modify(Course::stalled);
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// Notes on disk how far it is.
    async fn note(&self) {
        let (spool, drained) = (Arc::clone(&self.spool), self.drained);
        self.on_disk(move || spool.store.note_drained(drained)).await;
        self.spool.show();
    }

    /// Does what may wait for the disk. A failure loses nothing: after a crash more is published again.
    async fn on_disk(&self, work: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> bool {
        let failed = match tokio::task::spawn_blocking(work).await {
            Ok(done) => done.err().map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = &failed {
            tracing::warn!(error, "the spool's folder cannot be written");
        }
        failed.is_none()
    }
}

/// The outcome of the oldest record under way; `None` when there is none.
///
/// # Cancellation
/// Safe.
async fn outcome_of(flying: &mut VecDeque<Flying>) -> Option<Result<(), LogError>> {
    Some(flying.front_mut()?.outcome().await)
}

/// Waits until one of them is in Kafka or never will be; `None` when there is none.
///
/// # Cancellation
/// Safe.
async fn end_of(refused: &mut VecDeque<Delivery>) -> Option<()> {
    // Its sender was told to repeat it, whatever became of it.
    let _taken = refused.front_mut()?.await.is_ok();
    refused.pop_front().map(drop)
}

#[cfg(test)]
mod tests {
    use fleetlog_log::{KafkaConfig, Target};

    use super::super::format::Spot;
    use super::*;

    #[tokio::test]
    async fn a_record_that_was_not_taken_says_so_as_often_as_it_is_asked() {
        let nowhere = KafkaConfig {
            brokers: "127.0.0.1:1".to_owned(),
            delivery_timeout_ms: 100,
            ..KafkaConfig::default()
        };
        let producer = Producer::new(&nowhere, topic::RAW_MAX_MESSAGE_BYTES).unwrap();
        let outgoing = Outgoing { topic: topic::RAW, target: Target::Spread, key: None, payload: Some(b"x") };
        let record =
            Record { sequence: 1, target: Spot::of(Target::Spread), received_at: 1, payload: b"x".to_vec() };
        let mut flying = Flying { record, delivery: producer.enqueue(outgoing) };
        for _ in 0..3 {
            assert!(matches!(flying.outcome().await, Err(LogError::NotAcknowledged(_))));
        }
    }
}
