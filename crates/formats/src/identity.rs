//! What makes two arrivals the same event (MAPPING §9).
//!
//! The key is computed here, before redaction. A sender's own id is an identity; bare content never is, because two
//! equal records may really have happened twice: its ordinal among equal whole records of the piece and the piece's
//! number go with it, which a retry repeats. A record with neither id nor time is known by its place in its request.

use std::collections::HashMap;

use fleetlog_schemas::id::Key128;

use crate::input::Input;

/// The identity of the record of this index in a request, when it has neither an id nor a time; it is the event's id too.
pub fn arrival(project_id: &str, request_id: &str, idempotency_key: &str, index: u32) -> Key128 {
    let (kind, request) = match idempotency_key {
        "" => ("request", request_id),
        key => ("idempotency-key", key),
    };
    let place = index.to_le_bytes();
    Key128::of([project_id.as_bytes(), kind.as_bytes(), request.as_bytes(), place.as_slice()])
}

/// Makes the identities of one piece's records.
#[derive(Debug)]
pub(crate) struct Identities<'a> {
    input: &'a Input<'a>,
    ordinals: HashMap<Key128, u32>,
}

impl<'a> Identities<'a> {
    pub(crate) fn new(input: &'a Input<'a>) -> Self {
        Self { input, ordinals: HashMap::new() }
    }

    /// The identity of a record whose sender says what makes it one.
    pub(crate) fn stated(&self, kind: &str, parts: &[&[u8]]) -> Key128 {
        let project = self.input.project_id.as_bytes();
        Key128::of([project, kind.as_bytes()].into_iter().chain(parts.iter().copied()))
    }

    /// The identity of a record known by its whole content; `parts` must hold all of it, its time included.
    pub(crate) fn content(&mut self, kind: &str, parts: &[&[u8]]) -> Key128 {
        let content = self.stated(kind, parts);
        let ordinal = self.ordinals.entry(content).or_default();
        let (nth, piece) = (ordinal.to_le_bytes(), self.input.piece.to_le_bytes());
        *ordinal += 1;
        Key128::of([content.0.as_slice(), b"ordinal", &nth, &piece])
    }

    /// The identity of a record with neither id nor time: its place in the request.
    pub(crate) fn arrival(&self, index: u32) -> Key128 {
        let Input { project_id, request_id, idempotency_key, first_record, .. } = *self.input;
        arrival(project_id, request_id, idempotency_key, first_record.saturating_add(index))
    }
}
