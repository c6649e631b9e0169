//! What can go wrong, as ClickHouse's codes and as HTTP.
//!
//! A [`ServerError`] is one exception as a ClickHouse server would send it: a code and a message. Its HTTP status
//! follows the server's own table (`exceptionCodeToHTTPStatus`), with two deliberate differences: too many simultaneous
//! queries is 503, so that clients wait and retry, and a query id that is taken is 409. A [`StartError`] is why the
//! process cannot serve, worded for the operator.

use std::net::SocketAddr;
use std::path::PathBuf;

use axum::http::StatusCode;
use fleetlog_runtime::ErrorClass;

/// The ClickHouse errors that this process raises itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    BadArguments,
    NotImplemented,
    Readonly,
    LogicalError,
    SyntaxError,
    UnknownCompressionMethod,
    TooManySimultaneousQueries,
    SocketTimeout,
    NetworkError,
    QueryIdTaken,
    QueryTooLarge,
    CannotDecompress,
    TooManyBytes,
    QueryWasCancelled,
    AccessDenied,
    AuthenticationFailed,
}

impl Code {
    const fn number(self) -> u32 {
        match self {
            Self::BadArguments => 36,
            Self::NotImplemented => 48,
            Self::LogicalError => 49,
            Self::SyntaxError => 62,
            Self::UnknownCompressionMethod => 89,
            Self::TooManySimultaneousQueries => 202,
            Self::Readonly => 164,
            Self::SocketTimeout => 209,
            Self::NetworkError => 210,
            Self::QueryIdTaken => 216,
            Self::QueryTooLarge => 229,
            Self::CannotDecompress => 271,
            Self::TooManyBytes => 307,
            Self::QueryWasCancelled => 394,
            Self::AccessDenied => 497,
            Self::AuthenticationFailed => 516,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::BadArguments => "BAD_ARGUMENTS",
            Self::NotImplemented => "NOT_IMPLEMENTED",
            Self::LogicalError => "LOGICAL_ERROR",
            Self::SyntaxError => "SYNTAX_ERROR",
            Self::UnknownCompressionMethod => "UNKNOWN_COMPRESSION_METHOD",
            Self::TooManySimultaneousQueries => "TOO_MANY_SIMULTANEOUS_QUERIES",
            Self::Readonly => "READONLY",
            Self::SocketTimeout => "SOCKET_TIMEOUT",
            Self::NetworkError => "NETWORK_ERROR",
            Self::QueryIdTaken => "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING",
            Self::QueryTooLarge => "QUERY_IS_TOO_LARGE",
            Self::CannotDecompress => "CANNOT_DECOMPRESS",
            Self::TooManyBytes => "TOO_MANY_BYTES",
            Self::QueryWasCancelled => "QUERY_WAS_CANCELLED",
            Self::AccessDenied => "ACCESS_DENIED",
            Self::AuthenticationFailed => "AUTHENTICATION_FAILED",
        }
    }
}

/// One exception, as a ClickHouse server would report it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ServerError {
    code: u32,
    message: String,
}

impl ServerError {
    /// Makes an exception of this process's own, in the server's wording.
    pub(crate) fn new(code: Code, message: impl std::fmt::Display) -> Self {
        Self {
            code: code.number(),
            message: format!("Code: {}. DB::Exception: {message} ({})", code.number(), code.name()),
        }
    }

    /// What a server says of a form's field above `http_max_field_value_size`: its HTTP library's words, not its own.
    pub(crate) fn field_too_long() -> Self {
        const POCO_EXCEPTION: u32 = 1000;
        let message = format!(
            "Poco::Exception. Code: {POCO_EXCEPTION}, e.code() = 0, HTML Form Exception: Field value too long"
        );
        Self { code: POCO_EXCEPTION, message }
    }

    /// Takes the engine's own text, which begins with `Code: N.`.
    pub(crate) fn from_engine(text: &str) -> Self {
        let number = text
            .strip_prefix("Code: ")
            .and_then(|rest| rest.split_once('.'))
            .and_then(|(digits, _)| digits.parse().ok());
        match number {
            Some(code) => Self { code, message: unwrapped(code, text.trim_end()).to_owned() },
            None => Self::new(Code::LogicalError, text.trim_end()),
        }
    }

    /// Reports that the engine gave neither a result nor an error.
    pub(crate) fn no_answer() -> Self {
        Self::new(Code::LogicalError, "The engine gave no answer.")
    }

    /// ClickHouse's code.
    pub fn code(&self) -> u32 {
        self.code
    }

    /// The text a client gets, with the version as a server appends it.
    pub(crate) fn body(&self, version: &str) -> String {
        if self.message.contains("(version ") {
            format!("{}\n", self.message)
        } else {
            format!("{} (version {version})\n", self.message)
        }
    }

