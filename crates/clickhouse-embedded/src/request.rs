//! One HTTP request, as ClickHouse's interface defines it, before anything runs.
//!
//! Pure: URL parameters, headers and form fields in, a [`Request`] or the exception out. Parameters that are neither
//! the interface's own nor `param_…` are settings; they are applied by `SET`, so an unknown one is the engine's error.

use axum::http::{HeaderMap, Method, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::compression::{Encoder, Encoding};
use crate::error::{Code, ServerError};

/// Parameters of the interface that this process has no use for: there are no sessions, quotas or protocol versions.
const IGNORED: &[&str] = &[
    "buffer_size",
    "client_protocol_version",
    "close_session",
    "quota_key",
    "session_check",
    "session_id",
    "session_timeout",
    "stacktrace",
];

/// How the answer is to be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// By HTTP's content encoding.
    Http(Encoding),
    /// In ClickHouse's own blocks.
    Blocks,
}

impl Reply {
    /// Makes the encoder.
    ///
    /// # Errors
    /// The encoder cannot be set up.
    pub(crate) fn encoder(self) -> std::io::Result<Encoder> {
        match self {
            Self::Http(encoding) => Encoder::new(encoding),
            Self::Blocks => Ok(Encoder::Blocks),
        }
    }
}

/// What a client asks for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The statement, or its beginning, from the URL or the form.
    pub(crate) sql: String,
    /// The database that unqualified names mean.
    pub(crate) database: Option<String>,
    /// Names the query; made up when the client gives none.
    pub(crate) query_id: String,
    /// The format of a result whose statement names none.
    pub(crate) default_format: String,
    /// Settings in the order given.
    pub(crate) settings: Vec<(String, String)>,
    /// Values for `{name:Type}`.
    pub(crate) params: Vec<(String, String)>,
    /// The method promises to change nothing.
    pub(crate) safe_method: bool,
    /// The body is in ClickHouse's own blocks.
    pub(crate) body_in_blocks: bool,
    /// The body's content encoding.
    pub(crate) body_encoding: Encoding,
    /// How to compress the answer.
    pub(crate) reply: Reply,
    /// Answer only when the whole result is there.
    pub(crate) wait_end: bool,
}

impl Request {
    /// Reads a request's head.
    ///
    /// # Errors
    /// A parameter is malformed, or the caller is not the engine's one user.
    pub(crate) fn parse(
        method: &Method,
        pairs: Vec<(String, String)>,
        headers: &HeaderMap,
    ) -> Result<Self, ServerError> {
        let mut request = Self {
            sql: String::new(),
            database: text(headers, "x-clickhouse-database").map(str::to_owned),
            query_id: String::new(),
            default_format: text(headers, "x-clickhouse-format").unwrap_or("TabSeparated").to_owned(),
            settings: Vec::new(),
            params: Vec::new(),
            safe_method: method == Method::GET || method == Method::HEAD,
            body_in_blocks: false,
            body_encoding: Encoding::of_content(text(headers, "content-encoding").unwrap_or_default())?,
            reply: Reply::Http(Encoding::accepted(text(headers, "accept-encoding").unwrap_or_default())),
            wait_end: false,
        };
        let mut user = text(headers, "x-clickhouse-user").map(str::to_owned);
        let mut password = text(headers, "x-clickhouse-key").map(str::to_owned);
        if let Some((basic_user, basic_password)) = basic(headers)? {
            (user, password) = (Some(basic_user), Some(basic_password));
        }
        let mut in_blocks = false;
        for (name, value) in pairs {
            match name.as_str() {
                "user" => user = Some(value),
                "password" => password = Some(value),
                "compress" => in_blocks = is_true(&value),
                "enable_http_compression" if !is_true(&value) => {
                    request.reply = Reply::Http(Encoding::Identity)
                }
                "enable_http_compression" => {}
                "role" if !value.is_empty() => {
                    return Err(ServerError::new(
                        Code::AccessDenied,
                        format_args!("Role {value:?} is not granted to the embedded engine's user"),
                    ));
                }
                _ => request.take(name, value)?,
            }
        }
        if in_blocks {
            request.reply = Reply::Blocks;
        }
        if request.query_id.is_empty() {
            request.query_id = uuid::Uuid::new_v4().to_string();
        }
        authenticate(user.as_deref(), password.as_deref())?;
        Ok(request)
    }

    /// Takes one parameter of the URL or field of the form.
    ///
    /// # Errors
    /// The name can be no setting.
    pub(crate) fn take(&mut self, name: String, value: String) -> Result<(), ServerError> {
        match name.as_str() {
            "query" => self.sql.push_str(&value),
            "database" => {
                self.database = Some(value).filter(|name| !name.is_empty()).or(self.database.take())
            }
            "default_format" => self.default_format = value,
            "query_id" => self.query_id = value,
            "decompress" => self.body_in_blocks = is_true(&value),
            "wait_end_of_query" => self.wait_end = is_true(&value),
            ignored if IGNORED.contains(&ignored) => {}
            _ => match name.strip_prefix("param_") {
                Some(param) => self.params.push((param.to_owned(), value)),
                None if is_setting_name(&name) => self.settings.push((name, value)),
                None => {
                    return Err(ServerError::new(
                        Code::BadArguments,
                        format_args!("{name:?} is neither a parameter of the interface nor a setting"),
                    ));
                }
            },
        }
        Ok(())
    }

