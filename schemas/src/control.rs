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
    /// What may be sent with it.
    #[serde(default, skip_serializing_if = "SendLimits::is_unset")]
    pub limits: SendLimits,
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
    /// What may be sent with all of its keys together.
    #[serde(default, skip_serializing_if = "SendLimits::is_unset")]
    pub limits: SendLimits,
}

/// How much may be sent. 0 is no limit; what is not set is the gateway's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendLimits {
    /// Records per second, through each gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records_per_second: Option<u64>,
    /// Bytes of bodies per second, as sent, through each gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Records per day (UTC), through all gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records_per_day: Option<u64>,
}

impl SendLimits {
    /// Whether nothing is set.
    pub fn is_unset(&self) -> bool {
        *self == Self::default()
    }

    /// These limits, and those of `other` where these are not set.
    pub fn or(self, other: Self) -> Self {
        Self {
            records_per_second: self.records_per_second.or(other.records_per_second),
            bytes_per_second: self.bytes_per_second.or(other.bytes_per_second),
            records_per_day: self.records_per_day.or(other.records_per_day),
        }
    }
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
            limits: SendLimits { records_per_day: Some(0), ..SendLimits::default() },
        });
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<ControlRecord>(&json).unwrap(), record);
        assert_eq!(record.topic_key(), "project:p");
    }

    /// Written by the first version, which knew no limits; and a reader of that version must find what it knows.
    #[test]
    fn keys_from_before_there_were_limits_are_still_read() {
        let old = r#"{"kind":"key","key_id":"k","project_id":"p","secret_sha256":"00","role":"ingest","label":"","created_at_ms":1}"#;
        let ControlRecord::Key(key) = serde_json::from_str(old).unwrap() else { panic!("a key") };
        assert!(key.limits.is_unset());
        assert_eq!(serde_json::to_string(&ControlRecord::Key(key)).unwrap(), old);
    }

    #[test]
    fn a_limit_that_is_set_holds_before_the_default_even_if_it_sets_none() {
        let default =
            SendLimits { records_per_second: Some(5), records_per_day: Some(7), bytes_per_second: None };
        let own = SendLimits { records_per_second: Some(0), ..SendLimits::default() };
        assert_eq!(own.or(default), SendLimits { records_per_second: Some(0), ..default });
    }
}
