//! Points in time as senders write them, brought to nanoseconds since the Unix epoch, UTC.

use fleetlog_schemas::event::TimestampSource;

use crate::json::Scalar;

/// 1900-01-01T00:00:00Z, the earliest that ClickHouse's `DateTime64(9)` holds.
const EARLIEST: i128 = -2_208_988_800_000_000_000;
/// 2262-04-11T23:47:16.854775807Z, the latest.
const LATEST: i128 = i64::MAX as i128;

/// A time as it can be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Nanoseconds since the epoch.
    pub(crate) nanos: i64,
    /// Whether the stated time lies outside what a column holds, and `nanos` is the nearest that does not.
    pub(crate) clamped: bool,
}

impl Moment {
    pub(crate) fn of_nanos(nanos: i128) -> Self {
        let held = nanos.clamp(EARLIEST, LATEST);
        Self { nanos: held as i64, clamped: held != nanos }
    }

    /// What the moment is as a timestamp that a sender stated.
    pub(crate) fn source(self) -> TimestampSource {
        if self.clamped { TimestampSource::Clamped } else { TimestampSource::Event }
    }

    /// Reads RFC 3339 text or a number whose magnitude tells its unit.
    pub(crate) fn of_scalar(value: &Scalar<'_>) -> Option<Self> {
        match value {
            Scalar::Text(text) => Self::of_text(&text.text()),
            Scalar::Number(number) => of_epoch(number),
            _ => None,
        }
    }

    /// Reads RFC 3339 text, or digits as [`of_epoch`] does.
    pub(crate) fn of_text(text: &str) -> Option<Self> {
        let text = text.trim();
        of_rfc3339(text.as_bytes()).or_else(|| of_epoch(text))
    }
}

/// Reads a number of seconds, milliseconds, microseconds or nanoseconds since the epoch.
///
/// The magnitudes do not overlap between 1973 and 5138: seconds are below 1e11, milliseconds below 1e14,
/// microseconds below 1e17.
fn of_epoch(number: &str) -> Option<Moment> {
    let (negative, digits) = match number.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, number),
    };
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) => (whole, fraction),
        None => (digits, ""),
    };
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = if plain(whole) && plain(fraction) && !whole.is_empty() && whole.len() <= 30 {
        (whole.parse::<i128>().ok()?, fraction)
    } else {
        // An exponent: not how clocks are written, so a float's precision has to do.
        let float: f64 = digits.parse().ok()?;
        (float.is_finite().then_some(float as i128)?, "")
    };
    let places: u32 = match whole {
        0..100_000_000_000 => 9,
        100_000_000_000..100_000_000_000_000 => 6,
        100_000_000_000_000..100_000_000_000_000_000 => 3,
        _ => 0,
    };
    let mut nanos = whole.saturating_mul(10i128.pow(places));
    let mut unit = 10i128.pow(places);
    for digit in fraction.bytes().take(places as usize) {
        unit /= 10;
        nanos += i128::from(digit - b'0') * unit;
    }
    Some(Moment::of_nanos(if negative { -nanos } else { nanos }))
}

/// Reads `YYYY-MM-DDThh:mm:ss[.fraction][Z|±hh:mm]`; without a zone it is UTC.
fn of_rfc3339(text: &[u8]) -> Option<Moment> {
    let number = |at: usize, len: usize| -> Option<i64> {
        text.get(at..at + len)?
            .iter()
            .try_fold(0i64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
    };
    let is = |at: usize, wanted: &[u8]| text.get(at).is_some_and(|byte| wanted.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    // 60 is a leap second; it is counted into the next minute.
    if !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 60 || !day_exists(year, month, day)
    {
        return None;
    }
    let mut at = 19;
    let mut fraction = 0i128;
    if is(at, b".,") {
        at += 1;
        let digits = text.get(at..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
        for place in 0..9 {
            let digit = if place < digits { number(at + place, 1)? } else { 0 };
            fraction = fraction * 10 + i128::from(digit);
        }
        at += digits;
    }
    let offset_minutes = match text.get(at..)? {
        b"" | b"Z" | b"z" => 0,
        zone => {
            let sign = if zone.first() == Some(&b'-') { -1 } else { i64::from(zone.first() == Some(&b'+')) };
            let minutes_at = if zone.get(3) == Some(&b':') { at + 4 } else { at + 3 };
            let (hours, minutes) = (number(at + 1, 2)?, number(minutes_at, 2)?);
            if sign == 0 || hours > 23 || minutes > 59 || text.len() != minutes_at + 2 {
                return None;
            }
            sign * (hours * 60 + minutes)
        }
    };
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(Moment::of_nanos(i128::from(seconds - offset_minutes * 60) * 1_000_000_000 + fraction))
}

fn day_exists(year: i64, month: i64, day: i64) -> bool {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    (1..=last).contains(&day)
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nanos(text: &str) -> Option<i64> {
        Moment::of_text(text).map(|moment| moment.nanos)
    }

    #[test]
    fn one_moment_has_many_spellings() {
        let expected = Some(1_795_264_656_034_000_000);
        for text in [
            "2026-11-21T12:37:36.034Z",
            "2026-11-21 12:37:36.034",
            "2026-11-21T14:07:36.034+01:30",
            "2026-11-21T10:37:36.034000000-0200",
            "1795264656.034",
            "1795264656034",
            "1795264656034000",
            "1795264656034000000",
        ] {
            assert_eq!(nanos(text), expected, "{text}");
        }
        assert_eq!(nanos("-1.5"), Some(-1_500_000_000));
        assert_eq!(nanos("2024-02-29T23:59:60Z"), nanos("2024-03-01T00:00:00Z"));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "yesterday",
            "2026-02-30T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-21",
            "1.2.3",
            "2026-11-21T12:37:36+1",
        ] {
            assert_eq!(nanos(text), None, "{text}");
        }
    }

    #[test]
    fn absurd_times_are_clamped_and_say_so() {
        assert_eq!(
            Moment::of_text("0001-01-01T00:00:00Z"),
            Some(Moment { nanos: EARLIEST as i64, clamped: true })
        );
        assert_eq!(Moment::of_text("9999-12-31T23:59:59Z"), Some(Moment { nanos: i64::MAX, clamped: true }));
        assert_eq!(
            Moment::of_text("1900-01-01T00:00:00Z"),
            Some(Moment { nanos: EARLIEST as i64, clamped: false })
        );
    }

    proptest! {
        #[test]
        fn agrees_with_the_time_crate(seconds in -2_200_000_000i64..9_000_000_000, fraction in 0u32..1_000_000_000) {
            let moment = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap().replace_nanosecond(fraction).unwrap();
            let text = moment.format(&time::format_description::well_known::Rfc3339).unwrap();
            prop_assert_eq!(nanos(&text).map(i128::from), Some(moment.unix_timestamp_nanos()));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,40}") {
            nanos(&text);
        }
    }
}
