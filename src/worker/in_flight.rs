//! The jobs in hand: what heartbeats list and what a stop can reach.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// The jobs in hand, by id.
#[derive(Debug, Clone, Default)]
pub(super) struct InFlight(Arc<Mutex<BTreeMap<String, CancellationToken>>>);

/// One job in hand; dropping it lets go of it.
#[derive(Debug)]
pub(super) struct InFlightGuard {
    pub(super) id: String,
    in_flight: InFlight,
    /// Cancelled when the job is no longer wanted.
    pub(super) stop: CancellationToken,
}

impl InFlight {
    /// Takes a job in hand; `None` if it is already.
    pub(super) fn guard(&self, id: &str) -> Option<InFlightGuard> {
        let mut jobs = self.jobs();
        if jobs.contains_key(id) {
            return None;
        }
        let stop = CancellationToken::new();
        jobs.insert(id.to_owned(), stop.clone());
        Some(InFlightGuard { id: id.to_owned(), in_flight: self.clone(), stop })
    }

    /// The ids, in ascending order.
    pub(super) fn ids(&self) -> Vec<String> {
        self.jobs().keys().cloned().collect()
    }

    /// Whether there are none.
    pub(super) fn none(&self) -> bool {
        self.jobs().is_empty()
    }

    /// Tells a job that it is no longer wanted. False if it is not in hand.
    pub(super) fn stop(&self, id: &str) -> bool {
        self.jobs().get(id).map(CancellationToken::cancel).is_some()
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<String, CancellationToken>> {
        // Nothing panics while it is held; if something did, the map would still be whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.in_flight.jobs().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_job_is_held_once_and_until_it_is_dropped() {
        let in_flight = InFlight::default();
        let (b, a) = (in_flight.guard("b").unwrap(), in_flight.guard("a").unwrap());
        assert!(in_flight.guard("a").is_none());
        assert_eq!(in_flight.ids(), ["a", "b"]);
        drop(a);
        assert_eq!((in_flight.ids(), in_flight.none()), (vec!["b".to_owned()], false));
        assert!(in_flight.stop("b") && b.stop.is_cancelled() && !in_flight.stop("a"));
        drop(b);
        assert!(in_flight.none() && in_flight.guard("a").is_some());
    }
}
