//! Whose records these are (MAPPING §8, step 6).
//!
//! The scope's name decides, else the event's name, else the resource's service name.

use crate::otlp::logs::event_name;
use crate::otlp::model::Log;
use crate::otlp::origin::Origin;

/// A program whose OTLP has a mapping of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Emitter {
    /// Claude Code, in a terminal or on the desktop.
    ClaudeCode,
    /// Anything else: the attribute conventions apply.
    Other,
}

/// The emitter of a group, by its scope or service.
pub(crate) fn emitter(origin: &Origin<'_>) -> Emitter {
    let scope = origin.scope.name.as_str();
    let service =
        || matches!(origin.resource_text("service.name"), Some("claude-code" | "claude-code-desktop"));
    if scope.starts_with("com.anthropic.claude_code") || scope.is_empty() && service() {
        Emitter::ClaudeCode
    } else {
        Emitter::Other
    }
}

/// The emitter of a log record, which may also name itself.
pub(crate) fn emitter_of_log(origin: &Origin<'_>, log: &Log<'_>) -> Emitter {
    if event_name(log).starts_with("claude_code.") { Emitter::ClaudeCode } else { emitter(origin) }
}
