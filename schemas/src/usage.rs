//! How much of its daily quota a key or a project has used, as gateways tell each other.
//!
//! Each running gateway writes its own count under a Kafka key of its own, so that none overwrites another's; what was
//! used is their sum. A gateway has a new name at every start and counts from zero, so that the counts of its earlier
//! lives stay in the sum. The topic forgets whole days.

use serde::{Deserialize, Serialize};

/// Whose records are counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A key, by its public id.
    Key(String),
    /// A project.
    Project(String),
}

/// What one gateway has accepted of one subject on one day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageCount {
    /// The gateway, since its start.
    pub instance: String,
    /// Days since the epoch, UTC.
    pub day: i64,
    /// Whose.
    pub subject: Subject,
    /// Records accepted.
    pub records: u64,
}

impl UsageCount {
    /// The Kafka key under which later counts replace earlier ones.
    pub fn topic_key(&self) -> String {
        let Self { instance, day, .. } = self;
        match &self.subject {
            Subject::Key(id) => format!("{day}:{instance}:key:{id}"),
            Subject::Project(id) => format!("{day}:{instance}:project:{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_survives_the_round_trip_and_replaces_only_its_predecessor() {
        let count =
            |instance: &str, day, subject| UsageCount { instance: instance.into(), day, subject, records: 3 };
        let counts = [
            count("a", 1, Subject::Key("x".into())),
            count("a", 1, Subject::Project("x".into())),
            count("a", 2, Subject::Key("x".into())),
            count("b", 1, Subject::Key("x".into())),
        ];
        for one in &counts {
            let json = serde_json::to_vec(one).unwrap();
            assert_eq!(serde_json::from_slice::<UsageCount>(&json).unwrap(), *one);
            assert_eq!(counts.iter().filter(|other| other.topic_key() == one.topic_key()).count(), 1);
        }
    }
}
