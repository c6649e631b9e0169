//! The way of every question: key → parameters → plan → statement → currency → admission → ClickHouse → answer.
//!
//! An endpoint extracts [`Caller`](crate::auth::Caller) and its parameters, makes a [`Plan`] (pure), has a statement
//! built for it ([`crate::sql`], pure), asks [`Api::current`] how current its answer is, which first waits for the receipt
//! that was given, and calls [`Api::rows`], which waits for its turn and runs it. When the caller
//! leaves, the future is dropped: the permits come back and the connection to ClickHouse closes, which ends the query.

use std::sync::Arc;
use std::time::{Duration, Instant as Stopwatch};

use fleetlog_runtime::Clock;
use fleetlog_store::derived::DerivedThrough;
use fleetlog_store::row::{Row, RowOwned, RowRead};
use fleetlog_store::{Listed, Query, Reader};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, watch};

use crate::admission::{Admission, Bounds};
use crate::answer::Currency;
use crate::auth::{Caller, Keys};
use crate::config::QueryConfig;
use crate::error::QueryError;
use crate::ledger::{Ledger, Standing};
use crate::metrics;
use crate::originals::Originals;
use crate::params::{ListQuery, WaitParams};
use crate::plan::{PageSize, Plan};
use crate::sql::{Param, Statement};
use crate::time_range::RangePolicy;
use crate::wait::Waits;

/// What every endpoint works with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Api(Arc<Inner>);

struct Inner {
    config: QueryConfig,
    clock: Clock,
    keys: Arc<dyn Keys>,
    /// There while every table is proved to be confined; without it nothing is read (INV-10).
    reader: watch::Receiver<Option<Reader>>,
    admission: Admission,
    originals: Originals,
    derived: Mutex<Option<Derived>>,
    waits: Waits,
}

/// What an answer rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rests {
    /// Facts alone.
    Facts,
    /// Derivations.
    Derivations,
}

/// `derived_through` as it was last read.
struct Derived {
    read: Stopwatch,
    through: Option<DerivedThrough>,
}

/// How old `derived_through` may be. It only ever grows, so an older one promises less and never too much.
const DERIVED_MAX_AGE: Duration = Duration::from_secs(1);
/// How long an answer waits for `derived_through` before it goes without.
const DERIVED_WITHIN: Duration = Duration::from_secs(1);

impl Api {
    pub(crate) fn new(
        config: QueryConfig,
        clock: Clock,
        keys: Arc<dyn Keys>,
        reader: watch::Receiver<Option<Reader>>,
        (ledger, originals): (Ledger, Originals),
    ) -> Self {
        let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        let admission = Admission::new(Bounds {
            process: count(config.statements_max),
            project: count(config.project_statements_max),
            project_queue: count(config.project_queue_max),
            wait: Duration::from_millis(config.queue_wait_ms),
        });
        let waits =
            Waits::new(ledger, admission.clone(), count(config.waits_max), count(config.project_waits_max));
        let derived = Mutex::default();
        Self(Arc::new(Inner { config, clock, keys, reader, admission, originals, derived, waits }))
    }

    pub(crate) fn keys(&self) -> &dyn Keys {
        &*self.0.keys
    }

    pub(crate) fn config(&self) -> &QueryConfig {
        &self.0.config
    }

    pub(crate) fn now_ns(&self) -> i64 {
        self.0.clock.now_ns()
    }

    /// Checks a list request.
    ///
    /// # Errors
    /// What is wrong with its range, cursor or limit.
    pub(crate) fn plan<K: Serialize + DeserializeOwned, F, L>(
        &self,
        caller: &Caller,
        query: &ListQuery<F, L>,
        policy: impl Into<Option<RangePolicy>>,
        size: PageSize,
    ) -> Result<Plan<K>, QueryError> {
        Plan::of(query, caller.project_id(), self.now_ns(), policy.into(), size)
    }

