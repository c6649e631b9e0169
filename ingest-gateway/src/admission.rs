//! How much the gateway takes on at once (INV-9): requests and bytes, and no project more than its share.
//!
//! Bytes are reserved as they arrive and as they are decompressed, so that what is held never exceeds the bound,
//! whatever senders claim. Who is let in keeps its latency; who is not is told at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::Gauge;

use crate::error::Refusal;

/// The bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) bytes: usize,
    pub(crate) requests: usize,
    /// Bytes one project may hold once half of `bytes` is taken.
    pub(crate) project_bytes: usize,
}

/// Admits requests within the bounds.
pub(crate) struct Admission {
    bounds: Bounds,
    held: Mutex<Held>,
    bytes_gauge: Gauge,
    requests_gauge: Gauge,
}

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    requests: usize,
    /// Bytes and requests by project.
    projects: HashMap<Arc<str>, (usize, usize)>,
}

/// A request that was let in, with the bytes it holds; dropping it gives them back.
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    project: Arc<str>,
    bytes: usize,
}

impl Held {
    /// Whether `more` bytes of a project that holds `own` fit.
    fn judge(&self, bounds: Bounds, own: usize, more: usize) -> Result<(), Refusal> {
        let total = self.bytes.saturating_add(more);
        if total > bounds.bytes {
            return Err(Refusal::Busy);
        }
        if total > bounds.bytes / 2 && own.saturating_add(more) > bounds.project_bytes {
            return Err(Refusal::ProjectShare);
        }
        Ok(())
    }
}

impl Admission {
    pub(crate) fn new(bounds: Bounds, bytes_gauge: Gauge, requests_gauge: Gauge) -> Self {
        Self { bounds, held: Mutex::default(), bytes_gauge, requests_gauge }
    }

    /// Lets a request in that is about to bring `bytes`, as far as its sender said.
    ///
    /// # Errors
    /// [`Refusal::Busy`] or [`Refusal::ProjectShare`].
    pub(crate) fn enter(self: &Arc<Self>, project: &Arc<str>, bytes: usize) -> Result<Admitted, Refusal> {
        let mut held = self.held();
        if held.requests >= self.bounds.requests {
            return Err(Refusal::Busy);
        }
        let own = held.projects.get(project).map_or(0, |(bytes, _)| *bytes);
        held.judge(self.bounds, own, bytes)?;
        held.requests += 1;
        held.bytes += bytes;
        let entry = held.projects.entry(Arc::clone(project)).or_default();
        *entry = (entry.0 + bytes, entry.1 + 1);
        self.show(&held);
        Ok(Admitted { admission: Arc::clone(self), project: Arc::clone(project), bytes })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, held: &Held) {
        self.bytes_gauge.set(held.bytes as f64);
        self.requests_gauge.set(held.requests as f64);
    }
}

impl Admitted {
    /// The bytes it holds.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Reserves up to `total` bytes for this request, if it holds fewer.
    ///
    /// # Errors
    /// [`Refusal::Busy`] or [`Refusal::ProjectShare`]; what is already held stays held until the drop.
    pub(crate) fn reserve(&mut self, total: usize) -> Result<(), Refusal> {
        let Some(more) = total.checked_sub(self.bytes).filter(|more| *more > 0) else { return Ok(()) };
        let mut held = self.admission.held();
        let own = held.projects.get(&self.project).map_or(0, |(bytes, _)| *bytes);
        held.judge(self.admission.bounds, own, more)?;
        held.bytes += more;
        if let Some(entry) = held.projects.get_mut(&self.project) {
            entry.0 += more;
        }
        self.bytes = total;
        Ok(())
    }

    /// Reserves further bytes.
    ///
    /// # Errors
    /// As [`Self::reserve`].
    pub(crate) fn reserve_more(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.reserve(self.bytes.saturating_add(bytes))
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut held = self.admission.held();
        held.bytes = held.bytes.saturating_sub(self.bytes);
        held.requests = held.requests.saturating_sub(1);
        let last = held.projects.get_mut(&self.project).is_some_and(|entry| {
            *entry = (entry.0.saturating_sub(self.bytes), entry.1.saturating_sub(1));
            entry.1 == 0
        });
        if last {
            held.projects.remove(&self.project);
        }
        self.admission.show(&held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(requests: usize) -> Arc<Admission> {
        let bounds = Bounds { bytes: 100, requests, project_bytes: 60 };
        Arc::new(Admission::new(bounds, Gauge::noop(), Gauge::noop()))
    }

    #[test]
    fn no_more_is_held_than_the_bound_and_what_ends_makes_room() {
        let admission = admission(10);
        let (a, b) = (Arc::from("a"), Arc::from("b"));
        let first = admission.enter(&a, 60).unwrap();
        assert!(matches!(admission.enter(&b, 41), Err(Refusal::Busy)));
        let mut second = admission.enter(&b, 0).unwrap();
        second.reserve(40).unwrap();
        assert!(matches!(second.reserve_more(1), Err(Refusal::Busy)));
        drop(first);
        second.reserve(50).unwrap();
        drop(second);
        assert_eq!(admission.held().bytes, 0);
        assert!(admission.held().projects.is_empty());
    }

    #[test]
    fn a_project_is_held_to_its_share_only_when_others_may_need_the_room() {
        let admission = admission(10);
        let (a, b) = (Arc::from("a"), Arc::from("b"));
        let mut big = admission.enter(&a, 50).unwrap();
        assert!(matches!(big.reserve(61), Err(Refusal::ProjectShare)));
        assert!(admission.enter(&b, 40).is_ok());
    }

    #[test]
    fn requests_are_bounded_too() {
        let admission = admission(1);
        let project = Arc::from("a");
        let _one = admission.enter(&project, 0).unwrap();
        assert!(matches!(admission.enter(&project, 0), Err(Refusal::Busy)));
    }
}
