//! The idempotent producer: a bounded queue in front of acks=all.
//!
//! [`Producer::enqueue`] never waits: a full queue is an error the caller can answer with "later". The returned
//! [`Delivery`] resolves to the record's position once every in-sync replica has it, without a task per record:
//! librdkafka's callback completes it from the one polling thread.
//!
//! Exactly-once output (INV-3) has a producer, a client and an id of its own, in `transaction.rs`: it may never share a
//! client with the gateway's latency.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ::metrics::Counter;
use fleetlog_schemas::id::Position;
use rdkafka::ClientContext;
use rdkafka::Message;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, NoCustomPartitioner, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use crate::context::{log_error, log_line};
use crate::{KafkaConfig, LogError, metrics};

const ACTION: &str = "produce";

/// Publishes records and says where they are stored.
#[derive(Clone)]
pub struct Producer {
    client: ThreadedProducer<Deliveries>,
    timeout: Duration,
    progress: Arc<Progress>,
}

/// Whether the brokers acknowledge what they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acks {
    /// Records acknowledged since the producer was made.
    pub acknowledged: u64,
    /// How long records have been waiting without a single acknowledgement of any; `None` while none waits.
    pub silent_for: Option<Duration>,
}

/// What [`Acks`] are read from: updated where records enter and leave, whoever still waits for them.
#[derive(Debug)]
struct Progress {
    began: Instant,
    waiting: AtomicU64,
    acknowledged: AtomicU64,
    /// Of the last acknowledgement, or of the first record after there was none waiting; nanoseconds since `began`.
    at: AtomicU64,
}

impl Progress {
    fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { began: Instant::now(), waiting: zero(), acknowledged: zero(), at: zero() }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn entered(&self) {
        // Written first: who saw the record waiting with the time of long ago would take it for a long silence.
        if self.waiting.load(Ordering::Relaxed) == 0 {
            self.at.store(self.now(), Ordering::Relaxed);
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
    }

    fn left(&self, acknowledged: bool) {
        if acknowledged {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            self.at.store(self.now(), Ordering::Relaxed);
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    fn acks(&self) -> Acks {
        // Acquired: the time that a waiting record was entered with is seen with it.
        let waits = self.waiting.load(Ordering::Acquire) > 0;
        let silence = || Duration::from_nanos(self.now().saturating_sub(self.at.load(Ordering::Relaxed)));
        Acks { acknowledged: self.acknowledged.load(Ordering::Relaxed), silent_for: waits.then(silence) }
    }
}

/// Where a record is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Wherever it is balanced: librdkafka keeps to one available partition for a few milliseconds, then changes.
    Spread,
    /// This partition.
    Partition(i32),
}

/// A record to publish.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Partition, or none in particular.
    pub target: Target,
    /// Kafka key, for compacted topics.
    pub key: Option<&'a [u8]>,
    /// Payload; `None` is a tombstone.
    pub payload: Option<&'a [u8]>,
}

/// Resolves to the record's position once it is stored on every in-sync replica.
///
/// # Cancellation
/// Dropping it changes nothing for the record: it is still delivered.
#[derive(Debug)]
pub struct Delivery {
    outcome: oneshot::Receiver<Result<Position, LogError>>,
}

impl Future for Delivery {
    type Output = Result<Position, LogError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.outcome).poll(cx).map(|sent| sent.unwrap_or(Err(LogError::Closed)))
    }
}

impl Producer {
    /// A producer for messages of at most `max_message_bytes`; connects in the background.
    ///
    /// # Errors
    /// [`LogError::Config`] when librdkafka refuses the configuration.
    pub fn new(config: &KafkaConfig, max_message_bytes: usize) -> Result<Self, LogError> {
        let timeout = Duration::from_millis(config.delivery_timeout_ms.into());
        let progress = Arc::new(Progress::new());
        let client = ThreadedProducer::<_, NoCustomPartitioner>::from_config_and_context(
            &config.producer(max_message_bytes),
            Deliveries {
                timeout,
                progress: Arc::clone(&progress),
                delivered: metrics::DELIVERED.counter_handle(),
                undelivered: metrics::UNDELIVERED.counter_handle(),
            },
        )
        .map_err(|e| LogError::from_kafka("create a producer", &e))?;
        Ok(Self { client, timeout, progress })
    }

