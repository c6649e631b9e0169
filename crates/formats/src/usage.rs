//! Token counts as SDKs write them into JSON: the providers' own shapes, and those that wrap them.
//!
//! | shape | members | basis |
//! |---|---|---|
//! | OpenAI chat completion | `prompt_tokens`, `completion_tokens`, `*_tokens_details` | inclusive |
//! | OpenAI response | `input_tokens`, `output_tokens`, `*_tokens_details` | inclusive |
//! | LangChain | `input_tokens`, `output_tokens`, `input_token_details`, `output_token_details`, details of other tiers prefixed `flex_`, `priority_` | inclusive |
//! | OpenAI Agents, summed | `input_tokens`, `output_tokens`, `cached_input_tokens`, `cache_write_input_tokens` | inclusive |
//! | Anthropic | `input_tokens`, `output_tokens`, `cache_read_input_tokens`, `cache_creation_input_tokens`, `cache_creation` | Anthropic's |
//! | MLflow | the same names, with `cache_creation_input_tokens_above_1hr` | inclusive, says who reads it |
//! | Bedrock | `inputTokens`, `outputTokens`, `cacheReadInputTokens`, `cacheWriteInputTokens` | Anthropic's |
//! | Gemini | `promptTokenCount` (`prompt_token_count`), `candidatesTokenCount`, `thoughtsTokenCount`, … | Gemini's |
//! | older JavaScript | `promptTokens`, `completionTokens` | inclusive |

use fleetlog_schemas::event::{AgentEvent, TokenBasis, UsageRole};
use fleetlog_schemas::id::NanoUsd;

use crate::records::{Object, count, number, object};
use crate::tokens::{Stated, Writes};

/// Members that hold details of the input.
const INPUTS: [&str; 3] = ["prompt_tokens_details", "input_tokens_details", "input_token_details"];

/// What was written to caches, by how long it is kept, as the first of these objects that tells it apart says.
pub(crate) fn writes<'a>(splits: impl IntoIterator<Item = Option<&'a Object>>) -> Writes {
    let split = |split: &Object| Writes {
        short: count(split, "ephemeral_5m_input_tokens").unwrap_or(0),
        long: count(split, "ephemeral_1h_input_tokens").unwrap_or(0),
    };
    splits.into_iter().flatten().map(split).find(|writes| *writes != Writes::default()).unwrap_or_default()
}

/// What a usage object says of it.
fn writes_of(usage: &Object) -> Writes {
    let hour = Writes { short: 0, long: count(usage, "cache_creation_input_tokens_above_1hr").unwrap_or(0) };
    let details = INPUTS.iter().map(|group| object(usage, group));
    let writes = writes(details.chain([object(usage, "cache_creation")]));
    if writes == Writes::default() { hour } else { writes }
}

/// The first of these members that is a count.
fn first(object: &Object, names: &[&str]) -> Option<u64> {
    names.iter().find_map(|name| count(object, name))
}

/// The counts of a provider's usage object, and their convention; `None` when it states none.
pub(crate) fn stated(usage: &Object) -> Option<(Stated, TokenBasis)> {
    read(usage).map(|(stated, _, basis)| (stated, basis))
}

/// The counts, what they say of cache writes beside their number, and their convention.
fn read(usage: &Object) -> Option<(Stated, Writes, TokenBasis)> {
    if usage.keys().any(|key| matches!(key.as_str(), "promptTokenCount" | "prompt_token_count")) {
        return gemini(usage);
    }
    // LangChain states a 0 beside the count of the tier that served the call.
    let detail = |groups: &[&str], names: &[&str]| {
        let all = groups.iter().filter_map(|group| object(usage, group));
        all.flat_map(|details| names.iter().filter_map(|name| count(details, name))).max()
    };
    let outputs = ["completion_tokens_details", "output_tokens_details", "output_token_details"];
    let raw_read = first(usage, &["cache_read_input_tokens", "cacheReadInputTokens"]);
    let raw_write = first(usage, &["cache_creation_input_tokens", "cacheWriteInputTokens"]);
    let read = detail(&INPUTS, &["cached_tokens", "cache_read", "flex_cache_read", "priority_cache_read"]);
    let read = read.or(first(usage, &["cached_input_tokens"]));
    let names = [
        "cache_write_tokens",
        "cache_creation",
        "cache_write",
        "flex_cache_creation",
        "priority_cache_creation",
    ];
    let write = detail(&INPUTS, &names).or(first(usage, &["cache_write_input_tokens"])).or(raw_write);
    let writes = writes_of(usage);
    let stated = Stated {
        input: first(usage, &["input_tokens", "prompt_tokens", "promptTokens", "inputTokens"]),
        output: first(usage, &["output_tokens", "completion_tokens", "completionTokens", "outputTokens"]),
        cache_read: read.or(raw_read),
        cache_write: writes.all(write),
        reasoning: detail(
            &outputs,
            &["reasoning_tokens", "reasoning", "flex_reasoning", "priority_reasoning"],
        ),
    };
    let nested = INPUTS.iter().any(|group| usage.contains_key(*group));
    let raw = !nested && (raw_read.is_some() || raw_write.is_some());
    let basis = if raw { TokenBasis::AnthropicRaw } else { TokenBasis::Inclusive };
    stated.any().then_some((stated, writes, basis))
}