    /// The statements that give a connection this request's database and settings.
    ///
    /// `readonly` comes last, alone: after it nothing can be set. `default_seconds` is the time limit of a request that
    /// sets none.
    pub(crate) fn preparation(&self, default_database: &str, default_seconds: Option<u64>) -> Vec<String> {
        let database = self.database.as_deref().unwrap_or(default_database);
        let mut readonly = self.safe_method.then_some("2");
        let mut settings = vec!["implicit_select = 0".to_owned()];
        if let Some(seconds) = default_seconds
            && !self.settings.iter().any(|(name, _)| name == "max_execution_time")
        {
            settings.push(format!("max_execution_time = {seconds}"));
        }
        for (name, value) in &self.settings {
            if name == "readonly" {
                readonly = Some(value.as_str()).filter(|value| *value != "0").or(readonly);
            } else {
                settings.push(format!("{name} = {}", quote(value, '\'')));
            }
        }
        let mut statements =
            vec![format!("USE {}", quote(database, '`')), format!("SET {}", settings.join(", "))];
        if let Some(level) = readonly {
            statements.push(format!("SET readonly = {}", quote(level, '\'')));
        }
        statements
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty())
}

fn is_true(value: &str) -> bool {
    matches!(value, "1" | "true")
}

fn is_setting_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
}

/// Quotes a literal or an identifier.
pub(crate) fn quote(text: &str, mark: char) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(mark);
    for char in text.chars() {
        if char == mark || char == '\\' {
            out.push('\\');
        }
        out.push(char);
    }
    out.push(mark);
    out
}

fn basic(headers: &HeaderMap) -> Result<Option<(String, String)>, ServerError> {
    let Some(value) = text(headers, header::AUTHORIZATION.as_str()) else { return Ok(None) };
    value
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
        .and_then(|(_, encoded)| STANDARD.decode(encoded.trim()).ok())
        .and_then(|decoded| String::from_utf8(decoded).ok())
        .and_then(|pair| pair.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned())))
        .map(Some)
        .ok_or_else(|| {
            ServerError::new(Code::AuthenticationFailed, "Authentication failed: not a Basic credential")
        })
}

/// The engine has one user, `default`, without a password.
fn authenticate(user: Option<&str>, password: Option<&str>) -> Result<(), ServerError> {
    let known = user.is_none_or(|user| user.is_empty() || user == "default");
    if known && password.is_none_or(str::is_empty) {
        Ok(())
    } else {
        Err(ServerError::new(
            Code::AuthenticationFailed,
            "Authentication failed: the embedded engine has one user, `default`, without a password",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)], headers: &[(&'static str, &str)]) -> Result<Request, ServerError> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let headers =
            headers.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect();
        Request::parse(&Method::POST, pairs, &headers)
    }

    #[test]
    fn parameters_go_where_they_belong() {
        let request = parse(
            &[
                ("query", "SELECT 1"),
                ("param_x", "a\\tb"),
                ("max_threads", "2"),
                ("session_id", "s"),
                ("decompress", "1"),
                ("compress", "1"),
            ],
            &[("accept-encoding", "lz4")],
        )
        .unwrap();
        assert_eq!(request.sql, "SELECT 1");
        assert_eq!(request.params, [("x".to_owned(), "a\\tb".to_owned())]);
        assert_eq!(request.settings, [("max_threads".to_owned(), "2".to_owned())]);
        assert!(request.body_in_blocks);
        assert_eq!(request.reply, Reply::Blocks);
        assert!(!request.query_id.is_empty());
    }

    #[test]
    fn setting_cannot_carry_a_statement() {
        assert_eq!(parse(&[("a=1; DROP TABLE t; SET b", "1")], &[]).unwrap_err().code(), 36);
        let request = parse(&[("log_comment", "x', readonly = 0, a = '\\")], &[]).unwrap();
        assert_eq!(
            request.preparation("db`x", Some(60)),
            [
                "USE `db\\`x`",
                "SET implicit_select = 0, max_execution_time = 60, log_comment = 'x\\', readonly = 0, a = \\'\\\\'"
            ]
        );
    }

    #[test]
    fn readonly_is_set_last_and_a_get_cannot_lift_it() {
        let request =
            parse(&[("readonly", "1"), ("log_comment", "p"), ("max_execution_time", "5")], &[]).unwrap();
        assert_eq!(
            request.preparation("d", Some(60))[1..],
            ["SET implicit_select = 0, log_comment = 'p', max_execution_time = '5'", "SET readonly = '1'"]
        );
        let get =
            Request::parse(&Method::GET, vec![("readonly".into(), "0".into())], &HeaderMap::new()).unwrap();
        assert_eq!(get.preparation("d", Some(60)).last().unwrap(), "SET readonly = '2'");
    }

    #[test]
    fn only_the_engine_s_user_is_let_in() {
        assert!(parse(&[], &[("authorization", "Basic ZGVmYXVsdDo=")]).is_ok());
        assert_eq!(parse(&[], &[("authorization", "Basic ZGVmYXVsdDp4")]).unwrap_err().code(), 516);
        assert_eq!(parse(&[("user", "admin")], &[]).unwrap_err().code(), 516);
        assert_eq!(parse(&[], &[("x-clickhouse-key", "secret")]).unwrap_err().code(), 516);
    }
}
