//! Encoding and decoding of Avro data, field by field.

use thiserror::Error;

use crate::id::{Key128, NanoUsd};

/// Bytes that are not what their schema says.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The input ended inside a value.
    #[error("the record ends in the middle of a value")]
    Truncated,
    /// A number does not fit its type.
    #[error("a number is out of range")]
    Range,
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
    /// A union's branch or a boolean is not one of its values.
    #[error("a union or boolean has an unknown value")]
    Branch,
    /// Bytes are left over after the last field.
    #[error("{0} bytes are left over after the record")]
    Trailing(usize),
    /// The record does not start with the single-object marker.
    #[error("not a single-object Avro record")]
    NotSingleObject,
    /// The record names a schema that this version does not know.
    #[error("unknown schema fingerprint {0:016x}")]
    UnknownSchema(u64),
    /// The record of an earlier schema could not be resolved.
    #[error("cannot read an earlier schema version: {0}")]
    Resolution(String),
}

/// A value with an Avro binary form.
pub trait Field: Sized {
    /// Appends the value.
    fn encode(&self, out: &mut Vec<u8>);

    /// Takes the value off the front of `input`.
    ///
    /// # Errors
    /// Returns why the bytes are not a value of this type; `input` is then unspecified.
    fn decode(input: &mut &[u8]) -> Result<Self, DecodeError>;
}

/// A record with a published schema.
pub trait Record: Field + serde::de::DeserializeOwned {
    /// The schema's name within the `fleetlog` namespace.
    const NAME: &'static str;
    /// Field names in schema order.
    const FIELDS: &'static [&'static str];
}

/// Declares a record: the struct, its codec and its list of fields, in schema order.
macro_rules! avro_record {
    ($(#[$doc:meta])* pub struct $name:ident, $schema:literal { $($(#[$fdoc:meta])* pub $field:ident: $ty:ty),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty),+ }

        impl $crate::avro::Field for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                $($crate::avro::Field::encode(&self.$field, out);)+
            }
            fn decode(input: &mut &[u8]) -> Result<Self, $crate::avro::DecodeError> {
                Ok(Self { $($field: $crate::avro::Field::decode(input)?),+ })
            }
        }

        impl $crate::avro::Record for $name {
            const NAME: &'static str = $schema;
            const FIELDS: &'static [&'static str] = &[$(stringify!($field)),+];
        }
    };
}
pub(crate) use avro_record;

fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

fn take_long(input: &mut &[u8]) -> Result<i64, DecodeError> {
    let mut zigzag = 0u64;
    for shift in (0..).step_by(7) {
        let (&byte, rest) = input.split_first().ok_or(DecodeError::Truncated)?;
        *input = rest;
        // The tenth byte may only carry the 64th bit.
        if shift == 63 && byte > 1 {
            return Err(DecodeError::Range);
        }
        zigzag |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
}

fn take<'a>(input: &mut &'a [u8], len: usize) -> Result<&'a [u8], DecodeError> {
    let (head, rest) = input.split_at_checked(len).ok_or(DecodeError::Truncated)?;
    *input = rest;
    Ok(head)
}

fn take_bytes<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let len = usize::try_from(take_long(input)?).map_err(|_| DecodeError::Range)?;
    take(input, len)
}

/// Appends a string: its length in bytes, then the bytes.
pub fn put_str(out: &mut Vec<u8>, value: &str) {
    put_long(out, value.len() as i64);
    out.extend_from_slice(value.as_bytes());
}

/// Takes a string off the front of `input` without copying it.
///
/// # Errors
/// [`DecodeError::Truncated`] or [`DecodeError::Utf8`].
pub fn take_str<'a>(input: &mut &'a [u8]) -> Result<&'a str, DecodeError> {
    std::str::from_utf8(take_bytes(input)?).map_err(|_| DecodeError::Utf8)
}

impl Field for String {
    fn encode(&self, out: &mut Vec<u8>) {
        put_str(out, self);
    }
    fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        take_str(input).map(str::to_owned)
    }
}

/// Opaque bytes, Avro `bytes`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

impl Field for Blob {
    fn encode(&self, out: &mut Vec<u8>) {
        put_long(out, self.0.len() as i64);
        out.extend_from_slice(&self.0);
    }
    fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        take_bytes(input).map(|bytes| Self(bytes.to_vec()))
    }
}

impl serde::Serialize for Blob {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Blob {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Blob;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }
            fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Visitor)
    }
}

impl Field for Key128 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
    fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let bytes = take(input, 16)?;
        bytes.try_into().map(Self).map_err(|_| DecodeError::Truncated)
    }
}

impl Field for NanoUsd {
    fn encode(&self, out: &mut Vec<u8>) {
        put_long(out, self.0);
    }
    fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        take_long(input).map(Self)
    }
}

impl Field for f64 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }
    fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let bytes = take(input, 8)?;
        bytes.try_into().map(Self::from_le_bytes).map_err(|_| DecodeError::Truncated)
    }
}

macro_rules! integer_fields {
    ($($ty:ty),+) => {$(
        impl Field for $ty {
            fn encode(&self, out: &mut Vec<u8>) {
                // Avro's widest integer is signed: a count beyond it saturates instead of turning negative.
                put_long(out, i64::try_from(*self).unwrap_or(i64::MAX));
            }
            fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
                Self::try_from(take_long(input)?).map_err(|_| DecodeError::Range)
            }
        }
    )+};
}
integer_fields!(i64, i32, u64, u32);

impl<T: Field> Field for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            None => put_long(out, 0),
            Some(value) => {
                put_long(out, 1);
                value.encode(out);
            }
        }
    }
    fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        match take_long(input)? {
            0 => Ok(None),
            1 => T::decode(input).map(Some),
            _ => Err(DecodeError::Branch),
        }
    }
}

impl<T: Field> Field for Vec<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        if !self.is_empty() {
            put_long(out, self.len() as i64);
            for item in self {
                item.encode(out);
            }
        }
        put_long(out, 0);
    }
    fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let mut items = Self::new();
        loop {
            let mut count = take_long(input)?;
            if count == 0 {
                return Ok(items);
            }
            if count < 0 {
                // A negative count is followed by the block's size in bytes, for readers that skip.
                count = count.checked_neg().ok_or(DecodeError::Range)?;
                take_long(input)?;
            }
            // Every element of ours takes at least one byte, so a count beyond the input is a lie and must not allocate.
            let count = usize::try_from(count).map_err(|_| DecodeError::Range)?;
            if count > input.len() {
                return Err(DecodeError::Truncated);
            }
            items.reserve(count.min(4096));
            for _ in 0..count {
                items.push(T::decode(input)?);
            }
        }
    }
}
