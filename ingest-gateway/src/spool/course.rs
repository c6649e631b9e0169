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
//! Once something is spooled everything goes to the spool until it has drained: so what a sender was told is accepted
//! is in Kafka before what it sends next. Under a steady load the spool would then never be empty: the last bit is
//! drained while new requests wait for it (`Closing`), about one round trip to Kafka.

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
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Course {
    way: Way,
    /// Requests that are being appended.
    appending: u64,
    /// Records on disk that are not in Kafka, and their bytes.
    records: u64,
    bytes: u64,
    /// No record on disk was accepted before.
    oldest: Option<i64>,
}

impl Course {
    /// The course of a spool that holds something from the start, or nothing.
    pub(super) fn resumed(records: u64, bytes: u64, oldest: Option<i64>) -> Self {
        let way = if records == 0 { Way::Direct } else { Way::Spooling };
        Self { way, appending: 0, records, bytes, oldest }
    }

    pub(super) const fn way(&self) -> Way {
        self.way
    }

    pub(super) const fn records(&self) -> u64 {
        self.records
    }

    /// When the oldest record was accepted, or a little before.
    pub(super) const fn oldest(&self) -> Option<i64> {
        self.oldest
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
        self.oldest.get_or_insert(received_at);
        self.settle();
    }

    /// It is not on disk.
    pub(super) fn refused(&mut self) {
        self.appending = self.appending.saturating_sub(1);
        self.settle();
    }

    /// Records are in Kafka, or can never be; the last of them was accepted then.
    pub(super) fn drained(&mut self, records: u64, bytes: u64, received_at: Option<i64>, close_below: u64) {
        self.records = self.records.saturating_sub(records);
        self.oldest = received_at.or(self.oldest);
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
            self.oldest = None;
        }
        if self.appending == 0 && self.records == 0 {
            self.way = Way::Direct;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_something_is_spooled_everything_is_until_it_has_drained() {
        let mut course = Course::default();
        course.begin();
        course.begin();
        course.end(2, 200, 7);
        assert_eq!(course.way(), Way::Spooling);
        course.drained(2, 200, Some(7), 50);
        assert_eq!(course.way(), Way::Closing, "the other request is still being appended");
        course.end(1, 100, 9);
        assert_eq!((course.way(), course.oldest()), (Way::Closing, Some(9)));
        course.drained(1, 100, Some(9), 50);
        assert_eq!((course.way(), course.records(), course.oldest()), (Way::Direct, 0, None));
    }

    #[test]
    fn who_waits_for_the_last_bit_is_let_go_when_it_stalls() {
        let mut course = Course::resumed(3, 300, Some(1));
        assert_eq!(course.way(), Way::Spooling);
        course.drained(1, 100, Some(1), 100);
        assert_eq!(course.way(), Way::Spooling);
        course.drained(1, 100, Some(1), 100);
        assert_eq!(course.way(), Way::Closing);
        course.stalled();
        assert_eq!(course.way(), Way::Spooling);
    }

    #[test]
    fn a_refused_request_leaves_an_empty_spool_unused() {
        let mut course = Course::default();
        course.begin();
        course.refused();
        assert_eq!(course.way(), Way::Direct);
    }
}
