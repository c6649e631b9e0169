//! Langfuse's `usageDetails` and `costDetails`: token counts and costs under names of the sender's choice.
//!
//! The server takes two shapes for OpenAI's, where the details are part of the totals, only when they fit exactly; any
//! other names are disjoint counts, taken as they are (langfuse, packages/shared/src/server/ingestion/types.ts). Values
//! may be numbers or text.

use fleetlog_schemas::event::{AgentEvent, TokenBasis};
use fleetlog_schemas::id::NanoUsd;

use crate::records::{Object, count, number, object};

/// OpenAI's two shapes: input, output, details of the input, details of the output.
const OPENAI: [[&str; 4]; 2] = [
    ["prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details"],
    ["input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details"],
];
/// Beyond it a sum of a few columns could leave 64 bits, and no count is that large.
const LARGEST: u64 = 1 << 53;

/// Writes the buckets into an event; false when the details state no tokens.
pub(crate) fn apply(details: &Object, event: &mut AgentEvent) -> bool {
    if let Some(shape) = OPENAI.iter().find(|shape| is_shaped(details, shape)) {
        apply_openai(details, shape, event);
        return true;
    }
    let mut any = false;
    for name in details.keys() {
        let Some(tokens) = tokens(details, name) else { continue };
        if let Some(bucket) = bucket(event, name) {
            *bucket = bucket.saturating_add(tokens);
            any = true;
        }
    }
    if any {
        event.token_basis = TokenBasis::Disjoint;
    } else if let Some(total) = ["total", "total_tokens"].iter().find_map(|name| tokens(details, name)) {
        // How it splits is not said.
        event.in_uncached = total;
        event.token_basis = TokenBasis::Guessed;
        any = true;
    }
    any
}

/// The cost in USD: the total, else the sum.
pub(crate) fn cost(details: &Object) -> Option<NanoUsd> {
    let total = ["total", "total_cost"].iter().find_map(|name| number(details, name)).or_else(|| {
        let parts = details.keys().filter_map(|name| number(details, name));
        parts.fold(None, |sum, part| Some(sum.unwrap_or(0.0) + part))
    });
    total.and_then(NanoUsd::from_usd)
}

fn tokens(details: &Object, name: &str) -> Option<u64> {
    count(details, name).filter(|count| *count <= LARGEST)
}

/// Whether the details are exactly of one of OpenAI's shapes.
fn is_shaped(details: &Object, shape: &[&str; 4]) -> bool {
    let [input, output, ..] = shape;
    let known = |name: &String| shape.contains(&name.as_str()) || name == "total_tokens";
    tokens(details, input).is_some() && tokens(details, output).is_some() && details.keys().all(known)
}

fn apply_openai(details: &Object, shape: &[&str; 4], event: &mut AgentEvent) {
    let [input, output, input_details, output_details] = shape;
    let sum = |within: Option<&Object>, counts: fn(&str) -> bool| -> u64 {
        let names = within.into_iter().flat_map(|within| within.keys().map(move |name| (within, name)));
        names.filter(|(_, name)| counts(name)).filter_map(|(within, name)| tokens(within, name)).sum()
    };
    let (of_input, of_output) = (object(details, input_details), object(details, output_details));
    event.cache_read = sum(of_input, |name| name.contains("cache") && !is_write(name));
    event.cache_write_5m = sum(of_input, |name| name.contains("cache") && is_write(name));
    event.out_reasoning = sum(of_output, is_reasoning);
    let cached = event.cache_read.saturating_add(event.cache_write_5m);
    event.in_uncached = tokens(details, input).unwrap_or(0).saturating_sub(cached);
    event.out_visible = tokens(details, output).unwrap_or(0).saturating_sub(event.out_reasoning);
    event.token_basis = TokenBasis::Inclusive;
}

fn is_write(name: &str) -> bool {
    ["write", "creat"].iter().any(|word| name.contains(word))
}

fn is_reasoning(name: &str) -> bool {
    ["reasoning", "thought", "thinking"].iter().any(|word| name.contains(word))
}

