//! How many requests are worked on at once, found from how long they take.
//!
//! Work beyond what the machine and the log can do at once only waits inside, where it makes everyone slow. So the
//! limit follows the time from a request's turn to its acknowledgement: while that stays near what it is without
//! pressure, a limit that is reached grows; once the median exceeds `tolerance` times that, it shrinks. (The idea is
//! that of TCP Vegas; Brakmo, Peterson 1995.)
//!
//! The time without pressure is measured while the limit is not reached. While it is, it can only be seen to be lower;
//! it is let rise so slowly that a minute's overload does not become what is normal, and a change of what is sent
//! eventually does.

/// Requests whose times are judged together.
const WINDOW_REQUESTS: usize = 32;
/// Shortest time between two judgements, nanoseconds.
const WINDOW_NS: i64 = 50_000_000;
/// Weight of a new median without pressure.
const LEARN: f64 = 0.2;
/// Rise of the base under pressure, per second: doubled in about ten minutes.
const DRIFT_PER_SECOND: f64 = 0.001_2;
/// How much the limit shrinks at the most in one step.
const SHRINK_MOST: f64 = 0.7;

/// The bounds of the limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub(crate) min: usize,
    pub(crate) max: usize,
    /// How many times longer than without pressure requests may take.
    pub(crate) tolerance: f64,
}

/// The limit, and what it is found from. Times are nanoseconds of one steady clock.
#[derive(Clone, Debug)]
pub(super) struct Concurrency {
    range: Range,
    limit: f64,
    base_ns: Option<f64>,
    times: Vec<i64>,
    began: i64,
    /// Whether the limit was reached within the window.
    is_pressed: bool,
}

impl Concurrency {
    pub(super) fn new(range: Range) -> Self {
        // In the middle of what is allowed, by magnitude.
        let limit = ((range.min.max(1) as f64) * (range.max.max(1) as f64)).sqrt();
        let times = Vec::with_capacity(WINDOW_REQUESTS);
        Self { range, limit, base_ns: None, times, began: 0, is_pressed: false }
    }

    /// How many may be worked on.
    pub(super) fn limit(&self) -> usize {
        (self.limit as usize).clamp(self.range.min, self.range.max.max(self.range.min))
    }

    /// Learns from a request that took so long; `at_once` were worked on when it ended.
    pub(super) fn learn(&mut self, took_ns: i64, at_once: usize, now: i64) {
        self.is_pressed |= at_once >= self.limit();
        // More than a window is needed only where requests end faster than time passes.
        if self.times.len() < WINDOW_REQUESTS * 8 {
            self.times.push(took_ns);
        }
        if self.times.len() >= WINDOW_REQUESTS && now.saturating_sub(self.began) >= WINDOW_NS {
            self.judge(now);
        }
    }

    fn judge(&mut self, now: i64) {
        let middle = self.times.len() / 2;
        let (_, median, _) = self.times.select_nth_unstable(middle);
        let median = (*median).max(1) as f64;
        let seconds = now.saturating_sub(self.began).min(1_000_000_000) as f64 / 1e9;
        let base = self.base_ns.unwrap_or(median);
        if self.is_pressed {
            let most = base * self.range.tolerance;
            self.limit = if median > most {
                self.limit * (most / median).max(SHRINK_MOST)
            } else {
                self.limit + self.limit.sqrt()
            };
            self.limit = self.limit.clamp(self.range.min as f64, self.range.max.max(self.range.min) as f64);
            self.base_ns = Some(median.min(base * (1.0 + DRIFT_PER_SECOND * seconds)));
        } else {
            self.base_ns = Some(if median < base { median } else { base + (median - base) * LEARN });
        }
        self.times.clear();
        self.began = now;
        self.is_pressed = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: i64 = 1_000_000;
    const RANGE: Range = Range { min: 4, max: 1_000, tolerance: 2.0 };

    /// Serves from a machine that works on `at_best` at once and lets the rest wait inside, for so many milliseconds
    /// with `offered` requests always there. Returns the last time a request took, milliseconds.
    fn serve(concurrency: &mut Concurrency, offered: usize, at_best: f64, from_ms: i64, for_ms: i64) -> f64 {
        let (base_ms, mut now, mut took) = (5.0, from_ms as f64, 0.0);
        while now < (from_ms + for_ms) as f64 {
            let at_once = offered.min(concurrency.limit());
            took = base_ms * (at_once as f64 / at_best).max(1.0);
            for _ in 0..at_once {
                concurrency.learn((took * MS as f64) as i64, at_once, (now * MS as f64) as i64);
            }
            now += took;
        }
        took
    }

    #[test]
    fn overload_keeps_the_time_of_light_load_and_all_of_the_capacity() {
        let mut concurrency = Concurrency::new(RANGE);
        serve(&mut concurrency, 10, 20.0, 0, 5_000);
        let took = serve(&mut concurrency, 5_000, 20.0, 5_000, 60_000);
        assert!(took <= 5.0 * 2.0 * 1.25, "{took} ms after a minute of overload");
        assert!(concurrency.limit() >= 20, "{} at once use what 20 could", concurrency.limit());
    }

    #[test]
    fn a_limit_that_is_not_reached_does_not_move() {
        let mut concurrency = Concurrency::new(RANGE);
        let before = concurrency.limit();
        serve(&mut concurrency, 10, 5.0, 0, 10_000);
        assert_eq!(concurrency.limit(), before);
    }

    #[test]
    fn what_is_normal_may_change() {
        let mut concurrency = Concurrency::new(RANGE);
        serve(&mut concurrency, 10, 20.0, 0, 5_000);
        // Everything takes four times as long from now on: larger bodies, or a log farther away.
        serve(&mut concurrency, 3, 0.75, 5_000, 60_000);
        assert!(concurrency.base_ns.unwrap() > 15.0 * MS as f64);
    }

    proptest! {
        #[test]
        fn the_limit_stays_within_its_range(
            requests in prop::collection::vec((0i64..10_000 * MS, 0usize..5_000, 0i64..100 * MS), 1..2_000),
            min in 1usize..50,
            max in 1usize..500,
        ) {
            let mut concurrency = Concurrency::new(Range { min, max, tolerance: 2.0 });
            let mut now = 0;
            for (took, at_once, pause) in requests {
                now += pause;
                concurrency.learn(took, at_once, now);
                prop_assert!((min..=max.max(min)).contains(&concurrency.limit()));
            }
        }
    }
}
