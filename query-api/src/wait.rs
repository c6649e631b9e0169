//! Waiting for a receipt: an answer that has what its caller has just sent (INV-7).
//!
//! How many wait is bounded like statements are, of the process and of each project; who leaves stops waiting.

use std::future::Future;
use std::time::{Duration, Instant as Stopwatch};

use fleetlog_schemas::id::Position;
use fleetlog_store::Store;

use crate::admission::{Admission, Bounds};
use crate::error::QueryError;
use crate::ledger::{Ledger, Receipt, Redeemed};
use crate::metrics;
use crate::pipeline::Rests;

/// Between two looks at what no look of the ledger covers.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Lets queries wait.
pub(crate) struct Waits {
    ledger: Ledger,
    admission: Admission,
}

impl Waits {
    /// At most so many wait, of the process and of a project.
    pub(crate) fn new(ledger: Ledger, process: usize, project: usize) -> Self {
        // Who cannot wait is told at once: to wait for a wait would be one more queue.
        let bounds = Bounds { process, project, project_queue: project, wait: Duration::ZERO };
        Self { ledger, admission: Admission::new(bounds) }
    }

    /// What the ledger knows.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Waits until everything that a receipt stands for is in what an answer rests on.
    ///
    /// # Errors
    /// [`QueryError::NotCompleteYet`] after `wait`; or why it will never be.
    ///
    /// # Cancellation
    /// Safe.
    pub(crate) async fn redeem(
        &self,
        project_id: &str,
        receipt: &Receipt,
        wait: Duration,
        rests: Rests,
        store: &Store,
    ) -> Result<(), QueryError> {
        let _admitted = self.admission.enter(project_id).await?;
        let redeemed = async {
            self.stored(receipt, store).await?;
            match rests {
                Rests::Facts => Ok(()),
                Rests::Derivations => derived(receipt, store).await,
            }
        };
        let outcome = match tokio::time::timeout(wait, redeemed).await {
            Ok(outcome) => outcome,
            Err(_) if self.ledger.looks().borrow().is_none() => Err(QueryError::LedgerNotReady),
            Err(_) => {
                let waited_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                Err(QueryError::NotCompleteYet { waited_ms })
            }
        };
        let word = match &outcome {
            Ok(()) => "redeemed",
            Err(QueryError::NotCompleteYet { .. }) => "timeout",
            Err(_) => "refused",
        };
        metrics::WAITS.add_for("outcome", word, 1);
        outcome
    }

    /// Waits until all places of the receipt are settled.
    async fn stored(&self, receipt: &Receipt, store: &Store) -> Result<(), QueryError> {
        let shown = Stopwatch::now();
        let mut looks = self.ledger.looks();
        let mut hurry = None;
        loop {
            let redeemed = looks.borrow_and_update().as_ref().map(|look| look.redeem(receipt, shown));
            match redeemed {
                Some(Redeemed::Stored) => return Ok(()),
                Some(Redeemed::Old(places)) => return settled(&places, store).await,
                Some(Redeemed::Unknown) => return Err(QueryError::UnknownReceipt),
                Some(Redeemed::Lost) => return Err(QueryError::ReceiptLost),
                Some(Redeemed::Open) | None => {}
            }
            hurry.get_or_insert_with(|| self.ledger.hurry());
            looks.changed().await.map_err(|_| QueryError::LedgerNotReady)?;
        }
    }
}

/// Waits until places that the ledger does not look back to are settled.
async fn settled(places: &[Position], store: &Store) -> Result<(), QueryError> {
    let asked: Vec<_> =
        places.iter().map(|at| (at.partition, at.offset..at.offset.saturating_add(1))).collect();
    again_until(async || {
        let runs = store.settled_runs(&asked).await?;
        Ok(places.iter().all(|at| {
            runs.iter()
                .any(|run| run.raw_partition == at.partition && (run.first..=run.last).contains(&at.offset))
        }))
    })
    .await
}

/// Waits until the derivations have seen everything that came of the receipt's records.
async fn derived(receipt: &Receipt, store: &Store) -> Result<(), QueryError> {
    let carried = store.carried_to(receipt.positions()).await?;
    if carried.is_empty() {
        return Ok(());
    }
    again_until(async || {
        let progress = store.progress().await?;
        let reached = |(partition, offset): &(i32, i64)| {
            progress.get(partition).is_some_and(|derived| derived >= offset)
        };
        Ok(carried.iter().all(reached))
    })
    .await
}

async fn again_until<F>(mut holds: impl FnMut() -> F) -> Result<(), QueryError>
where
    F: Future<Output = Result<bool, QueryError>>,
{
    while !holds().await? {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}