/// The bucket that a name of the sender's choice stands for.
fn bucket<'e>(event: &'e mut AgentEvent, name: &str) -> Option<&'e mut u64> {
    let name = name.to_ascii_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| name.contains(word));
    if name.contains("total") {
        None
    } else if any(&["cache", "ephemeral"]) {
        // Anthropic's caches are ephemeral, and only what is written to them is told by how long it is kept.
        Some(match is_write(&name) || name.contains("ephemeral") {
            true if name.contains("1h") => &mut event.cache_write_1h,
            true => &mut event.cache_write_5m,
            false => &mut event.cache_read,
        })
    } else if is_reasoning(&name) {
        Some(&mut event.out_reasoning)
    } else if any(&["output", "completion", "candidate"]) {
        Some(&mut event.out_visible)
    } else if any(&["input", "prompt"]) {
        Some(&mut event.in_uncached)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(json: &str) -> ([u64; 6], TokenBasis) {
        let mut event = AgentEvent::default();
        apply(&serde_json::from_str(json).unwrap(), &mut event);
        let AgentEvent { in_uncached, cache_read, cache_write_5m, cache_write_1h, .. } = event;
        let all =
            [in_uncached, cache_read, cache_write_5m, cache_write_1h, event.out_visible, event.out_reasoning];
        (all, event.token_basis)
    }

    #[test]
    fn openai_shapes_are_inclusive_only_when_they_fit_exactly() {
        let completion = r#"{"prompt_tokens":1200,"completion_tokens":"30","total_tokens":1230,
            "prompt_tokens_details":{"cached_tokens":1000,"audio_tokens":3},"completion_tokens_details":{"reasoning_tokens":5}}"#;
        assert_eq!(buckets(completion), ([200, 1000, 0, 0, 25, 5], TokenBasis::Inclusive));
        let responses = r#"{"input_tokens":12,"output_tokens":3,"input_tokens_details":{"cached_tokens":4},"output_tokens_details":null}"#;
        assert_eq!(buckets(responses), ([8, 4, 0, 0, 3, 0], TokenBasis::Inclusive));
        let anthropic = r#"{"input_tokens":21,"output_tokens":17,"cache_creation_input_tokens":300,"cache_read_input_tokens":4000}"#;
        assert_eq!(buckets(anthropic), ([21, 4000, 300, 0, 17, 0], TokenBasis::Disjoint));
    }

    #[test]
    fn free_names_are_taken_as_they_are() {
        let free = r#"{"input":10,"output":"2","input_cache_read":4,"cache_write_1h":3,"output_reasoning_tokens":6,"total":25,"x":9}"#;
        assert_eq!(buckets(free), ([10, 4, 0, 3, 2, 6], TokenBasis::Disjoint));
        let chain = r#"{"input":12,"output":7,"input_cache_read":400,"input_cache_creation":0,"input_ephemeral_5m_input_tokens":10,"input_ephemeral_1h_input_tokens":20}"#;
        assert_eq!(buckets(chain), ([12, 400, 10, 20, 7, 0], TokenBasis::Disjoint));
        assert_eq!(buckets(r#"{"total":7}"#), ([7, 0, 0, 0, 0, 0], TokenBasis::Guessed));
        assert_eq!(buckets(r#"{"x":7}"#), ([0; 6], TokenBasis::None));
    }

    #[test]
    fn total_cost_wins_over_the_sum_of_its_parts() {
        let cost = |json: &str| cost(&serde_json::from_str(json).unwrap());
        assert_eq!(cost(r#"{"input":0.1,"output":0.2,"total":0.5}"#), NanoUsd::from_usd(0.5));
        assert_eq!(cost(r#"{"input_cost":0.1,"total_cost":0.4}"#), NanoUsd::from_usd(0.4));
        assert_eq!(cost(r#"{"input":"0.1","output":0.2}"#), Some(NanoUsd(300_000_000)));
        assert_eq!(cost("{}"), None);
    }
}
