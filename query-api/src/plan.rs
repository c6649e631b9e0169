//! What a list request comes down to: a range, a place to continue from, a number of rows.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::answer::{Currency, Page};
use crate::cursor::{Cursor, Fingerprint};
use crate::error::QueryError;
use crate::params::{self, ListQuery};
use crate::time_range::{RangePolicy, TimeRange};

/// How long pages are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageSize {
    /// Rows when nothing was said.
    pub(crate) default: u32,
    /// Most rows.
    pub(crate) max: u32,
}

/// A checked list request; `K` is the list's sort key.
#[derive(Debug)]
pub(crate) struct Plan<K> {
    /// The time range, the same on every page.
    pub(crate) range: TimeRange,
    /// The sort key of the last row already shown.
    pub(crate) after: Option<K>,
    limit: u32,
    fingerprint: Fingerprint,
}

impl<K: Serialize + DeserializeOwned> Plan<K> {
    /// Checks a request. Without a policy, something else than time bounds the list.
    ///
    /// # Errors
    /// What is wrong with its range, cursor or limit.
    pub(crate) fn of<F, L>(
        query: &ListQuery<F, L>,
        project_id: &str,
        now_ns: i64,
        policy: Option<RangePolicy>,
        size: PageSize,
    ) -> Result<Self, QueryError> {
        let pairs = query.filter_pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let fingerprint = Fingerprint::of(&query.path, project_id, pairs);
        let limit = params::limit(query.list.limit.as_deref(), size.default, size.max)?;
        let cursor =
            query.list.cursor.as_deref().map(|text| Cursor::decode(text, fingerprint)).transpose()?;
        let (from, to) = (query.list.from.as_deref(), query.list.to.as_deref());
        let range = match (&cursor, policy) {
            (Some(cursor), Some(policy)) => cursor.range.checked(policy)?,
            (None, Some(policy)) => TimeRange::resolve(from, to, now_ns, policy)?,
            (_, None) => TimeRange::ALWAYS,
        };
        let after = cursor.map(|cursor| cursor.key);
        Ok(Self { range, after, limit, fingerprint })
    }

    /// Rows to ask for: one more than the page has tells whether there is a next one.
    pub(crate) fn fetch(&self) -> u32 {
        self.limit.saturating_add(1)
    }

    /// Makes the page of the rows that were fetched.
    pub(crate) fn page<T>(&self, mut rows: Vec<T>, key: impl Fn(&T) -> K, currency: Currency) -> Page<T> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows
            .last()
            .filter(|_| more)
            .map(|last| Cursor { range: self.range, key: key(last) }.encode(self.fingerprint));
        let range = (self.range != TimeRange::ALWAYS).then(|| self.range.into());
        Page { data: rows, next_cursor, range, currency }
    }
}

#[cfg(test)]
mod tests {
    use std::marker::PhantomData;

    use super::*;
    use crate::params::{ListParams, WaitParams};

    const POLICY: RangePolicy = RangePolicy { default_ns: 100, ahead_ns: 10, max_days: 1 };
    const SIZE: PageSize = PageSize { default: 2, max: 5 };

    fn query(cursor: Option<String>) -> ListQuery<()> {
        ListQuery {
            list: ListParams { cursor, ..ListParams::default() },
            filters: (),
            wait: WaitParams::default(),
            path: "/v1/things".to_owned(),
            filter_pairs: Vec::new(),
            shared: PhantomData,
        }
    }

    #[test]
    fn the_next_page_starts_after_the_last_row_and_keeps_the_range() {
        let first = Plan::<i64>::of(&query(None), "p", 1_000, Some(POLICY), SIZE).unwrap();
        assert_eq!((first.range, first.fetch()), (TimeRange { from_ns: 900, to_ns: 1_010 }, 3));
        let page = first.page(vec![7, 8, 9], |row| *row, Currency::default());
        assert_eq!(page.data, [7, 8]);
        // Much later the range is still that of the first page.
        let next = Plan::<i64>::of(&query(page.next_cursor), "p", 5_000, Some(POLICY), SIZE).unwrap();
        assert_eq!((next.range, next.after), (first.range, Some(8)));
        assert_eq!(next.page(vec![9], |row| *row, Currency::default()).next_cursor, None);
    }

    #[test]
    fn a_forged_cursor_cannot_widen_the_range() {
        let fingerprint = Fingerprint::of("/v1/things", "p", []);
        let wide = Cursor { range: TimeRange { from_ns: 0, to_ns: i64::MAX }, key: 1_i64 };
        let refused = Plan::<i64>::of(&query(Some(wide.encode(fingerprint))), "p", 0, Some(POLICY), SIZE);
        assert!(matches!(refused, Err(QueryError::Range(_))));
    }
}
