//! Threads of their own, with less right to the processors, for the services behind the log.
//!
//! On threads of the gateway's they would make senders wait while batches are decoded and packed. The log keeps what
//! they are late with; nothing keeps what a sender is late with.

use std::future::{Future, pending};
use std::io;
use std::panic::resume_unwind;

use rustix::process::setpriority_process;
use rustix::thread::gettid;
use tokio::runtime::{Builder, Runtime};

/// Of -20 to 19, with 0 for everybody else: about a tenth of the time while others want all of it.
const NICENESS: i32 = 10;

/// The threads. Dropping it abandons what still runs on them.
pub(crate) struct Background(Option<Runtime>);

impl Background {
    /// Starts the threads.
    ///
    /// # Errors
    /// The operating system's.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .enable_all()
            .thread_name("background")
            .on_thread_start(step_back)
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Runs a service there; a panic of its is one here.
    pub(crate) fn run<T, S>(&self, service: S) -> impl Future<Output = T> + Send + use<T, S>
    where
        T: Send + 'static,
        S: Future<Output = T> + Send + 'static,
    {
        let task = self.0.as_ref().map(|runtime| runtime.spawn(service));
        async move {
            let Some(task) = task else { return pending().await };
            match task.await {
                Ok(done) => done,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => resume_unwind(panic),
                    // Its threads are gone, and with them all who wait here.
                    Err(_) => pending().await,
                },
            }
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // A runtime may not wait for its threads on a thread of another one.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// On Linux a priority belongs to a thread, and those that it starts (the Kafka client's) inherit it.
fn step_back() {
    if let Err(error) = setpriority_process(Some(gettid()), NICENESS) {
        tracing::warn!(%error, "the services behind the log run at the priority of the gateway");
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn what_runs_behind_runs_at_a_lower_priority_and_its_outcome_comes_back() {
        let background = Background::start().unwrap();
        let priority = || async { getpriority_process(Some(gettid())).unwrap() };
        let here = priority().await;
        assert_eq!(background.run(priority()).await, here.max(NICENESS));
        let mut panics = JoinSet::new();
        panics.spawn(background.run(async { panic!("as it must") }));
        assert!(panics.join_next().await.unwrap().unwrap_err().is_panic());
        assert_eq!(priority().await, here);
    }
}
