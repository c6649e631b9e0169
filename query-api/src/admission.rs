//! How many statements run at a time, of the process and of each project.
//!
//! ClickHouse serves a bounded number of statements well and an unbounded number badly. A project has a share of its
//! own, so that one dashboard that reloads in a loop costs its own project its latency and nobody else's; what waits
//! is bounded by number and by time (INV-9). A statement whose caller has left gives its place back at once, because
//! its permits are dropped with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::QueryError;
use crate::metrics;

/// The bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Statements running, of the process.
    pub(crate) process: usize,
    /// Statements running, of one project.
    pub(crate) project: usize,
    /// Statements running or waiting, of one project.
    pub(crate) project_queue: usize,
    /// Longest wait.
    pub(crate) wait: Duration,
}

/// Lets statements in.
#[derive(Clone, Debug)]
pub(crate) struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bounds: Bounds,
    process: Arc<Semaphore>,
    projects: Mutex<HashMap<Arc<str>, Share>>,
}

/// One project's share; kept only while the project has a statement running or waiting.
#[derive(Debug)]
struct Share {
    running: Arc<Semaphore>,
    queued: usize,
}

/// A place in a project's queue.
#[derive(Debug)]
struct Place {
    admission: Admission,
    project_id: Arc<str>,
}

/// Leave to run one statement; dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct Admitted {
    _process: OwnedSemaphorePermit,
    _project: OwnedSemaphorePermit,
    _place: Place,
}

impl Admission {
    /// Nothing runs yet.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self(Arc::new(Inner {
            bounds,
            process: Arc::new(Semaphore::new(bounds.process)),
            projects: Mutex::default(),
        }))
    }

    /// Waits for leave to run a statement of the project.
    ///
    /// # Errors
    /// [`QueryError::ProjectBusy`] when too many of the project's statements wait already,
    /// [`QueryError::Busy`] when its turn does not come in time.
    ///
    /// # Cancellation
    /// Safe; a place that is no longer wanted is given back.
    pub(crate) async fn enter(&self, project_id: &str) -> Result<Admitted, QueryError> {
        let Some((place, running)) = self.queue(project_id) else {
            metrics::REFUSED.add_for("bound", "project", 1);
            return Err(QueryError::ProjectBusy);
        };
        let permits = async {
            // The project's first: whoever waits for its own project must not hold a place of the process.
            let project = running.acquire_owned().await;
            let process = Arc::clone(&self.0.process).acquire_owned().await;
            (project, process)
        };
        match tokio::time::timeout(self.0.bounds.wait, permits).await {
            Ok((Ok(project), Ok(process))) => {
                Ok(Admitted { _process: process, _project: project, _place: place })
            }
            // Nothing closes the semaphores; were it so, nobody could be let in either.
            Ok(_) | Err(_) => {
                metrics::REFUSED.add_for("bound", "process", 1);
                Err(QueryError::Busy)
            }
        }
    }

    fn queue(&self, project_id: &str) -> Option<(Place, Arc<Semaphore>)> {
        let bounds = self.0.bounds;
        let mut projects = self.0.projects.lock().unwrap_or_else(PoisonError::into_inner);
        let share = projects
            .entry(Arc::from(project_id))
            .or_insert_with(|| Share { running: Arc::new(Semaphore::new(bounds.project)), queued: 0 });
        if share.queued >= bounds.project_queue {
            return None;
        }
        share.queued += 1;
        let running = Arc::clone(&share.running);
        Some((Place { admission: self.clone(), project_id: Arc::from(project_id) }, running))
    }

    #[cfg(test)]
    fn projects(&self) -> usize {
        self.0.projects.lock().unwrap().len()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut projects = self.admission.0.projects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = projects.get_mut(&self.project_id) {
            share.queued -= 1;
            if share.queued == 0 {
                projects.remove(&self.project_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(process: usize, project: usize, project_queue: usize) -> Admission {
        Admission::new(Bounds { process, project, project_queue, wait: Duration::from_millis(20) })
    }

    #[tokio::test]
    async fn a_busy_project_leaves_the_others_their_places() {
        let admission = admission(2, 1, 2);
        let _running = admission.enter("loud").await.unwrap();
        assert!(matches!(admission.enter("loud").await, Err(QueryError::Busy)));
        assert!(admission.enter("quiet").await.is_ok());
    }

    #[tokio::test]
    async fn what_waits_is_bounded_by_number() {
        let admission = admission(8, 8, 1);
        let running = admission.enter("p").await.unwrap();
        assert!(matches!(admission.enter("p").await, Err(QueryError::ProjectBusy)));
        drop(running);
        assert!(admission.enter("p").await.is_ok());
    }

    #[tokio::test]
    async fn nothing_is_remembered_of_projects_that_are_done() {
        let admission = admission(1, 1, 8);
        let running = admission.enter("a").await.unwrap();
        assert!(admission.enter("b").await.is_err());
        drop(running);
        assert_eq!(admission.projects(), 0);
    }
}
