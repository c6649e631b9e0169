//! Exactly-once output (INV-3): what is written becomes visible together with the offsets that caused it, or not at all.
//!
//! A [`Transactor`] is the handle that the work on every partition shares; its [`Unit`]s are gathered by one task
//! ([`TransactionLog::run`]) into one Kafka transaction after another. While a transaction is being committed, the next
//! units are prepared and queue up, so transactions are short at light load and large at heavy load without a timer.
//!
//! ```text
//! partition 0 ──┐ unit (records, lease, offset)
//! partition 1 ──┼──▶ begin ─▶ produce ─▶ send offsets ─▶ commit ──▶ every unit is told
//! partition 2 ──┘          any failure: abort, try again with the units whose lease still holds
//! ```
//!
//! Who else may write is decided by Kafka: the transactional id fences an earlier process of the same name, the group's
//! generation in the offsets fences a member that was thrown out (KIP-447). Readers must be `read_committed`.
//!
//! Once its transaction has begun, a unit waits for the cluster no longer than `kafka.transaction_timeout_ms` and the 7 s
//! that an abort may take, for a rebalance waits as well; with [`TRANSACTION_TIMEOUT_MOST_MS`] at the most that stays
//! within the consumer's budget of 30 s. What a commit that failed has come to is never guessed: librdkafka may report an
//! error although the coordinator has committed. A new client of the same id first ends whatever is open, then the
//! committed offsets tell:
//!
//! | failed | open transaction | the units |
//! |---|---|---|
//! | before the commit | aborted, or ended by the next client's start | are tried again |
//! | in the commit, offsets moved | is committed | are settled |
//! | in the commit, offsets stand | is aborted: the next client's start has seen to it | are tried again |
//! | anywhere, and the partition goes | whatever it is, the next owner waits for its end | are the next owner's |
//!
//! All of it needs a broker that writes the markers of what it calls ended: docs/kafka.md says when it does not.

mod course;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, NoCustomPartitioner, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio::sync::{mpsc, oneshot};

use crate::context::{log_error, log_line};
use crate::{KafkaConfig, Lease, LogError, metrics};
use course::{Course, State, Step};

/// Largest `kafka.transaction_timeout_ms` that leaves a rebalance the time to wait for a transaction's end.
pub const TRANSACTION_TIMEOUT_MOST_MS: u32 = 20_000;

const ACTION: &str = "run a transaction";
/// Units waiting for a transaction; each partition has at most one.
const WAITING: usize = 1024;
/// One call to the coordinator; what can be repeated is repeated, up to the transaction's deadline.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long after its time a call that should have ended is given up.
const OVERDUE: Duration = Duration::from_secs(1);
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(2);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// Fenced so often in a row without a commit in between: another process uses the same id.
const MOST_RIVALS: u32 = 5;

/// A record to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Topic.
    pub topic: &'static str,
    /// Partition.
    pub partition: i32,
    /// Payload.
    pub payload: Vec<u8>,
}

/// What some records of one partition became.
#[derive(Debug)]
pub struct Unit {
    /// The right to settle them.
    pub lease: Lease,
    /// The next record of that partition: everything below it is settled by this unit and those before it.
    pub next_offset: i64,
    /// What to write.
    pub writes: Vec<Write>,
}

/// Hands units to the transactions.
#[derive(Clone, Debug)]
pub struct Transactor {
    units: mpsc::Sender<Waiting>,
    max_message_bytes: usize,
}

/// A unit and whoever waits for it.
#[derive(Debug)]
struct Waiting {
    unit: Arc<Unit>,
    tell: oneshot::Sender<Result<(), LogError>>,
}

/// Runs the transactions of one instance.
pub struct TransactionLog {
    config: KafkaConfig,
    id: String,
    max_message_bytes: usize,
    max_bytes: usize,
    units: mpsc::Receiver<Waiting>,
}

impl Transactor {
    /// Writes a unit and commits its offset in one transaction, together with whatever else is waiting.
    ///
    /// # Errors
    /// [`LogError::NotOwner`] when the partition went away first: its next owner repeats the work.
    /// [`LogError::TooLarge`] for a message above the bound; nothing is written then. Anything else ends the service;
    /// the unit may then have been committed or not, and the next start goes on from there.
    ///
    /// # Cancellation
    /// Dropped, the unit may still be committed.
    pub async fn commit(&self, unit: Unit) -> Result<(), LogError> {
        if let Some(write) = unit.writes.iter().find(|write| write.payload.len() > self.max_message_bytes) {
            return Err(LogError::TooLarge { bytes: write.payload.len() });
        }
        let (tell, told) = oneshot::channel();
        let waiting = Waiting { unit: Arc::new(unit), tell };
        self.units.send(waiting).await.map_err(|_| LogError::Closed)?;
        told.await.unwrap_or(Err(LogError::Closed))
    }
}

