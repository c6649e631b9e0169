//! API keys and projects: a live view of the compacted control topic, and its writer.
//!
//! The topic is read from its start by every process that checks keys, without a group. A record that arrives later
//! (a new key, a revocation, a tombstone) takes effect as soon as it is read.

mod state;
mod writer;

use std::sync::{Arc, PoisonError, RwLock};

use fleetlog_runtime::{Classified, ErrorClass, Shutdown};
use fleetlog_schemas::control::{ApiKey, PresentedKey, Project, Role, SendLimits};
use fleetlog_schemas::topic;
use thiserror::Error;
use tokio::sync::watch;

pub use writer::{ControlWriter, NewKey};

use crate::{From, Isolation, KafkaConfig, LogError, Tail, TailRead};
use state::State;

/// Who a valid key speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Public id of the key.
    pub key_id: Arc<str>,
    /// Project it reads and writes.
    pub project_id: Arc<str>,
    /// What it may do.
    pub role: Role,
}

/// Why a presented key is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AuthError {
    /// It does not look like a key.
    #[error("the key is malformed; expected fl_<id>_<secret>")]
    Malformed,
    /// No such key, or the wrong secret.
    #[error("the key is unknown")]
    Unknown,
    /// It was revoked.
    #[error("the key has been revoked")]
    Revoked,
    /// The control topic has not been read to its end yet.
    #[error("the keys are still being loaded")]
    NotReady,
}

impl Classified for AuthError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Malformed | Self::Unknown | Self::Revoked => ErrorClass::Unauthenticated,
            Self::NotReady => ErrorClass::Unavailable,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed_key",
            Self::Unknown => "unknown_key",
            Self::Revoked => "revoked_key",
            Self::NotReady => "keys_loading",
        }
    }
}

/// The keys and projects as of now; cheap to clone and to ask.
#[derive(Clone)]
pub struct ControlView {
    state: Arc<RwLock<Arc<State>>>,
    caught_up: watch::Receiver<bool>,
}

/// Keeps a [`ControlView`] up to date; run [`Self::follow`] as a supervised task.
#[derive(Debug)]
pub struct ControlFollower {
    tail: Tail,
    state: Arc<RwLock<Arc<State>>>,
    caught_up: watch::Sender<bool>,
}

impl ControlView {
    /// A view and what keeps it up to date; the control topic must exist.
    ///
    /// # Errors
    /// [`LogError::Config`] when librdkafka refuses the configuration.
    pub fn open(config: &KafkaConfig) -> Result<(Self, ControlFollower), LogError> {
        let tail = Tail::open(config, topic::CONTROL, [(0, From::Beginning)], Isolation::Committed)?;
        let state = Arc::<RwLock<Arc<State>>>::default();
        let (tell, caught_up) = watch::channel(false);
        let follower = ControlFollower { tail, state: Arc::clone(&state), caught_up: tell };
        Ok((Self { state, caught_up }, follower))
    }

    /// Waits until the topic has been read to its end once; until then every key is [`AuthError::NotReady`].
    ///
    /// # Cancellation
    /// Safe to drop and to call again.
    pub async fn caught_up(&self) {
        let mut caught_up = self.caught_up.clone();
        let _follower_gone = caught_up.wait_for(|done| *done).await.is_err();
    }

    /// Whether the topic has been read to its end once.
    pub fn is_caught_up(&self) -> bool {
        *self.caught_up.borrow()
    }

    /// Checks a key as its holder presents it.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn authenticate(&self, text: &str) -> Result<Principal, AuthError> {
        let key = PresentedKey::parse(text).ok_or(AuthError::Malformed)?;
        self.authenticate_pair(key.key_id, key.secret)
    }

    /// Checks a key given in its two parts, as HTTP Basic carries it.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn authenticate_pair(&self, key_id: &str, secret: &str) -> Result<Principal, AuthError> {
        if !self.is_caught_up() {
            return Err(AuthError::NotReady);
        }
        self.snapshot().authenticate(key_id, secret)
    }

    /// A project's settings.
    pub fn project(&self, project_id: &str) -> Option<Project> {
        self.snapshot().project(project_id).cloned()
    }

    /// What may be sent with this key, and with all keys of its project together.
    pub fn send_limits(&self, principal: &Principal) -> (SendLimits, SendLimits) {
        let state = self.snapshot();
        let key = state.key(&principal.key_id).map(|key| key.limits).unwrap_or_default();
        let project = state.project(&principal.project_id).map(|project| project.limits).unwrap_or_default();
        (key, project)
    }

    /// All keys, revoked ones included, by project and creation.
    pub fn keys(&self) -> Vec<ApiKey> {
        self.snapshot().keys()
    }

    fn snapshot(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ControlFollower {
    /// Applies the topic's records until shutdown.
    ///
    /// # Errors
    /// What ended the reading; passing errors are waited out.
    pub async fn follow(self, shutdown: Shutdown) -> Result<(), LogError> {
        // Built aside until the end is reached, so that loading costs no copy per record.
        let mut state = State::default();
        loop {
            let read = tokio::select! {
                read = self.tail.next() => read?,
                () = shutdown.triggered() => return Ok(()),
            };
            let loaded = match read {
                TailRead::Record(record) => {
                    state.apply(&record);
                    false
                }
                TailRead::CaughtUp { .. } => true,
            };
            if loaded || *self.caught_up.borrow() {
                *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state.clone());
            }
            if loaded {
                self.caught_up.send_replace(true);
            }
        }
    }
}

/// Reads the control topic to its present end.
async fn read_all(config: &KafkaConfig) -> Result<State, LogError> {
    let tail = Tail::open(config, topic::CONTROL, [(0, From::Beginning)], Isolation::Committed)?;
    let mut state = State::default();
    loop {
        match tail.next().await? {
            TailRead::Record(record) => state.apply(&record),
            TailRead::CaughtUp { .. } => return Ok(state),
        }
    }
}

impl std::fmt::Debug for ControlView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlView").field("caught_up", &self.is_caught_up()).finish_non_exhaustive()
    }
}
