//! What ClickHouse's errors mean to a caller.

use fleetlog_runtime::{Classified, ErrorClass};
use thiserror::Error;

/// An error of the store.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The configuration cannot work.
    #[error("clickhouse configuration: {0}")]
    Config(String),
    /// ClickHouse cannot be reached, or cannot do it now.
    #[error("clickhouse is unavailable: {0}")]
    Unavailable(String),
    /// ClickHouse sheds load: too many parts, queries or too little memory.
    #[error("clickhouse is overloaded (code {code}): {message}")]
    Overloaded {
        /// ClickHouse's error code.
        code: i32,
        /// What it said.
        message: String,
    },
    /// ClickHouse refuses the data itself: sending it again cannot help.
    #[error("clickhouse refuses the data (code {code}): {message}")]
    Refused {
        /// ClickHouse's error code.
        code: i32,
        /// What it said.
        message: String,
    },
    /// The insert would have started after its `insert_before`; nothing of it was stored.
    #[error("the insert came too late for its insert_before")]
    TooLate,
    /// A query exceeds its limits: a narrower one may succeed.
    #[error("the query exceeds a limit (code {code}): {message}")]
    Limit {
        /// ClickHouse's error code.
        code: i32,
        /// What it said.
        message: String,
    },
    /// The credentials are wrong, or may not do it.
    #[error("clickhouse denies access (code {code}): {message}")]
    Denied {
        /// ClickHouse's error code.
        code: i32,
        /// What it said.
        message: String,
    },
    /// A statement is wrong, or the tables are not what this version expects.
    #[error("clickhouse cannot run the statement (code {code}): {message}")]
    Statement {
        /// ClickHouse's error code.
        code: i32,
        /// What it said.
        message: String,
    },
    /// The answer is not what was asked for.
    #[error("unexpected answer from clickhouse: {0}")]
    Answer(String),
    /// An applied migration is not the one this version has.
    #[error("migration {number} ({name}) was applied with checksum {applied}, this version has {expected}")]
    Changed {
        /// Its number.
        number: u32,
        /// Its name.
        name: &'static str,
        /// Checksum recorded when it was applied.
        applied: String,
        /// Checksum of this version's.
        expected: String,
    },
    /// Some tables are not confined by project; a reader must not start (INV-10).
    #[error("no row filter confines readers of: {}", tables.join(", "))]
    NotConfined {
        /// The tables.
        tables: Vec<String>,
    },
    /// A project id that cannot confine a query.
    #[error("a reader needs a project")]
    NoProject,
}

impl StoreError {
    /// Sorts an error of the client.
    pub(crate) fn from_client(error: clickhouse::error::Error) -> Self {
        use clickhouse::error::Error as Client;
        match error {
            Client::BadResponse(text) => Self::from_response(text),
            Client::Network(_) | Client::TimedOut => Self::Unavailable(chain(&error)),
            Client::InvalidParams(_) | Client::Unsupported(_) => Self::Config(chain(&error)),
            other => {
                // An exception in the middle of a streamed answer comes wrapped.
                let text = chain(&other);
                if exception_code(&text).is_some() { Self::from_response(text) } else { Self::Answer(text) }
            }
        }
    }

    /// The same error as a reader meets it: its query ran out of its own time, and nothing is unavailable.
    pub(crate) fn of_reader(self) -> Self {
        match self {
            // TIMEOUT_EXCEEDED
            Self::Unavailable(text) if exception_code(&text) == Some(159) => {
                Self::Limit { code: 159, message: first_line(&text) }
            }
            other => other,
        }
    }

    /// Whether ClickHouse itself said so, and not what lies in between.
    pub fn is_exception(&self) -> bool {
        match self {
            Self::Unavailable(text) => exception_code(text).is_some(),
            Self::Overloaded { .. }
            | Self::Refused { .. }
            | Self::TooLate
            | Self::Limit { .. }
            | Self::Denied { .. }
            | Self::Statement { .. } => true,
            Self::Config(_)
            | Self::Answer(_)
            | Self::Changed { .. }
            | Self::NotConfined { .. }
            | Self::NoProject => false,
        }
    }

    fn from_response(text: String) -> Self {
        let Some(code) = exception_code(&text) else {
            // A proxy's answer, or a server that is starting: the text may name no exception.
            return Self::Unavailable(text);
        };
        let message = first_line(&text);
        // https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp
        match code {
            // VIOLATED_CONSTRAINT: ours is insert_before; any other is an operator's, and about the rows.
            469 if violated(&message) == Some(INSERT_IN_TIME) => Self::TooLate,
            code if code == 469 || is_data(code) => Self::Refused { code, message: without_values(&message) },
            // TOO_MANY_SIMULTANEOUS_QUERIES, MEMORY_LIMIT_EXCEEDED, TOO_MANY_PARTS.
            202 | 241 | 252 => Self::Overloaded { code, message },
            // TOO_MANY_ROWS, TOO_MANY_BYTES, TOO_MANY_ROWS_OR_BYTES.
            158 | 307 | 396 => Self::Limit { code, message },
            // READONLY, ACCESS_DENIED, AUTHENTICATION_FAILED, UNKNOWN_USER, WRONG_PASSWORD.
            164 | 192 | 193 | 497 | 516 => Self::Denied { code, message },
            // Syntax, unknown names, wrong arguments: ours.
            36 | 42 | 43 | 44 | 46 | 47 | 57 | 60 | 62 | 81 | 115 | 179 | 184 | 215 => {
                Self::Statement { code, message }
            }
            _ => Self::Unavailable(text),
        }
    }
}

/// The constraint that every table of facts has (INV-4.1).
const INSERT_IN_TIME: &str = "insert_in_time";

