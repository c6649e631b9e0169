//! A circuit for a log that does not acknowledge: who would only wait for a timeout is told at once.
//!
//! | state | a request | becomes |
//! |---|---|---|
//! | closed | passes | open when records have waited for `patience` without one acknowledgement, or the queue is full |
//! | open | is refused; one every `pause` passes, as a probe | closed at the next acknowledgement of any record |
//!
//! A probe that turns out to bring nothing for the log is given back, and the next request is one instead.
//! What had been queued when it opened counts too: a broker that comes back acknowledges it, and no probe is needed.
//! Silence is of all records together: a single partition without a leader delays its own records only.

/// What is known of the log. Times are nanoseconds of one steady clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Records acknowledged so far.
    pub(crate) acknowledged: u64,
    /// How long records have been waiting without any acknowledgement, if any waits.
    pub(crate) silent_ns: Option<i64>,
}

/// A request that is let through to find out whether the log acknowledges again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    /// When the one after it passes.
    next: i64,
}

/// The circuit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circuit {
    patience_ns: i64,
    pause_ns: i64,
    acknowledged: u64,
    /// When the next probe passes; `None` while closed.
    open_until: Option<i64>,
}

impl Circuit {
    /// `patience_ns` of 0 is a circuit that never opens.
    pub(super) fn new(patience_ns: i64, pause_ns: i64) -> Self {
        Self { patience_ns, pause_ns, acknowledged: 0, open_until: None }
    }

    /// Takes note of the log; says whether it opened just now.
    pub(super) fn look(&mut self, seen: Seen, now: i64) -> bool {
        if seen.acknowledged != self.acknowledged {
            self.acknowledged = seen.acknowledged;
            self.open_until = None;
        }
        seen.silent_ns.is_some_and(|silent| silent >= self.patience_ns) && self.open(now)
    }

    /// Takes note of a full queue; says whether it opened just now.
    pub(super) fn queue_is_full(&mut self, seen: Seen, now: i64) -> bool {
        self.look(seen, now) || self.open(now)
    }

    fn open(&mut self, now: i64) -> bool {
        let opens = self.patience_ns > 0 && self.open_until.is_none();
        if opens {
            self.open_until = Some(now.saturating_add(self.pause_ns));
        }
        opens
    }

    /// Whether a request may pass, and as which probe, if it is one.
    ///
    /// # Errors
    /// How many nanoseconds until the next probe.
    pub(super) fn pass(&mut self, now: i64) -> Result<Option<Probe>, i64> {
        match self.open_until {
            None => Ok(None),
            Some(until) if now >= until => {
                let next = now.saturating_add(self.pause_ns);
                self.open_until = Some(next);
                Ok(Some(Probe { next }))
            }
            Some(until) => Err(until - now),
        }
    }

    /// The probe brought nothing for the log: the next request passes in its place, unless one has by now.
    pub(super) fn give_back(&mut self, probe: Probe, now: i64) {
        if self.open_until == Some(probe.next) {
            self.open_until = Some(now.min(probe.next));
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open_until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: i64 = 3_000;
    const PAUSE: i64 = 1_000;

    fn seen(acknowledged: u64, silent_ns: i64) -> Seen {
        Seen { acknowledged, silent_ns: Some(silent_ns) }
    }

    #[test]
    fn silence_opens_it_one_probe_passes_in_a_pause_and_any_acknowledgement_closes_it() {
        let mut circuit = Circuit::new(PATIENCE, PAUSE);
        assert!(!circuit.look(seen(5, PATIENCE - 1), 0));
        assert_eq!(circuit.pass(0), Ok(None));
        assert!(circuit.look(seen(5, PATIENCE), 10));
        assert!(!circuit.look(seen(5, PATIENCE + 5), 15), "it opens once");
        assert_eq!(circuit.pass(15), Err(995));
        assert_eq!([1_010, 1_010, 2_009].map(|now| circuit.pass(now).is_ok()), [true, false, false]);
        circuit.look(Seen { acknowledged: 5, silent_ns: None }, 2_009);
        assert!(circuit.is_open(), "all have timed out: that is no acknowledgement");
        circuit.look(seen(6, 1), 2_009);
        assert!(!circuit.is_open() && circuit.pass(2_009).is_ok());
    }

    #[test]
    fn a_full_queue_opens_it_until_the_next_acknowledgement() {
        let mut circuit = Circuit::new(PATIENCE, PAUSE);
        circuit.look(seen(5, 1), 0);
        assert!(circuit.queue_is_full(seen(5, 1), 0) && circuit.pass(1).is_err());
        circuit.look(seen(6, 1), 2);
        assert_eq!(circuit.pass(2), Ok(None));
    }

    #[test]
    fn a_probe_that_brings_nothing_leaves_its_place_to_the_next_request() {
        let mut circuit = Circuit::new(PATIENCE, PAUSE);
        circuit.look(seen(5, PATIENCE), 0);
        let probe = circuit.pass(1_000).unwrap().unwrap();
        assert!(circuit.pass(1_001).is_err());
        circuit.give_back(probe, 1_002);
        let second = circuit.pass(1_003).unwrap().unwrap();
        // One that took so long that another has passed meanwhile has no place to give back.
        assert!(circuit.pass(2_003).is_ok());
        circuit.give_back(second, 2_004);
        assert!(circuit.pass(2_005).is_err());
        circuit.look(seen(6, 1), 2_006);
        circuit.give_back(second, 2_006);
        assert!(!circuit.is_open(), "and a closed one stays closed");
    }

    #[test]
    fn without_patience_it_never_opens() {
        let mut circuit = Circuit::new(0, PAUSE);
        assert!(!circuit.look(seen(0, i64::MAX), 0) && !circuit.queue_is_full(seen(0, 1), 0));
        assert_eq!(circuit.pass(0), Ok(None));
    }

    proptest! {
        /// However requests come: while no acknowledgement does, not more than one a pause waits for it.
        #[test]
        fn a_silent_log_holds_up_one_request_a_pause(pauses in prop::collection::vec(0i64..500, 1..300)) {
            let mut circuit = Circuit::new(PATIENCE, PAUSE);
            let (mut now, mut passed) = (0, 0);
            circuit.look(Seen { acknowledged: 1, silent_ns: None }, now);
            for pause in pauses {
                now += pause;
                circuit.look(seen(1, PATIENCE + now), now);
                passed += i64::from(circuit.pass(now).is_ok());
                prop_assert!(passed <= now / PAUSE);
            }
            circuit.look(seen(2, 0), now);
            prop_assert!(circuit.pass(now).is_ok());
        }
    }
}
