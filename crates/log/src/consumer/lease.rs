//! The right to work on a partition, and to move its committed offset.

use std::fmt;
use std::ops::Range;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::group::Group;
use crate::{LogError, metrics};

const COMMIT: &str = "commit";
/// What Kafka stores with a commit (`offset.metadata.max.bytes`).
const METADATA_MAX_BYTES: usize = 4096;
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
const COMMIT_RETRY: Duration = Duration::from_millis(50);

/// How far an assignment has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The partition is this member's.
    Active,
    /// It is being taken away: settle, commit, stop.
    Revoking,
    /// It belongs to somebody else: nothing may be committed any more.
    Ended,
}

/// The right to work on one assigned partition.
///
/// Every task of the partition holds a clone. A rebalance that takes the partition away waits until all are
/// dropped, so a task that holds one never runs beside the next owner (INV-4.4).
#[derive(Clone)]
pub struct Lease(Arc<Inner>);

pub(super) struct Inner {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) epoch: u64,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) client: Weak<BaseConsumer<Group>>,
    pub(super) commit_budget: Duration,
    /// What was committed, and the lock that keeps commits in order.
    pub(super) committed: Mutex<LastCommit>,
    /// Its disconnection tells the rebalance that the last lease is gone.
    pub(super) _alive: SyncSender<()>,
}

/// The last commit under a lease.
#[derive(Debug)]
pub(super) struct LastCommit {
    /// Offset of the last one that Kafka confirmed.
    pub(super) offset: i64,
    /// One that is not answered. It may still be carried out, so none may come after it.
    pub(super) unanswered: Option<Asked>,
}

/// A commit on its way: the client waits for its answer on a thread of its own.
#[derive(Debug)]
pub(super) struct Asked {
    offset: i64,
    answer: JoinHandle<Result<(), KafkaError>>,
}

impl Lease {
    pub(super) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// Partition.
    pub fn partition(&self) -> i32 {
        self.0.partition
    }

    pub(crate) fn topic(&self) -> &str {
        &self.0.topic
    }

    /// The member's place in its group at this moment, which Kafka checks when a transaction settles offsets.
    pub(crate) fn group_metadata(&self) -> Option<ConsumerGroupMetadata> {
        self.0.client.upgrade()?.group_metadata()
    }

    /// Whether the partition belongs to somebody else by now.
    pub(crate) fn has_ended(&self) -> bool {
        *self.0.phase.borrow() == Phase::Ended
    }

    /// Epoch of the assignment.
    pub fn epoch(&self) -> u64 {
        self.0.epoch
    }

    /// Whether new work may be started; false from the moment the partition is being taken away.
    pub fn is_active(&self) -> bool {
        *self.0.phase.borrow() == Phase::Active
    }

    /// Waits until the partition is being taken away.
    ///
    /// # Cancellation
    /// Safe to drop and to call again.
    pub async fn revoked(&self) {
        let mut phase = self.0.phase.clone();
        let _consumer_gone = phase.wait_for(|phase| *phase != Phase::Active).await.is_err();
    }

    /// Commits that every record below `offset` is settled, and waits for Kafka's confirmation.
    ///
    /// Possible until the partition has been given back, so also while it is being taken away. Committing the same
    /// offset again with other metadata is how an attempt is noted (INV-4.1).
    ///
    /// # Errors
    /// [`LogError::NotOwner`] when the assignment has ended; [`LogError::CommitBackwards`] for an offset below the
    /// committed one; [`LogError::MetadataTooLong`] above 4,096 bytes; else what Kafka said, after retries.
    /// [`LogError::Unavailable`] says neither that it happened nor that it will not.
    ///
    /// # Invariants
    /// A commit that is not answered within the budget is still on its way. Carried out after a later one, it would put
    /// back an offset, or take away the note of an insert that runs (INV-4), and reading the committed offset does not
    /// tell what is still to come. So it is taken neither for done nor for not done: the next commit first waits for its
    /// answer, and is sent only then. While the cluster is silent nothing moves, until it answers, the session ends, or the
    /// caller gives the partition up, whose next owner Kafka lets in after this member is gone.
    ///
    /// # Cancellation
    /// Dropped, the commit may still happen; the next one waits for it.
    pub async fn commit(&self, offset: i64, metadata: &str) -> Result<(), LogError> {
        if metadata.len() > METADATA_MAX_BYTES {
            return Err(LogError::MetadataTooLong(metadata.len()));
        }
        let mut committed = self.0.committed.lock().await;
        let asked = Instant::now();
        let deadline = asked + self.0.commit_budget;
        if committed.unanswered.is_some() {
            // A rebalance waits for an answer once, not once a caller.
            if !self.is_active() {
                return Err(self.not_owner());
            }
            // Whatever it is: what comes now says more.
            let _superseded = committed.answer(deadline).await?.is_err();
        }
        if offset < committed.offset {
            return Err(LogError::CommitBackwards { asked: offset, committed: committed.offset });
        }
        loop {
            let phase = *self.0.phase.borrow();
            if phase == Phase::Ended {
                return Err(self.not_owner());
            }
            committed.unanswered = Some(self.ask(offset, metadata)?);
            match committed.answer(deadline).await? {
                Ok(()) => {
                    metrics::COMMIT_SECONDS.record(asked.elapsed().as_secs_f64());
                    return Ok(());
                }
                Err(e) if settling(&e) && Instant::now() < deadline => {
                    tokio::time::sleep(COMMIT_RETRY).await;
                }
                // A generation that this member has not heard of yet: it may keep the partition in the next one, and then
                // nobody else works on it. Only the end of the assignment, which is on its way otherwise, tells.
                Err(e) if disowned(&e) && phase == Phase::Active && Instant::now() < deadline => {
                    tokio::time::sleep(COMMIT_RETRY).await;
                }
                Err(e) if disowned(&e) && phase != Phase::Active => return Err(self.not_owner()),
                Err(e) => return Err(LogError::from_kafka(COMMIT, &e)),
            }
        }
    }

