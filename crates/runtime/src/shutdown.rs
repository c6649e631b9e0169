//! One signal that everything is to end, passed as a value and never global.

use tokio_util::sync::CancellationToken;

/// A request to end, shared by everything that belongs together.
///
/// A child ends with its parent; a parent does not end with its child.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// A shutdown nobody has asked for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A shutdown that follows this one and can be asked for alone.
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// Asks everything that holds this value, or a child of it, to end.
    pub fn trigger(&self) {
        self.0.cancel();
    }

    /// Whether the end was asked for.
    pub fn is_triggered(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until the end is asked for.
    ///
    /// # Cancellation
    /// Safe to drop and to call again.
    pub async fn triggered(&self) {
        self.0.cancelled().await;
    }

    /// Triggers on SIGTERM and on SIGINT; a second signal ends the process at once with code 130.
    ///
    /// # Errors
    /// The operating system's error when a handler cannot be installed.
    pub async fn watch_signals(self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        for asked_before in [false, true] {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            if asked_before {
                std::process::exit(130);
            }
            tracing::info!("shutting down; a second signal ends at once");
            self.trigger();
        }
        Ok(())
    }
}
