//! Rebalances: partitions come with a decided start, and go only when their work has stopped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::Offset;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};
use tokio::sync::{Notify, mpsc, watch};

use super::lease::{Inner, LastCommit, Phase};
use super::start::decide;
use super::{AssignedPartition, Assignment, Committed, ConsumerOptions, Lease, Start};
use crate::context::{log_error, log_line};
use crate::{LogError, metrics};

const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an assignment is tried while offsets cannot be looked up. Heartbeats go on meanwhile.
const LOOKUP_BUDGET: Duration = Duration::from_secs(60);
const LOOKUP_RETRY: Duration = Duration::from_millis(200);

/// The state of a group member, which librdkafka calls back from the polling thread.
pub(super) struct Group {
    topic: String,
    budget: Duration,
    commit_budget: Duration,
    assignments: mpsc::Sender<Result<AssignedPartition, LogError>>,
    /// The client itself, which exists only after its context.
    client: Arc<OnceLock<Weak<BaseConsumer<Group>>>>,
    stop: Arc<AtomicBool>,
    epoch: AtomicU64,
    held: Mutex<HashMap<i32, Held>>,
}

/// An assignment as the rebalance sees it.
struct Held {
    phase: watch::Sender<Phase>,
    /// Disconnected once the last lease is dropped.
    leases: Receiver<()>,
}

impl Group {
    pub(super) fn new(
        options: &ConsumerOptions,
        assignments: mpsc::Sender<Result<AssignedPartition, LogError>>,
        client: Arc<OnceLock<Weak<BaseConsumer<Self>>>>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        Self {
            topic: options.topic.clone(),
            budget: options.revocation_budget,
            commit_budget: options.commit_budget,
            assignments,
            client,
            stop,
            epoch: AtomicU64::new(0),
            held: Mutex::new(HashMap::new()),
        }
    }