impl TransactionLog {
    /// Transactions under an id that no other running process may use, of messages of at most `max_message_bytes`.
    ///
    /// With [`KafkaConfig::instance_id`] the id is stable, and a restart ends at once what its predecessor left open;
    /// without, it is new at every start, and what was left open ends after `kafka.transaction_timeout_ms`.
    pub fn new(config: &KafkaConfig, group: &str, max_message_bytes: usize) -> (Transactor, Self) {
        let instance = match config.instance_id.as_str() {
            "" => uuid::Uuid::new_v4().to_string(),
            id => id.to_owned(),
        };
        let (send, units) = mpsc::channel(WAITING);
        let log = Self {
            config: config.clone(),
            id: format!("{group}-{instance}"),
            max_message_bytes,
            // Half of the queue's bound: the client never refuses what one transaction holds.
            max_bytes: (config.queue_max_bytes / 2).max(1),
            units,
        };
        (Transactor { units: send, max_message_bytes }, log)
    }

    /// Runs until every handle is dropped.
    ///
    /// # Errors
    /// [`LogError`] when the cluster refuses the configuration or the principal, or another process uses the same id.
    pub async fn run(mut self) -> Result<(), LogError> {
        let mut client: Option<Arc<Client>> = None;
        let (mut pause, mut rivals, mut course) = (FIRST_RETRY, 0, Course::default());
        let mut units = Vec::new();
        loop {
            if units.is_empty() {
                match self.units.recv().await {
                    Some(first) => units = self.gather(first),
                    None => return Ok(()),
                }
            }
            match self.attempt(&mut client, &mut units, &mut course).await {
                Ok(()) => {
                    (pause, rivals) = (FIRST_RETRY, 0);
                    metrics::TRANSACTIONS.add(1);
                    units.drain(..).for_each(|waiting| waiting.answer(Ok(())));
                }
                Err(Failure { error, client: state, in_doubt }) => {
                    metrics::ABORTED_TRANSACTIONS.add(1);
                    tracing::warn!(%error, units = units.len(), in_doubt, "the transaction failed and is tried again");
                    course.failed(state, in_doubt);
                    if course.next() == Step::Start {
                        retire(client.take());
                    }
                    rivals += u32::from(state == State::Fenced);
                    if rivals > MOST_RIVALS || matches!(error, LogError::Config(_)) {
                        return Err(error);
                    }
                    units = held(units);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LAST_RETRY);
                }
            }
        }
    }

    /// What is waiting, up to the bound of bytes.
    fn gather(&mut self, first: Waiting) -> Vec<Waiting> {
        let mut bytes = first.bytes();
        let mut units = vec![first];
        while bytes < self.max_bytes {
            let Ok(next) = self.units.try_recv() else { break };
            bytes += next.bytes();
            units.push(next);
        }
        units
    }

    /// One transaction, after whatever must come before it.
    async fn attempt(
        &self,
        client: &mut Option<Arc<Client>>,
        units: &mut Vec<Waiting>,
        course: &mut Course,
    ) -> Result<(), Failure> {
        loop {
            match (course.next(), &*client) {
                (Step::LookUp, _) => {
                    settle_doubt(units).await?;
                    course.looked_up();
                    if units.is_empty() {
                        return Ok(());
                    }
                }
                (Step::Transact, Some(client)) => {
                    let units = units.iter().map(|waiting| Arc::clone(&waiting.unit)).collect();
                    return transact(client, units, Instant::now() + self.timeout()).await;
                }
                // It fences its predecessors, and ends what they left open.
                (Step::Start | Step::Transact, _) => {
                    let new = Arc::new(self.client().map_err(Failure::beyond_use)?);
                    let opening = Arc::clone(&new);
                    let deadline = Instant::now() + CALL_TIMEOUT;
                    let opened = bounded(deadline, move || opening.init_transactions(CALL_TIMEOUT)).await;
                    if let Err(failure) = opened.and_then(|opened| opened.map_err(Failure::of)) {
                        retire(Some(new));
                        return Err(failure);
                    }
                    *client = Some(new);
                    course.started();
                }
            }
        }
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.config.transaction_timeout_ms.into())
    }

    fn client(&self) -> Result<Client, LogError> {
        let timeout = self.config.transaction_timeout_ms.to_string();
        let mut properties = self.config.producer(self.max_message_bytes);
        properties.set("transactional.id", &self.id).set("transaction.timeout.ms", &timeout);
        // A record may not outlive its transaction.
        let wanted = properties.get("message.timeout.ms").and_then(|ms| ms.parse::<u128>().ok());
        if wanted.is_none_or(|ms| ms > self.timeout().as_millis()) {
            properties.set("message.timeout.ms", &timeout);
        }
        Client::from_config_and_context(&properties, Quiet).map_err(|e| LogError::from_kafka(ACTION, &e))
    }
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.unit.writes.iter().map(|write| write.payload.len()).sum()
    }

    fn answer(self, outcome: Result<(), LogError>) {
        // Whoever waited may have been cancelled; the outcome stands all the same.
        let _nobody_waits = self.tell.send(outcome).is_err();
    }
}

