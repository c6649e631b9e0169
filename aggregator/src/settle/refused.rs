//! What becomes of rows that ClickHouse itself refuses (INV-8): one refused row costs only itself.
//!
//! A refusal is repeated against the table's probe, which has its columns and constraints and keeps nothing, and the
//! refused rows are found by halving ([`Bisection`]). Each gets a stand-in at its own position; range and positions stay
//! as they are, so the proof of INV-4 does not notice. The stand-in keeps as much as is accepted:
//!
//! | table | first | when that is refused too |
//! |---|---|---|
//! | `events` | `raw.unknown`, its identity, times, session and trace, the event as JSON in `data` | identity and times only; the event goes to the dead letters |
//! | `dead_letters` | its numbers, times, reason and project; the bytes are in the topic anyway | the same without the project |
//! | `settlements` | without the request's id | none |
//! | `piece_settlements` | none: numbers and a project | none |
//!
//! What the probe takes, or takes in parts and not as a whole, or refuses even as a row that says nothing, is no fault of
//! the data: the range waits as in any outage, is tried again, and says so.

use fleetlog_runtime::{Classified, ErrorClass};
use fleetlog_store::{FactTable, Positions, StoreError};

use super::{Settling, Unsettled};
use crate::bisect::Bisection;
use crate::facts::{Facts, Form, To};
use crate::metrics;
use crate::partition::bury;

type Place = (i64, u32);

/// What the probe says of some rows.
enum Answer {
    Accepts,
    Refuses,
    /// It cannot be asked.
    Silent(StoreError),
}

impl<F: Facts> Settling<'_, F> {
    /// Finds which of these rows are refused and gives them stand-ins. Returns whether any row got one: only then is
    /// there anything else to send.
    pub(super) async fn examine(&mut self, table: FactTable, rows: &Positions) -> Result<bool, Unsettled> {
        let mut rows: Vec<Place> = rows.iter().copied().collect();
        rows.sort_unstable();
        match self.stand_ins(table, &rows).await? {
            Ok(0) => {
                tracing::error!(range = ?self.range, table = table.name(), "no row is refused on its own");
                Ok(false)
            }
            Ok(found) => {
                metrics::REFUSED_ROWS.add_for("table", table.name(), found as u64);
                tracing::error!(range = ?self.range, table = table.name(), rows = found, "ClickHouse refuses rows; others stand in for them");
                Ok(true)
            }
            Err(fault) => {
                self.facts.restore(table, &rows.into_iter().collect());
                tracing::error!(range = ?self.range, table = table.name(), fault, "the refusal is not one of single rows");
                Ok(false)
            }
        }
    }

    /// Gives stand-ins to the refused rows and says how many there are; or why none can be given.
    async fn stand_ins(
        &mut self,
        table: FactTable,
        rows: &[Place],
    ) -> Result<Result<usize, &'static str>, Unsettled> {
        let Some(first) = rows.first() else { return Ok(Ok(0)) };
        if let Err(error) = self.shared.store.renew_probe(table).await {
            // Whoever may not make it asks the one that the migrations made.
            tracing::warn!(%error, table = table.name(), "the probe is not renewed");
        }
        // A row that says nothing: refused, the table is at fault, and looking for rows is in vain.
        if !self.facts.stand_in(table, *first, Form::Bare) {
            return Ok(Err("nothing can stand in for a row of this table"));
        }
        let blank = self.ask(table, &[*first]).await?;
        self.facts.restore(table, &Positions::from([*first]));
        match blank {
            Answer::Accepts => {}
            Answer::Refuses => return Ok(Err("even a row that says nothing is refused")),
            Answer::Silent(error) => return Ok(Err(error.code())),
        }
        let (mut suspects, mut found, mut bare) = (rows.to_vec(), None, Vec::new());
        for form in [Some(Form::Whole), Some(Form::Bare), None] {
            suspects = match self.refused(table, suspects).await? {
                Ok(refused) => refused,
                Err(error) => return Ok(Err(error.code())),
            };
            let count = *found.get_or_insert(suspects.len());
            match form {
                _ if suspects.is_empty() => {
                    // Only now: an attempt that comes to nothing is made again, and would write its letters again.
                    for place in bare {
                        self.bury(place).await?;
                    }
                    return Ok(Ok(count));
                }
                None => return Ok(Err("even what stands in for a row is refused")),
                Some(form) => {
                    for place in &suspects {
                        self.facts.stand_in(table, *place, form);
                    }
                    if form == Form::Bare {
                        bare.clone_from(&suspects);
                    }
                }
            }
        }
        Ok(Ok(0))
    }

    /// Which of these rows are refused on their own.
    async fn refused(
        &mut self,
        table: FactTable,
        rows: Vec<Place>,
    ) -> Result<Result<Vec<Place>, StoreError>, Unsettled> {
        let mut bisection = Bisection::among(rows.len());
        while let Some(asked) = bisection.next() {
            match self.ask(table, rows.get(asked).unwrap_or_default()).await? {
                Answer::Accepts => bisection.answer(false),
                Answer::Refuses => bisection.answer(true),
                Answer::Silent(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(bisection.refused().into_iter().filter_map(|at| rows.get(at).copied()).collect()))
    }

    /// Asks the probe for some rows, in the form that they have now; waits while ClickHouse cannot answer.
    async fn ask(&mut self, table: FactTable, rows: &[Place]) -> Result<Answer, Unsettled> {
        let only: Positions = rows.iter().copied().collect();
        loop {
            if !self.lease.is_active() || self.shared.shutdown.is_triggered() {
                return Err(Unsettled::Abandoned);
            }
            metrics::REFUSAL_PROBES.add(1);
            match self.facts.send(table, &self.shared.store, To::Probe, Some(&only)).await {
                Ok(()) => return Ok(Answer::Accepts),
                Err(StoreError::Refused { .. }) => return Ok(Answer::Refuses),
                Err(error) if error.class() == ErrorClass::Unavailable => self.wait_out(&error).await?,
                Err(error) => return Ok(Answer::Silent(error)),
            }
        }
    }

    /// Keeps the bytes of an event whose row cannot hold them.
    async fn bury(&mut self, place: Place) -> Result<(), Unsettled> {
        let Some(letter) = self.facts.letter(place, self.shared.clock.now_ns()) else { return Ok(()) };
        match bury(self.shared, self.lease, letter).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Unsettled::Abandoned),
            Err(error) => Err(Unsettled::Failed(error)),
        }
    }
}
