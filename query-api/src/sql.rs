//! The only place that builds SELECTs: pure functions from filters to a [`Statement`].
//!
//! # Invariants
//! - SQL text is put together from `&'static str` alone; whatever a caller said travels beside it as a typed
//!   server-side parameter (`{name:Type}`). The types leave no way to splice input into SQL.
//! - Every statement names the project, although the store's row policy confines it anyway (INV-10): the policy is
//!   the guard, the condition is what lets the primary key skip every other project.
//! - Every list has a time bound, a keyset position and a limit.

mod calls;
mod completeness;
mod dead_letters;
mod events;
mod explain;
mod formats;
mod search;
mod sessions;
mod traces;
mod usage;

pub(crate) use calls::{costs_of_trace, llm_calls, tool_calls};
pub(crate) use completeness::{completeness, completeness_totals};
pub(crate) use dead_letters::{DeadLetterFilter, dead_letters};
pub(crate) use events::{EventFilter, EventKey, Order, Payload, event_by_id, events};
pub(crate) use explain::{CallPlace, call as explained_call, sightings};
pub(crate) use formats::{FormatFilter, FormatKey, formats};
pub(crate) use sessions::{SessionFilter, session, session_bounds, sessions};
pub(crate) use traces::{ScoreFilter, TraceFilter, observations, scores, trace, traces};
pub(crate) use usage::{Dimension, UsageFilter, UsageKey, usage, usage_totals};

use crate::time_range::TimeRange;

/// A value that travels beside the SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Param {
    /// `String`.
    Text(String),
    /// `Array(String)`.
    Texts(Vec<String>),
    /// `Int64`.
    Int(i64),
    /// `Array(Int64)`.
    Ints(Vec<i64>),
    /// `UInt64`.
    UInt(u64),
}

/// One SELECT with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Statement {
    /// The text, with `{name:Type}` where values go.
    pub(crate) sql: String,
    /// The values by name.
    pub(crate) params: Vec<(&'static str, Param)>,
}

/// Puts a statement together, clause by clause.
#[derive(Debug)]
struct Builder {
    sql: String,
    params: Vec<(&'static str, Param)>,
    filtered: bool,
}

impl Builder {
    fn select(text: &'static str) -> Self {
        Self { sql: text.to_owned(), params: Vec::new(), filtered: false }
    }

    fn push(mut self, text: &'static str) -> Self {
        self.sql.push_str(text);
        self
    }

    /// Adds a condition without parameters.
    fn and(mut self, condition: &'static str) -> Self {
        self.sql.push_str(if self.filtered { "\n  AND " } else { "\nWHERE " });
        self.sql.push_str(condition);
        self.filtered = true;
        self
    }

    /// Binds a value that the text refers to.
    fn bind(mut self, name: &'static str, value: Param) -> Self {
        debug_assert!(self.params.iter().all(|(bound, _)| *bound != name), "{name} is bound twice");
        self.params.push((name, value));
        self
    }

    fn and_int(self, condition: &'static str, name: &'static str, value: i64) -> Self {
        self.and(condition).bind(name, Param::Int(value))
    }

    fn and_text(self, condition: &'static str, name: &'static str, value: &str) -> Self {
        self.and(condition).bind(name, Param::Text(value.to_owned()))
    }

    /// Adds the condition if there is a value for it.
    fn and_some(self, condition: &'static str, name: &'static str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.and_text(condition, name, value),
            None => self,
        }
    }

    /// Adds the condition if there is a choice of values for it.
    fn and_any(self, condition: &'static str, name: &'static str, values: &[String]) -> Self {
        if values.is_empty() {
            return self;
        }
        self.and(condition).bind(name, Param::Texts(values.to_vec()))
    }

    fn project(self, project_id: &str) -> Self {
        self.and_text("project_id = {project:String}", "project", project_id)
    }

    fn limit(self, limit: u32) -> Self {
        self.push("\nLIMIT {limit:UInt64}").bind("limit", Param::UInt(u64::from(limit)))
    }

    /// Adds a condition on `{from_ns:Int64}` and `{to_ns:Int64}`, see [`within`].
    fn range(self, condition: &'static str, range: TimeRange) -> Self {
        self.and(condition).bind("from_ns", Param::Int(range.from_ns)).bind("to_ns", Param::Int(range.to_ns))
    }

    fn build(self) -> Statement {
        Statement { sql: self.sql, params: self.params }
    }
}

/// `column >= from AND column < to`, for a `DateTime64(9)` column.
macro_rules! within {
    ($column:literal) => {
        concat!(
            $column,
            " >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC') AND ",
            $column,
            " < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')"
        )
    };
}
use within;

#[cfg(test)]
mod tests;
