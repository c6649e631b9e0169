//! API keys and projects, as the compacted control topic carries them.
//!
//! The topic is small and read by people with Kafka's own tools, so its records are JSON. A Kafka key of
//! `key:<key id>` or `project:<project id>` makes the latest record of each win; a tombstone removes it.

use serde::{Deserialize, Serialize};

use crate::event::vocabulary;

vocabulary! {
    /// What a key may do.
    Role, default Viewer, {
        /// Send events.
        Ingest = "ingest",
        /// Read through the query API.
        Viewer = "viewer",
        /// Read, and run governed SQL.
        Analyst = "analyst",
        /// Everything within the project, dead letters' original bytes included.
        Admin = "admin",
    }
}

impl Role {
    /// Whether the role may send events.
    pub const fn may_ingest(self) -> bool {
        matches!(self, Self::Ingest | Self::Admin)
    }

    /// Whether the role may read.
    pub const fn may_read(self) -> bool {
        matches!(self, Self::Viewer | Self::Analyst | Self::Admin)
    }
}

/// One record of the control topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ControlRecord {
    /// An API key.
    Key(ApiKey),
    /// A project.
    Project(Project),
}

/// An API key. The secret itself is shown once, at creation, and never stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Public part of the key.
    pub key_id: String,
    /// Project it reads and writes.
    pub project_id: String,
    /// SHA-256 of the secret part, lower-case hexadecimal.
    pub secret_sha256: String,
    /// What it may do.
    pub role: Role,
    /// What it is for, in the operator's words.
    #[serde(default)]
    pub label: String,
    /// When it was created, milliseconds since the epoch.
    pub created_at_ms: i64,
    /// When it was revoked, milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at_ms: Option<i64>,
}

/// A project and its settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// Id, used in every table.
    pub project_id: String,
    /// Display name.
    #[serde(default)]
    pub name: String,
    /// When it was created, milliseconds since the epoch.
    pub created_at_ms: i64,
    /// Whether secrets in payloads are redacted.
    #[serde(default = "yes")]
    pub redaction: bool,
}

fn yes() -> bool {
    true
}

impl ControlRecord {
    /// The Kafka key under which the record is compacted.
    pub fn topic_key(&self) -> String {
        match self {
            Self::Key(key) => format!("key:{}", key.key_id),
            Self::Project(project) => format!("project:{}", project.project_id),
        }
    }
}

/// An API key as its holder presents it: `fl_<key id>_<secret>`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PresentedKey<'a> {
    /// Public part.
    pub key_id: &'a str,
    /// Secret part.
    pub secret: &'a str,
}

impl<'a> PresentedKey<'a> {
    /// Splits a presented key, without judging whether it is valid.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (key_id, secret) = text.strip_prefix("fl_")?.split_once('_')?;
        (!key_id.is_empty() && !secret.is_empty()).then_some(Self { key_id, secret })
    }

    /// The text its holder presents.
    pub fn format(key_id: &str, secret: &str) -> String {
        format!("fl_{key_id}_{secret}")
    }
}

impl std::fmt::Debug for PresentedKey<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A secret must never reach a log, not even through {:?}.
        f.debug_struct("PresentedKey").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_split_and_its_secret_is_never_printed() {
        let text = PresentedKey::format("abc", "s3cr_et");
        let key = PresentedKey::parse(&text).unwrap();
        assert_eq!((key.key_id, key.secret), ("abc", "s3cr_et"));
        assert!(!format!("{key:?}").contains("s3cr"));
        assert_eq!(PresentedKey::parse("fl_abc"), None);
        assert_eq!(PresentedKey::parse("sk_abc_d"), None);
    }

    #[test]
    fn control_records_survive_the_round_trip() {
        let record = ControlRecord::Project(Project {
            project_id: "p".into(),
            name: String::new(),
            created_at_ms: 1,
            redaction: true,
        });
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<ControlRecord>(&json).unwrap(), record);
        assert_eq!(record.topic_key(), "project:p");
    }
}