    /// Runs a statement on the caller's behalf and reads all of its rows, of which there are as many as its limit.
    ///
    /// # Errors
    /// No turn in time, or what the store says.
    ///
    /// # Cancellation
    /// Safe; the statement ends with it.
    pub(crate) async fn rows<T>(&self, caller: &Caller, statement: Statement) -> Result<Vec<T>, QueryError>
    where
        T: Row + RowOwned + RowRead,
    {
        let waiting = Stopwatch::now();
        let _admitted = self.0.admission.enter(caller.project_id()).await?;
        metrics::QUEUE_SECONDS.record(waiting.elapsed().as_secs_f64());
        let running = Stopwatch::now();
        let rows = self.query(caller, statement)?.fetch_all::<T>().await?;
        metrics::STATEMENT_SECONDS.record(running.elapsed().as_secs_f64());
        Ok(rows)
    }

    /// How current an answer is, once it has what the caller waits for. Ask before the statement runs: what is stored and
    /// derived by then is what the statement sees.
    ///
    /// # Errors
    /// What is wrong with the receipt, or that its time has passed.
    ///
    /// # Cancellation
    /// Safe.
    pub(crate) async fn current(
        &self,
        caller: &Caller,
        wait: &WaitParams,
        rests: Rests,
    ) -> Result<Currency, QueryError> {
        let (waits, config) = (&self.0.waits, &self.0.config);
        if let Some((receipt, wait)) = wait.asked(config.wait_default_ms, config.wait_max_ms)? {
            let reader = self.reader()?;
            waits.redeem(caller.project_id(), &receipt, wait, rests, reader.store()).await?;
        }
        let complete_ns = self.standing().complete_ns;
        Ok(match rests {
            Rests::Facts => Currency::facts(complete_ns),
            Rests::Derivations => {
                Currency::derived(complete_ns, self.derived_through(caller.project_id()).await)
            }
        })
    }

    /// Original bytes of dead letters.
    pub(crate) fn originals(&self) -> &Originals {
        &self.0.originals
    }

    /// What the ledger knows.
    pub(crate) fn standing(&self) -> Standing {
        self.0.waits.ledger().standing()
    }

    async fn derived_through(&self, project_id: &str) -> Option<i64> {
        let mut last = self.0.derived.lock().await;
        if last.as_ref().is_none_or(|last| last.read.elapsed() >= DERIVED_MAX_AGE) {
            // What failed is not tried again at once either, or everybody would wait for it in turn.
            let known = last.as_ref().and_then(|last| last.through.clone());
            let through = self.read_derived().await.or(known);
            *last = Some(Derived { read: Stopwatch::now(), through });
        }
        last.as_ref()?.through.as_ref().map(|through| through.of(project_id))
    }

    async fn read_derived(&self) -> Option<DerivedThrough> {
        let reader = self.reader().ok()?;
        match tokio::time::timeout(DERIVED_WITHIN, reader.store().derived_through()).await {
            Ok(Ok(through)) => Some(through),
            Ok(Err(error)) => {
                tracing::warn!(%error, "derived_through cannot be read");
                None
            }
            Err(_) => {
                tracing::warn!(within = ?DERIVED_WITHIN, "derived_through was not read in time");
                None
            }
        }
    }

    fn reader(&self) -> Result<Reader, QueryError> {
        self.0.reader.borrow().clone().ok_or(QueryError::StoreNotReady)
    }

    fn query(&self, caller: &Caller, statement: Statement) -> Result<Query, QueryError> {
        let Statement { sql, params } = statement;
        let texts = |name, texts: &[String]| Listed::new(name, "String", texts.to_vec());
        let ints = |name, numbers: &[i64]| Listed::new(name, "Int64", numbers.to_vec());
        let sql = params.iter().fold(sql, |sql, (name, value)| match value {
            Param::Texts(list) => texts(name, list).placed(sql),
            Param::Ints(list) => ints(name, list).placed(sql),
            Param::Text(_) | Param::Int(_) | Param::UInt(_) => sql,
        });
        let query = self.reader()?.project(caller.project_id())?.query(&sql);
        Ok(params.iter().fold(query, |query, (name, value)| match value {
            Param::Text(text) => query.param(name, text),
            Param::Texts(list) => query.list(&texts(name, list)),
            Param::Int(number) => query.param(name, number),
            Param::Ints(list) => query.list(&ints(name, list)),
            Param::UInt(number) => query.param(name, number),
        }))
    }
}