    /// Tells the user that the consumer cannot go on, and stops it.
    pub(super) fn fail(&self, error: LogError) {
        tracing::error!(topic = self.topic, %error, "the consumer fails");
        // A full or closed channel means nobody is taking assignments; the stop below ends them all.
        let _untold = self.assignments.try_send(Err(error)).is_err();
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn holds_partitions(&self) -> bool {
        !self.held().is_empty()
    }

    fn held(&self) -> MutexGuard<'_, HashMap<i32, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) {
        let (list, assigned) = match self.prepare(consumer, partitions) {
            Ok(prepared) => prepared,
            Err(e) => {
                self.fail(e);
                (TopicPartitionList::new(), Vec::new())
            }
        };
        // Called even with nothing, because the group waits for the answer.
        let answered = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(&list),
            RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.assign(&list),
        };
        if let Err(e) = answered {
            return self.fail(LogError::from_kafka("assign partitions", &e));
        }
        for partition in assigned {
            // Nobody listens any more: dropping the partition gives up its lease.
            let _closing = self.assignments.blocking_send(Ok(partition)).is_err();
        }
    }

    /// Decides every partition's start and gives it a queue of its own, before anything is fetched.
    fn prepare(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: &TopicPartitionList,
    ) -> Result<(TopicPartitionList, Vec<AssignedPartition>), LogError> {
        let mut list = TopicPartitionList::new();
        let mut assigned = Vec::new();
        for assignment in self.look_up(consumer, partitions)? {
            report(&assignment);
            metrics::ASSIGNED.add(1);
            list.add_partition_offset(
                &assignment.topic,
                assignment.partition,
                Offset::Offset(assignment.offset),
            )
            .map_err(|e| LogError::from_kafka("assign partitions", &e))?;
            assigned.push(self.open(assignment)?);
        }
        Ok((list, assigned))
    }

    fn look_up(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: &TopicPartitionList,
    ) -> Result<Vec<Assignment>, LogError> {
        if partitions.count() == 0 {
            return Ok(Vec::new());
        }
        let deadline = Instant::now() + LOOKUP_BUDGET;
        loop {
            match self.look_up_once(consumer, partitions) {
                Ok(assignments) => return Ok(assignments),
                Err(e) if Instant::now() < deadline && !self.stop.load(Ordering::Relaxed) => {
                    tracing::warn!(topic = self.topic, error = %e, "cannot look up committed offsets; trying again");
                    std::thread::sleep(LOOKUP_RETRY);
                }
                Err(e) => return Err(LogError::from_kafka("look up committed offsets", &e)),
            }
        }
    }

    fn look_up_once(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: &TopicPartitionList,
    ) -> KafkaResult<Vec<Assignment>> {
        let committed = consumer.committed_offsets(partitions.clone(), LOOKUP_TIMEOUT)?;
        let look_up = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
            element.error()?;
            let (topic, partition) = (element.topic().to_owned(), element.partition());
            let (first, end) = consumer.fetch_watermarks(&topic, partition, LOOKUP_TIMEOUT)?;
            let committed = match element.offset() {
                Offset::Offset(offset) => Some(Committed { offset, metadata: element.metadata().to_owned() }),
                _ => None,
            };
            let (offset, start) = decide(committed.as_ref().map(|c| c.offset), first, end);
            let epoch = self.epoch.fetch_add(1, Ordering::Relaxed) + 1;
            Ok(Assignment { topic, partition, epoch, offset, committed, start })
        };
        committed.elements().iter().map(look_up).collect()
    }

    fn open(&self, assignment: Assignment) -> Result<AssignedPartition, LogError> {
        let client = self.client.get().and_then(Weak::upgrade).ok_or(LogError::Closed)?;
        let mut queue =
            client.split_partition_queue(&assignment.topic, assignment.partition).ok_or(LogError::Closed)?;
        let nonempty = Arc::new(Notify::new());
        let wake = Arc::clone(&nonempty);
        queue.set_nonempty_callback(move || wake.notify_one());
        let (phase, seen_phase) = watch::channel(Phase::Active);
        let (alive, leases) = sync_channel(0);
        let lease = Lease::new(Inner {
            topic: assignment.topic.clone(),
            partition: assignment.partition,
            epoch: assignment.epoch,
            phase: seen_phase,
            client: Arc::downgrade(&client),
            commit_budget: self.commit_budget,
            // A log created anew begins below what was committed of the old one.
            committed: tokio::sync::Mutex::new(LastCommit {
                offset: assignment.committed.as_ref().map_or(0, |c| c.offset.min(assignment.offset)),
                unanswered: None,
            }),
            _alive: alive,
        });
        self.held().insert(assignment.partition, Held { phase, leases });
        Ok(AssignedPartition::new(queue, nonempty, assignment, lease))
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) {
        let lost = consumer.assignment_lost();
        let going: Vec<(i32, Held)> = {
            let mut held = self.held();
            partitions.elements().iter().filter_map(|e| held.remove_entry(&e.partition())).collect()
        };
        tracing::info!(topic = self.topic, partitions = going.len(), lost, "partitions are taken away");
        // A lost assignment may already be somebody else's: nothing can be committed for it.
        let phase = if lost { Phase::Ended } else { Phase::Revoking };
        for (_, held) in &going {
            held.phase.send_replace(phase);
        }
        let asked = Instant::now();
        let deadline = asked + self.budget;
        for (partition, held) in &going {
            let left = deadline.saturating_duration_since(Instant::now());
            let stopped = held.leases.recv_timeout(left) == Err(RecvTimeoutError::Disconnected);
            held.phase.send_replace(Phase::Ended);
            if !stopped {
                self.fail(LogError::WorkOverran {
                    topic: self.topic.clone(),
                    partition: *partition,
                    budget: self.budget,
                });
            }
        }
        metrics::REVOCATION_SECONDS.record(asked.elapsed().as_secs_f64());
        let answered = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
            RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
        };
        if let Err(e) = answered {
            self.fail(LogError::from_kafka("give partitions back", &e));
        }
    }
}

fn report(assignment: &Assignment) {
    let Assignment { topic, partition, offset, start, .. } = assignment;
    match start {
        Start::Fresh | Start::Resumed => {
            tracing::info!(topic, partition, offset, ?start, "partition assigned");
        }
        Start::Lost { from, to } => {
            metrics::LOST.add(u64::try_from(to - from).unwrap_or(0));
            tracing::error!(
                topic,
                partition,
                from,
                to,
                "retention deleted records that were not settled: loss"
            );
        }
        Start::Ahead { .. } => {
            tracing::error!(
                topic,
                partition,
                offset,
                ?start,
                "the log ends before the committed offset: truncated or created anew"
            );
        }
    }
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for Group {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        what: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        match what {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, partitions),
            _ => self.revoke(consumer, partitions),
        }
    }
}
