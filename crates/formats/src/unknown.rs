//! What is not understood, kept whole: `raw.unknown` events and the words that say why.

use fleetlog_schemas::event::{AgentEvent, EventType};

use crate::json::{ObjectWriter, mend};

/// The sender's `type` is not in the vocabulary.
pub(crate) const UNKNOWN_TYPE: &str = "unknown_type";
/// No decoder knows the format.
pub(crate) const UNKNOWN_FORMAT: &str = "unknown_format";
/// The record is not shaped as its format says.
pub(crate) const BAD_SHAPE: &str = "bad_shape";
/// The record is only understandable with what its stream's head said, and that did not arrive.
pub(crate) const NO_CONTEXT: &str = "no_context";
/// The record would become more events than one may.
pub(crate) const TOO_MANY: &str = "too_many_events";

/// Turns `event` into a record kept whole.
pub(crate) fn keep(event: &mut AgentEvent, reason: &str, record: &[u8], json: bool) {
    event.event_type = EventType::RawUnknown;
    event.unknown_reason = reason.to_owned();
    let mut data = ObjectWriter::new();
    match std::str::from_utf8(record) {
        Ok(_) if json => data.raw("record", &mend(record)),
        Ok(text) => data.field("text", text),
        Err(_) => {
            use base64::Engine as _;
            data.field("base64", &base64::engine::general_purpose::STANDARD.encode(record));
        }
    }
    event.data = data.finish();
    event.context = "{}".to_owned();
}
