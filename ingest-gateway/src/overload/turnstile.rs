//! The queue in front of the work, realised: who waits sleeps, and is woken by whoever ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::metrics::{Counter, Gauge, Histogram};
use tokio::sync::oneshot;

use super::concurrency::{Concurrency, Range};
use super::turns::{Arrival, NoTurn, QueueBounds, Ticket, Turns};
use crate::error::Refusal;
use crate::metrics;

/// Lets requests in by turns.
pub(crate) struct Turnstile {
    began: Instant,
    state: Mutex<State>,
    meters: Meters,
}

struct State {
    turns: Turns,
    concurrency: Concurrency,
    waiters: HashMap<Ticket, oneshot::Sender<Outcome>>,
}

type Outcome = Result<Turn, NoTurn>;

struct Meters {
    limit: Gauge,
    serving: Gauge,
    waiting: Gauge,
    wait_seconds: Histogram,
    at_once: Counter,
    waited: Counter,
    late: Counter,
    evicted: Counter,
    full: Counter,
}

impl Meters {
    fn new() -> Self {
        let outcome = |outcome| metrics::TURNS.counter_handle_for("outcome", outcome);
        Self {
            limit: metrics::CONCURRENCY_LIMIT.gauge_handle(),
            serving: metrics::SERVING.gauge_handle(),
            waiting: metrics::WAITING.gauge_handle(),
            wait_seconds: metrics::WAIT_SECONDS.histogram_handle(),
            at_once: outcome("at_once"),
            waited: outcome("waited"),
            late: outcome("late"),
            evicted: outcome("evicted"),
            full: outcome("full"),
        }
    }
}

/// A request's turn; dropping it lets the next one in.
pub(crate) struct Turn {
    turnstile: Arc<Turnstile>,
    project: Arc<str>,
    since: Instant,
    is_served: bool,
}

impl Turn {
    /// The request costs more than was known when it came.
    pub(crate) fn cost_more(&self, more: u64) {
        self.turnstile.state().turns.cost_more(&self.project, more);
    }

    /// The request was published and acknowledged: how long that took is what the next limit is found from.
    pub(crate) fn served(mut self) {
        self.is_served = true;
    }
}

/// How a request waits: until when at the most, and where it hears.
struct Waits {
    ticket: Ticket,
    until: i64,
    outcome: oneshot::Receiver<Outcome>,
}

/// A place in the queue; dropping it (a sender that went away) gives it up.
struct Place<'a> {
    turnstile: &'a Turnstile,
    project: &'a str,
    ticket: Ticket,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let _gone = self.turnstile.leave(self.project, self.ticket);
    }
}

impl Turnstile {
    pub(crate) fn new(bounds: QueueBounds, range: Range) -> Self {
        let concurrency = Concurrency::new(range);
        let state = State { turns: Turns::new(bounds), concurrency, waiters: HashMap::new() };
        Self { began: Instant::now(), state: Mutex::new(state), meters: Meters::new() }
    }

    /// Whether a request of this project would find room now.
    ///
    /// # Errors
    /// [`Refusal::Busy`] or [`Refusal::ProjectShare`].
    pub(crate) fn expect(&self, project: &str) -> Result<(), Refusal> {
        let state = self.state();
        state.turns.expect(project, state.concurrency.limit()).map_err(|why| {
            self.meters.full.increment(1);
            refusal(why)
        })
    }

    /// Waits for a request's turn; `cost` is what its project's share is measured in.
    ///
    /// # Errors
    /// [`Refusal::Busy`] or [`Refusal::ProjectShare`], at once or after the longest wait.
    ///
    /// # Cancellation
    /// Safe to drop: the place in the queue, or the turn, is given up.
    pub(crate) async fn turn(self: &Arc<Self>, project: &Arc<str>, cost: u64) -> Result<Turn, Refusal> {
        let arrived = Instant::now();
        let Waits { ticket, until, mut outcome } = match self.arrive(project, cost) {
            Ok(Ok(turn)) => return Ok(turn),
            Ok(Err(waits)) => waits,
            Err(why) => return Err(refusal(why)),
        };
        let place = Place { turnstile: self, project, ticket };
        let deadline = self.began + Duration::from_nanos(u64::try_from(until).unwrap_or(0));
        let called = tokio::time::timeout_at(deadline.into(), &mut outcome).await;
        let outcome = match called {
            Ok(called) => called.unwrap_or(Err(NoTurn::Busy)),
            Err(_) => match self.leave(project, ticket) {
                Some(why) => Err(why),
                // Called in this very moment.
                None => outcome.await.unwrap_or(Err(NoTurn::Busy)),
            },
        };
        drop(place);
        self.meters.wait_seconds.record(arrived.elapsed().as_secs_f64());
        if outcome.is_ok() {
            self.meters.waited.increment(1);
        }
        outcome.map_err(refusal)
    }

    /// A request's turn, or its place in the queue.
    fn arrive(self: &Arc<Self>, project: &Arc<str>, cost: u64) -> Result<Result<Turn, Waits>, NoTurn> {
        let now = self.now();
        let mut state = self.state();
        let limit = state.concurrency.limit();
        let arrival = state.turns.arrive(project, cost, limit, now);
        let arrived = match arrival {
            Arrival::Go => {
                self.meters.at_once.increment(1);
                Ok(Ok(self.start(Arc::clone(project))))
            }
            Arrival::Wait { ticket, until, evicted } => {
                let (tell, hear) = oneshot::channel();
                state.waiters.insert(ticket, tell);
                if let Some(tell) = evicted.and_then(|ticket| state.waiters.remove(&ticket)) {
                    self.meters.evicted.increment(1);
                    let _nobody_waits = tell.send(Err(NoTurn::Share)).is_err();
                }
                Ok(Err(Waits { ticket, until, outcome: hear }))
            }
            Arrival::Refused(why) => {
                self.meters.full.increment(1);
                Err(why)
            }
        };
        self.show(&state);
        arrived
    }

