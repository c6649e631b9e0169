//! Which decoder a body belongs to, and whose records they are (MAPPING §8).
//!
//! The door a body came in by decides, else the format its sender named, else the members of its first object. Within
//! OTLP the scope's name decides, else the event's name, else the resource's service name.

use fleetlog_schemas::record::Route;

use crate::framing::without_bom;
use crate::inspect::Body;
use crate::json::{Cursor, Fault, FaultKind};
use crate::otlp::Signal;
use crate::otlp::logs::event_name;
use crate::otlp::model::Log;
use crate::otlp::origin::Origin;

/// The decoder of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Universal events.
    Universal,
    /// An OTLP request.
    Otlp(Signal),
    /// The parts of a form.
    Form,
    /// Lines or a document; each record's format is decided by itself.
    Records,
}

impl Door {
    pub(crate) fn of(body: &Body<'_>) -> Self {
        match body.route {
            Route::Events => Self::Universal,
            Route::OtlpLogs => Self::Otlp(Signal::Logs),
            Route::OtlpTraces => Self::Otlp(Signal::Traces),
            Route::OtlpMetrics => Self::Otlp(Signal::Metrics),
            Route::Raw if is_form(body) => Self::Form,
            Route::Raw => match body.format_hint {
                "" | "auto" => otlp_request(body.bytes).map_or(Self::Records, Self::Otlp),
                "universal" | crate::universal::FORMAT => Self::Universal,
                hint => Signal::named(hint).map_or(Self::Records, Self::Otlp),
            },
        }
    }
}

/// Whether a body is a form in parts: only LangSmith's runs come so. A type that was lost on the way is made up for by
/// the boundary and the head with which such a body begins.
fn is_form(body: &Body<'_>) -> bool {
    let head = body.bytes.get(..body.bytes.len().min(512)).unwrap_or_default();
    let begun = head.starts_with(b"--") && memchr::memmem::find(head, b"form-data").is_some();
    let ours = matches!(body.format_hint, "" | "langsmith" | crate::langsmith::multipart::HINT);
    ours && (crate::multipart::is_form(body.content_type) || begun)
}

/// The signal of a JSON body whose first member is an OTLP request's.
fn otlp_request(body: &[u8]) -> Option<Signal> {
    let mut signal = None;
    let seen = Fault { at: 0, kind: FaultKind::End };
    let read = Cursor::new(without_bom(body)).object(|_, key| {
        signal = Signal::of_key(&key.text());
        Err(seen)
    });
    // Reading stops at the first member on purpose.
    read.err().and(signal)
}

/// A program whose OTLP has a mapping of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Emitter {
    /// Claude Code, in a terminal or on the desktop.
    ClaudeCode,
    /// Codex, in a terminal, an editor or a script.
    Codex,
    /// Gemini CLI, or Qwen Code, which was made of it.
    Gemini,
    /// Anything else: the attribute conventions apply.
    Other,
}

/// The emitter of a group, by its scope; by its service where it has no scope.
pub(crate) fn emitter(origin: &Origin<'_>) -> Emitter {
    let name = match origin.scope.name.as_str() {
        "" => origin.resource_text("service.name").unwrap_or_default(),
        scope => scope,
    };
    match name {
        "claude-code" | "claude-code-desktop" if origin.scope.name.is_empty() => Emitter::ClaudeCode,
        name if name.starts_with("com.anthropic.claude_code") => Emitter::ClaudeCode,
        // The name of the service is also that of the scope of its spans.
        name if name == "codex" || name.starts_with("codex_") || name.starts_with("codex-") => Emitter::Codex,
        "gemini-cli" | "qwen-code" => Emitter::Gemini,
        _ => Emitter::Other,
    }
}

/// The emitter of a log record, which may also name itself.
pub(crate) fn emitter_of_log(origin: &Origin<'_>, log: &Log<'_>) -> Emitter {
    match event_name(log).split_once('.') {
        Some(("claude_code", _)) => Emitter::ClaudeCode,
        Some(("codex", _)) => Emitter::Codex,
        Some(("gemini_cli" | "qwen-code", _)) => Emitter::Gemini,
        _ => emitter(origin),
    }
}
