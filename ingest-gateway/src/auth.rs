//! The key in a request's headers, and whether it may send events.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetlog_log::{ControlView, Principal};

use crate::error::Refusal;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// A key as the headers carry it.
#[derive(Debug, PartialEq, Eq)]
enum Presented {
    /// The whole key in one text.
    Whole(String),
    /// Its public id and its secret, as HTTP Basic has them.
    Pair(String, String),
}

/// The principal a request speaks for, if it may send events.
///
/// # Errors
/// Why not: no key, a key that is not accepted, or a role that may not send.
pub(crate) fn authenticate(keys: &ControlView, headers: &HeaderMap) -> Result<Principal, Refusal> {
    let principal = match presented(headers)? {
        Presented::Whole(text) => keys.authenticate(&text)?,
        Presented::Pair(id, secret) => keys.authenticate_pair(&id, &secret)?,
    };
    if principal.role.may_ingest() { Ok(principal) } else { Err(Refusal::Role(principal.role)) }
}

fn presented(headers: &HeaderMap) -> Result<Presented, Refusal> {
    const UNREADABLE: Refusal = Refusal::Auth(fleetlog_log::AuthError::Malformed);
    if let Some(value) = only(headers, API_KEY)? {
        let text = value.to_str().map_err(|_| UNREADABLE)?;
        return Ok(Presented::Whole(text.trim().to_owned()));
    }
    let value = only(headers, AUTHORIZATION)?.ok_or(Refusal::MissingKey)?;
    let text = value.to_str().map_err(|_| UNREADABLE)?.trim();
    let Some((scheme, credentials)) = text.split_once(' ') else {
        // Opik's clients send the bare key.
        return if text.starts_with("fl_") { Ok(Presented::Whole(text.to_owned())) } else { Err(UNREADABLE) };
    };
    let credentials = credentials.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(Presented::Whole(credentials.to_owned()))
    } else if scheme.eq_ignore_ascii_case("basic") {
        basic(credentials).ok_or(UNREADABLE)
    } else {
        Err(UNREADABLE)
    }
}

/// The only value of a header. Of two, no one can say which the sender means, and which one a proxy looked at.
fn only(headers: &HeaderMap, name: HeaderName) -> Result<Option<&HeaderValue>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(Refusal::BadRequest("a header with the key occurs more than once")),
    }
}

/// Basic carries `id:secret`; clients with a single field send the whole key as user or as password.
fn basic(credentials: &str) -> Option<Presented> {
    let text = String::from_utf8(STANDARD.decode(credentials).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    let whole = |text: &str| Some(Presented::Whole(text.to_owned()));
    match (user, password) {
        (user, password) if password.starts_with("fl_") && !user.starts_with("fl_") => whole(password),
        (user, "") => whole(user),
        (user, password) => {
            let id = user.strip_prefix("fl_").unwrap_or(user);
            Some(Presented::Pair(id.to_owned(), password.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: HeaderName, value: &str) -> Result<Presented, &'static str> {
        use fleetlog_runtime::Classified;
        let headers = HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())]);
        presented(&headers).map_err(|refusal| refusal.code())
    }

    #[test]
    fn a_key_is_found_in_all_three_places() {
        let whole = Ok(Presented::Whole("fl_a_b".into()));
        assert_eq!(of(AUTHORIZATION, "Bearer fl_a_b"), whole);
        assert_eq!(of(AUTHORIZATION, "bearer  fl_a_b"), whole);
        assert_eq!(of(AUTHORIZATION, "fl_a_b"), whole);
        assert_eq!(of(HeaderName::from_static("x-api-key"), "fl_a_b"), whole);
        let basic = |text: &str| of(AUTHORIZATION, &format!("Basic {}", STANDARD.encode(text)));
        assert_eq!(basic("a:b"), Ok(Presented::Pair("a".into(), "b".into())));
        assert_eq!(basic("user:fl_a_b"), whole);
        assert_eq!(basic("fl_a_b:"), whole);
    }

    #[test]
    fn what_is_no_key_is_told_from_none() {
        assert_eq!(presented(&HeaderMap::new()).unwrap_err().status(), 401);
        assert_eq!(of(AUTHORIZATION, "Digest x"), Err("malformed_key"));
        assert_eq!(of(AUTHORIZATION, "Basic ***"), Err("malformed_key"));
        assert_eq!(of(AUTHORIZATION, "nonsense"), Err("malformed_key"));
    }

    #[test]
    fn two_keys_at_once_are_refused_and_none_of_them_is_tried() {
        for name in [AUTHORIZATION, API_KEY] {
            let value = HeaderValue::from_static("Bearer fl_a_b");
            let mut headers = HeaderMap::new();
            headers.append(&name, value.clone());
            headers.append(&name, value);
            assert_eq!(presented(&headers).unwrap_err().status(), 400);
        }
    }
}
