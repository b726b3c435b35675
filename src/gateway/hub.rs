//! Wakes polls that wait, without asking the store again and again.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;

use crate::store::{News, Subscription};

/// Who waits for what.
#[derive(Debug, Default)]
pub(super) struct Hub {
    takes: Bells<String>,
    jobs: Bells<(String, String)>,
    ends: Bells<(String, String)>,
    stops: Bells<(String, String)>,
    timers: Arc<Notify>,
    workers: Arc<Notify>,
}

/// A bell for each thing that somebody waits for.
#[derive(Debug)]
struct Bells<K>(Mutex<HashMap<K, Weak<Notify>>>);

impl<K> Default for Bells<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// Bells that nobody waits at are thrown away when there are so many more than at the last time.
const UNUSED: usize = 1024;

impl<K: Eq + Hash> Bells<K> {
    fn bell(&self, key: K) -> Arc<Notify> {
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bell) = bells.get(&key).and_then(Weak::upgrade) {
            return bell;
        }
        if bells.len() == bells.capacity() && bells.len() > UNUSED {
            bells.retain(|_, bell| bell.strong_count() > 0);
        }
        let bell = Arc::new(Notify::new());
        bells.insert(key, Arc::downgrade(&bell));
        bell
    }

    fn ring(&self, key: &K, ring: impl FnOnce(&Notify)) {
        let bell = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).and_then(Weak::upgrade);
        if let Some(bell) = bell {
            ring(&bell);
        }
    }

    fn ring_all(&self) {
        let bells: Vec<_> =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).values().filter_map(Weak::upgrade).collect();
        for bell in bells {
            bell.notify_waiters();
        }
    }
}

impl Hub {
    /// Rings when a job waits at an endpoint, once a job, for the poll that waits longest.
    pub(super) fn take(&self, endpoint: &str) -> Arc<Notify> {
        self.takes.bell(endpoint.to_owned())
    }

    /// Rings when something came of a job.
    pub(super) fn job(&self, endpoint: &str, id: &str) -> Arc<Notify> {
        self.jobs.bell((endpoint.to_owned(), id.to_owned()))
    }

    /// Rings when a job has ended.
    pub(super) fn end(&self, endpoint: &str, id: &str) -> Arc<Notify> {
        self.ends.bell((endpoint.to_owned(), id.to_owned()))
    }

    /// Rings when a worker works in vain.
    pub(super) fn stop(&self, endpoint: &str, worker: &str) -> Arc<Notify> {
        self.stops.bell((endpoint.to_owned(), worker.to_owned()))
    }

    /// Rings when a timer may be due sooner than was thought.
    pub(super) fn timers(&self) -> Arc<Notify> {
        self.timers.clone()
    }

    /// Rings when another gateway tells of workers.
    pub(super) fn workers(&self) -> Arc<Notify> {
        self.workers.clone()
    }

    /// Lets a worker's open polls look again: they may have to end.
    pub(super) fn nudge(&self, endpoint: &str, worker: &str) {
        self.takes.ring(&endpoint.to_owned(), Notify::notify_waiters);
        self.stops.ring(&(endpoint.to_owned(), worker.to_owned()), Notify::notify_waiters);
    }

    /// Rings for all news, as long as there can be any.
    pub(super) async fn run(self: Arc<Self>, mut news: Subscription) {
        while let Some(news) = news.next().await {
            self.hear(news);
        }
    }

    fn hear(&self, news: News) {
        match news {
            News::Waiting(endpoint) => self.takes.ring(&endpoint, Notify::notify_one),
            News::Job(endpoint, id) => self.jobs.ring(&(endpoint, id), Notify::notify_waiters),
            News::End(endpoint, id) => {
                let job = (endpoint, id);
                self.jobs.ring(&job, Notify::notify_waiters);
                self.ends.ring(&job, Notify::notify_waiters);
            }
            News::Stop(endpoint, worker) => self.stops.ring(&(endpoint, worker), Notify::notify_waiters),
            News::Workers => self.workers.notify_one(),
            News::Much => {
                self.workers.notify_one();
                self.takes.ring_all();
                self.jobs.ring_all();
                self.ends.ring_all();
                self.stops.ring_all();
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
        let hub = Hub::default();
        let bell = hub.take("e");
        let mut polls: Vec<_> = (0..4).map(|_| Box::pin(bell.notified())).collect();
        for poll in &mut polls {
            poll.as_mut().enable();
        }
        for _ in 0..2 {
            hub.hear(News::Waiting("e".into()));
        }
        hub.hear(News::Waiting("f".into()));
        // It was woken, and found a job by itself.
        drop(polls.remove(0));
        let woken: Vec<bool> = polls.iter_mut().map(|poll| poll.as_mut().now_or_never().is_some()).collect();
        assert_eq!(woken, [true, true, false]);
    }

    #[test]
    fn who_waits_for_an_end_sleeps_until_then() {
        let hub = Hub::default();
        let (end, job) = (hub.end("e", "j"), hub.job("e", "j"));
        let rings = |news: News| {
            let (end, job) = (end.notified(), job.notified());
            hub.hear(news);
            (end.now_or_never().is_some(), job.now_or_never().is_some())
        };
        assert_eq!(rings(News::Job("e".into(), "j".into())), (false, true));
        assert_eq!(rings(News::End("e".into(), "j".into())), (true, true));
        assert_eq!(rings(News::Much), (true, true));
    }
}
