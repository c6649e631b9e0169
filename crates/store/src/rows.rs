//! Rows as they travel to ClickHouse: borrowed where that saves a copy per event, columns in the tables' names.
//!
//! Absent text is the empty string; times are nanoseconds and costs billionths of a dollar, which RowBinary takes for
//! `DateTime64(9)` and `Decimal(18, 9)` as they are. That every row fits its table is proved by `tests/contract`.

mod event;
mod group;
mod ledger;
mod nested;
mod trace;
mod usage;

pub(crate) use event::EventRow;
pub use group::{Call, GroupKind, Session, Tool};
pub(crate) use group::{GroupRow, StoredGroup};
pub use ledger::PieceRow;
pub(crate) use ledger::{DeadLetterRow, PieceFact, SettlementRow};
pub use trace::Trace;
pub(crate) use trace::{StoredTrace, TraceRow};
pub use usage::{Contribution, UsageRow};
pub(crate) use usage::{ContributionRow, StoredContribution};
