//! What can be wrong with a question, and what keeps it from being answered.

use std::sync::LazyLock;

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use fleetlog_log::{AuthError, LogError};
use fleetlog_runtime::{Classified, ErrorClass, TaskFailure};
use fleetlog_schemas::control::Role;
use fleetlog_store::StoreError;
use serde::Serialize;
use thiserror::Error;
use utoipa::ToSchema;

use crate::cursor::CursorError;
use crate::ledger::ReceiptError;
use crate::time_range::RangeError;

/// How long a caller should wait before asking again, seconds.
static RETRY_AFTER_S: LazyLock<HeaderValue> = LazyLock::new(|| HeaderValue::from_static("1"));

/// Why a question is not answered.
#[derive(Debug, Error)]
pub enum QueryError {
    /// A query parameter that the endpoint does not have.
    #[error("unknown parameter {name:?}; known are: {known}")]
    UnknownParameter {
        /// The parameter.
        name: String,
        /// Those there are.
        known: String,
    },
    /// A parameter with a value that makes no sense.
    #[error("{name}: {message}")]
    BadParameter {
        /// The parameter.
        name: String,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// The time range cannot be used.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// The cursor cannot be used.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// The receipt cannot be used.
    #[error("wait_for: {0}")]
    Receipt(#[from] ReceiptError),
    /// The log has no place that the receipt names.
    #[error("wait_for: the receipt names a place that the log does not have; no request was given it")]
    UnknownReceipt,
    /// What the receipt stands for is lost.
    #[error("what the receipt stands for was acknowledged and is lost; /v1/completeness says more")]
    ReceiptLost,
    /// What the receipt stands for is not in the answer yet.
    #[error("not complete after {waited_ms} ms: what the receipt stands for is still on its way; try again")]
    NotCompleteYet {
        /// How long it was waited for.
        waited_ms: u64,
    },
    /// Nothing is known of the logs yet.
    #[error("the ledger is not ready: it could not look at the logs yet")]
    LedgerNotReady,
    /// The request carries no key.
    #[error("an API key is needed: Authorization: Bearer fl_<id>_<secret>, or x-api-key")]
    NoKey,
    /// The key is not accepted.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The key is for sending only.
    #[error("a key with the role {role} may not read; viewer, analyst and admin may")]
    MayNotRead {
        /// Its role.
        role: Role,
    },
    /// The key may read, but not this.
    #[error("a key with the role {role} may not see original bytes; admin may")]
    AdminOnly {
        /// Its role.
        role: Role,
    },
    /// There is no such thing in the key's project.
    #[error("no such {what}")]
    NotFound {
        /// What was looked for.
        what: &'static str,
    },
    /// No such path, or not with this method.
    #[error("no such endpoint; see /openapi.json or /docs")]
    NoEndpoint,
    /// The project has too many statements running or waiting.
    #[error("too many queries of this project are running; try again shortly")]
    ProjectBusy,
    /// The statement's turn did not come in time.
    #[error("too many queries are running; try again shortly")]
    Busy,
    /// The store has not yet proved that readers are confined to their project (INV-10).
    #[error("the store is not ready: it could not yet be reached and checked")]
    StoreNotReady,
    /// The store cannot answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log cannot answer.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log was not read in time.
    #[error("the log did not answer in time; try again shortly")]
    LogBusy,
}

impl Classified for QueryError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::UnknownParameter { .. }
            | Self::BadParameter { .. }
            | Self::Range(_)
            | Self::Cursor(_)
            | Self::Receipt(_)
            | Self::UnknownReceipt => ErrorClass::BadInput,
            Self::ReceiptLost => ErrorClass::Corrupt,
            Self::NoKey => ErrorClass::Unauthenticated,
            Self::Auth(error) => error.class(),
            Self::MayNotRead { .. } | Self::AdminOnly { .. } => ErrorClass::Forbidden,
            Self::NotFound { .. } | Self::NoEndpoint => ErrorClass::NotFound,
            Self::ProjectBusy => ErrorClass::Overloaded,
            Self::Busy
            | Self::StoreNotReady
            | Self::LogBusy
            | Self::LedgerNotReady
            | Self::NotCompleteYet { .. } => ErrorClass::Unavailable,
            Self::Store(error) => error.class(),
            Self::Log(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::UnknownParameter { .. } => "unknown_parameter",
            Self::BadParameter { .. } => "bad_parameter",
            Self::Range(_) => "bad_range",
            Self::Cursor(_) => "bad_cursor",
            Self::Receipt(ReceiptError::Malformed) => "bad_receipt",
            Self::Receipt(ReceiptError::Spooled) => "receipt_spooled",
            Self::UnknownReceipt => "unknown_receipt",
            Self::ReceiptLost => "receipt_lost",
            Self::NotCompleteYet { .. } => "not_complete_yet",
            Self::LedgerNotReady => "ledger_not_ready",
            Self::NoKey => "no_key",
            Self::Auth(error) => error.code(),
            Self::MayNotRead { .. } => "may_not_read",
            Self::AdminOnly { .. } => "admin_only",
            Self::NotFound { .. } => "not_found",
            Self::NoEndpoint => "no_such_endpoint",
            Self::ProjectBusy => "project_busy",
            Self::Busy => "busy",
            Self::StoreNotReady => "store_not_ready",
            Self::Store(error) => error.code(),
            Self::Log(error) => error.code(),
            Self::LogBusy => "log_busy",
        }
    }
}