    /// Gives up a place in the queue; says why there was no turn, unless the request was called before.
    fn leave(&self, project: &str, ticket: Ticket) -> Option<NoTurn> {
        let mut state = self.state();
        let why = state.turns.leave(project, ticket, self.now())?;
        state.waiters.remove(&ticket);
        self.meters.late.increment(1);
        self.show(&state);
        Some(why)
    }

    /// Ends a turn and calls who is next.
    fn end(self: &Arc<Self>, project: &str, served_ns: Option<i64>) {
        let now = self.now();
        let mut woken = Vec::new();
        {
            let mut state = self.state();
            if let Some(took) = served_ns {
                let at_once = state.turns.serving();
                state.concurrency.learn(took, at_once, now);
            }
            state.turns.end(project);
            let limit = state.concurrency.limit();
            let called = state.turns.call(limit, now);
            for (ticket, why) in called.late {
                self.meters.late.increment(1);
                woken.extend(state.waiters.remove(&ticket).map(|tell| (tell, Err(why))));
            }
            for (ticket, project) in called.go {
                woken.extend(state.waiters.remove(&ticket).map(|tell| (tell, Ok(project))));
            }
            self.show(&state);
        }
        // Outside of the lock: a turn whose sender went away comes back here, and is dropped and ended at once.
        for (tell, outcome) in woken {
            let _nobody_waits = tell.send(outcome.map(|project| self.start(project))).is_err();
        }
    }

    fn start(self: &Arc<Self>, project: Arc<str>) -> Turn {
        Turn { turnstile: Arc::clone(self), project, since: Instant::now(), is_served: false }
    }

    fn now(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_nanos()).unwrap_or(i64::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, state: &State) {
        self.meters.limit.set(state.concurrency.limit() as f64);
        self.meters.serving.set(state.turns.serving() as f64);
        self.meters.waiting.set(state.turns.waiting() as f64);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let took = i64::try_from(self.since.elapsed().as_nanos()).unwrap_or(i64::MAX);
        self.turnstile.end(&self.project, self.is_served.then_some(took));
    }
}

fn refusal(why: NoTurn) -> Refusal {
    match why {
        NoTurn::Share => Refusal::ProjectShare,
        NoTurn::Busy => Refusal::Busy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turnstile(limit: usize, waiting: usize, wait_ms: i64) -> Arc<Turnstile> {
        let bounds =
            QueueBounds { waiting, wait_ns: wait_ms * 1_000_000, standing_wait_ns: wait_ms * 1_000_000 };
        Arc::new(Turnstile::new(bounds, Range { min: limit, max: limit, tolerance: 2.0 }))
    }

    fn nothing_is_held(turnstile: &Turnstile) {
        let state = turnstile.state();
        assert_eq!((state.turns.serving(), state.turns.waiting(), state.waiters.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn who_ends_wakes_who_waits_and_who_waits_too_long_is_told() {
        let (stile, a) = (turnstile(1, 10, 60_000), Arc::from("a"));
        let first = stile.turn(&a, 1).await.unwrap();
        let (second, ()) = tokio::join!(stile.turn(&a, 1), async { first.served() });
        drop(second.unwrap());
        nothing_is_held(&stile);

        let stile = turnstile(1, 10, 1);
        let first = stile.turn(&a, 1).await.unwrap();
        assert!(matches!(stile.turn(&a, 1).await, Err(Refusal::Busy)));
        assert!(matches!(stile.turn(&Arc::from("b"), 1).await, Err(Refusal::ProjectShare)));
        drop(first);
        nothing_is_held(&stile);
    }

    #[tokio::test]
    async fn a_sender_that_goes_away_gives_up_its_place_and_its_turn() {
        let (stile, a) = (turnstile(1, 10, 60_000), Arc::from("a"));
        let first = stile.turn(&a, 1).await.unwrap();
        // Gone while waiting.
        assert!(futures_poll_once(stile.turn(&a, 1)).await);
        assert_eq!(stile.state().turns.waiting(), 0);
        // Gone after it was called and before it heard.
        let project = a.clone();
        let waits = stile.turn(&project, 1);
        let mut waits = Box::pin(waits);
        tokio::select! {
            biased;
            _ = &mut waits => panic!("it has to wait"),
            () = std::future::ready(()) => {}
        }
        drop(first);
        assert_eq!(stile.state().turns.serving(), 1, "it was called");
        drop(waits);
        nothing_is_held(&stile);
    }

    /// Polls a future once and drops it; whether it was pending.
    async fn futures_poll_once<T>(future: impl Future<Output = T>) -> bool {
        tokio::select! {
            biased;
            _ = future => false,
            () = std::future::ready(()) => true,
        }
    }

    #[tokio::test]
    async fn a_full_queue_is_told_before_the_body_is_read() {
        let (stile, a) = (turnstile(1, 0, 60_000), Arc::from("a"));
        stile.expect("a").unwrap();
        let _first = stile.turn(&a, 1).await.unwrap();
        assert!(matches!(stile.expect("a"), Err(Refusal::Busy)));
        assert!(matches!(stile.expect("b"), Err(Refusal::ProjectShare)));
    }
}
