//! What time brings about: jobs that time out, are lost or forgotten; workers that are gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::date::UnixTime;
use crate::queue::{Attempt, Record, Rules, Transition};
use crate::store::Store;

use super::api_keys::Access;
use super::{Gateway, log_failure};

/// Jobs that are looked at before others are.
const MAX_DUE_JOBS: usize = 256;

/// The longest sleep: workers that are gone are no timer of the store's.
const MAX_SLEEP: Duration = Duration::from_secs(1);

/// Between two looks at what other gateways are on, if no clock was set.
const CLOCK_INTERVAL: Duration = Duration::from_secs(5);

/// How long a key that was made or revoked may be unknown.
const KEYS_INTERVAL: Duration = Duration::from_secs(5);

/// Milliseconds by which a clock that was set differs from what it was.
const CLOCK_JUMP_MILLIS: u64 = 1000;

/// The shortest: what is due a moment later waits for it.
const MIN_SLEEP: Duration = Duration::from_millis(10);

impl<S: Store> Gateway<S> {
    /// Never ends by itself.
    pub(super) async fn keep_time(self: &Arc<Self>) {
        let (sooner, mut calls) = (self.notifier.timers(), JoinSet::new());
        let (mut keys, mut tidy, mut since, mut access) = (self.now(), self.now(), self.began, None);
        let (mut course, mut ahead) = (self.now(), None);
        loop {
            let due = log_failure("timers", self.store.next_due().await).flatten();
            let pause = due.map_or(MAX_SLEEP, |due| self.now().until(due)).clamp(MIN_SLEEP, MAX_SLEEP);
            // Asked again when something happens: it may be due sooner.
            let _ = timeout(pause, sooner.notified()).await;
            sleep(MIN_SLEEP).await;
            // First: it may have slept while others went on.
            let set =
                ahead.replace(self.ahead()).is_none_or(|before| before.abs_diff(self.ahead()) >= CLOCK_JUMP_MILLIS);
            if set || self.now() >= course {
                self.keep_course().await;
                course = self.now() + CLOCK_INTERVAL;
            }
            if !self.look_at_jobs(since, &mut calls).await {
                // What is due stays due: nothing is won by asking at once.
                sleep(MAX_SLEEP).await;
                // Nor could it note what workers said.
                since = self.now();
            }
            self.look_at_workers().await;
            if self.now() >= tidy {
                log_failure("timers", self.store.reclaim_space().await);
                tidy = self.now() + MAX_SLEEP;
            }
            if self.now() >= keys {
                self.look_at_keys(&mut access).await;
                keys = self.now() + KEYS_INTERVAL;
            }
        }
    }

    /// Keeps the time of the queue, and goes on with others that are on it.
    async fn keep_course(&self) {
        if let Some(on) = log_failure("timers", self.store.sync_clock(Some(self.now()), self.course.wall()).await) {
            self.course.catch_up(on);
        }
    }

    /// How many milliseconds the wall clock is ahead of the queue.
    fn ahead(&self) -> i64 {
        self.course.wall().as_millis().wrapping_sub(self.now().as_millis()).cast_signed()
    }

    /// Says so when who needs a key is another than at the look before.
    async fn look_at_keys(&self, before: &mut Option<Access>) {
        let Some(now) = log_failure("keys", self.access().await) else { return };
        if before.replace(now).is_some_and(|before| before != now) {
            if let Some(why) = now.problem() {
                warn!("{why}");
            } else {
                info!("users and workers have keys: who has none is refused");
            }
        }
    }

