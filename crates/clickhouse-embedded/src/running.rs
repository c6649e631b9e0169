//! Which requests are on their way, by query id.
//!
//! The engine gives its queries ids of its own, so the answer to "does a query of this id still run?" (INV-4.3) is kept
//! here. An entry exists from before the request's first effect on the engine until the engine has returned for the
//! last time, whatever became of the client.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::error::{Code, ServerError};

/// One request on its way.
#[derive(Debug, Clone)]
struct Entry {
    since: Instant,
    kind: &'static str,
}

/// All requests on their way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Running {
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
}

/// Keeps one entry alive.
#[derive(Debug)]
pub(crate) struct Ticket {
    running: Running,
    query_id: String,
}

/// What is told of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// The client's query id.
    pub(crate) query_id: String,
    /// `query` or `insert`; `request` until that is known.
    pub(crate) kind: &'static str,
    /// Milliseconds since the request came.
    pub(crate) elapsed_ms: u128,
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // A panic under the lock leaves the map usable: entries are inserted and removed whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a request.
    ///
    /// # Errors
    /// A request of this id is on its way.
    pub(crate) fn enter(&self, query_id: &str) -> Result<Ticket, ServerError> {
        let mut entries = self.lock();
        if entries.contains_key(query_id) {
            return Err(ServerError::new(
                Code::QueryIdTaken,
                format_args!("Query with id = {query_id} is already running"),
            ));
        }
        entries.insert(query_id.to_owned(), Entry { since: Instant::now(), kind: "request" });
        Ok(Ticket { running: self.clone(), query_id: query_id.to_owned() })
    }

    /// Lists the requests whose id begins with `prefix`.
    pub(crate) fn with_prefix(&self, prefix: &str) -> Vec<Sighting> {
        self.lock()
            .range(prefix.to_owned()..)
            .take_while(|(query_id, _)| query_id.starts_with(prefix))
            .map(|(query_id, entry)| Sighting {
                query_id: query_id.clone(),
                kind: entry.kind,
                elapsed_ms: entry.since.elapsed().as_millis(),
            })
            .collect()
    }
}

impl Ticket {
    /// Says what the request turned out to be.
    pub(crate) fn is_a(&self, kind: &'static str) {
        if let Some(entry) = self.running.lock().get_mut(&self.query_id) {
            entry.kind = kind;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.running.lock().remove(&self.query_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_is_seen_by_its_prefix_until_its_ticket_is_gone() {
        let running = Running::default();
        let ticket = running.enter("events:0:10-20:a1").unwrap();
        let _other = running.enter("events:1:10-20:a1").unwrap();
        ticket.is_a("insert");
        let seen = running.with_prefix("events:0:10-20:");
        assert_eq!(
            seen.iter().map(|one| (one.query_id.as_str(), one.kind)).collect::<Vec<_>>(),
            [("events:0:10-20:a1", "insert")]
        );
        drop(ticket);
        assert_eq!(running.with_prefix("events:0:").len(), 0);
        assert_eq!(running.with_prefix("").len(), 1);
    }

    #[test]
    fn id_on_its_way_is_refused_a_second_time() {
        let running = Running::default();
        let _ticket = running.enter("a").unwrap();
        assert_eq!(running.enter("a").unwrap_err().code(), 216);
    }
}
