//! Times as people write them on a command line.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A time: absolute, or before the moment at which the command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Nanoseconds UTC.
    At(i64),
    /// So many nanoseconds ago.
    Ago(i64),
}

impl Moment {
    /// Reads RFC 3339, `now`, or `now-<n>` with one of s, m, h, d.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is no time: give RFC 3339, such as 2026-03-01T12:00:00Z, or now-<n>[s|m|h|d]")
        };
        if let Some(ago) = text.strip_prefix("now") {
            return relative(ago).map(Self::Ago).ok_or_else(wrong);
        }
        let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| wrong())?;
        i64::try_from(at.unix_timestamp_nanos()).map(Self::At).map_err(|_| wrong())
    }

    /// Nanoseconds UTC, given the present.
    pub(crate) fn ns(self, now_ns: i64) -> i64 {
        match self {
            Self::At(ns) => ns,
            Self::Ago(ns) => now_ns.saturating_sub(ns),
        }
    }
}

fn relative(ago: &str) -> Option<i64> {
    if ago.is_empty() {
        return Some(0);
    }
    let (count, unit) = ago.strip_prefix('-')?.split_at_checked(ago.len().checked_sub(2)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    count.parse::<u32>().ok().and_then(|count| i64::from(count).checked_mul(seconds * 1_000_000_000))
}

/// A time as RFC 3339, to the second.
pub(crate) fn told(ns: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(ns.div_euclid(1_000_000_000)).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{ns} ns"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600 * 1_000_000_000;

    #[test]
    fn times_are_absolute_or_before_now() {
        let ns = |text| Moment::parse(text).map(|moment| moment.ns(10 * HOUR));
        assert_eq!(ns("1970-01-01T02:00:00+01:00"), Ok(HOUR));
        assert_eq!(
            (ns("now"), ns("now-2h"), ns("now-600s")),
            (Ok(10 * HOUR), Ok(8 * HOUR), Ok(10 * HOUR - HOUR / 6))
        );
        for wrong in ["", "yesterday", "now-", "now-h", "now+1h", "now-1w", "now--1h", "2026-03-01", "now-1ü"]
        {
            assert!(Moment::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(told(HOUR + 5), "1970-01-01T01:00:00Z");
    }
}
