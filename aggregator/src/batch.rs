//! When a partition's range is closed, as a pure decision: time is passed in.
//!
//! A range is closed when it is full, or when it is due. It is due a moment after its first record, but not sooner than
//! the configured time after the previous range was closed. So a lone event is stored at once, and a steady stream in
//! steady steps.

use std::time::{Duration, Instant};

/// Lets the records of one request or transaction come together before a lone range is closed.
const LINGER: Duration = Duration::from_millis(20);

/// When a range is full or due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Rows.
    pub(crate) rows: usize,
    /// Bytes of the records.
    pub(crate) bytes: usize,
    /// Shortest time between two ranges that are not full.
    pub(crate) wait: Duration,
}

/// The range being gathered.
#[derive(Debug)]
pub(crate) struct Batcher {
    limits: Limits,
    open: Option<Open>,
    last_closed: Option<Instant>,
}

#[derive(Debug)]
struct Open {
    first: i64,
    last: i64,
    rows: usize,
    bytes: usize,
    due: Instant,
}

/// Offsets of a closed range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    /// Offset of its first record.
    pub(crate) first: i64,
    /// Offset of its last record; what lies between may have gaps (INV-2).
    pub(crate) last: i64,
    /// Rows gathered.
    pub(crate) rows: usize,
}

impl Batcher {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, open: None, last_closed: None }
    }

    /// Takes a record into the range.
    pub(crate) fn add(&mut self, now: Instant, offset: i64, rows: usize, bytes: usize) {
        let due = self.last_closed.map_or(now, |closed| closed + self.limits.wait).max(now + LINGER);
        let open = self.open.get_or_insert(Open { first: offset, last: offset, rows: 0, bytes: 0, due });
        open.last = offset;
        open.rows += rows;
        open.bytes += bytes;
    }

    /// When the range has to be closed even if nothing is added; `None` while it is empty.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.open.as_ref().map(|open| open.due)
    }

    /// Closes the range if it is full or due.
    pub(crate) fn close(&mut self, now: Instant) -> Option<Closed> {
        let limits = self.limits;
        self.open
            .as_ref()
            .is_some_and(|open| open.rows >= limits.rows || open.bytes >= limits.bytes || open.due <= now)
            .then(|| self.close_anyway(now))
            .flatten()
    }

    /// Closes whatever range there is.
    pub(crate) fn close_anyway(&mut self, now: Instant) -> Option<Closed> {
        let open = self.open.take()?;
        self.last_closed = Some(now);
        Some(Closed { first: open.first, last: open.last, rows: open.rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { rows: 100, bytes: 1000, wait: Duration::from_secs(1) };

    #[test]
    fn a_lone_event_is_stored_at_once_and_a_stream_in_steps() {
        let start = Instant::now();
        let mut batcher = Batcher::new(LIMITS);
        assert_eq!((batcher.due(), batcher.close(start)), (None, None));
        batcher.add(start, 7, 1, 10);
        assert_eq!(batcher.close(start), None);
        assert_eq!(batcher.close(start + LINGER), Some(Closed { first: 7, last: 7, rows: 1 }));
        // Half a second later the next one comes: it waits for the rest of the second.
        let later = start + Duration::from_millis(500);
        batcher.add(later, 9, 1, 10);
        assert_eq!(batcher.due(), Some(start + LINGER + LIMITS.wait));
        assert_eq!(batcher.close(later + LINGER), None);
    }

    #[test]
    fn a_full_range_does_not_wait() {
        let start = Instant::now();
        for (rows, bytes) in [(50, 1), (1, 500)] {
            let mut batcher = Batcher::new(LIMITS);
            batcher.add(start, 1, rows, bytes);
            assert_eq!(batcher.close(start), None);
            batcher.add(start, 5, rows, bytes);
            assert_eq!(batcher.close(start), Some(Closed { first: 1, last: 5, rows: 2 * rows }));
            assert_eq!(batcher.close_anyway(start), None);
        }
    }
}
