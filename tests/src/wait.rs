//! Waiting for a condition.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How long a promise may take on a busy machine. Generous on purpose: it bounds a hang, it measures nothing.
pub const SOON: Duration = Duration::from_secs(90);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks until `look` succeeds, and returns what it found.
///
/// # Errors
/// After `within`, the reason why the last look failed.
pub async fn eventually<T, F>(what: &str, within: Duration, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let started = Instant::now();
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(why) if started.elapsed() > within => {
                return Err(why).with_context(|| format!("waited {within:?} in vain until {what}"));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
