//! Codex CLI (MAPPING §4): OTLP logs and spans, the rollout file, and the output of `codex exec --json`.
//!
//! The channels share no id of a call to the model, so whatever states usage says that it is of this family and leaves
//! it to the derivation which channel counts. Tool calls bear the model's `call_id` everywhere but in the output of
//! `codex exec`. Token counts are OpenAI's: cached tokens are part of the input, reasoning part of the output.

use fleetlog_schemas::event::{AgentEvent, Status, TokenBasis, UsageRole};

use crate::records::{Object, count, object, text};
use crate::tokens::Stated;

pub(crate) mod exec;
pub(crate) mod logs;
pub(crate) mod rollout;
pub(crate) mod spans;
mod tools;

/// The family of everything here that states usage.
const FAMILY: &str = "codex";

/// Precedence of a record that names the response whose usage it states.
const OF_A_RESPONSE: u32 = 0;
/// Precedence of a report on the last call, which repeats the former where both are written.
const OF_THE_LAST_CALL: u32 = 1;
/// Precedence of a running total.
const OF_A_TOTAL: u32 = 2;

/// Writes the buckets of what a record states.
fn state_usage(event: &mut AgentEvent, usage: &Stated, role: UsageRole) {
    usage.apply(TokenBasis::Inclusive, event);
    event.usage_role = role;
    event.call_family = FAMILY.to_owned();
}

/// The counts of a usage object, as rollouts and `codex exec` write it.
fn stated(usage: &Object) -> Stated {
    Stated {
        input: count(usage, "input_tokens"),
        output: count(usage, "output_tokens"),
        cache_read: count(usage, "cached_input_tokens"),
        cache_write: count(usage, "cache_write_input_tokens"),
        reasoning: count(usage, "reasoning_output_tokens"),
    }
}

/// The exit code that a command's output begins with, as its tool words it for the model.
fn exit_code(output: &str) -> Option<i32> {
    if output.starts_with('{') {
        let object: Object = serde_json::from_str(output).ok()?;
        let code = crate::records::object(&object, "metadata")?.get("exit_code")?.as_i64()?;
        return i32::try_from(code).ok();
    }
    // The command's own output follows and may say anything.
    let mut header = output.lines().take(8).take_while(|line| line.trim_end() != "Output:");
    header.find_map(|line| {
        let code = line.strip_prefix("Process exited with code ").or(line.strip_prefix("Exit code: "));
        code?.trim().parse().ok()
    })
}

/// How something ended, by the words of its `status`.
fn status(word: &str) -> Status {
    match word {
        "completed" | "success" => Status::Ok,
        "failed" | "error" | "errored" => Status::Error,
        "declined" | "rejected" => Status::Denied,
        "cancelled" | "aborted" | "interrupted" => Status::Cancelled,
        _ => Status::Unset,
    }
}

/// The text of a failure: a string, or an object's `message`.
fn message<'o>(holder: &'o Object, name: &str) -> &'o str {
    object(holder, name).map_or_else(|| text(holder, name), |error| text(error, "message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_code_is_read_before_the_output_and_never_in_it() {
        let unified = "Chunk ID: 7a3238\nWall time: 0.0 seconds\nProcess exited with code 3\nOutput:\nhi\n";
        assert_eq!(exit_code(unified), Some(3));
        assert_eq!(
            exit_code("Exit code: 0\nWall time: 1 seconds\nOutput:\nProcess exited with code 9"),
            Some(0)
        );
        assert_eq!(
            exit_code(r#"{"output":"x","metadata":{"exit_code":-1,"duration_seconds":0.1}}"#),
            Some(-1)
        );
        assert_eq!(exit_code("Wall time: 1\nOutput:\nProcess exited with code 9"), None);
        assert_eq!(exit_code("{not json"), None);
    }
}
