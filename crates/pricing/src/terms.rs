//! Under which terms a call was made, where its record says so: the service tier and the place.
//!
//! A record says it in members of `data` that are no columns. They are looked for at the places where the clients put
//! them, and only when the text holds one of their names at all.

use serde_json::{Map, Value};

/// Names of which one must occur in `data` for terms to be stated.
const MARKS: &[&str] = &["service_tier", "serviceTier", "\"speed\"", "inference_geo"];
/// Objects that may state the terms, from the record inwards: transcripts, responses, SDK payloads.
const PLACES: &[&[&str]] = &[
    &[],
    &["usage"],
    &["message", "usage"],
    &["response"],
    &["response", "usage"],
    &["payload"],
    &["body"],
    &["body", "usage"],
    &["body", "modelParameters"],
    &["modelParameters"],
    &["outputs"],
    &["outputs", "usage_metadata"],
    &["outputs", "llm_output"],
    &["metadata"],
    &["extra", "metadata"],
    &["extra", "invocation_params"],
];
/// Members that name the service tier: what was given before what was asked for.
const TIERS: &[&str] = &[
    "gen_ai.openai.response.service_tier",
    "openai.response.service_tier",
    "service_tier",
    "serviceTier",
    "ls_service_tier",
    "gen_ai.openai.request.service_tier",
    "openai.request.service_tier",
];

/// Letters of a word that are kept: terms become columns, and no tier's name is this long.
const LONGEST: usize = 64;

/// The terms of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    /// Service tier other than the standard one; or empty.
    pub(super) tier: String,
    /// Place where it was served, if that was chosen; or empty.
    pub(super) geo: String,
}

impl Terms {
    /// The terms that an event's `data` states.
    pub(super) fn of(data: &str) -> Self {
        if !MARKS.iter().any(|mark| data.contains(mark)) {
            return Self::default();
        }
        let Ok(Value::Object(data)) = serde_json::from_str(data) else { return Self::default() };
        let places: Vec<&Map<String, Value>> = PLACES.iter().filter_map(|path| place(&data, path)).collect();
        let said = |name: &str| places.iter().find_map(|place| word(place, name));
        let tier = TIERS.iter().find_map(|name| said(name)).unwrap_or_default();
        let speed = said("speed").unwrap_or_default();
        let tier = match (tier.as_str(), speed.as_str()) {
            // Anthropic's fast mode is a speed and no tier.
            (_, "fast") => "fast".to_owned(),
            // OpenAI's name of the priority tier since 2026.
            ("fast", _) => "priority".to_owned(),
            ("standard" | "default" | "auto" | "on_demand" | "standard_only", _) => String::new(),
            _ => tier,
        };
        let geo = said("inference_geo").filter(|geo| !matches!(geo.as_str(), "global" | "not_available"));
        Self { tier, geo: geo.unwrap_or_default() }
    }
}

fn place<'d>(data: &'d Map<String, Value>, path: &[&str]) -> Option<&'d Map<String, Value>> {
    path.iter().try_fold(data, |object, name| object.get(*name)?.as_object())
}

fn word(place: &Map<String, Value>, name: &str) -> Option<String> {
    let word = place.get(name)?.as_str().filter(|word| !word.is_empty())?;
    Some(word.chars().take(LONGEST).collect::<String>().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(tier: &str, geo: &str) -> Terms {
        Terms { tier: tier.into(), geo: geo.into() }
    }

    #[test]
    fn terms_are_found_where_clients_state_them() {
        let transcript =
            r#"{"message":{"usage":{"service_tier":"standard","speed":"fast","inference_geo":"us"}}}"#;
        assert_eq!(Terms::of(transcript), terms("fast", "us"));
        assert_eq!(Terms::of(r#"{"service_tier":"batch"}"#), terms("batch", ""));
        assert_eq!(Terms::of(r#"{"speed":"standard","service_tier":"fast"}"#), terms("priority", ""));
        assert_eq!(Terms::of(r#"{"payload":{"service_tier":"flex"}}"#), terms("flex", ""));
    }

    #[test]
    fn tier_that_was_given_wins_over_the_one_that_was_asked_for() {
        let data = r#"{"gen_ai.openai.request.service_tier":"priority","gen_ai.openai.response.service_tier":"default"}"#;
        assert_eq!(Terms::of(data), Terms::default());
    }

    #[test]
    fn an_absurd_word_is_cut_and_stays_unknown() {
        let data = serde_json::json!({"service_tier": "ü".repeat(100_000)}).to_string();
        assert_eq!(Terms::of(&data).tier.chars().count(), LONGEST);
    }

    #[test]
    fn words_of_a_conversation_are_no_terms() {
        for data in [
            r#"{"text":"{\"service_tier\":\"batch\"}"}"#,
            r#"{"tool":{"output":{"service_tier":"batch"}}}"#,
            r#"{"service_tier":null,"speed":3}"#,
            "not json service_tier",
        ] {
            assert_eq!(Terms::of(data), Terms::default(), "{data}");
        }
    }
}
