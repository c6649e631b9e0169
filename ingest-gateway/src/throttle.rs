//! Refusals in the log: one line each when the sender is at fault, one a second when we are, because an outage
//! refuses thousands a second and all for the same reason.

use std::error::Error;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use fleetlog_runtime::{Classified, Clock};
use tracing::Level;

use crate::error::Refusal;

const EVERY_MS: i64 = 1_000;

static LAST_MS: AtomicI64 = AtomicI64::new(0);
static UNSAID: AtomicU64 = AtomicU64::new(0);

/// Logs a refusal at its class's level.
pub(crate) fn log_refusal(clock: &Clock, refusal: &Refusal, request_id: &str) {
    let (code, level) = (refusal.code(), refusal.class().log_level());
    if level == Level::DEBUG {
        tracing::debug!(code, request_id, "{refusal}");
        return;
    }
    let now = clock.now_ms();
    let last = LAST_MS.load(Ordering::Relaxed);
    let mine = now.saturating_sub(last) >= EVERY_MS
        && LAST_MS.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    if !mine {
        UNSAID.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let unsaid = UNSAID.swap(0, Ordering::Relaxed);
    let cause = refusal.source().map(ToString::to_string);
    if level == Level::ERROR {
        tracing::error!(code, request_id, unsaid, cause, detail = ?refusal, "{refusal}");
    } else {
        tracing::warn!(code, request_id, unsaid, cause, "{refusal}");
    }
}