/// After a failure, a unit of a partition that is being taken away is left to the next owner, who must not be kept
/// waiting.
fn held(units: Vec<Waiting>) -> Vec<Waiting> {
    let (held, gone): (Vec<_>, Vec<_>) =
        units.into_iter().partition(|waiting| waiting.unit.lease.is_active());
    for waiting in gone {
        let error = waiting.unit.lease.not_owner();
        waiting.answer(Err(error));
    }
    held
}

/// Tells the units of a commit in doubt that were settled by it, now that its transaction has ended; the others stay.
///
/// # Errors
/// When the committed offsets cannot be had: the doubt stands, and so do all units.
async fn settle_doubt(units: &mut Vec<Waiting>) -> Result<(), Failure> {
    let mut settled = Vec::new();
    for waiting in units.iter() {
        let Unit { lease, next_offset, .. } = &*waiting.unit;
        match lease.settled().await {
            Ok(offset) => settled.push(offset.is_some_and(|offset| offset >= *next_offset)),
            // The consumer has ended, and the assignment with it: the next owner finds out.
            Err(LogError::Closed) => settled.push(false),
            Err(error) => return Err(Failure { error, client: State::Usable, in_doubt: true }),
        }
    }
    let committed = settled.contains(&true);
    metrics::DOUBTFUL_TRANSACTIONS.add_for("outcome", if committed { "committed" } else { "aborted" }, 1);
    tracing::info!(committed, units = units.len(), "the outcome of a commit in doubt is known");
    let (done, left): (Vec<_>, Vec<_>) = units.drain(..).zip(settled).partition(|(_, settled)| *settled);
    done.into_iter().for_each(|(waiting, _)| waiting.answer(Ok(())));
    units.extend(left.into_iter().map(|(waiting, _)| waiting));
    Ok(())
}

type Client = ThreadedProducer<Quiet, NoCustomPartitioner>;

/// Why a transaction did not happen.
struct Failure {
    error: LogError,
    client: State,
    /// Whether it may have happened all the same.
    in_doubt: bool,
}

impl Failure {
    fn of(error: KafkaError) -> Self {
        let fenced = match &error {
            KafkaError::Transaction(inner) => {
                inner.is_fatal() || !inner.is_retriable() && !inner.txn_requires_abort()
            }
            other => other.rdkafka_error_code().is_some_and(|code| {
                matches!(
                    code,
                    RDKafkaErrorCode::Fatal | RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced
                )
            }),
        };
        let client = if fenced { State::Fenced } else { State::Unknown };
        Self { error: LogError::from_kafka(ACTION, &error), client, in_doubt: false }
    }

    fn beyond_use(error: LogError) -> Self {
        Self { error, client: State::Fenced, in_doubt: false }
    }
}

/// Runs a call that waits for the cluster on a thread that may be kept waiting, and lets go of it when it is overdue:
/// librdkafka waits without end for some answers that never come, whatever time it is given.
async fn bounded<T: Send + 'static>(
    deadline: Instant,
    call: impl FnOnce() -> Result<T, KafkaError> + Send + 'static,
) -> Result<Result<T, KafkaError>, Failure> {
    let running = tokio::task::spawn_blocking(call);
    match tokio::time::timeout_at((deadline + OVERDUE).into(), running).await {
        Ok(Ok(outcome)) => Ok(outcome),
        // A thread that died may have done anything before.
        Ok(Err(_died)) => Err(Failure { error: LogError::Closed, client: State::Unknown, in_doubt: true }),
        Err(_elapsed) => {
            let error =
                LogError::Unavailable { action: ACTION, reason: "the client does not answer".to_owned() };
            Err(Failure { error, client: State::Unknown, in_doubt: false })
        }
    }
}

/// Ends a client, which may take the time to end its connections.
fn retire(client: Option<Arc<Client>>) {
    tokio::task::spawn_blocking(move || drop(client));
}