    /// Puts a record into the queue, copying it, without waiting.
    ///
    /// # Errors
    /// [`LogError::QueueFull`] at the bound; [`LogError::TooLarge`] above the message size.
    pub fn enqueue(&self, record: Outgoing<'_>) -> Result<Delivery, LogError> {
        let (tell, outcome) = oneshot::channel();
        let mut message = BaseRecord::<'_, [u8], [u8], _>::with_opaque_to(record.topic, Box::new(tell));
        message.payload = record.payload;
        message.key = record.key;
        message.partition = match record.target {
            Target::Spread => None,
            Target::Partition(partition) => Some(partition),
        };
        // Before it is sent: its delivery may be reported before `send` returns.
        self.progress.entered();
        match self.client.send(message) {
            Ok(()) => Ok(Delivery { outcome }),
            Err((error, _)) => {
                self.progress.left(false);
                let bytes = record.payload.map_or(0, <[u8]>::len);
                let refused = undelivered(&error, bytes, self.timeout);
                if matches!(refused, LogError::QueueFull) {
                    metrics::QUEUE_FULL.add(1);
                }
                Err(refused)
            }
        }
    }

    /// Whether the brokers acknowledge what they are sent.
    pub fn acks(&self) -> Acks {
        self.progress.acks()
    }

    /// Records that are queued or not yet acknowledged.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.client.in_flight_count()).unwrap_or(0)
    }

    /// Waits until everything queued so far is acknowledged or has failed.
    ///
    /// # Errors
    /// [`LogError::NotAcknowledged`] when `budget` is used up first.
    pub async fn flush(&self, budget: Duration) -> Result<(), LogError> {
        let client = self.client.clone();
        tokio::task::spawn_blocking(move || client.flush(budget))
            .await
            .map_err(|_| LogError::Closed)?
            .map_err(|_| LogError::NotAcknowledged(budget))
    }
}

fn undelivered(error: &KafkaError, bytes: usize, timeout: Duration) -> LogError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
            LogError::TooLarge { bytes }
        }
        Some(RDKafkaErrorCode::MessageTimedOut | RDKafkaErrorCode::RequestTimedOut) => {
            LogError::NotAcknowledged(timeout)
        }
        _ => LogError::from_kafka(ACTION, error),
    }
}

/// Completes deliveries from librdkafka's callback.
struct Deliveries {
    timeout: Duration,
    progress: Arc<Progress>,
    delivered: Counter,
    undelivered: Counter,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<oneshot::Sender<Result<Position, LogError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, tell: Self::DeliveryOpaque) {
        self.progress.left(result.is_ok());
        let outcome = match result {
            Ok(message) => {
                self.delivered.increment(1);
                Ok(Position { partition: message.partition(), offset: message.offset() })
            }
            Err((error, message)) => {
                self.undelivered.increment(1);
                Err(undelivered(error, message.payload_len(), self.timeout))
            }
        };
        // The caller may have gone away; the record is stored all the same.
        let _nobody_waits = tell.send(outcome).is_err();
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_lasts_from_the_first_waiting_record_to_any_acknowledgement() {
        let progress = Progress::new();
        assert_eq!(progress.acks(), Acks { acknowledged: 0, silent_for: None });
        progress.entered();
        let first = progress.acks().silent_for.unwrap();
        progress.entered();
        progress.left(false);
        assert!(
            progress.acks().silent_for.unwrap() >= first,
            "a failure is no progress, and a new record neither"
        );
        progress.entered();
        progress.left(true);
        let after = progress.acks();
        assert_eq!(after.acknowledged, 1);
        assert!(after.silent_for.unwrap() < progress.began.elapsed());
        progress.left(true);
        assert_eq!(progress.acks(), Acks { acknowledged: 2, silent_for: None });
    }
}
