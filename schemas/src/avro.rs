//! The wire encoding: Avro binary in single-object framing.
//!
//! The codec is generated from one field list per record (`avro_record!`) because the path through a generic
//! value costs ten times as much (performance budget). The `.avsc` files under `avro/` are the published
//! contract; `tests/avro.rs` proves, both ways and property-based, that this codec and apache-avro agree on them.
//!
//! Framing (Avro 1.11 specification, "Single-object encoding"): `C3 01`, the schema's 64-bit Rabin fingerprint in
//! little-endian order, then the datum. Bytes written under an earlier version of a schema carry that version's
//! fingerprint and are read by resolution against the file kept in `avro/history/`.

mod codec;
mod framing;

pub(crate) use codec::avro_record;
pub use codec::{Blob, DecodeError, Field, Record, put_str, take_str};
pub use framing::{Published, SchemaSet, from_single_object, to_single_object};
