//! Query parameters: exactly those an endpoint documents, each at most once.
//!
//! A parameter that nobody knows is an error that names it, because a misspelt filter that is silently ignored
//! answers another question than the one that was asked. What is known is what the OpenAPI description lists: both
//! come from one declaration. All fields are text and are judged by name here or in the endpoint, so that every
//! refusal says which parameter is meant.

use std::marker::PhantomData;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use crate::error::QueryError;
use crate::ledger::Receipt;

/// Longest accepted id in a path; the ids that agents use are below a hundred bytes.
const ID_MAX_BYTES: usize = 1_024;

/// The parameters of an endpoint that gives one thing, and those that every question has.
pub(crate) struct Params<T>(pub(crate) T, pub(crate) WaitParams);

/// No parameters.
#[derive(Debug, Default, Deserialize, IntoParams)]
pub(crate) struct NoParams {}

/// The parameters that every question has.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WaitParams {
    /// `receipt` of an ingest answer: the query waits until all of that request is in the answer. Any key may present
    /// any receipt; it shows nothing, it only waits.
    pub(crate) wait_for: Option<String>,
    /// Longest wait in milliseconds; after it the answer is 503 with the code `not_complete_yet`.
    #[param(value_type = Option<u64>)]
    pub(crate) wait_timeout_ms: Option<String>,
}

impl WaitParams {
    /// The receipt to wait for and how long, if one is given.
    ///
    /// # Errors
    /// What is wrong with the receipt or the time.
    pub(crate) fn asked(
        &self,
        default_ms: u64,
        max_ms: u64,
    ) -> Result<Option<(Receipt, Duration)>, QueryError> {
        let wait_ms = match self.wait_timeout_ms.as_deref() {
            None => default_ms.min(max_ms),
            Some(text) => match text.parse() {
                Ok(wait_ms) if wait_ms <= max_ms => wait_ms,
                _ => {
                    let message = format!("must be a whole number from 0 to {max_ms}");
                    return Err(bad("wait_timeout_ms", message));
                }
            },
        };
        match self.wait_for.as_deref() {
            None if self.wait_timeout_ms.is_some() => Err(bad("wait_timeout_ms", "needs wait_for")),
            None => Ok(None),
            Some(text) => Ok(Some((text.parse()?, Duration::from_millis(wait_ms)))),
        }
    }
}

/// The parameters that every list has.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Start of the time range: RFC 3339, epoch milliseconds, or relative (`now-6h`; units s, m, h, d, w).
    /// By default one day ago, or one day before `to`.
    pub(crate) from: Option<String>,
    /// End of the time range, not included. By default shortly after now, so that events of clocks ahead of ours show.
    pub(crate) to: Option<String>,
    /// Most rows on the page.
    #[param(value_type = Option<u32>)]
    pub(crate) limit: Option<String>,
    /// `next_cursor` of the page before. The time range is then that of the first page, whatever `from` and `to` say.
    pub(crate) cursor: Option<String>,
}

/// The parameters of a list that something else than a range of time bounds.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageParams {
    /// Most rows on the page.
    #[param(value_type = Option<u32>)]
    limit: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl From<PageParams> for ListParams {
    fn from(page: PageParams) -> Self {
        Self { from: None, to: None, limit: page.limit, cursor: page.cursor }
    }
}

/// What a list was asked for: `F` are its own parameters, `L` those it shares with other lists.
#[derive(Debug)]
pub(crate) struct ListQuery<F, L = ListParams> {
    /// What every list has.
    pub(crate) list: ListParams,
    /// What this list has.
    pub(crate) filters: F,
    /// Path of the request: which list it is.
    pub(crate) path: String,
    /// What to wait for before it is answered.
    pub(crate) wait: WaitParams,
    /// The filters as given, by name: what a cursor is bound to.
    pub(crate) filter_pairs: Vec<(String, String)>,
    /// Which parameters are shared matters only when they are read.
    pub(crate) shared: PhantomData<L>,
}