impl QueryError {
    /// What the caller is told: never ClickHouse's or Kafka's own words, which name tables and hosts.
    fn told(&self) -> String {
        let error = match self {
            Self::Store(error) => error,
            Self::Log(_) => return "the log cannot be reached; try again shortly".to_owned(),
            _ => return self.to_string(),
        };
        match error {
            StoreError::Limit { .. } => {
                "the query exceeds a limit of time, rows or memory; ask for a shorter range or use more filters"
            }
            StoreError::Overloaded { .. } => "the store is overloaded; try again shortly",
            StoreError::Unavailable(_) | StoreError::Denied { .. } | StoreError::TooLate => {
                "the store cannot be reached or does not answer; ingestion is not affected"
            }
            StoreError::Config(_)
            | StoreError::Refused { .. }
            | StoreError::Statement { .. }
            | StoreError::Answer(_)
            | StoreError::Changed { .. }
            | StoreError::NotConfined { .. }
            | StoreError::NoProject => "an error of ours; it has been logged",
        }
        .to_owned()
    }

    fn log(&self) {
        let (code, class) = (self.code(), self.class());
        match class.log_level() {
            tracing::Level::ERROR => tracing::error!(code, error = %self, "a query failed"),
            tracing::Level::WARN => tracing::warn!(code, error = %self, "a query was not answered"),
            _ => tracing::debug!(code, error = %self, "a query was refused"),
        }
    }
}

/// What an answer other than 200 holds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorDetail,
}

/// Why there is no answer.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorDetail {
    /// A stable word for programs.
    #[schema(example = "unknown_parameter")]
    code: &'static str,
    /// An explanation for people.
    message: String,
}

impl IntoResponse for QueryError {
    fn into_response(self) -> Response {
        self.log();
        let class = self.class();
        let status = StatusCode::from_u16(class.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = ErrorBody { error: ErrorDetail { code: self.code(), message: self.told() } };
        let mut response = (status, Json(body)).into_response();
        if class.is_retryable() {
            response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_S.clone());
        }
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"fleetlog\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// Why the service cannot start or go on.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// The listener's address cannot be had.
    #[error("cannot listen on {address} (query.listen): {source}")]
    Listen {
        /// The address.
        address: String,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The keys cannot be read.
    #[error(transparent)]
    Keys(#[from] LogError),
    /// The store's configuration cannot work, or it does not confine readers.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A task failed.
    #[error(transparent)]
    Task(#[from] TaskFailure),
}

impl Classified for ServiceError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Listen { .. } => ErrorClass::Conflict,
            Self::Keys(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::Task(_) => ErrorClass::Bug,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "cannot_listen",
            Self::Keys(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::Task(_) => "task_failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clickhouse_says_is_logged_and_never_told() {
        let secret = "Code: 60. DB::Exception: Table fleetlog.secret_table does not exist".to_owned();
        let errors = [
            StoreError::Unavailable(secret.clone()),
            StoreError::Statement { code: 60, message: secret.clone() },
            StoreError::Limit { code: 158, message: secret.clone() },
            StoreError::Overloaded { code: 241, message: secret },
        ];
        for error in errors {
            assert!(!QueryError::Store(error).told().contains("secret"));
        }
    }

    #[test]
    fn an_outage_is_a_503_that_says_when_to_come_back() {
        let response = QueryError::Store(StoreError::Unavailable("down".to_owned())).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert_eq!(
            QueryError::NoKey.into_response().headers()[WWW_AUTHENTICATE],
            "Bearer realm=\"fleetlog\""
        );
    }
}
