//! Lines of the log that an outage would repeat thousands of times a second: one a second is said, the others counted.
//!
//! Refusals have one line each when the sender is at fault.

use std::error::Error;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use fleetlog_runtime::{Classified, Clock};
use tracing::Level;

use crate::error::Refusal;

const EVERY_MS: i64 = 1_000;

/// What was said last, and what has not been said since.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    last_ms: AtomicI64,
    unsaid: AtomicU64,
}

/// The log of refusals.
#[derive(Debug, Default)]
pub(crate) struct RefusalLog(Throttle);

impl RefusalLog {
    /// Logs a refusal at its class's level.
    pub(crate) fn write(&self, clock: &Clock, refusal: &Refusal, request_id: &str) {
        let (code, level) = (refusal.code(), refusal.class().log_level());
        if level == Level::DEBUG {
            tracing::debug!(code, request_id, "{refusal}");
            return;
        }
        let Some(unsaid) = self.0.turn(clock.now_ms()) else { return };
        let cause = refusal.source().map(ToString::to_string);
        if level == Level::ERROR {
            tracing::error!(code, request_id, unsaid, cause, detail = ?refusal, "{refusal}");
        } else {
            tracing::warn!(code, request_id, unsaid, cause, "{refusal}");
        }
    }
}

impl Throttle {
    /// How many went unsaid, if it is time to say one.
    pub(crate) fn turn(&self, now_ms: i64) -> Option<u64> {
        let last = self.last_ms.load(Ordering::Relaxed);
        let due = now_ms.saturating_sub(last) >= EVERY_MS;
        if due && self.last_ms.compare_exchange(last, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return Some(self.unsaid.swap(0, Ordering::Relaxed));
        }
        self.unsaid.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_is_said_and_the_others_are_counted() {
        let log = Throttle::default();
        assert_eq!([10_000, 10_001, 10_999, 11_000].map(|now| log.turn(now)), [Some(0), None, None, Some(2)]);
    }
}
