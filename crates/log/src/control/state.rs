//! The latest record of every key and project, as a plain value.

use std::collections::HashMap;
use std::sync::Arc;

use fleetlog_schemas::control::{ApiKey, ControlRecord, Project};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{AuthError, Principal};
use crate::Record;

/// Keys by id, projects by id.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    keys: HashMap<String, Entry>,
    projects: HashMap<String, Project>,
}

#[derive(Clone, Debug)]
struct Entry {
    key: ApiKey,
    principal: Principal,
    secret_sha256: [u8; 32],
}

/// Compared with when there is no such key, so that the answer takes as long; no secret is known to hash to it.
const NO_SECRET: [u8; 32] = [0; 32];

impl State {
    /// Applies one record; what cannot be read is logged and left out, since one bad record must not lock all out.
    pub(super) fn apply(&mut self, record: &Record) {
        let Some(topic_key) = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()) else {
            tracing::warn!(position = %record.position, "control record without a readable key");
            return;
        };
        let parsed = record.payload.as_deref().map(serde_json::from_slice::<ControlRecord>);
        match parsed {
            None => self.remove(topic_key),
            Some(Ok(control)) if control.topic_key() == topic_key => self.insert(topic_key, control),
            Some(Ok(_)) => {
                tracing::warn!(position = %record.position, "control record under another record's key");
            }
            Some(Err(error)) => {
                tracing::warn!(position = %record.position, %error, "unreadable control record");
            }
        }
    }

    fn insert(&mut self, topic_key: &str, record: ControlRecord) {
        match record {
            ControlRecord::Project(project) => {
                self.projects.insert(project.project_id.clone(), project);
            }
            ControlRecord::Key(key) => {
                let mut secret_sha256 = [0; 32];
                if hex::decode_to_slice(&key.secret_sha256, &mut secret_sha256).is_err() {
                    tracing::warn!(topic_key, "control record with an unreadable hash");
                    return;
                }
                let principal = Principal {
                    key_id: Arc::from(key.key_id.as_str()),
                    project_id: Arc::from(key.project_id.as_str()),
                    role: key.role,
                };
                self.keys.insert(key.key_id.clone(), Entry { key, principal, secret_sha256 });
            }
        }
    }

    fn remove(&mut self, topic_key: &str) {
        match topic_key.split_once(':') {
            Some(("key", id)) => {
                self.keys.remove(id);
            }
            Some(("project", id)) => {
                self.projects.remove(id);
            }
            _ => tracing::warn!(topic_key, "tombstone of nothing known"),
        }
    }

    pub(super) fn authenticate(&self, key_id: &str, secret: &str) -> Result<Principal, AuthError> {
        let presented: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
        let entry = self.keys.get(key_id);
        let expected = entry.map_or(&NO_SECRET, |entry| &entry.secret_sha256);
        let same: bool = presented.ct_eq(expected).into();
        match entry {
            // Said only to who holds the secret.
            Some(entry) if same && entry.key.revoked_at_ms.is_some() => Err(AuthError::Revoked),
            Some(entry) if same => Ok(entry.principal.clone()),
            _ => Err(AuthError::Unknown),
        }
    }

    pub(super) fn project(&self, project_id: &str) -> Option<&Project> {
        self.projects.get(project_id)
    }

    pub(super) fn key(&self, key_id: &str) -> Option<&ApiKey> {
        self.keys.get(key_id).map(|entry| &entry.key)
    }

    pub(super) fn keys(&self) -> Vec<ApiKey> {
        let mut keys: Vec<ApiKey> = self.keys.values().map(|entry| entry.key.clone()).collect();
        keys.sort_by(|a, b| {
            (&a.project_id, a.created_at_ms, &a.key_id).cmp(&(&b.project_id, b.created_at_ms, &b.key_id))
        });
        keys
    }

    pub(super) fn projects(&self) -> Vec<Project> {
        let mut projects: Vec<Project> = self.projects.values().cloned().collect();
        projects.sort_by(|a, b| a.project_id.cmp(&b.project_id));
        projects
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fleetlog_schemas::control::{Role, SendLimits};

    use super::*;

    fn key(revoked_at_ms: Option<i64>) -> ControlRecord {
        ControlRecord::Key(ApiKey {
            key_id: "k".into(),
            project_id: "p".into(),
            secret_sha256: hex::encode(Sha256::digest(b"s")),
            role: Role::Ingest,
            label: String::new(),
            created_at_ms: 1,
            revoked_at_ms,
            limits: SendLimits::default(),
        })
    }

    fn record(topic_key: &str, payload: Option<Vec<u8>>) -> Record {
        Record {
            position: fleetlog_schemas::id::Position::default(),
            timestamp_ms: None,
            key: Some(Bytes::copy_from_slice(topic_key.as_bytes())),
            payload: payload.map(Bytes::from),
        }
    }

    fn put(state: &mut State, control: &ControlRecord) {
        state.apply(&record(&control.topic_key(), Some(serde_json::to_vec(control).unwrap())));
    }

    #[test]
    fn a_key_is_valid_from_its_record_to_its_revocation() {
        let mut state = State::default();
        assert_eq!(state.authenticate("k", "s"), Err(AuthError::Unknown));
        put(&mut state, &key(None));
        assert_eq!(&*state.authenticate("k", "s").unwrap().project_id, "p");
        assert_eq!(state.authenticate("k", "wrong"), Err(AuthError::Unknown));
        put(&mut state, &key(Some(2)));
        assert_eq!(state.authenticate("k", "s"), Err(AuthError::Revoked));
        assert_eq!(state.authenticate("k", "wrong"), Err(AuthError::Unknown));
    }

    #[test]
    fn a_tombstone_removes_a_key() {
        let mut state = State::default();
        put(&mut state, &key(None));
        state.apply(&record("key:k", None));
        assert_eq!(state.authenticate("k", "s"), Err(AuthError::Unknown));
    }

    #[test]
    fn a_record_that_cannot_be_read_changes_nothing() {
        let mut state = State::default();
        put(&mut state, &key(None));
        state.apply(&record("key:k", Some(b"{".to_vec())));
        state.apply(&record("key:other", Some(serde_json::to_vec(&key(Some(3))).unwrap())));
        assert!(state.authenticate("k", "s").is_ok());
    }
}
