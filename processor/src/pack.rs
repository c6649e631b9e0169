//! Packs what a cycle produced into as few Kafka messages as its bounds allow: one message per event would cost more
//! CPU than all parsing together.

use std::collections::BTreeMap;

use fleetlog_log::Write;
use fleetlog_schemas::avro::{Blob, DecodeError, to_single_object};
use fleetlog_schemas::event::AgentEvent;
use fleetlog_schemas::record::{DeadLetter, EventBatch};
use fleetlog_schemas::topic;

use crate::transform::{MESSAGE_OVERHEAD, Transformed, encoded_len};

/// Largest dead letter; its topic has the limit of the events'.
const LETTER_MAX_BYTES: usize = topic::EVENTS_MAX_MESSAGE_BYTES - MESSAGE_OVERHEAD;

/// How many partitions the topics have that the processor writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Partitions {
    /// Of the events topic.
    pub(crate) events: u32,
    /// Of the dead-letter topic.
    pub(crate) dead: u32,
}

/// Packs the results of a cycle, in order.
///
/// A message of events is closed when it holds about `target_bytes`; one record's events alone may exceed that. A settlement
/// travels in the partition of its first piece, behind its events, or where its project is at home when it has none.
pub(crate) struct Packer {
    partitions: Partitions,
    target_bytes: usize,
    open: BTreeMap<i32, (EventBatch, usize)>,
    messages: Vec<Write>,
    bytes: usize,
}

impl Packer {
    pub(crate) const fn new(partitions: Partitions, target_bytes: usize) -> Self {
        Self { partitions, target_bytes, open: BTreeMap::new(), messages: Vec::new(), bytes: 0 }
    }

    /// About how many bytes of events and dead letters were added.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds what the next record became.
    ///
    /// # Errors
    /// [`DecodeError`] when a published schema does not parse, which a test of the schemas excludes.
    pub(crate) fn add(&mut self, done: Transformed) -> Result<(), DecodeError> {
        let home = topic::partition_of(&done.settlement.project_id, b"", self.partitions.events);
        let settled_in = done.settlement.pieces.first().map_or(home, |piece| piece.partition);
        for (partition, events) in done.events {
            let (batch, size) = self.open.entry(partition).or_default();
            for event in events {
                let len = encoded_len(&event);
                if *size + len > self.target_bytes && begins_a_record(batch, &event) {
                    self.messages.push(message(partition, &std::mem::take(batch))?);
                    *size = 0;
                }
                *size += len;
                self.bytes += len;
                batch.events.push(event);
            }
        }
        self.open.entry(settled_in).or_default().0.settlements.push(done.settlement);
        for dead in done.dead {
            let partition = topic::partition_of(&dead.project_id, b"", self.partitions.dead);
            let payload = letter(dead)?;
            self.bytes += payload.len();
            self.messages.push(Write { topic: topic::DEAD, partition, payload });
        }
        Ok(())
    }

    /// All messages.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub(crate) fn finish(mut self) -> Result<Vec<Write>, DecodeError> {
        for (partition, (batch, _)) in self.open {
            self.messages.push(message(partition, &batch)?);
        }
        Ok(self.messages)
    }
}

/// A dead letter that its topic takes: the reason and the position are worth keeping even where the bytes are too many.
fn letter(mut dead: DeadLetter) -> Result<Vec<u8>, DecodeError> {
    let payload = to_single_object(&dead)?;
    if payload.len() <= LETTER_MAX_BYTES {
        return Ok(payload);
    }
    dead.message.push_str("; too large for the dead-letter topic, its bytes are in the raw topic alone");
    dead.payload = Blob::default();
    to_single_object(&dead)
}

/// A record's events stay in one message, so that its fate is known from one position.
fn begins_a_record(batch: &EventBatch, event: &AgentEvent) -> bool {
    let place = |event: &AgentEvent| (event.raw_partition, event.raw_offset, event.raw_index);
    batch.events.last().is_some_and(|last| place(last) != place(event))
}

