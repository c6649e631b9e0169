//! Gemini CLI (MAPPING §5): OTLP logs and spans, the chat file, hooks, and printed events; and Qwen Code's.
//!
//! The channels share no id of a call to the model, so whatever states usage says that it is of this family and leaves
//! it to the derivation which channel counts. Of Gemini's counts the input includes what was read from the cache, while
//! the output excludes the thoughts. Qwen Code, which was made of it and speaks to models of other makers, has the
//! thoughts in the output; the total says which it is.

use fleetlog_schemas::event::{AgentEvent, Status, TokenBasis, UsageRole};

use crate::tokens::Stated;

pub(crate) mod chat;
pub(crate) mod hooks;
pub(crate) mod logs;
pub(crate) mod qwen;
pub(crate) mod spans;
pub(crate) mod stream;

/// The family of everything here that states usage.
const FAMILY: &str = "gemini";

/// Counts as Gemini states them.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    stated: Stated,
    /// Tokens of the prompt that came from the use of tools; beside the input, unless the total says otherwise.
    tool: Option<u64>,
    total: Option<u64>,
}

impl Counts {
    /// Writes the buckets into a sighting of a call.
    fn state(mut self, event: &mut AgentEvent) {
        if !self.stated.any() {
            return;
        }
        let [input, output, thoughts, tool] =
            [self.stated.input, self.stated.output, self.stated.reasoning, self.tool]
                .map(|count| count.unwrap_or(0));
        let answered = input.saturating_add(output);
        let without_tool = answered.saturating_add(thoughts);
        if tool == 0 && thoughts > 0 && self.total == Some(answered) {
            self.stated.output = Some(output.saturating_sub(thoughts));
        }
        if tool > 0 && self.total != Some(without_tool) {
            self.stated.input = Some(input.saturating_add(tool));
        }
        self.stated.apply(TokenBasis::Gemini, event);
        event.usage_role = UsageRole::Call;
        event.call_family = FAMILY.to_owned();
    }
}

/// Notes what was decided about a tool call; one that was refused did not run.
fn decide(event: &mut AgentEvent, decision: &str) {
    match decision {
        "accept" | "auto_accept" | "modify" => event.decision = "accept".to_owned(),
        "reject" => {
            event.decision = "reject".to_owned();
            event.status = Status::Denied;
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_from_the_use_of_tools_are_input_unless_the_total_counts_them_as_such_already() {
        let input = |total| {
            let stated =
                Stated { input: Some(100), output: Some(10), reasoning: Some(5), ..Stated::default() };
            let mut event = AgentEvent::default();
            Counts { stated, tool: Some(7), total }.state(&mut event);
            event.in_total()
        };
        assert_eq!([input(Some(122)), input(None), input(Some(115))], [107, 107, 100]);
    }

    #[test]
    fn thoughts_are_beside_the_output_unless_the_total_says_that_they_are_in_it() {
        let output = |total| {
            let stated =
                Stated { input: Some(100), output: Some(51), reasoning: Some(16), ..Stated::default() };
            let mut event = AgentEvent::default();
            Counts { stated, tool: None, total }.state(&mut event);
            (event.out_visible, event.out_reasoning)
        };
        assert_eq!([output(Some(151)), output(Some(167)), output(None)], [(35, 16), (51, 16), (51, 16)]);
    }
}
