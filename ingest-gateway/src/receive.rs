//! Reading a body under a bound of bytes and of time.

use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use crate::admission::Admitted;
use crate::error::Refusal;

/// The bounds of a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyBounds {
    pub(crate) bytes: usize,
    pub(crate) timeout: Duration,
}

/// The length the sender announced, if it did.
///
/// # Errors
/// [`Refusal::BodyTooLarge`] before a single byte is read.
pub(crate) fn announced(headers: &HeaderMap, bounds: BodyBounds) -> Result<Option<usize>, Refusal> {
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.trim().parse::<usize>().ok());
    match length {
        Some(length) if length > bounds.bytes => Err(Refusal::BodyTooLarge { limit: bounds.bytes }),
        length => Ok(length),
    }
}

/// Reads a body to its end.
///
/// # Errors
/// [`Refusal::BodyTooLarge`], [`Refusal::BodyTimeout`], [`Refusal::BodyAborted`], or no room.
pub(crate) async fn receive(
    body: Body,
    announced: Option<usize>,
    bounds: BodyBounds,
    admitted: &mut Admitted,
) -> Result<Bytes, Refusal> {
    tokio::time::timeout(bounds.timeout, read(body, announced, bounds, admitted))
        .await
        .unwrap_or(Err(Refusal::BodyTimeout(bounds.timeout)))
}

/// Reads and forgets a small body that is refused, so that its connection can be used again: an overloaded gateway would
/// be kept busy by new ones. Bounded in bytes and time; a larger body costs its sender the connection.
pub(crate) async fn skip(mut body: Body, announced: Option<usize>) {
    const SMALL_BYTES: usize = 64 * 1024;
    const IN_TIME: Duration = Duration::from_secs(1);
    if announced.is_some_and(|length| length <= SMALL_BYTES) {
        let read = async { while let Some(Ok(_)) = body.frame().await {} };
        let _in_time = tokio::time::timeout(IN_TIME, read).await.is_ok();
    }
}

async fn read(
    mut body: Body,
    announced: Option<usize>,
    bounds: BodyBounds,
    admitted: &mut Admitted,
) -> Result<Bytes, Refusal> {
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::BodyAborted)?;
        let Ok(data) = frame.into_data() else { continue };
        let length = first.len().max(joined.len()) + data.len();
        if length > bounds.bytes {
            return Err(Refusal::BodyTooLarge { limit: bounds.bytes });
        }
        admitted.reserve(length)?;
        if first.is_empty() {
            // A body that arrives in one frame, as small ones do, is never copied.
            first = data;
            continue;
        }
        if joined.is_empty() {
            joined.reserve(announced.unwrap_or(0).max(length));
            joined.extend_from_slice(&first);
        }
        joined.extend_from_slice(&data);
    }
    Ok(if joined.is_empty() { first } else { joined.freeze() })
}
