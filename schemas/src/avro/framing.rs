//! Single-object framing, and the choice of codec by the schema's fingerprint.

use std::sync::OnceLock;

use apache_avro::rabin::Rabin;
use apache_avro::{Schema, from_avro_datum, from_value};

use super::codec::{DecodeError, Record};
use crate::event::AgentEvent;
use crate::record::{DeadLetter, EventBatch, RawBatch, Settlement, SpoolStanding};

const MARKER: [u8; 2] = [0xC3, 0x01];
const HEADER_LEN: usize = 10;

/// The schemas of one record: the current one, and every earlier one that its bytes may still be stored under.
pub struct SchemaSet {
    current: Schema,
    current_fingerprint: [u8; 8],
    earlier: Vec<([u8; 8], Schema)>,
}

/// A record that has published schemas.
pub trait Published: Record {
    /// The current `.avsc` text.
    const CURRENT: &'static str;
    /// The `.avsc` texts of earlier versions, oldest first.
    const EARLIER: &'static [&'static str];

    /// The parsed schemas, parsed once.
    ///
    /// # Errors
    /// [`DecodeError::Resolution`] when a published schema does not parse, which `tests/avro.rs` excludes.
    fn schemas() -> Result<&'static SchemaSet, DecodeError>;
}

macro_rules! published {
    ($($ty:ty, $current:literal, [$($earlier:literal),*]);+ $(;)?) => {$(
        impl Published for $ty {
            const CURRENT: &'static str = include_str!(concat!("../../avro/", $current));
            const EARLIER: &'static [&'static str] = &[$(include_str!(concat!("../../avro/history/", $earlier))),*];

            fn schemas() -> Result<&'static SchemaSet, DecodeError> {
                static SET: OnceLock<SchemaSet> = OnceLock::new();
                if let Some(set) = SET.get() {
                    return Ok(set);
                }
                let set = SchemaSet::parse(Self::CURRENT, Self::EARLIER)?;
                Ok(SET.get_or_init(|| set))
            }
        }
    )+};
}
published! {
    RawBatch, "raw_batch.avsc", ["raw_batch.v1.avsc", "raw_batch.v2.avsc", "raw_batch.v3.avsc"];
    AgentEvent, "agent_event.avsc", ["agent_event.v1.avsc", "agent_event.v2.avsc"];
    EventBatch, "event_batch.avsc", ["event_batch.v1.avsc", "event_batch.v2.avsc"];
    Settlement, "settlement.avsc", [];
    DeadLetter, "dead_letter.avsc", ["dead_letter.v1.avsc"];
    SpoolStanding, "spool_standing.avsc", [];
}

impl SchemaSet {
    fn parse(current: &str, earlier: &[&str]) -> Result<Self, DecodeError> {
        let parse = |text: &str| Schema::parse_str(text).map_err(|e| DecodeError::Resolution(e.to_string()));
        let current = parse(current)?;
        let earlier = earlier
            .iter()
            .map(|text| parse(text).map(|schema| (fingerprint(&schema), schema)))
            .collect::<Result<_, _>>()?;
        Ok(Self { current_fingerprint: fingerprint(&current), current, earlier })
    }

    /// The current schema.
    pub fn current(&self) -> &Schema {
        &self.current
    }
}

fn fingerprint(schema: &Schema) -> [u8; 8] {
    let mut bytes = [0; 8];
    let digest = schema.fingerprint::<Rabin>().bytes;
    // INVARIANT: a Rabin fingerprint has 8 bytes (Avro specification, "Schema Fingerprints").
    for (to, from) in bytes.iter_mut().zip(digest) {
        *to = from;
    }
    bytes
}

/// Encodes a record under its current schema.
///
/// # Errors
/// [`DecodeError::Resolution`] when the published schema does not parse.
pub fn to_single_object<R: Published>(record: &R) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&R::schemas()?.current_fingerprint);
    record.encode(&mut out);
    Ok(out)
}

/// Decodes a record written under its current or any earlier schema.
///
/// # Errors
/// Any [`DecodeError`]: the bytes are then a dead letter, never a panic.
pub fn from_single_object<R: Published>(bytes: &[u8]) -> Result<R, DecodeError> {
    let (header, mut datum) = bytes.split_at_checked(HEADER_LEN).ok_or(DecodeError::NotSingleObject)?;
    let (marker, written_under) = header.split_at(MARKER.len());
    if marker != MARKER {
        return Err(DecodeError::NotSingleObject);
    }
    let schemas = R::schemas()?;
    if written_under == schemas.current_fingerprint {
        let record = R::decode(&mut datum)?;
        return if datum.is_empty() { Ok(record) } else { Err(DecodeError::Trailing(datum.len())) };
    }
    let writer = schemas.earlier.iter().find(|(fingerprint, _)| fingerprint == written_under);
    let Some((_, writer)) = writer else {
        let mut fingerprint = [0; 8];
        fingerprint.copy_from_slice(written_under);
        return Err(DecodeError::UnknownSchema(u64::from_le_bytes(fingerprint)));
    };
    resolve(writer, &schemas.current, datum)
}

/// The slow path: reads under the writer's schema and resolves to the current one.
pub(crate) fn resolve<R: Record>(
    writer: &Schema,
    reader: &Schema,
    mut datum: &[u8],
) -> Result<R, DecodeError> {
    let value = from_avro_datum(writer, &mut datum, Some(reader))
        .map_err(|e| DecodeError::Resolution(e.to_string()))?;
    from_value(&value).map_err(|e| DecodeError::Resolution(e.to_string()))
}
