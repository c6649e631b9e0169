//! Storing one range exactly once: carries out what [`crate::once`] decides, on Kafka and ClickHouse.

use std::time::Duration;

use fleetlog_log::{Lease, LogError};
use fleetlog_runtime::{Classified, ErrorClass};
use fleetlog_store::{Attempt, FactRange, FactTable, Positions, StoreError};

use crate::error::AggregatorError;
use crate::facts::{Facts, To};
use crate::metrics;
use crate::once::{Before, INSERT_WINDOW_MS, Note, Proof, Sent, Step};
use crate::partition::Shared;

mod refused;

const BACKOFF_START: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// ClickHouse refuses the range, and no row of it: repeating it is for the operator who looks.
const BACKOFF_REFUSED: Duration = Duration::from_secs(30);
/// Between two looks at what is on its way.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Why a range was not stored.
pub(crate) enum Unsettled {
    /// The partition was taken away, or the service ends; the note tells the next owner.
    Abandoned,
    /// The log cannot go on.
    Failed(AggregatorError),
}

/// A range on its way into the store.
pub(crate) struct Settling<'a, F> {
    shared: &'a Shared,
    lease: &'a Lease,
    facts: &'a mut F,
    range: FactRange,
    /// Everything of the partition below it is settled.
    settled: i64,
    backoff: Duration,
}

impl<'a, F: Facts> Settling<'a, F> {
    /// Prepares a range behind the offset up to which the partition is settled.
    pub(crate) fn new(
        shared: &'a Shared,
        lease: &'a Lease,
        facts: &'a mut F,
        range: FactRange,
        settled: i64,
    ) -> Self {
        Self { shared, lease, facts, range, settled, backoff: BACKOFF_START }
    }

    /// Stores the range's facts, table by table, for as long as it takes, given what may be stored of it already.
    ///
    /// # Errors
    /// Why it is not known to be stored.
    pub(crate) async fn run(mut self, before: Before) -> Result<(), Unsettled> {
        let mut proofs = vec![self.proof(before).await?; F::TABLES.len()];
        for (number, table) in F::TABLES.iter().enumerate() {
            let wanted = self.facts.positions(*table);
            let Some(proof) = proofs.get_mut(number) else { continue };
            if !wanted.is_empty() && !before.proves(number) {
                self.store(number, *table, &wanted, proof).await?;
            }
        }
        self.shared.ready.ready();
        Ok(())
    }

    /// Where every table that is not proved stands before anything is done here.
    async fn proof(&mut self, before: Before) -> Result<Proof, Unsettled> {
        Ok(match before {
            // One note for the first attempt in every table: one commit a range where nothing goes wrong.
            Before::Nothing => Proof::recorded(self.record(0, 1).await?),
            // In a table after the noted one an earlier attempt may be on its way, of a time that is past sooner.
            Before::Noted(note) => Proof::inherited(note.attempt, note.insert_before_ms),
            Before::ReadAgain { insert_before_ms } => Proof::read_again(insert_before_ms),
        })
    }

    /// Stores the rows of one table.
    async fn store(
        &mut self,
        number: usize,
        table: FactTable,
        wanted: &Positions,
        proof: &mut Proof,
    ) -> Result<(), Unsettled> {
        // Rows of a further attempt; the first one has all.
        let mut only: Option<Positions> = None;
        let mut sends = 0;
        let mut refused = false;
        loop {
            // On a cluster another server's clock may be behind the one that was read.
            match proof.next(self.now().await? - self.shared.store.clock_skew_ms()) {
                Step::Done => return Ok(()),
                Step::Send => {
                    let attempt = Attempt {
                        number: proof.attempt(),
                        sends,
                        insert_before_ms: proof.insert_before_ms(),
                    };
                    sends += 1;
                    let sent = self.send(table, &attempt, only.as_ref(), wanted).await?;
                    refused = sent == Sent::Refused;
                    proof.sent(sent);
                }
                Step::ReadBack => {
                    let missing = self.missing(table).await?;
                    if proof.read_back(missing.len(), false).is_none() && !missing.is_empty() {
                        self.pause(LOOK_AGAIN).await?;
                    }
                }
                Step::Settle if self.is_inserting(table).await? => self.pause(LOOK_AGAIN).await?,
                Step::Settle => {
                    let missing = self.missing(table).await?;
                    if let Some(attempt) = proof.read_back(missing.len(), true) {
                        if !refused && !proof.is_read_again() {
                            metrics::MISSING_ROWS.add(missing.len() as u64);
                            tracing::warn!(range = ?self.range, missing = missing.len(), attempt, "rows are proved missing");
                        }
                        only = Some(missing);
                        proof.begun(attempt, self.record(number, attempt).await?);
                        sends = 0;
                    }
                }
            }
        }
    }

