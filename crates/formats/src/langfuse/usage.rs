//! Usage and cost of a generation: `usageDetails` and `costDetails`, or the older `usage`, which is
//! `{input, output, total, unit, inputCost, …}` or OpenAI's counts in camel case.

use fleetlog_schemas::event::{AgentEvent, UsageRole};
use fleetlog_schemas::id::NanoUsd;

use crate::records::{Object, number, object, text};
use crate::usage_details;

/// Writes usage and reported cost of a body into its event.
pub(super) fn apply(body: &Object, event: &mut AgentEvent) {
    let details = object(body, "usageDetails").filter(|details| !details.is_empty());
    let stated = match details {
        Some(details) => usage_details::apply(details, event),
        None => counts(body).is_some_and(|counts| usage_details::apply(&counts, event)),
    };
    event.cost_reported =
        object(body, "costDetails").and_then(usage_details::cost).or_else(|| older_cost(body));
    if stated || event.cost_reported.is_some() {
        event.usage_role = UsageRole::Call;
    }
}

/// The counts of the older `usage`, where its unit is tokens.
fn counts(body: &Object) -> Option<Object> {
    let usage = object(body, "usage").filter(|usage| matches!(text(usage, "unit"), "" | "TOKENS"))?;
    let counts = usage.iter().filter(|(name, _)| !name.ends_with("Cost") && *name != "unit");
    Some(counts.map(|(name, count)| (name.clone(), count.clone())).collect())
}

fn older_cost(body: &Object) -> Option<NanoUsd> {
    let usage = object(body, "usage")?;
    let sides = || {
        let stated = ["inputCost", "outputCost"].iter().filter_map(|name| number(usage, name));
        stated.reduce(|sum, cost| sum + cost)
    };
    number(usage, "totalCost").or_else(sides).and_then(NanoUsd::from_usd)
}

#[cfg(test)]
mod tests {
    use fleetlog_schemas::event::TokenBasis;

    use super::*;

    fn applied(body: &str) -> AgentEvent {
        let mut event = AgentEvent::default();
        apply(&serde_json::from_str(body).unwrap(), &mut event);
        event
    }

    /// in_uncached, cache_read, cache_write_5m, cache_write_1h, out_visible, out_reasoning
    fn buckets(body: &str) -> ([u64; 6], TokenBasis) {
        let event = applied(body);
        let input = [event.in_uncached, event.cache_read, event.cache_write_5m, event.cache_write_1h];
        let [a, b, c, d] = input;
        ([a, b, c, d, event.out_visible, event.out_reasoning], event.token_basis)
    }

    #[test]
    fn usage_details_of_every_shape_come_to_disjoint_buckets() {
        let free = r#"{"usageDetails":{"input":10,"output":"2","cache_read_input_tokens":4,"input_cache_creation_1h":3,
            "cache_creation_input_tokens":5,"output_reasoning_tokens":6,"input_audio":1,"total":99,"other":null}}"#;
        assert_eq!(buckets(free), ([11, 4, 5, 3, 2, 6], TokenBasis::Disjoint));
        let completion = r#"{"usageDetails":{"prompt_tokens":"12","completion_tokens":5,"total_tokens":17,
            "prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2}}}"#;
        assert_eq!(buckets(completion), ([8, 4, 0, 0, 3, 2], TokenBasis::Inclusive));
        let response = r#"{"usageDetails":{"input_tokens":12,"output_tokens":5,"total_tokens":17,
            "input_tokens_details":{"cached_tokens":4},"output_tokens_details":{"reasoning_tokens":2}}}"#;
        assert_eq!(buckets(response), ([8, 4, 0, 0, 3, 2], TokenBasis::Inclusive));
        let anthropic =
            r#"{"usageDetails":{"input_tokens":12,"output_tokens":5,"cache_read_input_tokens":40}}"#;
        assert_eq!(buckets(anthropic), ([12, 40, 0, 0, 5, 0], TokenBasis::Disjoint));
    }

    #[test]
    fn older_usage_is_read_where_there_are_no_details() {
        assert_eq!(
            buckets(
                r#"{"usage":{"promptTokens":10,"completionTokens":2,"totalTokens":12},"usageDetails":{}}"#
            )
            .0,
            [10, 0, 0, 0, 2, 0]
        );
        assert_eq!(
            buckets(r#"{"usage":{"input":10,"output":2,"total":12,"unit":"TOKENS"}}"#).0,
            [10, 0, 0, 0, 2, 0]
        );
        assert_eq!(buckets(r#"{"usage":{"input":10,"unit":"CHARACTERS"}}"#).1, TokenBasis::None);
        assert_eq!(buckets(r#"{"usage":{"total":12}}"#), ([12, 0, 0, 0, 0, 0], TokenBasis::Guessed));
        assert_eq!(buckets(r#"{"usage":{"input":1,"inputCost":5}}"#).0, [1, 0, 0, 0, 0, 0]);
        assert_eq!(buckets(r#"{"usage":{"input":1},"usageDetails":{"input":7}}"#).0, [7, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn costs_are_summed_unless_their_total_is_said() {
        let cost = |body: &str| applied(body).cost_reported.map(|cost| cost.0);
        assert_eq!(cost(r#"{"costDetails":{"input":0.1,"output":"0.2"}}"#), Some(300_000_000));
        assert_eq!(cost(r#"{"costDetails":{"input":0.1,"total":0.5}}"#), Some(500_000_000));
        assert_eq!(cost(r#"{"usage":{"inputCost":0.1,"outputCost":0.2}}"#), Some(300_000_000));
        assert_eq!(cost(r#"{"usage":{"totalCost":0.4}}"#), Some(400_000_000));
        assert_eq!(cost(r#"{"costDetails":{}}"#), None);
    }
}
