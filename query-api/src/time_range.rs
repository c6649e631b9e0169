//! The time bound every list has.
//!
//! A range is half-open, `[from, to)`, in nanoseconds UTC. It is given as RFC 3339 (with any offset), as epoch
//! milliseconds, or relative to now (`now`, `now-1h`); what is left out gets a default, and no range is longer than
//! its policy allows, because one unbounded list takes a database down for everybody. Time is passed in: this module
//! reads no clock.

use fleetlog_schemas::api::Timestamp;
use thiserror::Error;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const NS_PER_MS: i64 = 1_000_000;
/// Nanoseconds of one second.
pub(crate) const NS_PER_S: i64 = 1_000_000_000;

/// Why a range cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RangeError {
    /// Not an instant.
    #[error("{name} is not a time: give RFC 3339, epoch milliseconds, or now-<n>[s|m|h|d|w]")]
    NotATime {
        /// The parameter.
        name: &'static str,
    },
    /// Nothing lies between the bounds.
    #[error("from ({from}) is not before to ({to})")]
    Empty {
        /// Lower bound.
        from: Timestamp,
        /// Upper bound.
        to: Timestamp,
    },
    /// More than one query may cover.
    #[error("the range covers more than {max_days} days; ask in pieces")]
    TooLong {
        /// The limit.
        max_days: u32,
    },
}

/// A half-open range of time in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeRange {
    /// First instant within.
    pub(crate) from_ns: i64,
    /// First instant after.
    pub(crate) to_ns: i64,
}

/// How a range is completed and limited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RangePolicy {
    /// Length of the range when `from` is not given.
    pub(crate) default_ns: i64,
    /// How far after now the range ends when `to` is not given, so that the events of a clock ahead of ours show.
    pub(crate) ahead_ns: i64,
    /// Longest range.
    pub(crate) max_days: u32,
}

impl TimeRange {
    /// All of time, for lists that something else bounds.
    pub(crate) const ALWAYS: Self = Self { from_ns: i64::MIN, to_ns: i64::MAX };

    /// Completes and checks the range a caller asked for.
    ///
    /// # Errors
    /// [`RangeError`] when a bound is not a time, or the range is empty or too long.
    pub(crate) fn resolve(
        from: Option<&str>,
        to: Option<&str>,
        now_ns: i64,
        policy: RangePolicy,
    ) -> Result<Self, RangeError> {
        let (to_ns, from_base) = match to {
            Some(text) => {
                let to = instant(text, now_ns).ok_or(RangeError::NotATime { name: "to" })?;
                (to, to)
            }
            None => (now_ns.saturating_add(policy.ahead_ns), now_ns),
        };
        let from_ns = match from {
            Some(text) => instant(text, now_ns).ok_or(RangeError::NotATime { name: "from" })?,
            None => from_base.saturating_sub(policy.default_ns),
        };
        Self { from_ns, to_ns }.checked(policy)
    }

    /// The range itself if it is within the policy; a cursor's range is as little trusted as a parameter's.
    ///
    /// # Errors
    /// [`RangeError`] when the range is empty or too long.
    pub(crate) fn checked(self, policy: RangePolicy) -> Result<Self, RangeError> {
        if self.from_ns >= self.to_ns {
            return Err(RangeError::Empty { from: Timestamp(self.from_ns), to: Timestamp(self.to_ns) });
        }
        let max_ns =
            i128::from(policy.max_days) * 86_400 * i128::from(NS_PER_S) + i128::from(policy.ahead_ns);
        if i128::from(self.to_ns) - i128::from(self.from_ns) > max_ns {
            return Err(RangeError::TooLong { max_days: policy.max_days });
        }
        Ok(self)
    }

    /// The smallest range of whole steps that covers this one, so that no bucket of a series is half told.
    #[must_use]
    pub(crate) fn aligned(self, step_s: u32) -> Self {
        let step = i64::from(step_s.max(1)) * NS_PER_S;
        let floor = |ns: i64| ns.div_euclid(step).saturating_mul(step);
        let from_ns = floor(self.from_ns);
        let last = floor(self.to_ns - 1);
        Self { from_ns, to_ns: last.saturating_add(step) }
    }
}

/// The instant a text names.
pub(crate) fn instant(text: &str, now_ns: i64) -> Option<i64> {
    if let Some(offset) = text.strip_prefix("now") {
        return relative(offset, now_ns);
    }
    if let Ok(ms) = text.parse::<i64>() {
        return ms.checked_mul(NS_PER_MS);
    }
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(at.unix_timestamp_nanos()).ok()
}