    /// The offsets of the partition's log: its first record and the next one to be written (among committed
    /// ones, when the consumer reads only these).
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when the partition's leader does not answer.
    pub async fn log_range(&self) -> Result<Range<i64>, LogError> {
        self.query(|lease, client| {
            let (first, end) = client.fetch_watermarks(&lease.0.topic, lease.0.partition, QUERY_TIMEOUT)?;
            Ok(first..end)
        })
        .await
    }

    /// The offset below which the group has settled everything, as Kafka holds it; `None` before its first commit.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when the group's coordinator does not answer.
    pub async fn settled(&self) -> Result<Option<i64>, LogError> {
        self.query(|lease, client| {
            let mut partition = TopicPartitionList::new();
            partition.add_partition(&lease.0.topic, lease.0.partition);
            let committed = client.committed_offsets(partition, QUERY_TIMEOUT)?;
            let elements = committed.elements();
            let Some(element) = elements.first() else { return Ok(None) };
            // An open transaction holds the answer back (KIP-447), and what cannot be told is not "none".
            element.error()?;
            Ok(match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            })
        })
        .await
    }

    /// The offset of the first record written at or after a time (milliseconds UTC); `None` when there is none.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when the partition's leader does not answer.
    pub async fn offset_at_time(&self, timestamp_ms: i64) -> Result<Option<i64>, LogError> {
        self.query(move |lease, client| {
            let mut times = TopicPartitionList::new();
            times.add_partition_offset(&lease.0.topic, lease.0.partition, Offset::Offset(timestamp_ms))?;
            let found = client.offsets_for_times(times, QUERY_TIMEOUT)?;
            let offset = found.elements().first().and_then(|e| match e.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            });
            Ok(offset)
        })
        .await
    }

    async fn query<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Self, &BaseConsumer<Group>) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, LogError> {
        let lease = self.clone();
        let client = self.0.client.upgrade().ok_or(LogError::Closed)?;
        tokio::task::spawn_blocking(move || ask(&lease, &client))
            .await
            .map_err(|_| LogError::Closed)?
            .map_err(|e| LogError::from_kafka("look up offsets", &e))
    }

    /// Sends a commit.
    fn ask(&self, offset: i64, metadata: &str) -> Result<Asked, LogError> {
        let list = self.commit_list(offset, metadata).map_err(|e| LogError::from_kafka(COMMIT, &e))?;
        // Without the lease, for which the rebalance waits. Letting go of the call is safe: librdkafka joins the next
        // generation, or leaves, only when no commit is under way (`wait_commit_cnt`).
        let client = Weak::clone(&self.0.client);
        Ok(Asked { offset, answer: tokio::task::spawn_blocking(move || commit_once(&client, &list)) })
    }

    fn commit_list(&self, offset: i64, metadata: &str) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(&self.0.topic, self.0.partition);
        element.set_offset(Offset::Offset(offset))?;
        element.set_metadata(metadata);
        Ok(list)
    }

    pub(crate) fn not_owner(&self) -> LogError {
        LogError::NotOwner { topic: self.0.topic.clone(), partition: self.0.partition, epoch: self.0.epoch }
    }
}

impl LastCommit {
    /// Waits for the answer to the commit on its way. The client itself waits without end for a cluster that is silent.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when it does not come in time: the commit is on its way still.
    async fn answer(&mut self, deadline: Instant) -> Result<Result<(), KafkaError>, LogError> {
        let Some(asked) = &mut self.unanswered else { return Ok(Ok(())) };
        let Ok(answer) = tokio::time::timeout_at(deadline, &mut asked.answer).await else {
            metrics::UNANSWERED_COMMITS.add(1);
            return Err(LogError::Unavailable { action: COMMIT, reason: "not answered".to_owned() });
        };
        let answer = answer.map_err(|_| LogError::Closed);
        if matches!(answer, Ok(Ok(()))) {
            self.offset = asked.offset;
        }
        self.unanswered = None;
        answer
    }
}

fn commit_once(client: &Weak<BaseConsumer<Group>>, list: &TopicPartitionList) -> Result<(), KafkaError> {
    let client = client.upgrade().ok_or(KafkaError::Canceled)?;
    client.commit(list, CommitMode::Sync)?;
    // The call succeeds when the request did; each partition has a result of its own.
    list.elements().iter().try_for_each(|e| e.error())
}

/// Whether the group is between generations, or its coordinator between brokers.
fn settling(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::RebalanceInProgress
                | Code::CoordinatorLoadInProgress
                | Code::CoordinatorNotAvailable
                | Code::NotCoordinator
                | Code::RequestTimedOut
                | Code::OperationTimedOut
                | Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::WaitingForCoordinator
        )
    )
}

/// Whether the group has gone on without this member.
fn disowned(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::IllegalGeneration | Code::UnknownMemberId | Code::FencedInstanceId | Code::AssignmentLost)
    )
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("topic", &self.0.topic)
            .field("partition", &self.0.partition)
            .field("epoch", &self.0.epoch)
            .field("phase", &*self.0.phase.borrow())
            .finish_non_exhaustive()
    }
}
