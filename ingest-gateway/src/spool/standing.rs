//! What the spool holds, told to whoever proves what is complete: what waits here is acknowledged and in no log.
//!
//! A word is told before the first request is accepted, then every second, and taken back at an orderly end with nothing
//! held. One is under way at a time, so that Kafka's absence piles up none; what Kafka has last is this gateway's word
//! until it comes back, however it ended.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use fleetlog_log::{LogError, Producer, forget_spool, tell_spool};
use fleetlog_runtime::Shutdown;
use fleetlog_schemas::record::SpoolStanding;

use super::times::Times;
use super::{Spool, lock};

/// `complete_through` is as much older as this, with nothing to do as well: it may only be as new as the last word.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// A request between its arrival at the spool and its answer.
pub(super) struct UnderWay<'a> {
    times: &'a Mutex<Times>,
    received_at: i64,
}

impl<'a> UnderWay<'a> {
    pub(super) fn begin(times: &'a Mutex<Times>, received_at: i64) -> Self {
        lock(times).add(received_at, 1);
        Self { times, received_at }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        lock(self.times).remove(self.received_at, 1);
    }
}

impl Spool {
    /// What is held now.
    fn standing(&self) -> SpoolStanding {
        // In this order. A request that is not under way yet is answered after this clock; one that is no longer is among
        // what is held, or in Kafka.
        let now = self.clock.now_ns();
        let under_way: MutexGuard<'_, Times> = lock(&self.under_way);
        let as_of = under_way.earliest().map_or(now, |earliest| earliest.min(now));
        drop(under_way);
        let course = self.course.borrow();
        SpoolStanding {
            gateway_id: self.id.clone(),
            as_of,
            records: course.records(),
            bytes: course.bytes(),
            oldest: course.oldest(),
        }
    }

    /// Tells what is held, for the first time: until Kafka has it, nothing may be accepted.
    pub(crate) async fn tell_first(&self, producer: &Producer) {
        while let Err(error) = self.tell(producer).await {
            tracing::warn!(%error, "the spool is not made known yet; nothing is accepted before it is");
            tokio::time::sleep(TELL_EVERY).await;
        }
    }

    /// Tells what is held, again and again until shutdown.
    pub(crate) async fn keep_telling(&self, producer: &Producer, shutdown: &Shutdown) {
        let telling = async {
            loop {
                tokio::time::sleep(TELL_EVERY).await;
                if let Err(error) = self.tell(producer).await {
                    tracing::warn!(%error, "what the spool holds was not told");
                }
            }
        };
        tokio::select! {
            () = telling => {}
            () = shutdown.triggered() => {}
        }
    }

    /// Tells for the last time, when nothing is accepted or drained any more: a spool that holds nothing is forgotten.
    pub(crate) async fn tell_last(&self, producer: &Producer) {
        let told = if self.course.borrow().is_idle() {
            async { forget_spool(producer, &self.id)?.await.map(|_| ()) }.await
        } else {
            self.tell(producer).await
        };
        if let Err(error) = told {
            tracing::warn!(%error, "what the spool holds at the end was not told; its last word stands");
        }
    }

    /// Tells what is held, and returns once Kafka has it.
    async fn tell(&self, producer: &Producer) -> Result<(), LogError> {
        tell_spool(producer, &self.standing())?.await.map(|_| ())
    }
}
