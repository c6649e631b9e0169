//! Tasks with names, whose end is always noticed.

use std::future::Future;
use std::time::Duration;

use thiserror::Error;
use tokio::task::JoinSet;

use crate::Shutdown;

/// How a supervised task failed.
#[derive(Debug, Error)]
pub enum TaskFailure {
    /// It returned an error.
    #[error("{task}: {source}")]
    Failed {
        /// The task's name.
        task: &'static str,
        /// What it returned.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It panicked.
    #[error("{task} panicked")]
    Panicked {
        /// The task's name.
        task: &'static str,
    },
    /// It was still running when the budget for shutting down was used up.
    #[error("{tasks:?} did not end within {budget:?}")]
    Overran {
        /// Names of the tasks.
        tasks: Vec<&'static str>,
        /// The budget.
        budget: Duration,
    },
}

/// Owns the tasks of a service: when one fails or panics, all are asked to end and the failure is returned.
#[derive(Debug)]
pub struct Supervisor {
    shutdown: Shutdown,
    tasks: JoinSet<Result<(), TaskFailure>>,
    names: std::collections::HashMap<tokio::task::Id, &'static str>,
}

impl Supervisor {
    /// A supervisor without tasks, whose tasks end with `shutdown`.
    pub fn new(shutdown: Shutdown) -> Self {
        Self { shutdown, tasks: JoinSet::new(), names: std::collections::HashMap::new() }
    }

    /// Starts a task. It should end soon after the supervisor's shutdown is triggered.
    pub fn spawn<E>(&mut self, name: &'static str, task: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let handle = self.tasks.spawn(async move {
            task.await.map_err(|source| TaskFailure::Failed { task: name, source: source.into() })
        });
        self.names.insert(handle.id(), name);
    }

    /// Waits until every task has ended.
    ///
    /// A task that ends well before shutdown leaves the others running. Once shutdown is triggered, by anyone,
    /// the tasks have `budget` to end; what has not ended then is aborted.
    ///
    /// # Errors
    /// The first failure.
    pub async fn join(mut self, budget: Duration) -> Result<(), TaskFailure> {
        let mut failure = None;
        while !self.shutdown.is_triggered() {
            let ended = tokio::select! {
                ended = self.tasks.join_next_with_id() => ended,
                () = self.shutdown.triggered() => break,
            };
            let Some(ended) = ended else { return Ok(()) };
            if let Err(e) = self.outcome(ended) {
                tracing::error!(error = %e, "a task failed; the service shuts down");
                failure = Some(e);
                self.shutdown.trigger();
            }
        }
        let drained = tokio::time::timeout(budget, async {
            while let Some(ended) = self.tasks.join_next_with_id().await {
                if let Err(e) = self.outcome(ended) {
                    tracing::error!(error = %e, "a task failed while shutting down");
                    failure.get_or_insert(e);
                }
            }
        })
        .await;
        if drained.is_err() {
            let tasks = self.names.into_values().collect();
            self.tasks.abort_all();
            failure.get_or_insert(TaskFailure::Overran { tasks, budget });
        }
        failure.map_or(Ok(()), Err)
    }

    fn outcome(
        &mut self,
        ended: Result<(tokio::task::Id, Result<(), TaskFailure>), tokio::task::JoinError>,
    ) -> Result<(), TaskFailure> {
        match ended {
            Ok((id, result)) => {
                self.names.remove(&id);
                result
            }
            Err(e) => {
                let task = self.names.remove(&e.id()).unwrap_or("task");
                if e.is_cancelled() { Ok(()) } else { Err(TaskFailure::Panicked { task }) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_task_ends_the_others_and_is_reported() {
        let shutdown = Shutdown::new();
        let mut tasks = Supervisor::new(shutdown.clone());
        let waits = shutdown.clone();
        tasks.spawn("waits", async move {
            waits.triggered().await;
            Ok::<_, std::io::Error>(())
        });
        tasks.spawn("fails", async { Err(std::io::Error::other("no")) });
        let failure = tasks.join(Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(failure.to_string(), "fails: no");
        assert!(shutdown.is_triggered());
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_with_a_name() {
        let mut tasks = Supervisor::new(Shutdown::new());
        tasks.spawn("fragile", async {
            assert!(std::hint::black_box(false), "broken");
            Ok::<_, std::io::Error>(())
        });
        assert_eq!(tasks.join(Duration::from_secs(5)).await.unwrap_err().to_string(), "fragile panicked");
    }

    #[tokio::test]
    async fn a_task_that_ignores_shutdown_is_named_when_the_budget_is_used_up() {
        let shutdown = Shutdown::new();
        let mut tasks = Supervisor::new(shutdown.clone());
        tasks.spawn("deaf", std::future::pending::<Result<(), std::io::Error>>());
        shutdown.trigger();
        let failure = tasks.join(Duration::from_millis(1)).await.unwrap_err();
        assert!(matches!(failure, TaskFailure::Overran { tasks, .. } if tasks == ["deaf"]));
    }
}