/// One transaction, up to its commit.
///
/// What can be kept waiting without end holds no unit, and so no lease: a rebalance waits for these.
async fn transact(client: &Arc<Client>, units: Vec<Arc<Unit>>, deadline: Instant) -> Result<(), Failure> {
    let writing = Arc::clone(client);
    let (offsets, group) = match bounded(deadline, move || write(&writing, &units, deadline)).await? {
        Ok(settled) => settled,
        Err(error) => return Err(abort(client, error).await),
    };
    let settling = Arc::clone(client);
    let settle = move || {
        again(deadline, |left| settling.send_offsets_to_transaction(&offsets, &group, left))?;
        // Nothing is committed by a thread that was given up meanwhile.
        if Instant::now() < deadline { Ok(()) } else { Err(KafkaError::Canceled) }
    };
    if let Err(error) = bounded(deadline, settle).await? {
        return Err(abort(client, error).await);
    }
    let committing = Arc::clone(client);
    // From here on an error says nothing: "the EndTxn(commit) may have succeeded" (librdkafka, rdkafka_txnmgr.c).
    let in_doubt = |failure: Failure| Failure { in_doubt: true, ..failure };
    bounded(deadline, move || again(deadline, |left| committing.commit_transaction(left)))
        .await
        .map_err(in_doubt)?
        .map_err(|error| in_doubt(Failure::of(error)))
}

/// Aborts after a failure before the commit. It is refused where a call was not answered, and then the client is of no
/// further use.
async fn abort(client: &Arc<Client>, error: KafkaError) -> Failure {
    let failure = Failure::of(error);
    if failure.client == State::Fenced {
        return failure;
    }
    let aborting = Arc::clone(client);
    let aborted =
        bounded(Instant::now() + CALL_TIMEOUT, move || aborting.abort_transaction(CALL_TIMEOUT)).await;
    let client = if matches!(aborted, Ok(Ok(()))) { State::Usable } else { State::Unknown };
    Failure { client, ..failure }
}

/// Begins a transaction and writes what the units hold; returns what they settle, and as which member.
fn write(
    client: &Client,
    units: &[Arc<Unit>],
    deadline: Instant,
) -> Result<(TopicPartitionList, ConsumerGroupMetadata), KafkaError> {
    client.begin_transaction()?;
    for write in units.iter().flat_map(|unit| &unit.writes) {
        produce(client, write, deadline)?;
    }
    // All units are of one consumer. Its generation fences a member that was thrown out; it is asked for before the
    // leases are, so that a generation that came later cannot vouch for an assignment that went with the earlier one.
    let group = units.first().and_then(|unit| unit.lease.group_metadata());
    let Some(group) = group.filter(|_| units.iter().all(|unit| !unit.lease.has_ended())) else {
        return Err(KafkaError::Canceled);
    };
    Ok((offsets(units)?, group))
}

/// The offsets that units settle; of several units of one partition the last.
fn offsets(units: &[Arc<Unit>]) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for unit in units {
        let (topic, partition) = (unit.lease.topic(), unit.lease.partition());
        let offset = Offset::Offset(unit.next_offset);
        match list.find_partition(topic, partition) {
            Some(mut element) => element.set_offset(offset)?,
            None => list.add_partition_offset(topic, partition, offset)?,
        }
    }
    Ok(list)
}

/// Queues a record; a full queue empties as the broker answers.
fn produce(client: &Client, write: &Write, deadline: Instant) -> Result<(), KafkaError> {
    let mut record = BaseRecord::<'_, [u8], [u8], ()>::to(write.topic)
        .partition(write.partition)
        .payload(&write.payload[..]);
    loop {
        match client.send(record) {
            Ok(()) => return Ok(()),
            Err((e, back)) if e.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                if Instant::now() >= deadline {
                    return Err(e);
                }
                record = back;
                std::thread::sleep(FULL_QUEUE_PAUSE);
            }
            Err((e, _)) => return Err(e),
        }
    }
}

/// Repeats a call that is not answered for as long as its transaction may take; beyond that the coordinator ends the
/// transaction by itself.
fn again(
    deadline: Instant,
    mut call: impl FnMut(Duration) -> Result<(), KafkaError>,
) -> Result<(), KafkaError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match call(CALL_TIMEOUT.min(left)) {
            Err(KafkaError::Transaction(e)) if e.is_retriable() && !e.is_fatal() && !left.is_zero() => {
                tracing::debug!(error = %e, "the coordinator has not answered yet");
            }
            outcome => return outcome,
        }
    }
}

/// A failed delivery fails the commit, so nobody needs to hear of a single record.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ProducerContext for Quiet {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
