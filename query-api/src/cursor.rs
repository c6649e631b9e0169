//! Opaque cursors: where a page ended, so that the next one starts there.
//!
//! A cursor holds the resolved time range and the sort key of the last row (a keyset, so a page costs the same
//! however deep it lies), bound to the query it came from by a fingerprint. It carries no authority: it is decoded
//! like any other input, its range is checked against the policy again, and the project still comes from the API key
//! alone. The fingerprint only keeps a cursor from being used with other filters, where it would skip rows silently.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::time_range::TimeRange;

/// Longest accepted cursor; it may hold a session id, and those are as long as their sender made them.
const MAX_LEN: usize = 16 * 1024;
const VERSION: u8 = 1;

/// Why a cursor cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CursorError {
    /// Not one of ours.
    #[error("the cursor is not one that this API gave out")]
    Malformed,
    /// Ours, from another query.
    #[error("the cursor belongs to another query: keep every filter and use the same key's project")]
    Foreign,
}

/// What a cursor belongs to: an endpoint with its filters, asked by one project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 8]);

impl Fingerprint {
    /// The fingerprint of a list: `filters` is everything that decides which rows it has, and in which order.
    pub(crate) fn of<'a>(
        endpoint: &str,
        project_id: &str,
        filters: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            // The length in front keeps ("a", "bc") and ("ab", "c") apart.
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        part(endpoint);
        part(project_id);
        for (name, value) in filters {
            part(name);
            part(value);
        }
        let digest = hash.finalize();
        let mut short = [0; 8];
        short.copy_from_slice(&digest[..8]);
        Self(short)
    }

    fn as_number(self) -> u64 {
        u64::from_be_bytes(self.0)
    }
}

/// Where a page ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cursor<K> {
    /// The time range of the whole list, resolved when its first page was asked for.
    pub(crate) range: TimeRange,
    /// The sort key of the page's last row.
    pub(crate) key: K,
}

#[derive(Serialize, Deserialize)]
struct Wire<K>(u8, u64, i64, i64, K);

impl<K: Serialize + DeserializeOwned> Cursor<K> {
    /// The text given to the caller.
    pub(crate) fn encode(&self, fingerprint: Fingerprint) -> String {
        let wire = Wire(VERSION, fingerprint.as_number(), self.range.from_ns, self.range.to_ns, &self.key);
        // Numbers, strings and tuples of them cannot fail to serialise; an empty cursor would be refused on return.
        let json = serde_json::to_vec(&wire).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(json)
    }

    /// Reads a cursor back.
    ///
    /// # Errors
    /// [`CursorError`] when the text is not a cursor, or is one of another query.
    pub(crate) fn decode(text: &str, fingerprint: Fingerprint) -> Result<Self, CursorError> {
        if text.len() > MAX_LEN {
            return Err(CursorError::Malformed);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError::Malformed)?;
        let Wire(version, number, from_ns, to_ns, key) = serde_json::from_slice::<Wire<K>>(&bytes)
            .map_err(|_| CursorError::Foreign.unless_garbage(&bytes))?;
        if version != VERSION {
            return Err(CursorError::Malformed);
        }
        if number != fingerprint.as_number() {
            return Err(CursorError::Foreign);
        }
        Ok(Self { range: TimeRange { from_ns, to_ns }, key })
    }
}

impl CursorError {
    /// A cursor of another endpoint has a key of another shape and still deserves the clearer message.
    fn unless_garbage(self, bytes: &[u8]) -> Self {
        match serde_json::from_slice::<Wire<serde_json::Value>>(bytes) {
            Ok(wire) if wire.0 == VERSION => self,
            _ => Self::Malformed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Key = (i64, String);

    fn print(project: &str) -> Fingerprint {
        Fingerprint::of("sessions", project, [("model", "m")])
    }

    fn cursor() -> Cursor<Key> {
        Cursor { range: TimeRange { from_ns: -1, to_ns: i64::MAX }, key: (7, "s\"1".to_owned()) }
    }

    #[test]
    fn a_cursor_comes_back_as_it_was() {
        let text = cursor().encode(print("p"));
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        assert_eq!(Cursor::<Key>::decode(&text, print("p")), Ok(cursor()));
    }

    #[test]
    fn a_cursor_of_another_project_filter_or_list_is_refused() {
        let text = cursor().encode(print("p"));
        assert_eq!(Cursor::<Key>::decode(&text, print("q")), Err(CursorError::Foreign));
        let other_filter = Fingerprint::of("sessions", "p", [("model", "n")]);
        assert_eq!(Cursor::<Key>::decode(&text, other_filter), Err(CursorError::Foreign));
        assert_eq!(Cursor::<(i64, i32, i64, u32)>::decode(&text, print("p")), Err(CursorError::Foreign));
    }

    #[test]
    fn garbage_is_refused_without_panicking() {
        let print = print("p");
        for text in ["", "!", "e30", "WzFd", "AAAA", &"A".repeat(20_000)] {
            assert_eq!(Cursor::<Key>::decode(text, print), Err(CursorError::Malformed), "{text}");
        }
    }

    #[test]
    fn neighbouring_filters_do_not_run_together() {
        let a = Fingerprint::of("e", "p", [("ab", "c")]);
        let b = Fingerprint::of("e", "p", [("a", "bc")]);
        assert_ne!(a, b);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_decoding_panic(text in ".*", bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..99)) {
            let _refused = Cursor::<Key>::decode(&text, print("p")).is_err();
            let _refused = Cursor::<Key>::decode(&URL_SAFE_NO_PAD.encode(bytes), print("p")).is_err();
        }
    }
}
