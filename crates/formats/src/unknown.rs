//! What is not understood, kept whole: `raw.unknown` events and the words that say why.

use fleetlog_schemas::event::{AgentEvent, Channel, EventType};

use crate::framing::{self, RecordReader};
use crate::identity::Identities;
use crate::input::{Decoded, Input};
use crate::inspect;
use crate::json::{Cursor, Fault, ObjectWriter, mend};

/// The sender's `type` is not in the vocabulary.
pub(crate) const UNKNOWN_TYPE: &str = "unknown_type";
/// No decoder knows the format.
const UNKNOWN_FORMAT: &str = "unknown_format";
/// The record is not shaped as its format says.
pub(crate) const BAD_SHAPE: &str = "bad_shape";

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

/// Keeps every record of a body whose format nothing here decodes.
pub(crate) fn decode(input: &Input<'_>) -> Decoded {
    let mut reader = Reader { input, identities: Identities::new(input), index: 0, out: Decoded::default() };
    let split = inspect::raw_layout(&input.as_body())
        .map(|layout| framing::each_record(input.body, layout, &mut reader));
    if !matches!(split, Some(Ok(()))) {
        reader = Reader { input, identities: Identities::new(input), index: 0, out: Decoded::default() };
        reader.keep(input.body, false);
    }
    reader.out
}

struct Reader<'i> {
    input: &'i Input<'i>,
    identities: Identities<'i>,
    index: u32,
    out: Decoded,
}

impl Reader<'_> {
    fn keep(&mut self, record: &[u8], json: bool) {
        let index = self.index;
        self.index += 1;
        if self.input.rejected.binary_search(&index).is_ok() {
            return;
        }
        let mut event = self.input.blank_event(index);
        // Neither an id nor a time is known of it.
        event.dedup_key = self.identities.arrival(index);
        event.event_id = event.dedup_key.to_string();
        event.source_format = self.input.format_hint.to_owned();
        event.channel = Channel::Other;
        if let Some(stream) = self.input.stream {
            event.session_id.clone_from(&stream.session_id);
        }
        keep(&mut event, UNKNOWN_FORMAT, record, json);
        self.out.events.push(event);
    }
}

impl<'i> RecordReader<'i> for Reader<'_> {
    fn read(&mut self, cursor: &mut Cursor<'i>) -> Result<(), Fault> {
        cursor.skip_value().map(|_| ())
    }

    fn record(&mut self, record: &'i [u8], outcome: Result<(), Fault>) {
        self.keep(record, outcome.is_ok());
    }
}
