//! Bytes in, events out: one module a format, pure.
//!
//! - [`inspect`] is the gateway's side: is the body sound, how many records does it hold, which are refused.
//! - [`decode`] is the processor's side: every record becomes events or has another fate, and one bad record costs only
//!   itself. What is not understood is kept as `raw.unknown`, never dropped.
//!
//! Both sides split a body by the same framing, so a record's index means the same to both. Nothing here reads files,
//! the network or a clock; whatever a decoder needs to know is in its [`Input`].

mod agents;
mod api;
pub mod catalogue;
mod claude;
mod codex;
pub mod compression;
mod confine;
mod detect;
mod framing;
mod gemini;
mod genai;
mod hint;
mod identity;
mod input;
pub mod inspect;
mod json;
pub mod langfuse;
mod langsmith;
mod media;
mod moment;
mod multipart;
mod openai_agents;
mod opik;
mod otlp;
mod plausible;
mod records;
mod tokens;
mod tools;
mod universal;
mod unknown;
mod usage;
mod usage_details;

use detect::Door;
pub use hint::Hint;
pub use identity::arrival;
pub use input::{Dead, Decoded, Eventless, Fate, Input, Undecodable};
pub use inspect::{BadBody, Body, Inspection, Rejected};
pub use plausible::Implausible;
pub use records::{follow, follow_body, place, record_formats};

/// Decodes the payload of one raw record.
///
/// # Errors
/// The records cannot be told apart; the whole payload is then one dead letter.
pub fn decode(input: &Input<'_>) -> Result<Decoded, Undecodable> {
    let mut decoded = match Door::of(&input.as_body()) {
        Door::Universal => universal::decode(input)?,
        Door::Otlp(signal) => otlp::decode(signal, input)?,
        Door::Form => langsmith::multipart::decode(input)?,
        Door::Records => records::decode(input),
    };
    for event in &mut decoded.events {
        confine::confine(event);
        plausible::check(event, &mut decoded.implausible);
    }
    Ok(decoded)
}