/// Codes that say that the rows are wrong, whoever sends them and however often.
///
/// Left out is whatever can also mean a lack of time, memory, disk, rights, replicas or tables: taken for bad data, an
/// outage would cost events their form, and taken for an outage, bad data costs a wait.
const fn is_data(code: i32) -> bool {
    matches!(
        code,
        // CANNOT_PARSE_TEXT, PARAMETER_OUT_OF_BOUND, CANNOT_PARSE_ESCAPE_SEQUENCE, CANNOT_PARSE_QUOTED_STRING,
        // CANNOT_PARSE_INPUT_ASSERTION_FAILED
        6 | 12 | 25 | 26 | 27
            // ATTEMPT_TO_READ_AFTER_EOF, CANNOT_READ_ALL_DATA
            | 32 | 33
            // CANNOT_PARSE_DATE, CANNOT_PARSE_DATETIME, TYPE_MISMATCH, ARGUMENT_OUT_OF_BOUND
            | 38 | 41 | 53 | 69
            // CANNOT_CONVERT_TYPE, CANNOT_PARSE_NUMBER, INCORRECT_DATA
            | 70 | 72 | 117
            // TOO_LARGE_ARRAY_SIZE, CANNOT_READ_ARRAY_FROM_TEXT, TOO_LARGE_STRING_SIZE, ILLEGAL_DIVISION
            | 128 | 130 | 131 | 153
            // SIZES_OF_ARRAYS_DONT_MATCH, VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE, CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
            | 190 | 321 | 349
            // CANNOT_PARSE_UUID, FUNCTION_THROW_IF_VALUE_IS_NON_ZERO, DECIMAL_OVERFLOW, CANNOT_PARSE_BOOL
            | 376 | 395 | 407 | 467
            // CANNOT_PARSE_IPV4, CANNOT_PARSE_IPV6, UNKNOWN_ELEMENT_OF_ENUM
            | 675 | 676 | 691
    )
}

/// Name of the constraint that a message of VIOLATED_CONSTRAINT begins with. What follows it may quote the row.
fn violated(message: &str) -> Option<&str> {
    let name = &message[message.find("Constraint ")? + "Constraint ".len()..];
    name.split([' ', '`']).find(|word| !word.is_empty())
}

/// What a refusal says before it quotes the rows: no payload in a log or an error.
fn without_values(message: &str) -> String {
    let text = message.find("DB::Exception: ").map_or(message, |at| &message[at + "DB::Exception: ".len()..]);
    let end = text.find(['\'', '"', '(', ':', '{', '[']).unwrap_or(text.len());
    text[..end].trim_end().to_owned()
}

fn exception_code(text: &str) -> Option<i32> {
    let rest = &text[text.find("Code: ")? + "Code: ".len()..];
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl Classified for StoreError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Unavailable(_) | Self::Overloaded { .. } | Self::TooLate | Self::Denied { .. } => {
                ErrorClass::Unavailable
            }
            Self::Limit { .. } => ErrorClass::TooLarge,
            Self::Refused { .. } => ErrorClass::Corrupt,
            Self::Config(_)
            | Self::Statement { .. }
            | Self::Answer(_)
            | Self::Changed { .. }
            | Self::NotConfined { .. }
            | Self::NoProject => ErrorClass::Bug,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "store_config",
            Self::Unavailable(_) => "store_unavailable",
            Self::Overloaded { .. } => "store_overloaded",
            Self::Refused { .. } => "store_refused",
            Self::TooLate => "store_too_late",
            Self::Limit { .. } => "query_limit",
            Self::Denied { .. } => "store_denied",
            Self::Statement { .. } => "store_statement",
            Self::Answer(_) => "store_answer",
            Self::Changed { .. } => "migration_changed",
            Self::NotConfined { .. } => "not_confined",
            Self::NoProject => "no_project",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> StoreError {
        StoreError::from_client(clickhouse::error::Error::BadResponse(text.to_owned()))
    }

    #[test]
    fn an_outage_is_never_taken_for_bad_data() {
        assert!(matches!(
            of("Code: 33. DB::Exception: Cannot read all data."),
            StoreError::Refused { code: 33, .. }
        ));
        assert!(matches!(of("Code: 252. DB::Exception: Too many parts"), StoreError::Overloaded { .. }));
        let timeout = of("Code: 159. DB::Exception: Timeout exceeded");
        assert!(matches!(timeout, StoreError::Unavailable(_)));
        assert!(matches!(timeout.of_reader(), StoreError::Limit { code: 159, .. }));
        let late =
            "Code: 469. DB::Exception: Constraint `insert_in_time` for table `fleetlog.events` is violated";
        assert!(matches!(of(late), StoreError::TooLate));
        assert!(matches!(of("<html>502 Bad Gateway</html>"), StoreError::Unavailable(_)));
        assert_eq!(of("Code: 999999").class(), ErrorClass::Unavailable);
    }

    #[test]
    fn a_refusal_says_why_and_quotes_nothing_of_the_row() {
        let constraint = "Code: 469. DB::Exception: Constraint `short` for table `fleetlog.events` (0a1b) is violated at \
             row 3. Expression: (length(data) < 5). Column values: data = 'secret insert_in_time'. (VIOLATED_CONSTRAINT)";
        let text = "Code: 6. DB::Exception: Cannot parse string 'secret' as UInt64: syntax error at begin of string.";
        for (answer, code, said) in [
            (constraint, 469, "Constraint `short` for table `fleetlog.events`"),
            (text, 6, "Cannot parse string"),
        ] {
            let error = of(answer);
            assert!(!error.to_string().contains("secret"), "{error}");
            assert!(
                matches!(&error, StoreError::Refused { code: c, message } if (*c, message.as_str()) == (code, said)),
                "{error}"
            );
        }
    }
}
