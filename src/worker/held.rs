//! The jobs in hand: what heartbeats list and what a stop can reach.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// The jobs in hand, by id.
#[derive(Debug, Clone, Default)]
pub(super) struct Held(Arc<Mutex<BTreeMap<String, CancellationToken>>>);

/// One job in hand; dropping it lets go of it.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) id: String,
    held: Held,
    /// Cancelled when the job is no longer wanted.
    pub(super) stop: CancellationToken,
}

impl Held {
    /// Takes a job in hand; `None` if it is already.
    pub(super) fn hold(&self, id: &str) -> Option<Hold> {
        let mut jobs = self.jobs();
        if jobs.contains_key(id) {
            return None;
        }
        let stop = CancellationToken::new();
        jobs.insert(id.to_owned(), stop.clone());
        Some(Hold { id: id.to_owned(), held: self.clone(), stop })
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
        // Nobody panics with it in hand; if somebody did, the map would still be whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.held.jobs().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_job_is_held_once_and_until_it_is_dropped() {
        let held = Held::default();
        let (b, a) = (held.hold("b").unwrap(), held.hold("a").unwrap());
        assert!(held.hold("a").is_none());
        assert_eq!(held.ids(), ["a", "b"]);
        drop(a);
        assert_eq!((held.ids(), held.none()), (vec!["b".to_owned()], false));
        assert!(held.stop("b") && b.stop.is_cancelled() && !held.stop("a"));
        drop(b);
        assert!(held.none() && held.hold("a").is_some());
    }
}
