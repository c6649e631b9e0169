//! Many promises against one running system.

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::system::System;

/// The system of a suite, started by the first promise that needs it. A failed start is remembered, not repeated.
type Shared = Arc<OnceCell<Result<Arc<System>, String>>>;

/// Promises that share one system, which is stopped after the last of them.
pub struct Suite {
    runtime: Runtime,
    system: Shared,
    trials: Vec<Trial>,
}

impl Suite {
    /// A suite without promises.
    ///
    /// # Errors
    /// When the asynchronous runtime cannot be started.
    pub fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        Ok(Self { runtime, system: Shared::default(), trials: Vec::new() })
    }

    /// Adds a promise.
    #[must_use]
    pub fn promise<F, Kept>(mut self, name: &str, promise: F) -> Self
    where
        F: FnOnce(Arc<System>) -> Kept + Send + 'static,
        Kept: Future<Output = Result<()>> + Send + 'static,
    {
        let (handle, system) = (self.runtime.handle().clone(), Arc::clone(&self.system));
        self.trials.push(Trial::test(name, move || {
            handle
                .block_on(async move {
                    let system = system.get_or_init(async || match System::ephemeral().await {
                        Ok(system) => Ok(Arc::new(system)),
                        Err(e) => Err(format!("{e:#}")),
                    });
                    let system = system.await.as_ref().map_err(|e| anyhow!("no system: {e}"))?;
                    promise(Arc::clone(system)).await
                })
                .map_err(|e| Failed::from(format!("{e:#}")))
        }));
        self
    }

    /// Runs the promises that the arguments of this process select, as `cargo test` passes them.
    pub fn run(self) -> ExitCode {
        let Self { runtime, system, trials } = self;
        let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
        if conclusion.has_failed()
            && let Some(Ok(system)) = system.get()
        {
            say(&format!("last words of the system:\n{}", system.process().stderr_tail()));
        }
        // Stops it and removes its data; the promises' own handles are gone by now.
        drop(system);
        drop(runtime);
        conclusion.exit_code()
    }
}

/// Prints a line: a figure that a test measured, or why it could not try something.
#[expect(clippy::print_stdout, reason = "the place for what tests say")]
pub fn say(line: &str) {
    println!("{line}");
}