    /// `since` is when the store was last away. Returns whether it could do what is due.
    async fn look_at_jobs(self: &Arc<Self>, since: UnixTime, calls: &mut JoinSet<()>) -> bool {
        let now = self.now();
        let Some(due) = log_failure("timers", self.store.due(now, MAX_DUE_JOBS).await) else { return false };
        while calls.try_join_next().is_some() {}
        let rules = Rules { listening_since: since, ..self.settings.rules.clone() };
        // All at once: the store keeps them with one sync. Thousands that are due would else keep the rest from their time.
        let looks = due.into_iter().map(|(endpoint, id)| {
            let rules = rules.clone();
            async move {
                let tick = move |record: &mut Record| record.tick(&rules, now);
                self.store.change(&endpoint, &id, tick, Vec::new(), None).await?;
                let begun = self.begin_webhook(&endpoint, &id).await?;
                Ok(begun.map(|(record, place)| self.clone().send_webhook(endpoint, record, place)))
            }
        });
        let mut failed = Ok(());
        for begun in join_all(looks).await {
            match begun {
                Ok(Some(call)) => drop(calls.spawn(call)),
                Ok(None) => {}
                Err(error) => failed = Err(error),
            }
        }
        log_failure("timers", failed).is_some()
    }

    async fn look_at_workers(&self) {
        let now = self.now();
        for (endpoint, worker) in self.registry.silent(now) {
            // While it is unknown what it holds, it stays.
            let Some(held) = log_failure("workers", self.store.held_by(&endpoint, &worker).await) else { continue };
            if self.registry.forget(&endpoint, &worker, !held.is_empty(), now) {
                self.show_worker(&endpoint, &worker, false).await;
                let (rules, by, gone_after) = (self.settings.rules.clone(), worker.clone(), self.registry.gone_after);
                let gone = move |record: &mut Record| {
                    // It may have gone over to another gateway, which what it holds shows.
                    let last_sign = record.attempt.as_ref().map(Attempt::last_sign);
                    if last_sign.is_some_and(|last_sign| last_sign.until(now) < gone_after) {
                        return Transition::Unchanged;
                    }
                    record.abandon(&by, "its worker is gone", &rules, now)
                };
                self.take_back(&endpoint, &worker, gone).await;
            }
        }
    }

    /// All that a worker holds is lost to it.
    pub(super) async fn abandon_jobs(&self, endpoint: &str, worker: &str, why: &'static str) {
        let (rules, now, by) = (self.settings.rules.clone(), self.now(), worker.to_owned());
        self.take_back(endpoint, worker, move |record| record.abandon(&by, why, &rules, now)).await;
    }

    /// A worker says that it has nothing in hand. Returns when what it holds is to be looked at again, if its word is doubted.
    pub(super) async fn worker_idle(&self, endpoint: &str, worker: &str) -> Option<UnixTime> {
        // Of several it is another that has something in hand.
        if self.registry.has_shared_id(endpoint, worker, self.now()) {
            return None;
        }
        let (rules, now, by) = (self.settings.rules.clone(), self.now(), worker.to_owned());
        let why = "its worker says that it has nothing in hand";
        let kept = self.take_back(endpoint, worker, move |record| record.report_idle(&by, why, &rules, now)).await;
        let doubted =
            |record: &Record| record.attempt.as_ref().map(|attempt| attempt.idle_doubted_until(&self.settings.rules));
        kept.iter().filter_map(doubted).min()
    }

    /// Lets an event happen to all that a worker holds, which may take it from the worker. Returns what it goes on holding.
    async fn take_back(
        &self,
        endpoint: &str,
        worker: &str,
        event: impl Fn(&mut Record) -> Transition + Clone + Send + Sync + 'static,
    ) -> Vec<Record> {
        let mut kept = Vec::new();
        for id in log_failure("workers", self.store.held_by(endpoint, worker).await).unwrap_or_default() {
            // Whether it was there when it was lost: a job that never arrived counts against no worker.
            let arrived = Arc::new(AtomicBool::new(false));
            let (seen, event) = (arrived.clone(), event.clone());
            let noted = move |record: &mut Record| {
                seen.store(record.attempt.as_ref().is_some_and(|attempt| attempt.arrived), Ordering::Relaxed);
                event(record)
            };
            let done =
                log_failure("workers", self.store.change(endpoint, &id, noted, Vec::new(), None).await).flatten();
            let Some((record, transition)) = done else { continue };
            if record.holder() == Some(worker) {
                kept.push(record);
            } else if transition != Transition::Unchanged && arrived.load(Ordering::Relaxed) {
                self.worker_lost_job(endpoint, worker).await;
            }
        }
        kept
    }
}
