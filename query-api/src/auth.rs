//! Who asks: the API key decides the project and the role, and nothing else in a request does.
//!
//! A key comes as `Authorization: Bearer`, as `x-api-key`, or as HTTP Basic with the key's two parts (`fl_<id>` or
//! `<id>` as the name, the secret as the password), as browsers and data-source plugins send it.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetlog_log::{AuthError, ControlView, Principal};

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
}

impl Caller {
    /// The project that the caller reads.
    pub(crate) fn project_id(&self) -> &str {
        &self.project_id
    }

    fn of(principal: Principal) -> Result<Self, QueryError> {
        if !principal.role.may_read() {
            return Err(QueryError::MayNotRead { role: principal.role });
        }
        if principal.project_id.is_empty() {
            return Err(QueryError::Auth(AuthError::Unknown));
        }
        Ok(Self { project_id: principal.project_id })
    }
}

impl FromRequestParts<Api> for Caller {
    type Rejection = QueryError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, QueryError> {
        let principal = match presented(&parts.headers).ok_or(QueryError::NoKey)? {
            Presented::Whole(text) => api.keys().authenticate(&text),
            Presented::Pair(key_id, secret) => api.keys().authenticate_pair(&key_id, &secret),
        };
        Self::of(principal?)
    }
}

fn presented(headers: &HeaderMap) -> Option<Presented> {
    if let Some(key) = headers.get("x-api-key") {
        return Some(Presented::Whole(key.to_str().ok()?.to_owned()));
    }
    let (scheme, rest) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Presented::Whole(rest.trim().to_owned()));
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
        let (name, password) = text.split_once(':')?;
        return Some(match name.strip_prefix("fl_") {
            // curl -u fl_<id>_<secret>: is the whole key as the name.
            Some(_) if password.is_empty() => Presented::Whole(name.to_owned()),
            Some(key_id) => Presented::Pair(key_id.to_owned(), password.to_owned()),
            None => Presented::Pair(name.to_owned(), password.to_owned()),
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use fleetlog_schemas::control::Role;

    use super::*;

    fn from(name: &'static str, value: &str) -> Option<Presented> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        presented(&headers)
    }

    fn basic(text: &str) -> Option<Presented> {
        from("authorization", &format!("Basic {}", STANDARD.encode(text)))
    }

    #[test]
    fn a_key_is_found_in_every_place_clients_put_it() {
        let whole = || Some(Presented::Whole("fl_a_b".to_owned()));
        let pair = || Some(Presented::Pair("a".to_owned(), "b".to_owned()));
        assert!(from("x-api-key", "fl_a_b") == whole());
        assert!(from("authorization", "Bearer fl_a_b") == whole());
        assert!(from("authorization", "bearer  fl_a_b") == whole());
        assert!(basic("fl_a_b:") == whole());
        assert!(basic("fl_a:b") == pair());
        assert!(basic("a:b") == pair());
    }

    #[test]
    fn what_is_not_a_key_is_no_key() {
        assert!(from("authorization", "Bearer").is_none());
        assert!(from("authorization", "Digest x").is_none());
        assert!(from("authorization", "Basic ???").is_none());
        assert!(basic("nocolon").is_none());
        assert!(presented(&HeaderMap::new()).is_none());
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