/// Parameters that do not decide which rows a list has, nor their order.
const NOT_FILTERS: [&str; 7] = ["from", "to", "limit", "cursor", "include", "wait_for", "wait_timeout_ms"];

/// The id in a path.
pub(crate) struct Id(pub(crate) String);

impl<T, S> FromRequestParts<S> for Params<T>
where
    T: DeserializeOwned + IntoParams,
    S: Send + Sync,
{
    type Rejection = QueryError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, QueryError> {
        let given = read(&parts.uri)?;
        let mut known = names::<T>();
        known.extend(names::<WaitParams>());
        check_names(&given, &known)?;
        Ok(Self(typed(&parts.uri)?, typed(&parts.uri)?))
    }
}

impl<F, L, S> FromRequestParts<S> for ListQuery<F, L>
where
    F: DeserializeOwned + IntoParams,
    L: DeserializeOwned + IntoParams + Into<ListParams>,
    S: Send + Sync,
{
    type Rejection = QueryError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, QueryError> {
        let given = read(&parts.uri)?;
        let mut known = names::<F>();
        known.extend(names::<L>());
        known.extend(names::<WaitParams>());
        check_names(&given, &known)?;
        let mut filter_pairs = given;
        filter_pairs.retain(|(name, _)| !NOT_FILTERS.contains(&name.as_str()));
        filter_pairs.sort_unstable();
        Ok(Self {
            list: typed::<L>(&parts.uri)?.into(),
            filters: typed(&parts.uri)?,
            wait: typed(&parts.uri)?,
            path: parts.uri.path().to_owned(),
            filter_pairs,
            shared: PhantomData,
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = QueryError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, QueryError> {
        let refused = |message: String| QueryError::BadParameter { name: "id".to_owned(), message };
        let Path(id) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| refused(rejection.body_text()))?;
        if id.len() > ID_MAX_BYTES {
            return Err(refused(format!("longer than {ID_MAX_BYTES} bytes")));
        }
        Ok(Self(id))
    }
}

fn read(uri: &Uri) -> Result<Vec<(String, String)>, QueryError> {
    typed(uri)
}

fn typed<T: DeserializeOwned>(uri: &Uri) -> Result<T, QueryError> {
    let Query(value) = Query::<T>::try_from_uri(uri).map_err(|rejection: QueryRejection| {
        QueryError::BadParameter { name: "query string".to_owned(), message: rejection.body_text() }
    })?;
    Ok(value)
}

/// The parameters an endpoint documents.
fn names<T: IntoParams>() -> Vec<String> {
    T::into_params(|| None).into_iter().map(|parameter| parameter.name).collect()
}

fn check_names(given: &[(String, String)], known: &[String]) -> Result<(), QueryError> {
    for (place, (name, _)) in given.iter().enumerate() {
        if !known.contains(name) {
            return Err(QueryError::UnknownParameter { name: name.clone(), known: known.join(", ") });
        }
        if given.iter().skip(place + 1).any(|(other, _)| other == name) {
            return Err(bad(name, "given twice"));
        }
    }
    Ok(())
}

fn bad(name: &str, message: impl Into<String>) -> QueryError {
    QueryError::BadParameter { name: name.to_owned(), message: message.into() }
}

/// The page size asked for, within its limit.
///
/// # Errors
/// [`QueryError::BadParameter`] when it is not a number from 1 to `max`.
pub(crate) fn limit(text: Option<&str>, default: u32, max: u32) -> Result<u32, QueryError> {
    match text {
        None => Ok(default.min(max)),
        Some(text) => match text.parse() {
            Ok(limit) if (1..=max).contains(&limit) => Ok(limit),
            _ => Err(bad("limit", format!("must be a whole number from 1 to {max}"))),
        },
    }
}

/// The words of a comma-separated choice, each one of `known`.
///
/// # Errors
/// [`QueryError::BadParameter`] naming the first word that is not known.
pub(crate) fn words(
    name: &'static str,
    text: Option<&str>,
    known: &[&'static str],
) -> Result<Vec<&'static str>, QueryError> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let mut words = Vec::new();
    for word in text.split(',') {
        let word = known
            .iter()
            .find(|one| **one == word)
            .ok_or_else(|| bad(name, format!("{word:?} is not known; known are: {}", known.join(", "))))?;
        if !words.contains(word) {
            words.push(*word);
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[derive(Debug, Deserialize, IntoParams)]
    #[into_params(parameter_in = Query)]
    struct Sample {
        /// A model.
        model: Option<String>,
    }

    async fn ask(uri: &str) -> Result<ListQuery<Sample>, QueryError> {
        let (mut parts, ()) = Request::get(uri).body(()).unwrap().into_parts();
        ListQuery::from_request_parts(&mut parts, &()).await
    }

    #[tokio::test]
    async fn a_parameter_nobody_knows_is_refused_by_name() {
        let error = ask("/v1/x?model=m&modle=n").await.unwrap_err();
        assert!(error.to_string().contains("\"modle\""), "{error}");
        let known = "model, from, to, limit, cursor, wait_for, wait_timeout_ms";
        assert!(error.to_string().contains(known), "{error}");
    }

    #[tokio::test]
    async fn a_parameter_given_twice_is_refused() {
        assert!(ask("/v1/x?model=m&model=n").await.unwrap_err().to_string().contains("twice"));
    }

    #[tokio::test]
    async fn a_cursor_is_bound_to_the_filters_and_not_to_the_page() {
        let query = ask("/v1/x?limit=3&model=a%20b&from=now-1h&cursor=c").await.unwrap();
        assert_eq!(query.filter_pairs, [("model".to_owned(), "a b".to_owned())]);
        assert_eq!(query.filters.model.as_deref(), Some("a b"));
        assert_eq!(query.list.limit.as_deref(), Some("3"));
    }

    #[test]
    fn a_wait_has_a_receipt_and_is_no_longer_than_allowed() {
        let asked = |wait_for: Option<&str>, timeout: Option<&str>| {
            let text = |text: &str| text.to_owned();
            WaitParams { wait_for: wait_for.map(text), wait_timeout_ms: timeout.map(text) }.asked(500, 1_000)
        };
        assert_eq!(asked(None, None).unwrap(), None);
        let (receipt, wait) = asked(Some("0:7"), None).unwrap().unwrap();
        assert_eq!((receipt.positions().len(), wait), (1, Duration::from_millis(500)));
        assert_eq!(asked(Some("0:7"), Some("0")).unwrap().unwrap().1, Duration::ZERO);
        assert!(asked(Some("0:7"), Some("1001")).is_err() && asked(Some("0:7"), Some("-1")).is_err());
        assert!(asked(None, Some("5")).is_err(), "a wait for nothing");
        assert!(matches!(asked(Some("x"), None), Err(QueryError::Receipt(_))));
    }

    #[test]
    fn limits_are_refused_and_never_quietly_changed() {
        assert_eq!(limit(None, 100, 50).unwrap(), 50);
        assert_eq!(limit(Some("7"), 100, 50).unwrap(), 7);
        for text in ["0", "51", "-1", "", "1.5", "99999999999"] {
            assert!(limit(Some(text), 100, 50).is_err(), "{text}");
        }
    }

    #[test]
    fn a_word_that_is_not_known_is_named() {
        let known = &["ok", "error"];
        assert_eq!(words("status", Some("error,ok,ok"), known).unwrap(), ["error", "ok"]);
        let error = words("status", Some("ok,bad"), known).unwrap_err();
        assert!(error.to_string().contains("\"bad\""), "{error}");
        assert!(words("status", Some(""), known).is_err());
    }
}
