//! What gateways hold in their spools, as each of them last told: the compacted topic of spools, read and written.
//!
//! A gateway's id is the Kafka key; its last record stands until a tombstone takes it back. Gateways write through the
//! producer that they publish with, so that no word of theirs overtakes another.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use fleetlog_schemas::avro::{from_single_object, to_single_object};
use fleetlog_schemas::record::SpoolStanding;
use fleetlog_schemas::topic;
use tokio::sync::Mutex;

use crate::{
    Delivery, From, Isolation, KafkaConfig, LogError, Offsets, Outgoing, Producer, Record, Tail, TailRead,
    Target,
};

/// How long the topic is read for one answer; the first fetch of a reader takes half a second.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// Tells what a gateway holds; it stands once the delivery says that Kafka has it.
///
/// # Errors
/// As [`Producer::enqueue`].
pub fn tell_spool(producer: &Producer, standing: &SpoolStanding) -> Result<Delivery, LogError> {
    let payload = to_single_object(standing).map_err(|e| LogError::Control(e.to_string()))?;
    write(producer, &standing.gateway_id, Some(&payload))
}

/// Takes back what a gateway told: from then on it is known to hold nothing, whatever it holds.
///
/// # Errors
/// As [`Producer::enqueue`].
pub fn forget_spool(producer: &Producer, gateway_id: &str) -> Result<Delivery, LogError> {
    write(producer, gateway_id, None)
}

fn write(producer: &Producer, gateway_id: &str, payload: Option<&[u8]>) -> Result<Delivery, LogError> {
    let (target, key) = (Target::Partition(0), Some(gateway_id.as_bytes()));
    producer.enqueue(Outgoing { topic: topic::SPOOLS, target, key, payload })
}

/// Reads what gateways told.
#[derive(Debug)]
pub struct SpoolReader {
    config: KafkaConfig,
    offsets: Offsets,
    reading: Mutex<Option<Reading>>,
}

/// How far the topic has been read.
#[derive(Debug)]
struct Reading {
    tail: Tail,
    next: i64,
    state: State,
}

impl SpoolReader {
    /// A reader that connects on first use; the topic must exist.
    ///
    /// # Errors
    /// [`LogError::Config`] when librdkafka refuses the configuration.
    pub fn open(config: &KafkaConfig) -> Result<Self, LogError> {
        let offsets = Offsets::open(config, topic::SPOOLS, 1, "fleetlog.spools", Isolation::Uncommitted)?;
        Ok(Self { config: config.clone(), offsets, reading: Mutex::default() })
    }

    /// The last word of each gateway, by id: everything that Kafka had acknowledged when this was called is in it.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when it was not read in time; the next call goes on from there.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn standings(&self) -> Result<Vec<SpoolStanding>, LogError> {
        let mut kept = self.reading.lock().await;
        let log = self.offsets.ranges().await?.into_iter().next().unwrap_or(0..0);
        // A log that ends before what was read of it was made anew.
        let mut reading = match kept.take().filter(|reading| reading.next <= log.end) {
            Some(reading) => reading,
            None => Reading::open(&self.config)?,
        };
        let read = tokio::time::timeout(READ_WITHIN, reading.reach(&log)).await;
        if let Ok(Err(error)) = read {
            // Begun anew the next time.
            return Err(error);
        }
        let standings = reading.state.standings();
        *kept = Some(reading);
        read.map(|_| standings).map_err(|_| LogError::Unavailable {
            action: "read the spools",
            reason: format!("not read within {READ_WITHIN:?}"),
        })
    }
}

impl Reading {
    fn open(config: &KafkaConfig) -> Result<Self, LogError> {
        let tail = Tail::open(config, topic::SPOOLS, [(0, From::Beginning)], Isolation::Uncommitted)?;
        Ok(Self { tail, next: 0, state: State::default() })
    }

    /// Reads to the end that the log had. Kafka never compacts the last record away, so it is reached.
    async fn reach(&mut self, log: &Range<i64>) -> Result<(), LogError> {
        while self.next < log.end && !log.is_empty() {
            if let TailRead::Record(record) = self.tail.next().await? {
                self.state.apply(&record);
                self.next = record.position.offset + 1;
            }
        }
        Ok(())
    }
}

/// The last word of each gateway.
#[derive(Debug, Default)]
struct State(BTreeMap<String, SpoolStanding>);

impl State {
    fn apply(&mut self, record: &Record) {
        let Some(gateway_id) = record.key.as_deref().map(|key| String::from_utf8_lossy(key).into_owned())
        else {
            tracing::warn!(position = %record.position, "a spool's record without a key");
            return;
        };
        match record.payload.as_deref().map(from_single_object::<SpoolStanding>) {
            None => {
                self.0.remove(&gateway_id);
            }
            Some(Ok(standing)) => {
                self.0.insert(gateway_id.clone(), SpoolStanding { gateway_id, ..standing });
            }
            Some(Err(error)) => {
                tracing::warn!(position = %record.position, gateway_id, %error, "unreadable word of a spool");
                // What it said before is still true; of one that was never understood anything may be true.
                let unknown = SpoolStanding { gateway_id: gateway_id.clone(), ..SpoolStanding::default() };
                self.0.entry(gateway_id).or_insert(unknown);
            }
        }
    }

    fn standings(&self) -> Vec<SpoolStanding> {
        self.0.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fleetlog_schemas::id::Position;

    use super::*;

    fn said(gateway_id: &str, payload: Option<Vec<u8>>) -> Record {
        Record {
            position: Position { partition: 0, offset: 0 },
            timestamp_ms: None,
            key: Some(Bytes::copy_from_slice(gateway_id.as_bytes())),
            payload: payload.map(Bytes::from),
        }
    }

    fn standing(gateway_id: &str, as_of: i64) -> SpoolStanding {
        SpoolStanding { gateway_id: gateway_id.to_owned(), as_of, ..SpoolStanding::default() }
    }

    #[test]
    fn the_last_word_of_each_gateway_stands_until_it_is_taken_back() {
        let mut state = State::default();
        for (id, as_of) in [("b", 1), ("a", 2), ("b", 3)] {
            state.apply(&said(id, Some(to_single_object(&standing(id, as_of)).unwrap())));
        }
        assert_eq!(state.standings(), [standing("a", 2), standing("b", 3)]);
        state.apply(&said("a", None));
        assert_eq!(state.standings(), [standing("b", 3)]);
    }

    #[test]
    fn a_word_that_cannot_be_read_lets_nothing_pass_that_was_not_let_pass_before() {
        let mut state = State::default();
        state.apply(&said("a", Some(to_single_object(&standing("a", 2)).unwrap())));
        for id in ["a", "b"] {
            state.apply(&said(id, Some(b"of another version".to_vec())));
        }
        assert_eq!(state.standings(), [standing("a", 2), standing("b", 0)]);
    }
}
