//! What every answer is wrapped in, and the values that look the same in all of them.

use fleetlog_schemas::api::{Timestamp, Usd};
use fleetlog_schemas::id::NanoUsd;
use serde::{Deserialize, Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::time_range::TimeRange;

/// An instant: nanoseconds in the tables, RFC 3339 with nanoseconds in UTC in answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Instant(pub(crate) i64);

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Timestamp(self.0).serialize(serializer)
    }
}

impl PartialSchema for Instant {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("RFC 3339 with nanoseconds, UTC."))
            .examples(["2026-01-02T03:04:05.678901234Z"])
            .into()
    }
}

impl ToSchema for Instant {}

/// An amount of money: billionths of a US dollar in the tables, dollars exact to the ninth digit in answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Money(pub(crate) i64);

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Usd(NanoUsd(self.0)).serialize(serializer)
    }
}

impl PartialSchema for Money {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Number)
            .description(Some("US dollars, exact to the ninth digit."))
            .examples([0.021_144])
            .into()
    }
}

impl ToSchema for Money {}

/// The range of time an answer covers: from (included) to (excluded).
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct Range {
    /// First instant covered.
    from: Instant,
    /// First instant not covered.
    to: Instant,
}

impl From<TimeRange> for Range {
    fn from(range: TimeRange) -> Self {
        Self { from: Instant(range.from_ns), to: Instant(range.to_ns) }
    }
}

/// How current an answer is.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub(crate) struct Currency {
    /// Everything that was acknowledged before this time is stored, and so in the answer as far as the answer rests on
    /// facts. Null: not proven; nothing is promised. It stands still where an acknowledged record was lost, or waits in a
    /// gateway's spool.
    complete_through: Option<Instant>,
    /// On answers that rest on derivations: every stored event of the project received before this time is reflected in
    /// them. Null: not proven. It stands still while one of the project's sessions or traces cannot be recomputed.
    #[serde(skip_serializing_if = "Option::is_none")]
    derived_through: Option<Option<Instant>>,
}

impl Currency {
    /// Of an answer that rests on facts.
    pub(crate) fn facts(complete_ns: Option<i64>) -> Self {
        Self { complete_through: complete_ns.map(Instant), derived_through: None }
    }

    /// Of an answer that rests on derivations.
    pub(crate) fn derived(complete_ns: Option<i64>, through_ns: Option<i64>) -> Self {
        Self { derived_through: Some(through_ns.map(Instant)), ..Self::facts(complete_ns) }
    }
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    /// The rows.
    pub(crate) data: Vec<T>,
    /// Give it as `cursor`, with the same filters, for the next page. Null on the last page.
    pub(crate) next_cursor: Option<String>,
    /// The time range of the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) range: Option<Range>,
    #[serde(flatten)]
    pub(crate) currency: Currency,
}

impl<T> Page<T> {
    /// The same page with other rows.
    pub(crate) fn map<U>(self, of: impl FnMut(T) -> U) -> Page<U> {
        Page {
            data: self.data.into_iter().map(of).collect(),
            next_cursor: self.next_cursor,
            range: self.range,
            currency: self.currency,
        }
    }
}

/// One thing.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct One<T> {
    /// It.
    pub(crate) data: T,
    #[serde(flatten)]
    pub(crate) currency: Currency,
}
