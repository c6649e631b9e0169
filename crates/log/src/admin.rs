//! The topics: created once, with the limits and retention the design gives them.
//!
//! Nothing here deletes by time or size on the raw and events topics: their consumers trim what they have consumed
//! (design: "Retention never deletes what was not consumed").

use std::sync::Arc;
use std::time::Duration;

use fleetlog_runtime::{Classified, ErrorClass, Shutdown};
use fleetlog_schemas::topic;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::RDKafkaErrorCode;

use crate::config::with_envelope;
use crate::context::Logging;
use crate::{KafkaConfig, LogError};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const VISIBLE_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const RETRY_START: Duration = Duration::from_millis(500);

/// The partition counts of Fleetlog's topics, as the cluster has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topics {
    /// Partitions of the raw topic.
    pub raw: u32,
    /// Partitions of the events topic; how events find their partition depends on it.
    pub events: u32,
    /// Partitions of the dead-letter topic.
    pub dead: u32,
    /// Partitions of the control topic.
    pub control: u32,
    /// Partitions of the topic of daily counts.
    pub usage: u32,
    /// Partitions of the topic of spools.
    pub spools: u32,
}

/// Creates topics and looks up what the cluster says of them.
#[derive(Clone)]
pub struct Admin {
    pub(crate) client: Arc<AdminClient<Logging>>,
    config: KafkaConfig,
}

struct Wanted {
    name: &'static str,
    partitions: u32,
    settings: Vec<(&'static str, String)>,
}

impl Admin {
    /// A client that connects on first use.
    ///
    /// # Errors
    /// [`LogError::Config`] when librdkafka refuses the configuration.
    pub fn new(config: &KafkaConfig) -> Result<Self, LogError> {
        let client = AdminClient::from_config_and_context(&config.client(), Logging)
            .map_err(|e| LogError::from_kafka("create the admin client", &e))?;
        Ok(Self { client: Arc::new(client), config: config.clone() })
    }

    /// Creates the topics that are missing and returns what all of them have; changes nothing that exists.
    ///
    /// # Errors
    /// [`LogError::TopicMissing`] when one is missing and `kafka.create_topics` is off; else what Kafka said.
    pub async fn ensure_topics(&self) -> Result<Topics, LogError> {
        let wanted = wanted(&self.config);
        let mut missing = Vec::new();
        for topic in &wanted {
            if self.existing(topic.name).await?.is_none() {
                missing.push(topic);
            }
        }
        if let Some(topic) = missing.first().filter(|_| !self.config.create_topics) {
            return Err(LogError::TopicMissing(topic.name.to_owned()));
        }
        self.create(&missing).await?;
        let topics = Topics {
            raw: self.partitions(topic::RAW).await?,
            events: self.partitions(topic::EVENTS).await?,
            dead: self.partitions(topic::DEAD).await?,
            control: self.partitions(topic::CONTROL).await?,
            usage: self.partitions(topic::USAGE).await?,
            spools: self.partitions(topic::SPOOLS).await?,
        };
        for (name, asked, has) in [
            (topic::RAW, self.config.raw_partitions, topics.raw),
            (topic::EVENTS, self.config.events_partitions, topics.events),
        ] {
            if asked != has {
                tracing::warn!(
                    topic = name,
                    configured = asked,
                    partitions = has,
                    "the existing count stands; changing it is a migration"
                );
            }
        }
        Ok(topics)
    }

    /// [`Self::ensure_topics`], repeated while the cluster cannot be reached; `None` when shutdown came first.
    ///
    /// # Errors
    /// Whatever waiting cannot cure.
    pub async fn wait_for_topics(&self, shutdown: &Shutdown) -> Result<Option<Topics>, LogError> {
        loop {
            let attempt = tokio::select! {
                attempt = self.ensure_topics() => attempt,
                () = shutdown.triggered() => return Ok(None),
            };
            match attempt {
                Ok(topics) => return Ok(Some(topics)),
                Err(e) if e.class() == ErrorClass::Unavailable => {
                    tracing::warn!(error = %e, brokers = self.config.brokers, "waiting for kafka");
                }
                Err(e) => return Err(e),
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY_START) => {}
                () = shutdown.triggered() => return Ok(None),
            }
        }
    }

