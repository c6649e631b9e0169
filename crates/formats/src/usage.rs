//! Token counts as SDKs write them into JSON: the providers' own shapes, and those that wrap them.
//!
//! | shape | members | basis |
//! |---|---|---|
//! | OpenAI chat completion | `prompt_tokens`, `completion_tokens`, `*_tokens_details` | inclusive |
//! | OpenAI response | `input_tokens`, `output_tokens`, `*_tokens_details` | inclusive |
//! | LangChain | `input_tokens`, `output_tokens`, `input_token_details`, `output_token_details` | inclusive |
//! | OpenAI Agents, summed | `input_tokens`, `output_tokens`, `cached_input_tokens`, `cache_write_input_tokens` | inclusive |
//! | Anthropic | `input_tokens`, `output_tokens`, `cache_read_input_tokens`, `cache_creation_input_tokens` | Anthropic's |
//! | Bedrock | `inputTokens`, `outputTokens`, `cacheReadInputTokens`, `cacheWriteInputTokens` | Anthropic's |
//! | Gemini | `promptTokenCount` (`prompt_token_count`), `candidatesTokenCount`, `thoughtsTokenCount`, … | Gemini's |
//! | older JavaScript | `promptTokens`, `completionTokens` | inclusive |

use fleetlog_schemas::event::{AgentEvent, TokenBasis, UsageRole};
use fleetlog_schemas::id::NanoUsd;

use crate::records::{Object, count, number, object};
use crate::tokens::Stated;

/// The first of these members that is a count.
fn first(object: &Object, names: &[&str]) -> Option<u64> {
    names.iter().find_map(|name| count(object, name))
}

/// The counts of a provider's usage object, and their convention; `None` when it states none.
pub(crate) fn stated(usage: &Object) -> Option<(Stated, TokenBasis)> {
    if usage.keys().any(|key| matches!(key.as_str(), "promptTokenCount" | "prompt_token_count")) {
        return gemini(usage);
    }
    let detail = |groups: &[&str], names: &[&str]| {
        groups.iter().filter_map(|group| object(usage, group)).find_map(|details| first(details, names))
    };
    let inputs = ["prompt_tokens_details", "input_tokens_details", "input_token_details"];
    let outputs = ["completion_tokens_details", "output_tokens_details", "output_token_details"];
    let raw_read = first(usage, &["cache_read_input_tokens", "cacheReadInputTokens"]);
    let raw_write = first(usage, &["cache_creation_input_tokens", "cacheWriteInputTokens"]);
    let read = detail(&inputs, &["cached_tokens", "cache_read"]).or(first(usage, &["cached_input_tokens"]));
    let write = detail(&inputs, &["cache_write_tokens", "cache_creation", "cache_write"]);
    let stated = Stated {
        input: first(usage, &["input_tokens", "prompt_tokens", "promptTokens", "inputTokens"]),
        output: first(usage, &["output_tokens", "completion_tokens", "completionTokens", "outputTokens"]),
        cache_read: read.or(raw_read),
        cache_write: write.or(first(usage, &["cache_write_input_tokens"])).or(raw_write),
        reasoning: detail(&outputs, &["reasoning_tokens", "reasoning"]),
    };
    let nested = inputs.iter().any(|group| usage.contains_key(*group));
    let raw = !nested && (raw_read.is_some() || raw_write.is_some());
    stated.any().then_some((stated, if raw { TokenBasis::AnthropicRaw } else { TokenBasis::Inclusive }))
}

fn gemini(usage: &Object) -> Option<(Stated, TokenBasis)> {
    let stated = Stated {
        input: first(usage, &["promptTokenCount", "prompt_token_count"]),
        output: first(usage, &["candidatesTokenCount", "candidates_token_count"]),
        cache_read: first(usage, &["cachedContentTokenCount", "cached_content_token_count"]),
        cache_write: None,
        reasoning: first(usage, &["thoughtsTokenCount", "thoughts_token_count"]),
    };
    stated.any().then_some((stated, TokenBasis::Gemini))
}

/// Writes what a usage object states into an event, as that of one call.
pub(crate) fn apply(usage: &Object, event: &mut AgentEvent) {
    if let Some((stated, basis)) = stated(usage) {
        stated.apply(basis, event);
        event.usage_role = UsageRole::Call;
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
        assert_eq!(
            buckets(r#"{"promptTokens":10,"completionTokens":2}"#),
            ([10, 0, 0, 2, 0], TokenBasis::Inclusive)
        );
        assert_eq!(buckets(r#"{"total_tokens":null}"#), ([0; 5], TokenBasis::None));
    }
}
