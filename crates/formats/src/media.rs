//! What a `Content-Type` says about a body.

use crate::inspect::BadBody;

/// The encodings told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    /// JSON of any layout.
    Json,
    /// One JSON value a line.
    Lines,
    /// Protobuf messages.
    Protobuf,
    /// Nothing usable was said: the bytes decide.
    Unsaid,
}

impl Media {
    pub(crate) fn unsupported(content_type: &str) -> BadBody {
        let known: String = content_type.chars().filter(char::is_ascii_graphic).take(80).collect();
        BadBody::new(
            "unsupported_content_type",
            format!("content type {known:?} is not supported here"),
            None,
        )
    }
}

/// Reads a `Content-Type` header.
///
/// # Errors
/// It names something that is neither JSON, lines of JSON nor protobuf.
pub(crate) fn media(content_type: &str) -> Result<Media, BadBody> {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    Ok(match essence.as_str() {
        "application/json" | "text/json" => Media::Json,
        "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/x-jsonl"
        | "application/jsonlines"
        | "application/json-lines"
        | "application/x-jsonlines"
        | "text/x-ndjson" => Media::Lines,
        "application/x-protobuf" | "application/protobuf" | "application/grpc" | "application/grpc+proto" => {
            Media::Protobuf
        }
        // What clients send when nobody told them the type; curl's default among them.
        "" | "text/plain" | "application/octet-stream" | "application/x-www-form-urlencoded" => Media::Unsaid,
        json if json.ends_with("+json") => Media::Json,
        _ => return Err(Media::unsupported(content_type)),
    })
}
