//! Who asks: the API key decides the project and the role, and nothing else in a request does.
//!
//! A key comes as `Authorization: Bearer`, as `x-api-key`, or as HTTP Basic, as data-source plugins send it.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetlog_log::{AuthError, ControlView, Principal};
use fleetlog_schemas::control::Role;

use crate::error::QueryError;
use crate::pipeline::Api;

/// Checks keys.
pub trait Keys: Send + Sync + 'static {
    /// Checks a key given as one text, `fl_<id>_<secret>`.
    ///
    /// # Errors
    /// Why it is not accepted.
    fn authenticate(&self, text: &str) -> Result<Principal, AuthError>;

    /// Checks a key given in its two parts.
    ///
    /// # Errors
    /// Why it is not accepted.
    fn authenticate_pair(&self, key_id: &str, secret: &str) -> Result<Principal, AuthError>;
}

impl Keys for ControlView {
    fn authenticate(&self, text: &str) -> Result<Principal, AuthError> {
        Self::authenticate(self, text)
    }

    fn authenticate_pair(&self, key_id: &str, secret: &str) -> Result<Principal, AuthError> {
        Self::authenticate_pair(self, key_id, secret)
    }
}

/// A key as a request presents it.
#[derive(PartialEq, Eq)]
enum Presented {
    Whole(String),
    Pair(String, String),
}

/// A caller who may read one project.
///
/// # Invariants
/// The project is not empty: to the store's row filters an empty one would mean an operator (INV-10).
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    project_id: Arc<str>,
    role: Role,
}

impl Caller {
    /// The project that the caller reads.
    pub(crate) fn project_id(&self) -> &str {
        &self.project_id
    }

    /// Leave for what only administrators may see.
    ///
    /// # Errors
    /// [`QueryError::AdminOnly`] for every other role.
    pub(crate) fn must_be_admin(&self) -> Result<(), QueryError> {
        if self.role == Role::Admin { Ok(()) } else { Err(QueryError::AdminOnly { role: self.role }) }
    }

    fn of(principal: Principal) -> Result<Self, QueryError> {
        if !principal.role.may_read() {
            return Err(QueryError::MayNotRead { role: principal.role });
        }
        if principal.project_id.is_empty() {
            return Err(QueryError::Auth(AuthError::Unknown));
        }
        Ok(Self { project_id: principal.project_id, role: principal.role })
    }
}

impl FromRequestParts<Api> for Caller {
    type Rejection = QueryError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, QueryError> {
        let principal = match presented(&parts.headers)? {
            Presented::Whole(text) => api.keys().authenticate(&text),
            Presented::Pair(key_id, secret) => api.keys().authenticate_pair(&key_id, &secret),
        };
        Self::of(principal?)
    }
}

fn presented(headers: &HeaderMap) -> Result<Presented, QueryError> {
    const UNREADABLE: QueryError = QueryError::Auth(AuthError::Malformed);
    if let Some(key) = headers.get("x-api-key") {
        return Ok(Presented::Whole(key.to_str().map_err(|_| UNREADABLE)?.trim().to_owned()));
    }
    let value = headers.get(AUTHORIZATION).ok_or(QueryError::NoKey)?;
    let (scheme, rest) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(UNREADABLE)?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(Presented::Whole(rest.to_owned()))
    } else if scheme.eq_ignore_ascii_case("basic") {
        basic(rest).ok_or(UNREADABLE)
    } else {
        Err(UNREADABLE)
    }
}

/// Basic carries `id:secret`; clients with a single field send the whole key as user or as password.
fn basic(credentials: &str) -> Option<Presented> {
    let text = String::from_utf8(STANDARD.decode(credentials).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(match (user.strip_prefix("fl_"), password) {
        (None, password) if password.starts_with("fl_") => Presented::Whole(password.to_owned()),
        (_, "") => Presented::Whole(user.to_owned()),
        (Some(id), password) => Presented::Pair(id.to_owned(), password.to_owned()),
        (None, password) => Presented::Pair(user.to_owned(), password.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use fleetlog_runtime::Classified as _;

    use super::*;

    fn from(name: &'static str, value: &str) -> Result<Presented, &'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        presented(&headers).map_err(|error| error.code())
    }

    fn basic(text: &str) -> Result<Presented, &'static str> {
        from("authorization", &format!("Basic {}", STANDARD.encode(text)))
    }

    #[test]
    fn a_key_is_found_in_every_place_clients_put_it() {
        let whole = || Ok(Presented::Whole("fl_a_b".to_owned()));
        let pair = || Ok(Presented::Pair("a".to_owned(), "b".to_owned()));
        assert!(from("x-api-key", "fl_a_b") == whole());
        assert!(from("authorization", "Bearer fl_a_b") == whole());
        assert!(from("authorization", "bearer  fl_a_b") == whole());
        assert!(basic("fl_a_b:") == whole());
        assert!(basic("anyone:fl_a_b") == whole());
        assert!(basic("fl_a:b") == pair());
        assert!(basic("a:b") == pair());
    }

    #[test]
    fn what_is_not_a_key_is_said_to_be_malformed_and_nothing_to_be_missing() {
        for value in ["Bearer", "Digest x", "Basic ???"] {
            assert!(from("authorization", value) == Err("malformed_key"), "{value}");
        }
        assert!(basic("nocolon") == Err("malformed_key"));
        assert_eq!(presented(&HeaderMap::new()).err().unwrap().code(), "no_key");
    }

    #[test]
    fn a_key_that_may_not_read_or_has_no_project_is_refused() {
        let principal =
            |project: &str, role| Principal { key_id: Arc::from("k"), project_id: Arc::from(project), role };
        assert!(matches!(Caller::of(principal("p", Role::Ingest)), Err(QueryError::MayNotRead { .. })));
        assert!(Caller::of(principal("", Role::Admin)).is_err());
        assert_eq!(Caller::of(principal("p", Role::Viewer)).unwrap().project_id(), "p");
    }
}