    /// Records an attempt beside the committed offset, before anything of it is sent; returns its `insert_before`.
    async fn record(&mut self, table: usize, attempt: u32) -> Result<i64, Unsettled> {
        let insert_before_ms = self.now().await? + INSERT_WINDOW_MS;
        let note =
            Note { first: self.range.first, last: self.range.last, table, attempt, insert_before_ms }.text();
        loop {
            match self.lease.commit(self.settled, &note).await {
                Ok(()) => return Ok(insert_before_ms),
                Err(LogError::NotOwner { .. }) => return Err(Unsettled::Abandoned),
                Err(error) if error.class() == ErrorClass::Unavailable => {
                    tracing::warn!(%error, range = ?self.range, "the attempt is not recorded yet");
                    self.back_off().await?;
                }
                Err(error) => return Err(Unsettled::Failed(error.into())),
            }
        }
    }

    async fn send(
        &mut self,
        table: FactTable,
        attempt: &Attempt,
        only: Option<&Positions>,
        wanted: &Positions,
    ) -> Result<Sent, Unsettled> {
        let to = To::Table(&self.range, attempt);
        let error = match self.facts.send(table, &self.shared.store, to, only).await {
            Ok(()) => {
                self.backoff = BACKOFF_START;
                return Ok(Sent::Acknowledged);
            }
            Err(error) => error,
        };
        let rows = only.unwrap_or(wanted);
        if matches!(error, StoreError::Refused { .. }) && self.examine(table, rows).await? {
            metrics::STORE_RETRIES.add_for("code", error.code(), 1);
            return Ok(Sent::Refused);
        }
        self.complain(&error);
        if error.class() == ErrorClass::Unavailable {
            self.back_off().await?;
        } else {
            self.pause(BACKOFF_REFUSED).await?;
        }
        Ok(Sent::Unknown)
    }

    /// The places of a table that are not stored.
    async fn missing(&mut self, table: FactTable) -> Result<Positions, Unsettled> {
        let stored = loop {
            match self.shared.store.stored_facts(table, &self.range).await {
                Ok(stored) => break stored,
                Err(error) => self.wait_out(&error).await?,
            }
        };
        if stored.repeats > 0 {
            metrics::REPEATED_ROWS.add(stored.repeats as u64);
            tracing::error!(range = ?self.range, table = table.name(), repeats = stored.repeats, "rows are stored twice");
        }
        Ok(self.facts.missing(table, &stored))
    }

    async fn is_inserting(&mut self, table: FactTable) -> Result<bool, Unsettled> {
        loop {
            match self.shared.store.is_inserting(table, &self.range).await {
                Ok(inserting) => return Ok(inserting),
                Err(error) => self.wait_out(&error).await?,
            }
        }
    }

    /// ClickHouse's clock.
    async fn now(&mut self) -> Result<i64, Unsettled> {
        loop {
            match self.shared.store.now_ms().await {
                Ok(now) => return Ok(now),
                Err(error) => self.wait_out(&error).await?,
            }
        }
    }

    async fn wait_out(&mut self, error: &StoreError) -> Result<(), Unsettled> {
        self.complain(error);
        self.back_off().await
    }

    fn complain(&self, error: &StoreError) {
        metrics::STORE_RETRIES.add_for("code", error.code(), 1);
        if error.class() == ErrorClass::Unavailable {
            tracing::warn!(%error, range = ?self.range, "the range is not stored yet");
        } else {
            tracing::error!(%error, range = ?self.range, "the range is refused; its partition waits");
        }
        self.shared.ready.not_ready(error.to_string());
    }

    async fn back_off(&mut self) -> Result<(), Unsettled> {
        let wait = self.backoff;
        self.backoff = (wait * 2).min(BACKOFF_MAX);
        self.pause(wait).await
    }

    /// Waits, unless the partition or the service is going away.
    async fn pause(&self, wait: Duration) -> Result<(), Unsettled> {
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            () = self.lease.revoked() => Err(Unsettled::Abandoned),
            () = self.shared.shutdown.triggered() => Err(Unsettled::Abandoned),
        }
    }
}
