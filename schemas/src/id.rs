//! Newtypes for what must never be confused: identities, money, positions.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A 128-bit identity, stored big-endian, shown as 32 hexadecimal digits.
///
/// Used as the `dedup_key`: two arrivals with the same key are the same event (design: identity).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key128(pub [u8; 16]);

impl Key128 {
    /// Hashes identity parts, each separated from the next so that `("a", "bc")` and `("ab", "c")` differ.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(hasher.digest128().to_be_bytes())
    }

    /// The key as a number, the form of ClickHouse's `UInt128`.
    pub fn as_u128(self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    /// The key of a number read back from ClickHouse.
    pub fn from_u128(value: u128) -> Self {
        Self(value.to_be_bytes())
    }
}

impl fmt::Display for Key128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.as_u128())
    }
}

impl fmt::Debug for Key128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// Avro's `fixed` reaches serde as bytes; only the slow path for older schemas goes through here.
impl Serialize for Key128 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Key128 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Key128;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("16 bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Key128, E> {
                bytes.try_into().map(Key128).map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

/// An amount of money in billionths of a US dollar.
///
/// An integer, so that a sum of a million calls is exact and does not depend on the order of addition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NanoUsd(pub i64);

impl NanoUsd {
    /// The nearest amount to a number of dollars, or `None` when it is negative, not finite or out of range: nobody is
    /// paid for a call, and one absurd report must not lower a bill.
    pub fn from_usd(usd: f64) -> Option<Self> {
        let nanos = (usd * 1e9).round();
        // 2^63 is exactly representable as f64, so the comparison is exact.
        (0.0..9_223_372_036_854_775_808.0).contains(&nanos).then_some(Self(nanos as i64))
    }

    /// The amount in dollars, for display.
    pub fn as_usd(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

/// A record's place in a Kafka topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Kafka partition.
    pub partition: i32,
    /// Kafka offset of the record.
    pub offset: i64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_an_identity_do_not_run_together() {
        let a = Key128::of([b"a".as_slice(), b"bc"]);
        let b = Key128::of([b"ab".as_slice(), b"c"]);
        assert_ne!(a, b);
        assert_eq!(Key128::from_u128(a.as_u128()), a);
    }

    #[test]
    fn reported_float_costs_add_up_exactly() {
        let call = NanoUsd::from_usd(0.002_642_999_999_999_999_5).unwrap();
        assert_eq!(NanoUsd(call.0 * 8).as_usd(), 0.021_144);
        assert_eq!(NanoUsd::from_usd(f64::NAN), None);
        assert_eq!(NanoUsd::from_usd(1e300), None);
        assert_eq!(NanoUsd::from_usd(-1.0), None);
    }
}
