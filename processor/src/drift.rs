//! How well each client version is still understood: a client that changes what it sends must be seen.
//!
//! Per format and version of the sending program it is counted how many records were not understood, how many calls to a
//! model state no tokens, and how many fields nobody knew when the format was mapped: members of `data` that none of the
//! captures had from which the mapping was made (`data/fields.json`). Each count alone means little; a jump of its rate
//! means that the client has changed.

use std::collections::{HashMap, HashSet};

use fleetlog_formats::catalogue::CATALOGUE;
use fleetlog_schemas::event::{AgentEvent, EventType, Status, UsageRole};
use thiserror::Error;

use crate::json_text::member_names;

/// The fields of every format that was mapped from captures.
const FIELDS: &str = include_str!("../data/fields.json");
/// Longest version as a label, bytes.
const LONGEST_VERSION: usize = 16;
/// The label of what is not in the catalogue, or is no version.
pub(crate) const OTHER: &str = "other";

/// The list of known fields cannot be read.
#[derive(Debug, Error)]
#[error("the list of known fields is broken: {0}")]
pub struct FieldsError(#[from] serde_json::Error);

/// What was seen of one version of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events.
    pub events: u64,
    /// Of them, kept as `raw.unknown`.
    pub unknown: u64,
    /// Calls to a model that did not fail.
    pub calls: u64,
    /// Of them, without tokens.
    pub zero_token_calls: u64,
    /// Fields that no capture had.
    pub new_fields: u64,
}

/// What was seen, by format and version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drift(Vec<(&'static str, String, Counts)>);

impl Drift {
    /// The counts of every format and version.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str, &Counts)> {
        self.0.iter().map(|(format, version, counts)| (*format, version.as_str(), counts))
    }

    fn of(&mut self, format: &'static str, version: &str) -> Option<&mut Counts> {
        let known = self.0.iter().position(|(f, v, _)| *f == format && v == version);
        let index = known.unwrap_or_else(|| {
            self.0.push((format, version.to_owned(), Counts::default()));
            self.0.len() - 1
        });
        self.0.get_mut(index).map(|(_, _, counts)| counts)
    }
}

/// Which fields each format is known to have.
pub struct KnownFields(HashMap<String, HashSet<String>>);

impl KnownFields {
    /// The list that ships with this version.
    ///
    /// # Errors
    /// [`FieldsError`] when the shipped list is broken, which a test excludes.
    pub fn built_in() -> Result<Self, FieldsError> {
        Ok(Self(serde_json::from_str(FIELDS)?))
    }

    /// Adds what an event says about its format, and notes in it how many of its fields are new. Called before redaction and after the policies.
    pub fn observe(&self, event: &mut AgentEvent, drift: &mut Drift) {
        let listed = CATALOGUE.iter().find(|format| format.name == event.source_format);
        let format = listed.map_or(OTHER, |format| format.name);
        let new_fields = self.0.get(format).map_or(0, |known| {
            member_names(&event.data).filter(|name| !known.contains(*name)).count() as u64
        });
        let Some(counts) = drift.of(format, version_label(&event.source_version)) else { return };
        counts.events += 1;
        if event.event_type == EventType::RawUnknown {
            counts.unknown += 1;
            // All of it is unknown, and counted as that.
            return;
        }
        counts.new_fields += new_fields;
        event.new_fields = u32::try_from(new_fields).unwrap_or(u32::MAX);
        let called = event.usage_role == UsageRole::Call
            || event.event_type.is_llm() && !event.llm_call_key.is_empty();
        if called && !matches!(event.status, Status::Error | Status::Cancelled | Status::Denied) {
            counts.calls += 1;
            counts.zero_token_calls += u64::from(event.in_total() == 0 && event.out_total() == 0);
        }
    }
}

/// A version as a label: up to three numbers and what distinguishes a preview; anything else is not a version.
fn version_label(version: &str) -> &str {
    let version = version.strip_prefix('v').unwrap_or(version);
    // Build numbers and dates after `+` would make every build a label.
    let version = version.split('+').next().unwrap_or_default();
    let begins = version.starts_with(|c: char| c.is_ascii_digit());
    let shaped = version.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
    match version {
        "" => "",
        _ if begins && shaped && version.len() <= LONGEST_VERSION => version,
        _ => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> KnownFields {
        let known = [("claude.otlp.logs".to_owned(), HashSet::from(["event.sequence".to_owned()]))];
        KnownFields(HashMap::from(known))
    }

    fn event() -> AgentEvent {
        AgentEvent {
            event_type: EventType::LlmRequest,
            source_format: "claude.otlp.logs".into(),
            source_version: "2.1.197".into(),
            usage_role: UsageRole::Call,
            in_uncached: 3,
            data: r#"{"event.sequence":1}"#.into(),
            ..AgentEvent::default()
        }
    }

    fn observed(events: &[AgentEvent]) -> Vec<(&'static str, String, Counts)> {
        let mut drift = Drift::default();
        events.iter().for_each(|event| fields().observe(&mut event.clone(), &mut drift));
        drift.0
    }

    #[test]
    fn the_shipped_list_can_be_read() {
        assert!(KnownFields::built_in().unwrap().0.contains_key("claude.otlp.logs"));
    }

    #[test]
    fn what_changes_in_a_version_is_counted_under_it() {
        let renamed = AgentEvent {
            source_version: "2.2.0".into(),
            in_uncached: 0,
            usage_role: UsageRole::None,
            llm_call_key: "k".into(),
            data: r#"{"event.sequence":1,"inputTokens":3,"x":{"event.y":1}}"#.into(),
            ..event()
        };
        let unknown = AgentEvent {
            event_type: EventType::RawUnknown,
            usage_role: UsageRole::None,
            data: r#"{"record":{}}"#.into(),
            ..event()
        };
        let failed = AgentEvent { status: Status::Error, in_uncached: 0, ..event() };
        let old = Counts { events: 3, unknown: 1, calls: 1, zero_token_calls: 0, new_fields: 0 };
        let new = Counts { events: 1, unknown: 0, calls: 1, zero_token_calls: 1, new_fields: 2 };
        let expected =
            vec![("claude.otlp.logs", "2.1.197".into(), old), ("claude.otlp.logs", "2.2.0".into(), new)];
        assert_eq!(observed(&[event(), renamed, unknown, failed]), expected);
    }

    #[test]
    fn labels_come_from_the_catalogue_and_from_versions_alone() {
        let sent = AgentEvent {
            source_format: "anything/at all".into(),
            source_version: "<script>".into(),
            ..event()
        };
        let [(format, version, _)] = &observed(&[sent])[..] else { panic!("one entry") };
        assert_eq!((*format, version.as_str()), (OTHER, OTHER));
        assert_eq!(version_label("v22.1.0"), "22.1.0");
        assert_eq!(version_label("0.61.0-preview.1"), "0.61.0-preview.1");
        assert_eq!(version_label("1.2.3+build.77"), "1.2.3");
        assert_eq!(version_label("1.2.3-0123456789abcdef0123456789"), OTHER);
        assert_eq!(version_label(""), "");
    }
}
