//! Whether the process is alive, and whether it should be given work.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The readiness of every component of a process.
///
/// A process is ready when all of its components are; a component that was never set is not ready.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    components: Mutex<BTreeMap<&'static str, Result<(), String>>>,
    changed: Notify,
}

/// One component's handle to say that it is ready, or why not.
#[derive(Clone, Debug)]
pub struct Readiness {
    health: Health,
    component: &'static str,
}

impl Health {
    /// A process without components, which is ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a component, not ready with the reason `starting`.
    pub fn component(&self, component: &'static str) -> Readiness {
        let readiness = Readiness { health: self.clone(), component };
        readiness.not_ready("starting");
        readiness
    }

    /// What keeps the process from being ready, by component.
    pub fn obstacles(&self) -> BTreeMap<&'static str, String> {
        let states = self.0.components.lock().unwrap_or_else(PoisonError::into_inner);
        states
            .iter()
            .filter_map(|(name, state)| state.as_ref().err().map(|why| (*name, why.clone())))
            .collect()
    }

    /// Waits until the named components are registered and every component is ready.
    ///
    /// # Cancellation
    /// Safe to drop and to call again.
    pub async fn all_ready(&self, expected: &[&str]) {
        loop {
            let mut changed = std::pin::pin!(self.0.changed.notified());
            // Registered before looking, so that no change is missed between the look and the wait.
            changed.as_mut().enable();
            let complete = {
                let components = self.0.components.lock().unwrap_or_else(PoisonError::into_inner);
                expected.iter().all(|name| components.contains_key(name))
                    && components.values().all(Result::is_ok)
            };
            if complete {
                return;
            }
            changed.await;
        }
    }

    /// Whether every component is ready.
    pub fn is_ready(&self) -> bool {
        self.obstacles().is_empty()
    }
}

impl Readiness {
    /// Says that the component can do its work.
    pub fn ready(&self) {
        self.set(Ok(()));
    }

    /// Says why the component cannot do its work now.
    pub fn not_ready(&self, why: impl Into<String>) {
        self.set(Err(why.into()));
    }

    fn set(&self, state: Result<(), String>) {
        let mut states = self.health.0.components.lock().unwrap_or_else(PoisonError::into_inner);
        let before = states.insert(self.component, state.clone());
        if before.as_ref() != Some(&state) {
            match state {
                Ok(()) => tracing::info!(component = self.component, "ready"),
                Err(why) => tracing::info!(component = self.component, %why, "not ready"),
            }
            drop(states);
            self.health.0.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_ready_waits_for_components_that_do_not_exist_yet() {
        let health = Health::new();
        let first = health.component("first");
        first.ready();
        let wait = health.all_ready(&["first", "second"]);
        let prepare = async {
            let second = health.component("second");
            tokio::task::yield_now().await;
            second.ready();
        };
        tokio::join!(wait, prepare);
        assert!(health.is_ready());
    }
}
