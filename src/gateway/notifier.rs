//! Wakes polls that wait, without asking the store again and again.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;

use crate::store::{StoreEvent, Subscription};

/// Who waits for what.
#[derive(Debug, Default)]
pub(super) struct Notifier {
    takes: Waiters<String>,
    jobs: Waiters<(String, String)>,
    ends: Waiters<(String, String)>,
    stops: Waiters<(String, String)>,
    timers: Arc<Notify>,
    workers: Arc<Notify>,
}

/// A [`Notify`] for each thing that somebody waits for.
#[derive(Debug)]
struct Waiters<K>(Mutex<HashMap<K, Weak<Notify>>>);

impl<K> Default for Waiters<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// Those that have no waiter left are thrown away when there are so many more than at the last time.
const MIN_SWEEP: usize = 1024;

impl<K: Eq + Hash> Waiters<K> {
    fn waiter(&self, key: K) -> Arc<Notify> {
        let mut waiters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiter) = waiters.get(&key).and_then(Weak::upgrade) {
            return waiter;
        }
        if waiters.len() == waiters.capacity() && waiters.len() > MIN_SWEEP {
            waiters.retain(|_, waiter| waiter.strong_count() > 0);
        }
        let waiter = Arc::new(Notify::new());
        waiters.insert(key, Arc::downgrade(&waiter));
        waiter
    }

    fn notify(&self, key: &K, how: impl FnOnce(&Notify)) {
        let waiter = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).and_then(Weak::upgrade);
        if let Some(waiter) = waiter {
            how(&waiter);
        }
    }

    fn notify_all(&self) {
        let waiters: Vec<_> =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).values().filter_map(Weak::upgrade).collect();
        for waiter in waiters {
            waiter.notify_waiters();
        }
    }
}

impl Notifier {
    /// Woken when a job waits at an endpoint, once a job, for the poll that waits longest.
    pub(super) fn take(&self, endpoint: &str) -> Arc<Notify> {
        self.takes.waiter(endpoint.to_owned())
    }

    /// Woken when something came of a job.
    pub(super) fn job(&self, endpoint: &str, id: &str) -> Arc<Notify> {
        self.jobs.waiter((endpoint.to_owned(), id.to_owned()))
    }

    /// Woken when a job has ended.
    pub(super) fn end(&self, endpoint: &str, id: &str) -> Arc<Notify> {
        self.ends.waiter((endpoint.to_owned(), id.to_owned()))
    }

    /// Woken when a worker works in vain.
    pub(super) fn stop(&self, endpoint: &str, worker: &str) -> Arc<Notify> {
        self.stops.waiter((endpoint.to_owned(), worker.to_owned()))
    }

    /// Woken when a timer may be due sooner than was thought.
    pub(super) fn timers(&self) -> Arc<Notify> {
        self.timers.clone()
    }

    /// Woken when another gateway tells of workers.
    pub(super) fn workers(&self) -> Arc<Notify> {
        self.workers.clone()
    }

    /// Lets a worker's open polls look again: they may have to end.
    pub(super) fn nudge(&self, endpoint: &str, worker: &str) {
        self.takes.notify(&endpoint.to_owned(), Notify::notify_waiters);
        self.stops.notify(&(endpoint.to_owned(), worker.to_owned()), Notify::notify_waiters);
    }

    /// Wakes for all events, as long as there can be any.
    pub(super) async fn run(self: Arc<Self>, mut events: Subscription) {
        while let Some(event) = events.next().await {
            self.hear(event);
        }
    }

    fn hear(&self, event: StoreEvent) {
        match event {
            StoreEvent::JobQueued(endpoint) => self.takes.notify(&endpoint, Notify::notify_one),
            StoreEvent::JobChanged(endpoint, id) => self.jobs.notify(&(endpoint, id), Notify::notify_waiters),
            StoreEvent::JobEnded(endpoint, id) => {
                let job = (endpoint, id);
                self.jobs.notify(&job, Notify::notify_waiters);
                self.ends.notify(&job, Notify::notify_waiters);
            }
            StoreEvent::WorkerStop(endpoint, worker) => self.stops.notify(&(endpoint, worker), Notify::notify_waiters),
            StoreEvent::WorkersChanged => self.workers.notify_one(),
            StoreEvent::Lagged => {
                self.workers.notify_one();
                self.takes.notify_all();
                self.jobs.notify_all();
                self.ends.notify_all();
                self.stops.notify_all();
            }
        }
        self.timers.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_job_wakes_one_poll_and_who_has_one_already_lets_the_next_have_its_turn() {
        let notifier = Notifier::default();
        let waiter = notifier.take("e");
        let mut polls: Vec<_> = (0..4).map(|_| Box::pin(waiter.notified())).collect();
        for poll in &mut polls {
            poll.as_mut().enable();
        }
        for _ in 0..2 {
            notifier.hear(StoreEvent::JobQueued("e".into()));
        }
        notifier.hear(StoreEvent::JobQueued("f".into()));
        // It was woken, and found a job by itself.
        drop(polls.remove(0));
        let woken: Vec<bool> = polls.iter_mut().map(|poll| poll.as_mut().now_or_never().is_some()).collect();
        assert_eq!(woken, [true, true, false]);
    }

    #[test]
    fn who_waits_for_an_end_sleeps_until_then() {
        let notifier = Notifier::default();
        let (end, job) = (notifier.end("e", "j"), notifier.job("e", "j"));
        let notified = |event: StoreEvent| {
            let (end, job) = (end.notified(), job.notified());
            notifier.hear(event);
            (end.now_or_never().is_some(), job.now_or_never().is_some())
        };
        assert_eq!(notified(StoreEvent::JobChanged("e".into(), "j".into())), (false, true));
        assert_eq!(notified(StoreEvent::JobEnded("e".into(), "j".into())), (true, true));
        assert_eq!(notified(StoreEvent::Lagged), (true, true));
    }
}