fn message(partition: i32, batch: &EventBatch) -> Result<Write, DecodeError> {
    Ok(Write { topic: topic::EVENTS, partition, payload: to_single_object(batch)? })
}

#[cfg(test)]
mod tests {
    use fleetlog_schemas::avro::from_single_object;
    use fleetlog_schemas::record::{PieceCount, Settlement};

    use super::*;

    const FOUR: Partitions = Partitions { events: 4, dead: 4 };

    fn pack(transformed: Vec<Transformed>, target_bytes: usize) -> Vec<Write> {
        let mut packer = Packer::new(FOUR, target_bytes);
        for done in transformed {
            packer.add(done).unwrap();
        }
        packer.finish().unwrap()
    }

    fn transformed(offset: i64, partition: i32, events: usize) -> Transformed {
        let event =
            |n: usize| AgentEvent { raw_offset: offset, raw_index: n as u32, ..AgentEvent::default() };
        Transformed {
            events: BTreeMap::from([(partition, (0..events).map(event).collect())]),
            settlement: Settlement {
                raw_offset: offset,
                pieces: vec![PieceCount { partition, records: events as u32 }],
                ..Settlement::default()
            },
            ..Transformed::default()
        }
    }

    fn batches(messages: &[Write]) -> Vec<(i32, EventBatch)> {
        let events = messages.iter().filter(|message| message.topic == topic::EVENTS);
        events.map(|message| (message.partition, from_single_object(&message.payload).unwrap())).collect()
    }

    #[test]
    fn a_cycle_becomes_one_message_a_partition() {
        let messages = pack(vec![transformed(1, 0, 2), transformed(2, 3, 1), transformed(3, 0, 1)], 1 << 20);
        let batches = batches(&messages);
        assert_eq!(batches.iter().map(|(partition, _)| *partition).collect::<Vec<_>>(), [0, 3]);
        assert_eq!((batches[0].1.events.len(), batches[0].1.settlements.len()), (3, 2));
    }

    #[test]
    fn messages_are_split_at_their_size_and_a_settlement_follows_its_events() {
        let messages = pack(vec![transformed(1, 2, 5)], 2_000);
        let batches = batches(&messages);
        assert_eq!(batches.iter().map(|(_, batch)| batch.events.len()).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(batches.iter().map(|(_, batch)| batch.settlements.len()).collect::<Vec<_>>(), [0, 0, 1]);
        let order: Vec<u32> =
            batches.iter().flat_map(|(_, batch)| &batch.events).map(|event| event.raw_index).collect();
        assert_eq!(order, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn dead_letters_go_to_their_topic_and_a_settlement_without_events_still_travels() {
        let done = Transformed { dead: vec![DeadLetter::default()], ..Transformed::default() };
        let messages = pack(vec![done], 1 << 20);
        assert_eq!(messages.iter().filter(|message| message.topic == topic::DEAD).count(), 1);
        assert_eq!(batches(&messages)[0].1.settlements.len(), 1);
    }

    #[test]
    fn a_letter_that_its_topic_does_not_take_goes_without_its_bytes() {
        let letter = |bytes: usize| DeadLetter {
            message: "broken".to_owned(),
            raw_offset: 7,
            payload: Blob(vec![0; bytes]),
            ..DeadLetter::default()
        };
        let done = |bytes| Transformed { dead: vec![letter(bytes)], ..Transformed::default() };
        let messages = pack(vec![done(LETTER_MAX_BYTES), done(9)], 1 << 20);
        let read = |message: &Write| from_single_object::<DeadLetter>(&message.payload).unwrap();
        let (large, small) = (read(&messages[0]), read(&messages[1]));
        assert_eq!((large.raw_offset, large.payload.0.len()), (7, 0));
        assert!(large.message.contains("raw topic"), "{}", large.message);
        assert_eq!(small, letter(9));
    }
}
