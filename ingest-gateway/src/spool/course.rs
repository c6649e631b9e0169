//! Which way the next request goes: straight to Kafka, or to the spool. A pure state, told what happens.
//!
//! ```text
//!          not acknowledged in time                 little is left, and Kafka acknowledges
//! Direct ───────────────────────────▶ Spooling ──────────────────────────────────────────▶ Closing
//!   ▲                                   │  ▲                                                 │  │
//!   └────────── all of it drained ──────┘  └─────────── stalled, or waited too long ─────────┘  │
//!   └───────────────────────────────── all of it drained ──────────────────────────────────────┘
//! ```
//!
//! A message of a request that the spool refused may still be in the producer's queue. Until Kafka has said what became
//! of it nothing goes directly: the sender repeats the request, and each repeat would be one more copy in that queue.
//!
//! Once something is spooled everything goes to the spool until it has drained: so what a sender was told is accepted
//! is in Kafka before what it sends next. Under a steady load the spool would then never be empty: the last bit is
//! drained while new requests wait for it (`Closing`), about one round trip to Kafka.

use super::times::{Times, second_of};

/// Where a request is to go now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Way {
    /// To Kafka.
    #[default]
    Direct,
    /// To the spool.
    Spooling,
    /// It waits a moment for the spool to be empty.
    Closing,
}

/// What is known of the spool's backlog.
#[derive(Clone, Debug, Default)]
pub(super) struct Course {
    way: Way,
    /// Requests that are being appended.
    appending: u64,
    /// Messages of refused requests that Kafka may still take.
    refused: u64,
    /// Records on disk that are not in Kafka, and their bytes.
    records: u64,
    bytes: u64,
    /// The seconds in which they were accepted; those of records that a damage took stay until nothing is left.
    held: Times,
}

impl Course {
    /// The course of a spool that holds something from the start, or nothing.
    pub(super) fn resumed(records: u64, bytes: u64, held: Times) -> Self {
        let way = if records == 0 { Way::Direct } else { Way::Spooling };
        Self { way, appending: 0, refused: 0, records, bytes, held }
    }

    pub(super) const fn way(&self) -> Way {
        self.way
    }

    pub(super) const fn records(&self) -> u64 {
        self.records
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the oldest record was accepted, or up to a second before; never after.
    pub(super) fn oldest(&self) -> Option<i64> {
        self.held.earliest()
    }

    /// Whether nothing is on disk or about to be.
    pub(super) const fn is_idle(&self) -> bool {
        self.appending == 0 && self.records == 0
    }

    /// A request is about to be appended.
    pub(super) fn begin(&mut self) {
        self.appending += 1;
        self.way = Way::Spooling;
    }

    /// It is on disk. Told before its records can be drained.
    pub(super) fn end(&mut self, records: u64, bytes: u64, received_at: i64) {
        self.appending = self.appending.saturating_sub(1);
        self.records += records;
        self.bytes += bytes;
        self.held.add(second_of(received_at), records);
        self.settle();
    }

    /// It is not on disk; so many of its messages are in the producer's queue.
    pub(super) fn refused(&mut self, messages: u64) {
        self.appending = self.appending.saturating_sub(1);
        self.refused += messages;
        self.settle();
    }

    /// What became of a refused request's message is known.
    pub(super) fn resolved(&mut self) {
        self.refused = self.refused.saturating_sub(1);
        self.settle();
    }

    /// Records are in Kafka, or can never be; they were accepted then, if that can still be read.
    pub(super) fn drained(&mut self, records: u64, bytes: u64, received_at: Option<i64>, close_below: u64) {
        self.records = self.records.saturating_sub(records);
        if let Some(received_at) = received_at {
            self.held.remove(second_of(received_at), records);
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        if self.way == Way::Spooling && self.bytes <= close_below {
            self.way = Way::Closing;
        }
        self.settle();
    }

    /// Kafka does not acknowledge: nobody is to wait for it.
    pub(super) fn stalled(&mut self) {
        if self.way == Way::Closing {
            self.way = Way::Spooling;
        }
    }

    fn settle(&mut self) {
        if self.records == 0 {
            self.held.clear();
        }
        if self.is_idle() && self.refused == 0 {
            self.way = Way::Direct;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    #[test]
    fn once_something_is_spooled_everything_is_until_it_has_drained() {
        let mut course = Course::default();
        course.begin();
        course.begin();
        course.end(2, 200, 7 * S);
        assert_eq!(course.way(), Way::Spooling);
        course.drained(2, 200, Some(7 * S), 50);
        assert_eq!(course.way(), Way::Closing, "the other request is still being appended");
        assert!(!course.is_idle());
        course.end(1, 100, 9 * S);
        assert_eq!((course.way(), course.oldest()), (Way::Closing, Some(9 * S)));
        course.drained(1, 100, Some(9 * S), 50);
        assert_eq!((course.way(), course.records(), course.oldest()), (Way::Direct, 0, None));
        assert!(course.is_idle());
    }

    #[test]
    fn nothing_held_was_accepted_before_the_oldest_whatever_order_it_came_in() {
        let mut course = Course::default();
        for received_at in [9 * S + 5, 3 * S + 7, 6 * S] {
            course.begin();
            course.end(1, 100, received_at);
        }
        assert_eq!(course.oldest(), Some(3 * S));
        course.drained(1, 100, Some(9 * S + 5), 0);
        assert_eq!(course.oldest(), Some(3 * S), "one behind it waited longer for Kafka");
        course.drained(1, 100, Some(3 * S + 7), 0);
        assert_eq!(course.oldest(), Some(6 * S));
        // What a damage took cannot be read any more: it holds back until nothing is left.
        course.begin();
        course.end(1, 100, 8 * S);
        course.drained(1, 100, None, 0);
        assert_eq!((course.records(), course.oldest()), (1, Some(6 * S)));
        course.drained(1, 100, Some(8 * S), 0);
        assert_eq!(course.oldest(), None);
    }

    #[test]
    fn who_waits_for_the_last_bit_is_let_go_when_it_stalls() {
        let mut held = Times::default();
        held.add(S, 3);
        let mut course = Course::resumed(3, 300, held);
        assert_eq!(course.way(), Way::Spooling);
        course.drained(1, 100, Some(S), 100);
        assert_eq!(course.way(), Way::Spooling);
        course.drained(1, 100, Some(S), 100);
        assert_eq!(course.way(), Way::Closing);
        course.stalled();
        assert_eq!(course.way(), Way::Spooling);
    }

    #[test]
    fn a_refused_request_leaves_an_empty_spool_unused() {
        let mut course = Course::default();
        course.begin();
        course.refused(0);
        assert_eq!(course.way(), Way::Direct);
    }

    #[test]
    fn while_kafka_may_take_what_was_refused_nothing_goes_direct() {
        let mut course = Course::default();
        course.begin();
        course.refused(2);
        course.begin();
        course.refused(0);
        course.resolved();
        assert_eq!(course.way(), Way::Spooling);
        // There was room again.
        course.begin();
        course.end(1, 100, S);
        course.drained(1, 100, Some(S), 0);
        assert_ne!(course.way(), Way::Direct, "one is still with the producer");
        course.resolved();
        assert_eq!(course.way(), Way::Direct);
    }
}