fn gemini(usage: &Object) -> Option<(Stated, Writes, TokenBasis)> {
    let stated = Stated {
        input: first(usage, &["promptTokenCount", "prompt_token_count"]),
        output: first(usage, &["candidatesTokenCount", "candidates_token_count"]),
        cache_read: first(usage, &["cachedContentTokenCount", "cached_content_token_count"]),
        cache_write: None,
        reasoning: first(usage, &["thoughtsTokenCount", "thoughts_token_count"]),
    };
    stated.any().then_some((stated, Writes::default(), TokenBasis::Gemini))
}

/// Writes what a usage object states into an event, as that of one call.
pub(crate) fn apply(usage: &Object, event: &mut AgentEvent) {
    if let Some((stated, writes, basis)) = read(usage) {
        stated.apply(basis, event);
        writes.apply(event);
        event.usage_role = UsageRole::Call;
    }
}

/// Writes the buckets that a usage object states into an event, by a convention that its reader knows.
pub(crate) fn apply_as(basis: TokenBasis, usage: &Object, event: &mut AgentEvent) {
    if let Some((stated, writes, _)) = read(usage) {
        stated.apply(basis, event);
        writes.apply(event);
    }
}

/// The dollars that a member states.
pub(crate) fn dollars(object: &Object, name: &str) -> Option<NanoUsd> {
    number(object, name).and_then(NanoUsd::from_usd)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// in_uncached, cache_read, cache_write, out_visible, out_reasoning
    fn buckets(usage: &str) -> ([u64; 5], TokenBasis) {
        let mut event = AgentEvent::default();
        apply(&serde_json::from_str(usage).unwrap(), &mut event);
        let buckets = [
            event.in_uncached,
            event.cache_read,
            event.cache_write_5m,
            event.out_visible,
            event.out_reasoning,
        ];
        (buckets, event.token_basis)
    }

    #[test]
    fn shapes_of_every_provider_come_to_disjoint_buckets() {
        let completion = r#"{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,
            "prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":2}}"#;
        assert_eq!(buckets(completion), ([8, 4, 0, 3, 2], TokenBasis::Inclusive));
        let response = r#"{"input_tokens":12,"input_tokens_details":{"cached_tokens":4,"cache_write_tokens":1},
            "output_tokens":5,"output_tokens_details":{"reasoning_tokens":2}}"#;
        assert_eq!(buckets(response), ([7, 4, 1, 3, 2], TokenBasis::Inclusive));
        let chain = r#"{"input_tokens":12,"output_tokens":"3","input_token_details":{"cache_read":4,"cache_creation":2},
            "output_token_details":{"reasoning":1}}"#;
        assert_eq!(buckets(chain), ([6, 4, 2, 2, 1], TokenBasis::Inclusive));
        let anthropic = r#"{"input_tokens":12,"output_tokens":3,"cache_read_input_tokens":400,"cache_creation_input_tokens":30}"#;
        assert_eq!(buckets(anthropic), ([12, 400, 30, 3, 0], TokenBasis::AnthropicRaw));
        let gemini = r#"{"promptTokenCount":100,"candidatesTokenCount":10,"cachedContentTokenCount":60,"thoughtsTokenCount":10}"#;
        assert_eq!(buckets(gemini), ([40, 60, 0, 10, 10], TokenBasis::Gemini));
        let flex = r#"{"input_tokens":1200,"output_tokens":50,"input_token_details":{"cache_read":0,"flex_cache_read":1000,"flex":200},
            "output_token_details":{"flex_reasoning":20}}"#;
        assert_eq!(buckets(flex), ([200, 1000, 0, 30, 20], TokenBasis::Inclusive));
        assert_eq!(
            buckets(r#"{"promptTokens":10,"completionTokens":2}"#),
            ([10, 0, 0, 2, 0], TokenBasis::Inclusive)
        );
        assert_eq!(buckets(r#"{"total_tokens":null}"#), ([0; 5], TokenBasis::None));
    }

    #[test]
    fn what_is_written_to_the_cache_for_an_hour_has_its_own_bucket() {
        let buckets = |usage: &str| {
            let mut event = AgentEvent::default();
            apply(&serde_json::from_str(usage).unwrap(), &mut event);
            [event.in_uncached, event.cache_read, event.cache_write_5m, event.cache_write_1h]
        };
        let chain = r#"{"input_tokens":442,"output_tokens":7,"input_token_details":{"cache_read":400,"cache_creation":0,
            "ephemeral_5m_input_tokens":10,"ephemeral_1h_input_tokens":20}}"#;
        assert_eq!(buckets(chain), [12, 400, 10, 20]);
        let anthropic = r#"{"input_tokens":12,"output_tokens":7,"cache_read_input_tokens":400,"cache_creation_input_tokens":35,
            "cache_creation":{"ephemeral_5m_input_tokens":10,"ephemeral_1h_input_tokens":20}}"#;
        assert_eq!(buckets(anthropic), [12, 400, 15, 20]);
    }
}