    /// The HTTP status, by the server's table.
    pub(crate) fn status(&self) -> StatusCode {
        match self.code {
            194 => StatusCode::UNAUTHORIZED,
            192 | 193 | 497 | 512 | 516 => StatusCode::FORBIDDEN,
            // Values that cannot be parsed.
            6 | 25 | 26 | 27 | 38 | 41 | 72 | 117 | 321 | 376 | 441 | 675 | 676 => StatusCode::BAD_REQUEST,
            // Queries that make no sense.
            8 | 15 | 36 | 37 | 44 | 53 | 62 | 123 | 167 | 168 | 223 | 427 => StatusCode::BAD_REQUEST,
            46 | 47 | 50 | 56 | 60 | 63 | 73 | 78 | 81 | 115 | 152 | 336 | 511 => StatusCode::NOT_FOUND,
            159 => StatusCode::REQUEST_TIMEOUT,
            216 => StatusCode::CONFLICT,
            229 => StatusCode::PAYLOAD_TOO_LARGE,
            381 => StatusCode::LENGTH_REQUIRED,
            779 => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            48 => StatusCode::NOT_IMPLEMENTED,
            76 | 202 | 209 | 439 => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// How the error is to be judged.
    pub fn class(&self) -> ErrorClass {
        match self.status().as_u16() {
            401 => ErrorClass::Unauthenticated,
            403 => ErrorClass::Forbidden,
            404 => ErrorClass::NotFound,
            409 => ErrorClass::Conflict,
            413 => ErrorClass::TooLarge,
            415 => ErrorClass::Unsupported,
            400..=499 | 501 => ErrorClass::BadInput,
            503 => ErrorClass::Unavailable,
            // Of what the server answers with 500, these are the engine's state and not the query's fault: too many
            // parts, no memory, no space, a read-only table, corrupt data, a failed file operation.
            _ if matches!(self.code, 74 | 75 | 241 | 242 | 243 | 252) => ErrorClass::Unavailable,
            _ if matches!(self.code, 40 | 246) => ErrorClass::Corrupt,
            _ if self.code == Code::LogicalError.number() => ErrorClass::Bug,
            _ => ErrorClass::BadInput,
        }
    }
}

/// Takes off the layers that the engine's client puts around an exception of the same code, prefix and name.
fn unwrapped(code: u32, text: &str) -> &str {
    let prefix = format!("Code: {code}. DB::Exception: ");
    let mut text = text;
    while let Some(inner) = text.strip_prefix(&prefix).filter(|inner| inner.starts_with(&prefix)) {
        text = inner.rfind(". (").map_or(inner, |end| &inner[..end]);
    }
    text
}

/// Why the process cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The engine exists for one platform only.
    #[error(
        "the embedded ClickHouse engine runs on Linux x86-64 with glibc only; on this platform run a ClickHouse \
         server and give its URL instead"
    )]
    Platform,
    /// No file at the given path.
    #[error(
        "no library at {path}: fetch the engine (`cargo xtask up` does it once and keeps it) or give its path with \
         --library"
    )]
    LibraryMissing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The dynamic linker refuses the file.
    #[error("the library {path} cannot be loaded: {source}")]
    LibraryUnloadable {
        /// Where it lies.
        path: PathBuf,
        /// The linker's reason.
        source: libloading::Error,
    },
    /// A function is missing.
    #[error(
        "the library has no function {symbol}: it is another release than the pinned one; fetch the pinned engine again"
    )]
    LibraryTooOld {
        /// The missing function.
        symbol: String,
    },
    /// The data directory cannot be used.
    #[error("the data directory {path} cannot be used: {source}")]
    Data {
        /// The directory or a file in it.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Another process serves this directory.
    #[error(
        "the data directory {path} is in use by another fleetlog-clickhouse: stop that one, or choose another --data"
    )]
    DataInUse {
        /// The directory.
        path: PathBuf,
    },
    /// The engine did not start.
    #[error("the engine did not start on {path}: its own message stands above")]
    Engine {
        /// The data directory.
        path: PathBuf,
    },
    /// The engine refused a statement that it needs at start.
    #[error("the engine is not usable: {0}")]
    Statement(#[from] ServerError),
    /// The kernel's fence could not be put up.
    #[error("the process cannot be confined to its data directory: {0}")]
    Sandbox(String),
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The wanted address.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The interface has no authentication, so it is for this machine only.
    #[error(
        "{address} is not a loopback address: this interface has no authentication and serves one machine only; for \
         anything else run a ClickHouse server"
    )]
    NotLoopback {
        /// The refused address.
        address: SocketAddr,
    },
    /// Serving ended with an error of the system.
    #[error("serving failed: {0}")]
    Serve(std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_text_keeps_its_code_and_gets_the_server_s_status() {
        let error = ServerError::from_engine("Code: 60. DB::Exception: Unknown table 'x'. (UNKNOWN_TABLE)");
        assert_eq!(error.code(), 60);
        assert_eq!(error.status(), StatusCode::NOT_FOUND);
        assert_eq!(
            error.body("1.2"),
            "Code: 60. DB::Exception: Unknown table 'x'. (UNKNOWN_TABLE) (version 1.2)\n"
        );
    }

    #[test]
    fn wrapped_exception_is_told_once() {
        let inner = "Code: 73. DB::Exception: Unknown format X. (UNKNOWN_FORMAT) (version 26.7.2.1)";
        let once = format!("Code: 73. DB::Exception: {inner}. (UNKNOWN_FORMAT)");
        let twice = format!("Code: 73. DB::Exception: {once} (version 26.7.2.1). (UNKNOWN_FORMAT)");
        for text in [inner, &once, &twice] {
            assert_eq!(ServerError::from_engine(text).to_string(), inner);
        }
    }

    #[test]
    fn version_is_not_said_twice() {
        let error = ServerError::from_engine("Code: 62. DB::Exception: no (SYNTAX_ERROR) (version 26.7.2.1)");
        assert_eq!(error.body("26.7.2.1").matches("(version").count(), 1);
    }

    #[test]
    fn text_without_a_code_is_a_logical_error() {
        let error = ServerError::from_engine("std::bad_alloc");
        assert_eq!((error.code(), error.class()), (49, ErrorClass::Bug));
    }
}
