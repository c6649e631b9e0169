//! Whether what a lesser channel reports lies outside the time that a better one covers.
//!
//! Channels that share no id tell of the same calls a few milliseconds apart and in no fixed order: a span may even
//! begin after the log of the call it stands for (captured). So a call's own interval does not tell it from its
//! neighbour. What is sure is that it came after the one before it in its own channel: its time reaches back to that
//! one's end, and the first one's to the beginning of its channel. Where that touches a better channel's time it is
//! taken for a call that the better channel has told of. At the edge of a cover this may leave out one call too many,
//! and never counts one twice.

use fleetlog_schemas::event::{Channel, TimestampSource};

/// When each channel has its first event of any kind in the group, nanoseconds; absent where that is not known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Starts([Option<i64>; Channel::ALL.len()]);

impl Starts {
    /// From times in the order of [`Channel::ALL`], 0 where a channel has no event.
    pub(super) fn new(times: &[i64]) -> Self {
        let mut starts = Self::default();
        for (start, time) in starts.0.iter_mut().zip(times) {
            *start = (*time != 0).then_some(*time);
        }
        starts
    }

    fn of(&self, channel: Channel) -> i64 {
        let known = Channel::ALL.iter().position(|other| *other == channel).and_then(|at| self.0.get(at));
        known.copied().flatten().unwrap_or(i64::MIN)
    }
}

/// From when to when something lasted, ends included, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Interval {
    pub(super) end: i64,
    pub(super) start: i64,
}

impl Interval {
    /// Of a record with a time, and an end or a duration in milliseconds. A record without an end was written at it;
    /// one whose time is only that of its receipt may have been at any time.
    pub(super) fn of(
        timestamp: i64,
        end: Option<i64>,
        duration_ms: Option<f64>,
        source: TimestampSource,
    ) -> Self {
        match (source, end) {
            (TimestampSource::Ingest, _) => Self { start: i64::MIN, end: i64::MAX },
            (_, Some(end)) => Self { start: timestamp.min(end), end: timestamp.max(end) },
            // `as` saturates, and turns NaN into 0.
            (_, None) => {
                let lasted = (duration_ms.unwrap_or(0.0).max(0.0) * 1e6) as i64;
                Self { start: timestamp.saturating_sub(lasted), end: timestamp }
            }
        }
    }

    /// From the first start to the last end of both.
    pub(super) fn with(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// The times that channels cover, most authoritative first.
#[derive(Debug, Default)]
pub(super) struct Covers(Vec<(Channel, Interval)>);

impl Covers {
    /// Adds the time from the first start to the last end of what a channel counts.
    pub(super) fn add(&mut self, channel: Channel, intervals: impl Iterator<Item = Interval>) {
        let whole = intervals.reduce(Interval::with);
        self.0.extend(whole.map(|whole| (channel, whole)));
    }

    /// For each of a channel's intervals, in order of their ends, whether it lies outside everything covered.
    pub(super) fn outside(&self, channel: Channel, starts: &Starts, intervals: &[Interval]) -> Vec<bool> {
        let mut reached = starts.of(channel);
        intervals
            .iter()
            .map(|own| {
                let free = self.0.iter().all(|(_, cover)| {
                    own.end < cover.start || (own.start > cover.end && reached >= cover.end)
                });
                reached = own.end;
                free
            })
            .collect()
    }

    /// What is guessed about something that is counted beside them; nothing while nothing is covered.
    pub(super) fn guess(&self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let channels = self.0.iter().map(|(channel, _)| channel.as_str()).collect::<Vec<_>>().join(" and ");
        Some(format!("no id joins it to what {channels} tells, and it lies outside the time told of"))
    }
}
