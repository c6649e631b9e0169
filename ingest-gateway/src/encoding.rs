//! What a body's headers say of its encoding.

use axum::http::{HeaderMap, HeaderName};
use fleetlog_formats::compression::{CompressionError, Encoding};

use crate::error::Refusal;

/// The encoding the header of this name says, or `None` when it says none and the first bytes decide.
///
/// # Errors
/// [`Refusal::UnknownEncoding`] for an unknown one, or several at once.
pub(crate) fn named(headers: &HeaderMap, name: HeaderName) -> Result<Option<Encoding>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().map_err(|_| Refusal::UnknownEncoding)?;
    if values.next().is_some() {
        return Err(Refusal::UnknownEncoding);
    }
    Ok(if text.trim().is_empty() { None } else { Some(Encoding::of(text, b"")?) })
}

impl From<CompressionError> for Refusal {
    fn from(error: CompressionError) -> Self {
        match error {
            CompressionError::Unknown(_) => Self::UnknownEncoding,
            CompressionError::Corrupt { encoding } => Self::BadCompression(encoding),
            CompressionError::TooLarge { limit } => Self::DecodedTooLarge { limit },
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header::CONTENT_ENCODING;

    use super::*;

    fn named(headers: &HeaderMap) -> Result<Option<Encoding>, Refusal> {
        super::named(headers, CONTENT_ENCODING)
    }

    #[test]
    fn one_known_encoding_is_named_and_anything_else_is_refused() {
        let headers = |values: &[&'static str]| {
            let pairs = values.iter().map(|value| (CONTENT_ENCODING, value.parse().unwrap()));
            pairs.collect::<HeaderMap>()
        };
        let mut twice = headers(&["gzip"]);
        twice.append(CONTENT_ENCODING, "br".parse().unwrap());
        assert_eq!(named(&headers(&[])).unwrap(), None);
        assert_eq!(named(&headers(&[" "])).unwrap(), None);
        assert_eq!(named(&headers(&["GZIP"])).unwrap(), Some(Encoding::Gzip));
        for wrong in [headers(&["gzip, br"]), headers(&["lzma"]), twice] {
            assert!(matches!(named(&wrong), Err(Refusal::UnknownEncoding)));
        }
    }
}
