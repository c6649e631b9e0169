//! The disk that the log and the store share with the gateway, where they do: ingest sheds before it is full.
//!
//! Kafka and ClickHouse fail badly on a full disk, and what is on the way needs room until it is settled. So below a
//! low watermark of free bytes nothing is taken on, until there is clearly more again: without a second, higher
//! watermark the gateway would flap as segments come and go. `fleetlog up` sets the path; elsewhere it is off.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fleetlog_runtime::{Health, Readiness, Shutdown};

use crate::config::GatewayConfig;
use crate::error::Refusal;
use crate::metrics;

/// At a gigabyte a second, less than a gigabyte goes by unseen.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);

/// Bytes of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    /// Bytes that this process may still take.
    pub(crate) free: u64,
    /// All of them.
    pub(crate) total: u64,
}

/// The bytes of the file system that a path is on.
pub(crate) fn space(path: &Path) -> io::Result<Space> {
    let found = rustix::fs::statvfs(path)?;
    Ok(Space {
        free: found.f_bavail.saturating_mul(found.f_frsize),
        total: found.f_blocks.saturating_mul(found.f_frsize),
    })
}

/// When to stop and when to begin again.
#[derive(Clone, Copy, Debug)]
struct Watermarks {
    min_free_bytes: u64,
    min_free_percent: f64,
    resume_ratio: f64,
}

impl Watermarks {
    /// Free bytes below which nothing is taken on: the smaller of both bounds.
    fn low(self, total: u64) -> u64 {
        let share = (total as f64 * self.min_free_percent / 100.0) as u64;
        self.min_free_bytes.min(share)
    }

    /// Whether the disk counts as low, given whether it did before.
    fn is_low(self, space: Space, was_low: bool) -> bool {
        let low = self.low(space.total);
        let high = (low as f64 * self.resume_ratio) as u64;
        space.free < if was_low { high } else { low }
    }
}

/// Watches one file system.
#[derive(Debug)]
pub(crate) struct DiskWatch {
    path: PathBuf,
    watermarks: Watermarks,
    low: AtomicBool,
    readiness: Readiness,
}

impl DiskWatch {
    /// Looks at the disk for the first time.
    ///
    /// # Errors
    /// The operating system's when there is no such path.
    pub(crate) fn start(config: &GatewayConfig, health: &Health) -> io::Result<Self> {
        let watch = Self {
            path: PathBuf::from(&config.disk_watch_path),
            watermarks: Watermarks {
                min_free_bytes: config.disk_min_free_bytes,
                min_free_percent: config.disk_min_free_percent,
                resume_ratio: config.disk_resume_ratio,
            },
            low: AtomicBool::new(false),
            readiness: health.component("gateway_disk"),
        };
        watch.look(space(&watch.path)?);
        Ok(watch)
    }

    /// Looks again and again until shutdown.
    ///
    /// # Errors
    /// None; the type is what a supervised task returns.
    pub(crate) async fn watch(&self, shutdown: Shutdown) -> io::Result<()> {
        let mut tick = tokio::time::interval(SAMPLE_EVERY);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = shutdown.triggered() => return Ok(()),
            }
            match space(&self.path) {
                Ok(space) => self.look(space),
                // What was known last is as good as anything; the path existed at the start.
                Err(error) => tracing::warn!(path = %self.path.display(), %error, "cannot look at the disk"),
            }
        }
    }

    /// Refuses while the disk is low.
    ///
    /// # Errors
    /// [`Refusal::DiskLow`].
    pub(crate) fn admit(&self) -> Result<(), Refusal> {
        if self.low.load(Ordering::Relaxed) { Err(Refusal::DiskLow) } else { Ok(()) }
    }

    fn look(&self, space: Space) {
        let is_low = self.watermarks.is_low(space, self.low.load(Ordering::Relaxed));
        let low = self.watermarks.low(space.total);
        self.low.store(is_low, Ordering::Relaxed);
        metrics::DISK_FREE.set(space.free as f64);
        metrics::DISK_LOW.set(f64::from(u8::from(is_low)));
        if is_low {
            let path = self.path.display();
            self.readiness.not_ready(format!("the disk of {path} is low: less than {low} bytes are free"));
        } else {
            self.readiness.ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;
    const MARKS: Watermarks =
        Watermarks { min_free_bytes: 2 * GB, min_free_percent: 5.0, resume_ratio: 1.25 };

    #[test]
    fn the_smaller_of_both_bounds_counts_on_any_size_of_disk() {
        assert_eq!(MARKS.low(1000 * GB), 2 * GB);
        assert_eq!(MARKS.low(20 * GB), GB);
        assert_eq!(Watermarks { min_free_bytes: 0, ..MARKS }.low(20 * GB), 0, "zero switches it off");
    }

    #[test]
    fn it_does_not_flap_around_one_watermark() {
        let at = |free| Space { free, total: 1000 * GB };
        assert!(!MARKS.is_low(at(2 * GB), false));
        assert!(MARKS.is_low(at(2 * GB - 1), false));
        assert!(MARKS.is_low(at(2 * GB), true));
        assert!(!MARKS.is_low(at(5 * GB / 2), true));
    }
}
