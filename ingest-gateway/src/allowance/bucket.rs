//! A rate, as a bucket that may go into debt.
//!
//! What a request holds is known only after it has been checked, and a request larger than the bucket must not be
//! refused for ever. So a request passes while anything is left, and what it takes beyond that is owed: the next ones
//! wait until the debt is paid. Over any time `t` no more passes than the rate allows in `t` and the burst, and one
//! request.

/// A bucket: when it is full again tells how full it is at any time. Times are nanoseconds of one clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    full_at: i64,
}

impl Bucket {
    /// Whether anything is left. `burst_ns` is how long an empty bucket takes to be full.
    ///
    /// # Errors
    /// How many nanoseconds from now something will be.
    pub(super) fn judge(self, burst_ns: i64, now: i64) -> Result<(), i64> {
        let owed = self.full_at.saturating_sub(now).saturating_sub(burst_ns.max(1));
        // At exactly empty nothing is left yet.
        if owed < 0 { Ok(()) } else { Err(owed.saturating_add(1)) }
    }

    /// Takes `amount` at `per_second`, into debt if need be.
    pub(super) fn charge(&mut self, amount: u64, per_second: u64, now: i64) {
        let nanos = u128::from(amount) * 1_000_000_000 / u128::from(per_second.max(1));
        let nanos = i64::try_from(nanos).unwrap_or(i64::MAX);
        self.full_at = self.full_at.max(now).saturating_add(nanos);
    }

    /// Whether it is full, and so as good as none.
    pub(super) fn is_full(self, now: i64) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_request_larger_than_the_burst_passes_and_is_paid_for() {
        let mut bucket = Bucket::default();
        bucket.judge(SECOND, 0).unwrap();
        bucket.charge(50, 10, 0);
        let wait = bucket.judge(SECOND, 0).unwrap_err();
        assert_eq!(wait, 4 * SECOND + 1);
        assert!(bucket.judge(SECOND, wait - 1).is_err());
        assert!(bucket.judge(SECOND, wait).is_ok() && bucket.is_full(5 * SECOND));
    }

    proptest! {
        #[test]
        fn no_window_passes_more_than_rate_and_burst_and_one_request_and_nobody_waits_for_ever(
            requests in prop::collection::vec((0i64..500_000_000, 1u64..400), 1..200),
            rate in 1u64..1000,
            burst_ms in 1i64..5000,
        ) {
            let (burst, mut now, mut bucket) = (burst_ms * 1_000_000, 0i64, Bucket::default());
            let mut passed: Vec<(i64, u64)> = Vec::new();
            for (pause, amount) in requests {
                now += pause;
                match bucket.judge(burst, now) {
                    Ok(()) => {
                        bucket.charge(amount, rate, now);
                        passed.push((now, amount));
                    }
                    Err(wait) => {
                        prop_assert!(bucket.judge(burst, now + wait).is_ok(), "the wait that was told is enough");
                        prop_assert!(wait <= 400 * SECOND, "one request's worth at the most");
                    }
                }
            }
            for (from, first) in passed.iter().enumerate() {
                let mut total = 0;
                for last in &passed[from..] {
                    total += last.1;
                    let seconds = (last.0 - first.0 + burst) as f64 / SECOND as f64;
                    let most = seconds * rate as f64 + last.1 as f64;
                    prop_assert!(total as f64 <= most + 1e-3 * passed.len() as f64, "{total} in a window for {most}");
                }
            }
        }

        #[test]
        fn who_keeps_below_the_rate_is_never_refused(
            amounts in prop::collection::vec(1u64..100, 1..200),
            rate in 1u64..1000,
        ) {
            let (mut bucket, mut now) = (Bucket::default(), 0);
            for amount in amounts {
                prop_assert!(bucket.judge(SECOND, now).is_ok());
                bucket.charge(amount, rate, now);
                now += (amount as i64) * SECOND / (rate as i64) + 1;
            }
        }
    }
}
