//! Original bytes of dead letters, from their topic.
//!
//! ClickHouse holds only a preview without secrets; the bytes stay in the topic, for administrators (design: security).
//! One letter is read at a time, by a client that is opened when the first is asked for: this is looked at by hand.

use std::time::Duration;

use fleetlog_log::{KafkaConfig, Lookup};
use fleetlog_schemas::avro::from_single_object;
use fleetlog_schemas::id::Position;
use fleetlog_schemas::record::DeadLetter;
use fleetlog_schemas::topic;
use tokio::sync::Mutex;

use crate::error::QueryError;
use crate::metrics;

/// Reads dead letters by their position.
#[derive(Debug)]
pub(crate) struct Originals {
    kafka: KafkaConfig,
    within: Duration,
    lookup: Mutex<Option<Lookup>>,
}

impl Originals {
    /// Nothing is asked of Kafka yet.
    pub(crate) fn new(kafka: KafkaConfig, within: Duration) -> Self {
        Self { kafka, within, lookup: Mutex::default() }
    }

    /// A project's dead letter; `None` when there is none at this position, or when it is another project's.
    ///
    /// # Errors
    /// [`QueryError::LogBusy`] when it was not read in time, [`QueryError::Log`] for what Kafka said.
    pub(crate) async fn letter(
        &self,
        at: Position,
        project_id: &str,
    ) -> Result<Option<DeadLetter>, QueryError> {
        let read = tokio::time::timeout(self.within, async {
            let mut lookup = self.lookup.lock().await;
            let client = match lookup.as_mut() {
                Some(client) => client,
                None => lookup.insert(Lookup::open(&self.kafka, topic::DEAD)?),
            };
            client.record(at, self.within).await
        });
        let record = read.await.map_err(|_| {
            metrics::REFUSED.add_for("bound", "log", 1);
            QueryError::LogBusy
        })??;
        let letter = record.and_then(|record| record.payload).and_then(|payload| {
            from_single_object::<DeadLetter>(&payload)
                .inspect_err(|error| tracing::error!(%at, %error, "a dead letter cannot be read"))
                .ok()
        });
        Ok(letter.filter(|letter| letter.project_id == project_id))
    }
}
