//! Times of acceptance, of which the earliest is asked for: requests do not come to the spool in the order in which they
//! were accepted, so neither the first nor the last of them tells.

use std::collections::BTreeMap;

const NS_PER_S: i64 = 1_000_000_000;

/// Times, nanoseconds UTC, and how many there are of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Times(BTreeMap<i64, u64>);

impl Times {
    pub(super) fn add(&mut self, time_ns: i64, count: u64) {
        *self.0.entry(time_ns).or_default() += count;
    }

    pub(super) fn remove(&mut self, time_ns: i64, count: u64) {
        if let Some(left) = self.0.get_mut(&time_ns) {
            *left = left.saturating_sub(count);
            if *left == 0 {
                self.0.remove(&time_ns);
            }
        }
    }

    pub(super) fn earliest(&self) -> Option<i64> {
        self.0.keys().next().copied()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The second in which it lies: so many records are told apart by second only, which bounds what they take.
pub(super) fn second_of(time_ns: i64) -> i64 {
    time_ns.div_euclid(NS_PER_S) * NS_PER_S
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_is_known_in_whatever_order_they_come_and_go() {
        let mut times = Times::default();
        for (time, count) in [(7, 1), (5, 2), (9, 1), (5, 1)] {
            times.add(time, count);
        }
        times.remove(5, 2);
        times.remove(7, 1);
        assert_eq!(times.earliest(), Some(5));
        times.remove(5, 1);
        times.remove(5, 1);
        assert_eq!(times.earliest(), Some(9));
        times.clear();
        assert_eq!(times.earliest(), None);
    }

    #[test]
    fn a_second_begins_at_or_before_every_time_in_it() {
        assert_eq!((second_of(2 * NS_PER_S - 1), second_of(2 * NS_PER_S)), (NS_PER_S, 2 * NS_PER_S));
        assert_eq!(second_of(-1), -NS_PER_S);
    }
}
