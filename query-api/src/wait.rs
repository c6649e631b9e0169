//! Waiting for a receipt: an answer that has what its caller has just sent (INV-7).
//!
//! How many wait is bounded like statements are, of the process and of each project; who leaves stops waiting. What they
//! ask the store they ask as a statement of their project does, and how far the derivations are, together ([`Followed`]).

use std::collections::HashMap;
use std::future::Future;
use std::time::{Duration, Instant as Stopwatch};

use fleetlog_schemas::id::Position;
use fleetlog_store::derived::Reflected;
use fleetlog_store::{Store, StoreError};
use tokio::sync::Mutex;

use crate::admission::{Admission, Bounds};
use crate::error::QueryError;
use crate::ledger::{Ledger, Receipt, Redeemed};
use crate::metrics;
use crate::pipeline::Rests;

/// Between two looks at places that no look of the ledger covers: they are hours old, so hardly ever on their way.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Between two looks at how far the derivations are, however many wait for them.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);
/// The same after one that failed.
const FOLLOW_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Lets queries wait.
pub(crate) struct Waits {
    ledger: Ledger,
    admission: Admission,
    /// Of statements, which those of who waits are among.
    statements: Admission,
    followed: Followed,
}

impl Waits {
    /// At most so many wait, of the process and of a project.
    pub(crate) fn new(ledger: Ledger, statements: Admission, process: usize, project: usize) -> Self {
        // Who cannot wait is told at once: to wait for a wait would be one more queue.
        let bounds = Bounds { process, project, project_queue: project, wait: Duration::ZERO };
        Self { ledger, admission: Admission::new(bounds), statements, followed: Followed::default() }
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
            self.stored(project_id, receipt, store).await?;
            match rests {
                Rests::Facts => Ok(()),
                Rests::Derivations => self.derived(project_id, receipt, store).await,
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
    async fn stored(&self, project_id: &str, receipt: &Receipt, store: &Store) -> Result<(), QueryError> {
        let shown = Stopwatch::now();
        let mut looks = self.ledger.looks();
        let mut hurry = None;
        loop {
            let redeemed = looks.borrow_and_update().as_ref().map(|look| look.redeem(receipt, shown));
            match redeemed {
                Some(Redeemed::Stored) => return Ok(()),
                Some(Redeemed::Old(places)) => {
                    return self.settled(project_id, &places, store).await;
                }
                Some(Redeemed::Unknown) => return Err(QueryError::UnknownReceipt),
                Some(Redeemed::Lost) => return Err(QueryError::ReceiptLost),
                Some(Redeemed::Open) | None => {}
            }
            hurry.get_or_insert_with(|| self.ledger.hurry());
            looks.changed().await.map_err(|_| QueryError::LedgerNotReady)?;
        }
    }

    /// Waits until places that the ledger does not look back to are settled.
    async fn settled(&self, project_id: &str, places: &[Position], store: &Store) -> Result<(), QueryError> {
        let asked: Vec<_> =
            places.iter().map(|at| (at.partition, at.offset..at.offset.saturating_add(1))).collect();
        loop {
            let admitted = self.statements.enter(project_id).await?;
            let runs = store.settled_runs(&asked).await?;
            drop(admitted);
            let is_settled = |at: &Position| {
                runs.iter().any(|run| {
                    run.raw_partition == at.partition && (run.first..=run.last).contains(&at.offset)
                })
            };
            if places.iter().all(is_settled) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until the derivations have seen everything that came of the receipt's records.
    async fn derived(&self, project_id: &str, receipt: &Receipt, store: &Store) -> Result<(), QueryError> {
        let admitted = self.statements.enter(project_id).await?;
        let carried = store.carried_to(receipt.positions()).await?;
        drop(admitted);
        self.followed.reaches(project_id, &carried, || store.progress()).await;
        Ok(())
    }
}

/// How far the derivations are, read once for all who wait and only while somebody does.
#[derive(Debug, Default)]
struct Followed(Mutex<Followings>);

/// What was read last.
#[derive(Debug, Default)]
struct Followings {
    /// Up to where each partition of the events topic is derived; for each project it only ever grows.
    progress: HashMap<i32, Reflected>,
    /// When the next look is due; at once before the first.
    due: Option<Stopwatch>,
}

impl Followed {
    /// Waits until every partition is derived up to its offset, as far as this project is concerned. A look that fails is
    /// repeated.
    ///
    /// # Cancellation
    /// Safe; the next one who waits looks instead.
    async fn reaches<F>(&self, project_id: &str, carried: &[(i32, i64)], read: impl Fn() -> F)
    where
        F: Future<Output = Result<HashMap<i32, Reflected>, StoreError>>,
    {
        loop {
            let wait = {
                // Held while it is read: who comes meanwhile waits for the same look.
                let mut last = self.0.lock().await;
                if last.reaches(project_id, carried) {
                    return;
                }
                if last.due.is_none_or(|due| due <= Stopwatch::now()) {
                    let next = match read().await {
                        Ok(progress) => {
                            last.progress = progress;
                            FOLLOW_EVERY
                        }
                        Err(error) => {
                            tracing::warn!(%error, "how far the derivations are cannot be read");
                            FOLLOW_AFTER_FAILURE
                        }
                    };
                    last.due = Some(Stopwatch::now() + next);
                    if last.reaches(project_id, carried) {
                        return;
                    }
                }
                last.due.map_or(FOLLOW_EVERY, |due| due.saturating_duration_since(Stopwatch::now()))
            };
            tokio::time::sleep(wait).await;
        }
    }
}

impl Followings {
    fn reaches(&self, project_id: &str, carried: &[(i32, i64)]) -> bool {
        let reached = |(partition, offset): &(i32, i64)| {
            self.progress.get(partition).is_some_and(|reflected| reflected.of(project_id) >= *offset)
        };
        carried.iter().all(reached)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    #[tokio::test]
    async fn however_many_wait_the_derivations_are_read_once_for_all() {
        let (followed, reads) = (Followed::default(), AtomicI64::new(0));
        // Each look finds one more offset derived; the second one fails.
        let read = || async {
            tokio::task::yield_now().await;
            match reads.fetch_add(1, Ordering::Relaxed) {
                1 => Err(StoreError::Config("away".to_owned())),
                derived => Ok(HashMap::from([(0, Reflected::up_to(derived))])),
            }
        };
        let carried = [(0, 2)];
        futures::future::join_all((0..256).map(|_| followed.reaches("p", &carried, &read))).await;
        assert_eq!(reads.load(Ordering::Relaxed), 3);
        followed.reaches("p", &[(0, 1)], &read).await;
        followed.reaches("p", &[], &read).await;
        assert_eq!(reads.load(Ordering::Relaxed), 3, "what is known is not asked for");
    }

    #[tokio::test]
    async fn who_leaves_in_the_midst_of_a_look_leaves_it_to_the_next() {
        let followed = Followed::default();
        let never = followed.reaches("p", &[(0, 1)], std::future::pending);
        assert!(tokio::time::timeout(Duration::from_millis(10), never).await.is_err());
        let read = || std::future::ready(Ok(HashMap::from([(0, Reflected::up_to(1))])));
        followed.reaches("p", &[(0, 1)], read).await;
    }

    #[tokio::test]
    async fn a_project_that_is_behind_waits_and_the_others_do_not_wait_for_it() {
        let followed = Followed::default();
        let behind = Reflected { others: 7, behind: [("p".to_owned(), 3)].into() };
        let read = || std::future::ready(Ok(HashMap::from([(0, behind.clone())])));
        followed.reaches("q", &[(0, 7)], read).await;
        followed.reaches("p", &[(0, 3)], read).await;
        let never = followed.reaches("p", &[(0, 4)], read);
        assert!(tokio::time::timeout(Duration::from_millis(10), never).await.is_err());
    }
}