    /// The number of partitions of a topic, once every one of them has a leader.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when the topic does not become usable within ten seconds.
    pub async fn partitions(&self, topic: &str) -> Result<u32, LogError> {
        let deadline = tokio::time::Instant::now() + VISIBLE_WITHIN;
        loop {
            if let Some(count) = self.existing(topic).await? {
                return Ok(count);
            }
            if tokio::time::Instant::now() >= deadline {
                let reason = format!("topic {topic} has no leader for every partition");
                return Err(LogError::Unavailable { action: "look up a topic", reason });
            }
            // A created topic becomes visible to metadata requests a little later; there is no event to wait for.
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The number of partitions if the topic exists and all of them have leaders.
    async fn existing(&self, topic: &str) -> Result<Option<u32>, LogError> {
        const ACTION: &str = "look up a topic";
        let (client, name) = (Arc::clone(&self.client), topic.to_owned());
        let metadata =
            tokio::task::spawn_blocking(move || client.inner().fetch_metadata(Some(&name), REQUEST_TIMEOUT))
                .await
                .map_err(|_| LogError::Closed)?
                .map_err(|e| LogError::from_kafka(ACTION, &e))?;
        let Some(found) = metadata.topics().iter().find(|t| t.name() == topic) else { return Ok(None) };
        match found.error().map(RDKafkaErrorCode::from) {
            None => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::LeaderNotAvailable) => {
                return Ok(None);
            }
            Some(code) => return Err(LogError::from_code(ACTION, code)),
        }
        let led = found.partitions().iter().all(|p| p.error().is_none() && p.leader() >= 0);
        let count = u32::try_from(found.partitions().len()).unwrap_or(u32::MAX);
        Ok((led && count > 0).then_some(count))
    }

    async fn create(&self, missing: &[&Wanted]) -> Result<(), LogError> {
        const ACTION: &str = "create topics";
        if missing.is_empty() {
            return Ok(());
        }
        let replication = i32::try_from(self.config.replication_factor).unwrap_or(i32::MAX);
        let topics: Vec<NewTopic<'_>> = missing
            .iter()
            .map(|topic| {
                let partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
                let new = NewTopic::new(topic.name, partitions, TopicReplication::Fixed(replication));
                topic.settings.iter().fold(new, |new, (key, value)| new.set(key, value))
            })
            .collect();
        let options = AdminOptions::new()
            .request_timeout(Some(REQUEST_TIMEOUT))
            .operation_timeout(Some(REQUEST_TIMEOUT));
        let results = self
            .client
            .create_topics(&topics, &options)
            .await
            .map_err(|e| LogError::from_kafka(ACTION, &e))?;
        for result in results {
            match result {
                Ok(name) => tracing::info!(topic = name, "created"),
                // Another instance was quicker, which is as good.
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    tracing::warn!(topic = name, %code, "could not be created");
                    return Err(LogError::from_code(ACTION, code));
                }
            }
        }
        Ok(())
    }
}

fn wanted(config: &KafkaConfig) -> Vec<Wanted> {
    // Of three copies, two must have a record before it counts as durable; fewer copies cannot promise more.
    let in_sync = if config.replication_factor >= 3 { "2" } else { "1" };
    let topic = |name, partitions, settings: &[(&'static str, String)]| Wanted {
        name,
        partitions,
        settings: settings
            .iter()
            .cloned()
            .chain([
                ("min.insync.replicas", in_sync.to_owned()),
                ("unclean.leader.election.enable", "false".to_owned()),
            ])
            .collect(),
    };
    let keep_all = || [("retention.ms", "-1".to_owned()), ("retention.bytes", "-1".to_owned())];
    let max = |bytes| ("max.message.bytes", with_envelope(bytes).to_string());
    let [all_time, all_bytes] = keep_all();
    let month = Duration::from_secs(30 * 24 * 3600).as_millis().to_string();
    vec![
        topic(
            topic::RAW,
            config.raw_partitions,
            &[all_time.clone(), all_bytes.clone(), max(topic::RAW_MAX_MESSAGE_BYTES)],
        ),
        topic(
            topic::EVENTS,
            config.events_partitions,
            &[all_time, all_bytes, max(topic::EVENTS_MAX_MESSAGE_BYTES)],
        ),
        topic(
            topic::DEAD,
            config.events_partitions,
            &[("retention.ms", month), max(topic::EVENTS_MAX_MESSAGE_BYTES)],
        ),
        topic(topic::CONTROL, 1, &[("cleanup.policy", "compact".to_owned())]),
        topic(topic::USAGE, 1, &usage_settings()),
        topic(topic::SPOOLS, 1, &spool_settings()),
    ]
}

/// Each gateway with a spool writes every second and only its last word counts: small segments are compacted soon, so that
/// a reader that starts has little to read. Nothing is deleted by time: a gateway that was killed stays known.
fn spool_settings() -> Vec<(&'static str, String)> {
    vec![
        ("cleanup.policy", "compact".to_owned()),
        ("segment.ms", Duration::from_secs(3600).as_millis().to_string()),
        ("segment.bytes", (4 * 1024 * 1024).to_string()),
        ("min.cleanable.dirty.ratio", "0.1".to_owned()),
    ]
}

/// Counts are written again every few seconds and are of no use after their day: without small segments, which are
/// what Kafka compacts and deletes, every start of a gateway would read a week of them.
fn usage_settings() -> Vec<(&'static str, String)> {
    let hours = |hours: u64| Duration::from_secs(hours * 3600).as_millis().to_string();
    vec![
        ("cleanup.policy", "compact,delete".to_owned()),
        ("retention.ms", hours(48)),
        ("segment.ms", hours(1)),
        ("segment.bytes", (16 * 1024 * 1024).to_string()),
        ("min.cleanable.dirty.ratio", "0.1".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_unconsumed_is_deleted_and_only_state_is_compacted() {
        for topic in wanted(&KafkaConfig::default()) {
            let has = |key: &str| topic.settings.iter().find(|(k, _)| *k == key).map(|(_, v)| v.as_str());
            let expected = [topic::RAW, topic::EVENTS].contains(&topic.name).then_some("-1");
            assert_eq!(has("retention.bytes"), expected, "{}", topic.name);
            let is_state = [topic::CONTROL, topic::USAGE, topic::SPOOLS].contains(&topic.name);
            assert_eq!(has("cleanup.policy").is_some(), is_state, "{}", topic.name);
        }
    }
}
