//! The one place that reads the wall clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A source of wall time; decisions take the time as an argument and stay pure.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still until it is set, for tests.
    pub fn manual(now_ns: i64) -> Self {
        Self(Some(Arc::new(AtomicI64::new(now_ns))))
    }

    /// Sets a manual clock; the system clock is left alone.
    pub fn set(&self, now_ns: i64) {
        if let Some(cell) = &self.0 {
            cell.store(now_ns, Ordering::SeqCst);
        }
    }

    /// Nanoseconds since the Unix epoch, UTC.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    pub fn now_ns(&self) -> i64 {
        match &self.0 {
            Some(cell) => cell.load(Ordering::SeqCst),
            None => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
            }
        }
    }

    /// Milliseconds since the Unix epoch, UTC.
    pub fn now_ms(&self) -> i64 {
        self.now_ns() / 1_000_000
    }
}
