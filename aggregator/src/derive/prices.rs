//! The prices that hold for a call.

use std::sync::Arc;

use fleetlog_pricing::{ModelPattern, PriceError, PriceTable, Usage};
use fleetlog_store::derived::Repricing;

use super::price::Cost;

/// The configured table, and those that operators have applied to calls after the fact.
///
/// A call that falls under a repricing costs what the last one says that has a price for it, whatever its events carry
/// and whatever is configured. So a later derivation never undoes a repricing.
#[derive(Clone, Debug)]
pub struct Prices {
    table: Arc<PriceTable>,
    /// The last one first.
    repricings: Arc<Vec<Repriced>>,
}

#[derive(Debug)]
struct Repriced {
    of: Repricing,
    models: ModelPattern,
    table: PriceTable,
}

impl Prices {
    /// A table that nothing was repriced by.
    pub fn new(table: PriceTable) -> Self {
        Self { table: Arc::new(table), repricings: Arc::default() }
    }

    /// The same table with these repricings, the last one first.
    ///
    /// # Errors
    /// [`PriceError`] when a recorded table cannot be read, for instance because a newer version recorded it.
    pub fn with(&self, repricings: Vec<Repricing>) -> Result<Self, PriceError> {
        let read = |of: Repricing| {
            let table = PriceTable::of_sheets(of.sheets.iter().map(String::as_str))?;
            let models = ModelPattern::new(&of.model);
            // The text is not needed any more.
            Ok(Repriced { of: Repricing { sheets: Vec::new(), ..of }, models, table })
        };
        let repricings = repricings.into_iter().map(read).collect::<Result<Vec<_>, PriceError>>()?;
        Ok(Self { table: Arc::clone(&self.table), repricings: Arc::new(repricings) })
    }

    /// What holds in one project.
    pub(super) fn of_project(&self, project_id: &str) -> ProjectPrices<'_> {
        let applies =
            |repriced: &&Repriced| repriced.of.project_id.is_empty() || repriced.of.project_id == project_id;
        ProjectPrices { table: &self.table, repricings: self.repricings.iter().filter(applies).collect() }
    }
}

/// The prices of one project's calls.
pub(super) struct ProjectPrices<'p> {
    table: &'p PriceTable,
    repricings: Vec<&'p Repriced>,
}

impl ProjectPrices<'_> {
    /// Whether any call may have been repriced.
    pub(super) fn are_repriced(&self) -> bool {
        !self.repricings.is_empty()
    }

    /// The cost of a call that was repriced.
    pub(super) fn repriced(&self, usage: &Usage<'_>) -> Option<Cost> {
        let within = |repriced: &&&Repriced| {
            (repriced.of.from_time..repriced.of.until_time).contains(&usage.time_ns)
                && repriced.models.matches(usage.model)
        };
        self.repricings.iter().filter(within).find_map(|repriced| cost(&repriced.table, usage))
    }

    /// The cost by the configured table.
    pub(super) fn computed(&self, usage: &Usage<'_>) -> Option<Cost> {
        cost(self.table, usage)
    }
}

fn cost(table: &PriceTable, usage: &Usage<'_>) -> Option<Cost> {
    table.cost(usage).ok().map(|(cost, version)| (cost.0, version.to_owned()))
}
