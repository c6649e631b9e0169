//! A member of a consumer group, one reader per partition.
//!
//! Each assigned partition is an [`AssignedPartition`] with a queue of its own: not reading it is backpressure for it
//! alone, bounded by `kafka.fetch_ahead_bytes`, and needs no pause or resume. What belongs to the partition's work
//! holds a [`Lease`]; when Kafka takes the partition away, readers end, commits go on to be possible, and the
//! rebalance is answered only after the last lease is dropped (INV-4.4).
//!
//! Nothing is committed automatically, and where to start is decided here explicitly ([`Start`]): a position that
//! retention has overtaken is reported as loss, never skipped.

mod group;
mod lease;
mod partition;
mod start;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::sync::{mpsc, oneshot};

pub use lease::Lease;
pub use partition::{AssignedPartition, Read};
pub use start::{Assignment, Committed, Start};

use crate::{Isolation, KafkaConfig, LogError};
use group::Group;

/// Bounds how late a stop is noticed; events end the wait at once.
const POLL: Duration = Duration::from_millis(100);
/// However long a session is, a rebalance is to be noticed soon.
const HEARTBEAT_MOST_MS: u32 = 3_000;
/// Assignments not yet taken; a service takes them at once, and no instance is given more partitions than this.
const ASSIGNMENTS: usize = 1024;

/// What a consumer subscribes to, and how.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// Consumer group.
    pub group: String,
    /// Topic.
    pub topic: String,
    /// Which records of transactions are seen.
    pub isolation: Isolation,
    /// Longest that a rebalance waits for the work on revoked partitions to stop. Must stay below
    /// `max.poll.interval.ms` (5 minutes), after which the group goes on without this member.
    pub revocation_budget: Duration,
    /// Longest that a commit waits for Kafka's answer, retries included; what is not answered then is unknown
    /// ([`Lease::commit`]). While the cluster is silent a rebalance waits for it as well, so it must stay well below
    /// `revocation_budget`.
    pub commit_budget: Duration,
}

/// A consumer group's member; gives out its partitions as they are assigned.
#[derive(Debug)]
pub struct Consumer {
    assignments: mpsc::Receiver<Result<AssignedPartition, LogError>>,
    stop: Arc<AtomicBool>,
    ended: Option<oneshot::Receiver<()>>,
}

impl ConsumerOptions {
    /// A reader of committed records with a budget of 30 s for revocations and 10 s for commits.
    pub fn new(group: impl Into<String>, topic: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            topic: topic.into(),
            isolation: Isolation::Committed,
            revocation_budget: Duration::from_secs(30),
            commit_budget: Duration::from_secs(10),
        }
    }
}

impl Consumer {
    /// Joins the group, on a thread of its own that serves rebalances.
    ///
    /// # Errors
    /// [`LogError::Config`] when librdkafka refuses the configuration; [`LogError::Unavailable`] when no thread
    /// can be started.
    pub fn start(config: &KafkaConfig, options: ConsumerOptions) -> Result<Self, LogError> {
        const ACTION: &str = "start a consumer";
        let (tell, assignments) = mpsc::channel(ASSIGNMENTS);
        let stop = Arc::new(AtomicBool::new(false));
        let own_handle = Arc::new(OnceLock::new());
        let group = Group::new(&options, tell, Arc::clone(&own_handle), Arc::clone(&stop));
        let properties = properties(config, &options);
        let consumer = BaseConsumer::from_config_and_context(&properties, group)
            .map_err(|e| LogError::from_kafka(ACTION, &e))?;
        let consumer = Arc::new(consumer);
        own_handle.get_or_init(|| Arc::downgrade(&consumer));
        consumer.subscribe(&[&options.topic]).map_err(|e| LogError::from_kafka(ACTION, &e))?;
        let (tell_ended, ended) = oneshot::channel();
        let stopping = Arc::clone(&stop);
        std::thread::Builder::new()
            .name(format!("consume {}", options.topic))
            .spawn(move || {
                serve(&consumer, &stopping, options.revocation_budget);
                drop(consumer);
                let _nobody_waits = tell_ended.send(()).is_err();
            })
            .map_err(|e| LogError::Unavailable { action: ACTION, reason: e.to_string() })?;
        Ok(Self { assignments, stop, ended: Some(ended) })
    }

    /// The next partition assigned to this member; `None` after the end.
    ///
    /// # Errors
    /// What ended the consumer: the service should stop and be restarted.
    ///
    /// # Cancellation
    /// Safe to drop and to call again.
    pub async fn next_assignment(&mut self) -> Result<Option<AssignedPartition>, LogError> {
        self.assignments.recv().await.transpose()
    }

    /// Gives all partitions back and leaves the group.
    ///
    /// Readers end; work on the partitions has the revocation budget to settle, commit and drop its leases.
    pub async fn close(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Partitions assigned but never taken hold leases of their own.
        self.assignments.close();
        while self.assignments.recv().await.is_some() {}
        if let Some(ended) = self.ended.take() {
            let _thread_panicked = ended.await.is_err();
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn properties(config: &KafkaConfig, options: &ConsumerOptions) -> rdkafka::ClientConfig {
    let mut properties = config.consumer(&options.group, options.isolation.as_str());
    for (key, value) in [
        ("partition.assignment.strategy", "cooperative-sticky".to_owned()),
        ("session.timeout.ms", config.session_timeout_ms.to_string()),
        ("heartbeat.interval.ms", (config.session_timeout_ms / 4).clamp(100, HEARTBEAT_MOST_MS).to_string()),
    ] {
        if !config.extra.contains_key(key) {
            properties.set(key, value);
        }
    }
    if !config.instance_id.is_empty() {
        properties.set("group.instance.id", format!("{}-{}", options.group, config.instance_id));
    }
    properties
}

/// Polls the group's own queue, which carries rebalances and errors; records arrive in the partitions' queues.
fn serve(consumer: &Arc<BaseConsumer<Group>>, stop: &AtomicBool, budget: Duration) {
    while !stop.load(Ordering::Relaxed) {
        match consumer.poll(POLL) {
            None => {}
            Some(Ok(_)) => consumer.context().fail(LogError::Fatal {
                action: "consume",
                reason: "a record arrived outside of its partition's queue".to_owned(),
            }),
            Some(Err(e)) => match LogError::from_kafka("consume", &e) {
                fatal @ LogError::Fatal { .. } => consumer.context().fail(fatal),
                // librdkafka goes on by itself; an authorisation that comes later is noticed as well.
                passing => tracing::warn!(error = %passing, "consumer"),
            },
        }
    }
    consumer.unsubscribe();
    let deadline = Instant::now() + budget;
    while consumer.context().holds_partitions() && Instant::now() < deadline {
        let _only_the_callback_matters = consumer.poll(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_whose_session_is_long_still_hears_of_a_rebalance_soon() {
        let heartbeat = |session_timeout_ms| {
            let config = KafkaConfig { session_timeout_ms, ..KafkaConfig::default() };
            let properties = properties(&config, &ConsumerOptions::new("group", "topic"));
            properties.get("heartbeat.interval.ms").map(str::to_owned)
        };
        assert_eq!(heartbeat(6_000).as_deref(), Some("1500"));
        assert_eq!(heartbeat(60_000).as_deref(), Some("3000"));
    }
}
