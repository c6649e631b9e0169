//! What of a daily quota is used: this gateway's count, and what the others said last.
//!
//! Counts only grow within a day and each gateway has its own, so that what is said may be late, repeated or out of
//! order: the largest stands. A day is a number of days since the epoch, UTC.

use std::collections::HashMap;
use std::sync::Arc;

pub(super) const DAY_NS: i64 = 86_400_000_000_000;

/// The day of a time, and how long it still lasts, nanoseconds.
pub(super) fn day_of(wall_ns: i64) -> (i64, i64) {
    (wall_ns.div_euclid(DAY_NS), DAY_NS - wall_ns.rem_euclid(DAY_NS))
}

/// The count of a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    day: i64,
    records: u64,
}

impl Count {
    fn on(self, day: i64) -> u64 {
        if self.day == day { self.records } else { 0 }
    }
}

/// What one key or project has used.
#[derive(Clone, Debug, Default)]
pub(super) struct Used {
    own: Count,
    /// What of `own` the others were told.
    told: Count,
    others: HashMap<Arc<str>, Count>,
}

impl Used {
    /// What was used on a day, as far as is known here.
    pub(super) fn on(&self, day: i64) -> u64 {
        self.others.values().fold(self.own.on(day), |sum, count| sum.saturating_add(count.on(day)))
    }

    pub(super) fn charge(&mut self, records: u64, day: i64) {
        self.own = Count { day, records: self.own.on(day).saturating_add(records) };
    }

    /// Takes back what was charged and then not stored. What was told stays told: a count never sinks for others.
    pub(super) fn refund(&mut self, records: u64, day: i64) {
        let kept = self.own.on(day).saturating_sub(records).max(self.told.on(day));
        if self.own.day == day {
            self.own.records = kept;
        }
    }

    /// Hears another gateway's count.
    pub(super) fn hear(&mut self, instance: &Arc<str>, day: i64, records: u64) {
        let count = self.others.entry(Arc::clone(instance)).or_default();
        if day > count.day || (day == count.day && records > count.records) {
            *count = Count { day, records };
        }
    }

    /// The own count, if the others do not know it.
    pub(super) fn unsaid(&self, day: i64) -> Option<u64> {
        let own = self.own.on(day);
        (own > self.told.on(day)).then_some(own)
    }

    pub(super) fn told(&mut self, day: i64, records: u64) {
        self.told = Count { day, records };
    }

    /// Forgets earlier days; says whether anything is left.
    pub(super) fn forget_before(&mut self, day: i64) -> bool {
        self.others.retain(|_, count| count.day >= day);
        !self.others.is_empty() || self.own.day >= day
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_day_ends_at_midnight_utc() {
        assert_eq!(day_of(0), (0, DAY_NS));
        assert_eq!(day_of(DAY_NS - 1), (0, 1));
        assert_eq!(day_of(DAY_NS), (1, DAY_NS));
    }

    #[test]
    fn another_day_begins_at_nothing_and_leaves_nothing_behind() {
        let mut used = Used::default();
        used.charge(5, 1);
        used.hear(&Arc::from("b"), 1, 7);
        assert_eq!((used.on(1), used.on(2), used.unsaid(2)), (12, 0, None));
        used.charge(1, 2);
        assert_eq!(used.on(2), 1);
        assert!(used.forget_before(2) && !used.forget_before(3));
        assert!(used.others.is_empty());
    }

    #[test]
    fn what_was_told_is_not_taken_back() {
        let mut used = Used::default();
        used.charge(5, 1);
        used.refund(2, 1);
        assert_eq!(used.unsaid(1), Some(3));
        used.told(1, 3);
        used.refund(2, 1);
        assert_eq!((used.on(1), used.unsaid(1)), (3, None));
    }

    /// A step of a world of gateways that share one log of counts.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Accept(usize, u64),
        Say(usize),
        Hear(usize),
        Restart(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let who = 0..3usize;
        let step = prop_oneof![
            4 => (who.clone(), 1..20u64).prop_map(|(who, records)| Step::Accept(who, records)),
            2 => who.clone().prop_map(Step::Say),
            2 => who.clone().prop_map(Step::Hear),
            1 => who.prop_map(Step::Restart),
        ];
        prop::collection::vec(step, 1..200)
    }

    proptest! {
        /// Whatever the order of saying, hearing and restarting: once all is heard, everyone knows all but what a
        /// restart forgot before it was said.
        #[test]
        fn gateways_share_one_count_and_a_restart_forgets_only_what_was_not_said(steps in steps()) {
            let name = |who: usize, life: usize| Arc::<str>::from(format!("{who}-{life}"));
            let mut lives = [0usize; 3];
            let mut gateways: Vec<Used> = vec![Used::default(); 3];
            let mut log: Vec<(Arc<str>, u64)> = Vec::new();
            let (mut accepted, mut lost) = (0u64, 0u64);
            for step in steps {
                match step {
                    Step::Accept(who, records) => {
                        gateways[who].charge(records, 1);
                        accepted += records;
                    }
                    Step::Say(who) => {
                        if let Some(records) = gateways[who].unsaid(1) {
                            log.push((name(who, lives[who]), records));
                            gateways[who].told(1, records);
                        }
                    }
                    Step::Hear(who) => {
                        let own = name(who, lives[who]);
                        for (instance, records) in log.iter().filter(|(instance, _)| *instance != own) {
                            gateways[who].hear(instance, 1, *records);
                        }
                    }
                    Step::Restart(who) => {
                        lost += gateways[who].own.on(1) - gateways[who].told.on(1);
                        lives[who] += 1;
                        gateways[who] = Used::default();
                        for (instance, records) in &log {
                            gateways[who].hear(instance, 1, *records);
                        }
                    }
                }
            }
            for who in 0..3 {
                if let Some(records) = gateways[who].unsaid(1) {
                    log.push((name(who, lives[who]), records));
                }
            }
            for who in 0..3 {
                let own = name(who, lives[who]);
                for (instance, records) in log.iter().filter(|(instance, _)| *instance != own) {
                    gateways[who].hear(instance, 1, *records);
                }
                prop_assert_eq!(gateways[who].on(1), accepted - lost);
            }
        }
    }
}
