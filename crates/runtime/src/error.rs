//! The closed list of what can be wrong, and what each kind means at every boundary.

/// Whose fault an error is and what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The sender's bytes are wrong; sending them again cannot help.
    BadInput,
    /// The body is larger than a configured limit.
    TooLarge,
    /// The content type or encoding is not supported.
    Unsupported,
    /// No key, an unknown key or a revoked key.
    Unauthenticated,
    /// The key's role does not allow it.
    Forbidden,
    /// What was asked for does not exist.
    NotFound,
    /// It contradicts the present state.
    Conflict,
    /// The sender's quota is used up; later is fine.
    Overloaded,
    /// We or a dependency cannot do it now; later is fine.
    Unavailable,
    /// Stored or transported bytes are not what they must be.
    Corrupt,
    /// An invariant of ours does not hold.
    Bug,
}

impl ErrorClass {
    /// The HTTP status at a boundary.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::BadInput => 400,
            Self::TooLarge => 413,
            Self::Unsupported => 415,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Overloaded => 429,
            Self::Unavailable => 503,
            Self::Corrupt | Self::Bug => 500,
        }
    }

    /// Whether the same request may succeed later.
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::Overloaded | Self::Unavailable => true,
            Self::BadInput
            | Self::TooLarge
            | Self::Unsupported
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::NotFound
            | Self::Conflict
            | Self::Corrupt
            | Self::Bug => false,
        }
    }

    /// The level at which a boundary logs it, once.
    pub const fn log_level(self) -> tracing::Level {
        match self {
            Self::BadInput
            | Self::TooLarge
            | Self::Unsupported
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::NotFound
            | Self::Conflict => tracing::Level::DEBUG,
            Self::Overloaded | Self::Unavailable => tracing::Level::WARN,
            Self::Corrupt | Self::Bug => tracing::Level::ERROR,
        }
    }
}

/// An error that knows its class and its machine-readable code.
pub trait Classified: std::error::Error {
    /// Whose fault it is and what follows.
    fn class(&self) -> ErrorClass;

    /// A stable word for machines, for instance `body_too_large`.
    fn code(&self) -> &'static str;
}