fn relative(offset: &str, now_ns: i64) -> Option<i64> {
    if offset.is_empty() {
        return Some(now_ns);
    }
    let (sign, rest) = match offset.split_at_checked(1)? {
        ("-", rest) => (-1, rest),
        // A `+` in a query string is a space unless it was encoded; both are what the caller meant.
        ("+" | " ", rest) => (1, rest),
        _ => return None,
    };
    let digits = rest.len().checked_sub(1)?;
    let (count, unit) = rest.split_at_checked(digits)?;
    let seconds: i64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return None,
    };
    let count = i64::from(count.parse::<u32>().ok()?);
    now_ns.checked_add(sign * count.checked_mul(seconds)?.checked_mul(NS_PER_S)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600 * NS_PER_S;
    const NOW: i64 = 1_750_000_000 * NS_PER_S;
    const POLICY: RangePolicy = RangePolicy { default_ns: 24 * HOUR, ahead_ns: HOUR, max_days: 31 };

    fn resolve(from: Option<&str>, to: Option<&str>) -> Result<TimeRange, RangeError> {
        TimeRange::resolve(from, to, NOW, POLICY)
    }

    #[test]
    fn a_range_nobody_gave_is_the_last_day_and_what_clocks_ahead_of_ours_send() {
        let range = resolve(None, None).unwrap();
        assert_eq!(range, TimeRange { from_ns: NOW - 24 * HOUR, to_ns: NOW + HOUR });
    }

    #[test]
    fn the_three_ways_to_name_an_instant_agree() {
        assert_eq!(instant("1750000000000", NOW), Some(NOW));
        assert_eq!(instant("2025-06-15T15:06:40Z", 0), Some(NOW));
        assert_eq!(instant("2025-06-15T17:06:40+02:00", 0), Some(NOW));
        assert_eq!(instant("2025-06-15T15:06:40.000000001Z", 0), Some(NOW + 1));
        assert_eq!(instant("now", NOW), Some(NOW));
        assert_eq!(instant("now-90m", NOW), Some(NOW - 90 * 60 * NS_PER_S));
        assert_eq!(instant("now 1w", NOW), Some(NOW + 7 * 24 * HOUR));
    }

    #[test]
    fn what_is_not_a_time_is_refused_by_name() {
        for text in [
            "",
            "yesterday",
            "now-",
            "now-h",
            "now-1y",
            "now1h",
            "now-1ü",
            "1e9",
            "2025-06-15",
            "9999999999999999",
        ] {
            assert_eq!(resolve(Some(text), None), Err(RangeError::NotATime { name: "from" }), "{text}");
        }
    }

    #[test]
    fn an_empty_or_endless_range_is_refused() {
        assert!(matches!(resolve(Some("now"), Some("now")), Err(RangeError::Empty { .. })));
        assert_eq!(resolve(Some("now-32d"), Some("now")), Err(RangeError::TooLong { max_days: 31 }));
        assert!(resolve(Some("now-31d"), None).is_ok());
        let all = TimeRange { from_ns: i64::MIN, to_ns: i64::MAX };
        assert_eq!(all.checked(POLICY), Err(RangeError::TooLong { max_days: 31 }));
    }

    #[test]
    fn aligned_ranges_cover_every_touched_bucket_and_no_other() {
        let range = TimeRange { from_ns: NOW + 1, to_ns: NOW + HOUR };
        let aligned = range.aligned(3_600);
        assert_eq!(aligned.from_ns % HOUR, 0);
        assert_eq!(aligned.to_ns - aligned.from_ns, 2 * HOUR);
        assert_eq!(aligned.aligned(3_600), aligned);
        let before_epoch = TimeRange { from_ns: -1, to_ns: 1 }.aligned(60);
        assert_eq!(before_epoch, TimeRange { from_ns: -60 * NS_PER_S, to_ns: 60 * NS_PER_S });
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_asked_for_a_range_that_is_given_is_within_its_policy(
            from in "(now|)([-+ ]?[0-9]{0,12}[smhdw]?)|.*",
            to in "(now|)([-+ ]?[0-9]{0,12}[smhdw]?)",
            now in proptest::num::i64::ANY,
        ) {
            if let Ok(range) = TimeRange::resolve(Some(&from), Some(&to), now, POLICY) {
                let length = i128::from(range.to_ns) - i128::from(range.from_ns);
                proptest::prop_assert!(length > 0 && length <= 32 * 24 * i128::from(HOUR));
            }
        }
    }
}
