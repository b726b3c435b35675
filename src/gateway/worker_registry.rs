//! The workers that this gateway hears of, itself and from others.

use std::collections::BTreeMap;
use std::mem::replace;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::date::UnixTime;

/// A worker is gone after so long without a word, at least: two heartbeats of ten seconds, and ten more.
const MIN_GONE_AFTER: Duration = Duration::from_secs(30);

/// A worker that is to be restarted gets no job for so long, unless it is gone before.
const BAN_TIME: Duration = Duration::from_mins(10);

/// An id counts as shared for so long after two workers were last seen under it: as long as an attempt may take by default, as two that both
/// work may not poll meanwhile.
const SHARED_ID_TIME: Duration = Duration::from_mins(10);

/// Jobs that a worker may lose within the time of a ban before it gets no more for as long.
const MAX_LOSSES: usize = 3;

/// How often other gateways are told that a worker lives: about as often as it beats.
const SHARE_INTERVAL: Duration = Duration::from_secs(9);

/// From this version on the Python SDK counts what it has in hand rightly.
const FIRST_RELIABLE_SDK: [u32; 3] = [1, 10, 1];

/// Workers by endpoint and id.
#[derive(Debug)]
pub(super) struct WorkerRegistry {
    /// A worker is gone after so long without a word.
    pub(super) gone_after: Duration,
    workers: Mutex<BTreeMap<(String, String), Worker>>,
    /// When workers lost jobs that had arrived, since the last that they brought to an end. It outlives a worker that is gone, as one
    /// that crashes again and again comes back under its name.
    losses: Mutex<BTreeMap<(String, String), Losses>>,
    /// Polls for jobs that are open here.
    polls: Mutex<BTreeMap<(String, String), usize>>,
}

/// A poll for jobs, open as long as this lives.
#[derive(Debug)]
pub(super) struct OpenPoll<'a> {
    registry: &'a WorkerRegistry,
    worker: (String, String),
}

impl Drop for OpenPoll<'_> {
    fn drop(&mut self) {
        let mut polls = self.registry.polls();
        if let Some(open) = polls.get_mut(&self.worker) {
            *open -= 1;
            if *open == 0 {
                polls.remove(&self.worker);
            }
        }
    }
}

/// What a gateway has seen of a worker, as others read it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct SharedWorkerView {
    worker: Option<Worker>,
    losses: Losses,
}

/// Jobs that a worker lost since it last brought one to an end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Losses {
    dates: Vec<UnixTime>,
    /// When it last brought one, if it had lost some.
    brought: Option<UnixTime>,
}

/// What is known of a worker.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Worker {
    /// When it last asked for anything.
    seen: Option<UnixTime>,
    /// Whether it has ever asked for jobs.
    asked: bool,
    /// Whether it has ever sent a heartbeat: one that has not may be silent because it works.
    #[serde(rename = "beats")]
    sends_heartbeats: bool,
    version: String,
    /// Until when several workers count as having its id: what one of them has in hand, another knows nothing of.
    #[serde(default)]
    shared_id_until: Option<UnixTime>,
    /// Why it cannot work, if it said so.
    unfit: Option<String>,
    /// Until when it gets no job.
    banned: Option<UnixTime>,
    /// When other gateways were told of it.
    #[serde(skip)]
    shown: Option<UnixTime>,
}

/// A sign of life.
#[derive(Debug, Clone, Copy)]
pub(super) enum WorkerSignal<'a> {
    /// It asks for jobs.
    JobPoll,
    /// It asks what to stop.
    StopPoll,
    /// A heartbeat, with the version that it tells.
    Heartbeat(&'a str),
    /// It says that it cannot work.
    Unfit(&'a str),
}

/// How many workers are in which state, as `/health` has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct WorkerCounts {
    pub(super) initializing: u64,
    pub(super) idle: u64,
    pub(super) running: u64,
    pub(super) unhealthy: u64,
}

impl WorkerRegistry {
    /// Where a job without a sign is lost after so long. A worker is gone in three quarters of that, so that one whose heartbeats are to be
    /// further apart, for which `gateway.lost` is set, is not gone between two.
    pub(super) fn new(lost_after: Duration) -> Self {
        let (workers, losses, polls) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { gone_after: MIN_GONE_AFTER.max(lost_after / 4 * 3), workers, losses, polls }
    }

    fn workers(&self) -> MutexGuard<'_, BTreeMap<(String, String), Worker>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a sign of life. Returns whether others should hear of the worker: of what is new, and now and then that it lives.
    pub(super) fn record(&self, endpoint: &str, worker: &str, sign: WorkerSignal<'_>, now: UnixTime) -> bool {
        let mut workers = self.workers();
        let worker = workers.entry((endpoint.to_owned(), worker.to_owned())).or_default();
        worker.seen = Some(now);
        let new = match sign {
            WorkerSignal::JobPoll => !replace(&mut worker.asked, true),
            WorkerSignal::StopPoll => false,
            WorkerSignal::Heartbeat(version) => {
                version.clone_into(&mut worker.version);
                !replace(&mut worker.sends_heartbeats, true)
            }
            WorkerSignal::Unfit(why) => worker.unfit.replace(why.to_owned()).is_none(),
        };
        let show = new || worker.shown.is_none_or(|shown| shown.until(now) >= SHARE_INTERVAL);
        if show {
            worker.shown = Some(now);
        }
        show
    }

    fn polls(&self) -> MutexGuard<'_, BTreeMap<(String, String), usize>> {
        self.polls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It polls for jobs; a worker has one poll at a time. Returns also whether another is open, so that several have its id.
    pub(super) fn polls_for_jobs(&self, endpoint: &str, worker: &str) -> (OpenPoll<'_>, bool) {
        let key = (endpoint.to_owned(), worker.to_owned());
        let others = {
            let mut polls = self.polls();
            let open = polls.entry(key.clone()).or_default();
            replace(open, *open + 1)
        };
        (OpenPoll { registry: self, worker: key }, others > 0)
    }

    /// Several are seen to have its id. Returns whether that is new.
    pub(super) fn mark_shared_id(&self, endpoint: &str, worker: &str, now: UnixTime) -> bool {
        let mut workers = self.workers();
        let worker = workers.entry((endpoint.to_owned(), worker.to_owned())).or_default();
        let new = !worker.has_shared_id(now);
        worker.shared_id_until = Some(now + SHARED_ID_TIME);
        new
    }

    /// Whether several have its id, so that what one of them does not name another may well have.
    pub(super) fn has_shared_id(&self, endpoint: &str, worker: &str, now: UnixTime) -> bool {
        let workers = self.workers();
        workers.get(&(endpoint.to_owned(), worker.to_owned())).is_some_and(|worker| worker.has_shared_id(now))
    }

    /// The workers of an endpoint.
    pub(super) fn ids(&self, endpoint: &str) -> Vec<String> {
        self.workers().keys().filter(|(of, _)| of == endpoint).map(|(_, id)| id.clone()).collect()
    }

    /// The ids of an endpoint that several workers have.
    pub(super) fn shared_ids(&self, endpoint: &str, now: UnixTime) -> Vec<String> {
        let workers = self.workers();
        workers
            .iter()
            .filter(|((of, _), worker)| of == endpoint && worker.has_shared_id(now))
            .map(|((_, id), _)| id.clone())
            .collect()
    }

    /// It gets no more jobs.
    pub(super) fn ban(&self, endpoint: &str, worker: &str, now: UnixTime) {
        let mut workers = self.workers();
        let worker = workers.entry((endpoint.to_owned(), worker.to_owned())).or_default();
        // What it is banned for, it has just brought.
        (worker.seen, worker.banned) = (Some(now), Some(now + BAN_TIME));
    }

    /// It has lost a job.
    pub(super) fn job_lost(&self, endpoint: &str, worker: &str, now: UnixTime) {
        let mut losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
        losses.retain(|_, losses| !losses.is_over(now));
        losses.entry((endpoint.to_owned(), worker.to_owned())).or_default().dates.push(now);
    }

    /// It has brought one to an end. Returns whether that matters, as it had lost some.
    pub(super) fn job_done(&self, endpoint: &str, worker: &str, now: UnixTime) -> bool {
        let mut losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(losses) = losses.get_mut(&(endpoint.to_owned(), worker.to_owned())) else { return false };
        let matters = !losses.dates.is_empty();
        if matters {
            *losses = Losses { dates: Vec::new(), brought: Some(now) };
        }
        matters
    }

    /// What this gateway knows of a worker, for others; `None` if nothing.
    pub(super) fn export(&self, endpoint: &str, worker: &str) -> Option<String> {
        let key = (endpoint.to_owned(), worker.to_owned());
        let losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let worker = self.workers().get(&key).cloned();
        let known = worker.is_some() || losses.is_some();
        known
            .then(|| SharedWorkerView { worker, losses: losses.unwrap_or_default() })
            .and_then(|seen| serde_json::to_string(&seen).ok())
    }

    /// Takes in what another gateway knows of a worker. Returns whether it is still of use.
    pub(super) fn merge(&self, endpoint: &str, worker: &str, view: &str, now: UnixTime) -> bool {
        let Ok(SharedWorkerView { worker: seen, losses: lost }) = serde_json::from_str::<SharedWorkerView>(view) else {
            return true;
        };
        let key = (endpoint.to_owned(), worker.to_owned());
        let (lives, loses) = (seen.filter(|worker| !worker.is_silent(now, self.gone_after)), !lost.is_over(now));
        let of_use = lives.is_some() || loses;
        if let Some(lives) = lives {
            self.workers().entry(key.clone()).or_default().merge(lives);
        }
        if loses {
            self.losses.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().merge(lost);
        }
        of_use
    }

    /// Whether it crashes with every job that it gets.
    fn is_crashing(&self, endpoint: &str, worker: &str, now: UnixTime) -> bool {
        let losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
        let losses = losses.get(&(endpoint.to_owned(), worker.to_owned()));
        losses.is_some_and(|losses| losses.dates.iter().filter(|date| date.until(now) < BAN_TIME).count() >= MAX_LOSSES)
    }

    /// Whether it may have jobs.
    pub(super) fn may_take_jobs(&self, endpoint: &str, worker: &str, now: UnixTime) -> bool {
        if self.is_crashing(endpoint, worker, now) {
            return false;
        }
        let workers = self.workers();
        let worker = workers.get(&(endpoint.to_owned(), worker.to_owned()));
        worker.is_none_or(|worker| worker.unfit.is_none() && worker.banned.is_none_or(|until| until <= now))
    }

    /// Whether it is to be believed when it says that it has nothing in hand.
    pub(super) fn reports_job_count(&self, endpoint: &str, worker: &str) -> bool {
        let workers = self.workers();
        let version = workers.get(&(endpoint.to_owned(), worker.to_owned())).map(|worker| version(&worker.version));
        version.flatten().is_some_and(|version| version >= FIRST_RELIABLE_SDK)
    }

    /// Whether it sends heartbeats.
    pub(super) fn sends_heartbeats(&self, endpoint: &str, worker: &str) -> bool {
        self.workers().get(&(endpoint.to_owned(), worker.to_owned())).is_some_and(|worker| worker.sends_heartbeats)
    }

    /// Workers that have not been heard of for so long that they may be gone, endpoint and id.
    pub(super) fn silent(&self, now: UnixTime) -> Vec<(String, String)> {
        let workers = self.workers();
        workers
            .iter()
            .filter(|(_, worker)| worker.is_silent(now, self.gone_after))
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Takes a worker off the list if it is gone: still silent, and not one that may be silent because it works. Returns whether it was.
    pub(super) fn forget(&self, endpoint: &str, worker: &str, holds: bool, now: UnixTime) -> bool {
        let (mut workers, key) = (self.workers(), (endpoint.to_owned(), worker.to_owned()));
        let gone = workers
            .get(&key)
            .is_some_and(|worker| worker.is_silent(now, self.gone_after) && (worker.sends_heartbeats || !holds));
        if gone {
            workers.remove(&key);
        }
        gone
    }

    /// How many workers of an endpoint are in which state.
    pub(super) fn counts(&self, endpoint: &str, holds: impl Fn(&str) -> bool, now: UnixTime) -> WorkerCounts {
        let mut classes = WorkerCounts::default();
        for ((of, id), worker) in &*self.workers() {
            match worker {
                _ if of != endpoint => {}
                Worker { unfit: Some(_), .. } => classes.unhealthy += 1,
                _ if self.is_crashing(endpoint, id, now) => classes.unhealthy += 1,
                _ if holds(id) => classes.running += 1,
                Worker { asked: false, .. } => classes.initializing += 1,
                _ => classes.idle += 1,
            }
        }
        classes
    }
}

impl Losses {
    fn is_over(&self, now: UnixTime) -> bool {
        self.dates.iter().chain(&self.brought).all(|date| date.until(now) >= BAN_TIME)
    }

    /// Those that either knows of, since the last that was brought.
    fn merge(&mut self, other: Self) {
        self.brought = self.brought.max(other.brought);
        self.dates.extend(other.dates);
        self.dates.retain(|date| self.brought.is_none_or(|brought| brought < *date));
        self.dates.sort();
        self.dates.dedup();
    }
}

impl Worker {
    /// What either has seen is so; of two versions, the later.
    fn merge(&mut self, other: Self) {
        if other.seen > self.seen && !other.version.is_empty() {
            self.version = other.version;
        }
        self.seen = self.seen.max(other.seen);
        self.banned = self.banned.max(other.banned);
        self.asked |= other.asked;
        self.sends_heartbeats |= other.sends_heartbeats;
        self.shared_id_until = self.shared_id_until.max(other.shared_id_until);
        self.unfit = self.unfit.take().or(other.unfit);
    }

    fn has_shared_id(&self, now: UnixTime) -> bool {
        self.shared_id_until.is_some_and(|until| now < until)
    }

    fn is_silent(&self, now: UnixTime, gone_after: Duration) -> bool {
        self.seen.is_none_or(|seen| seen.until(now) >= gone_after)
    }
}

/// The Python SDK's version; none of other workers.
fn version(text: &str) -> Option<[u32; 3]> {
    let mut parts = text.split('.').map(|part| part.parse().ok());
    Some([parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixTime = UnixTime::from_millis(1_000_000);

    fn at(seconds: u64) -> UnixTime {
        START + Duration::from_secs(seconds)
    }

    #[test]
    fn a_silent_worker_is_gone_unless_it_may_be_busy() {
        let registry = WorkerRegistry::new(Duration::ZERO);
        registry.record("e", "beats", WorkerSignal::Heartbeat("1.12.0"), at(0));
        registry.record("e", "works", WorkerSignal::JobPoll, at(0));
        registry.record("e", "lives", WorkerSignal::StopPoll, at(1));
        assert!(registry.silent(at(29)).is_empty());
        assert_eq!(registry.silent(at(30)), ["beats", "works"].map(|worker| ("e".to_owned(), worker.to_owned())));
        assert!(registry.forget("e", "beats", true, at(30)) && !registry.forget("e", "works", true, at(30)));
        assert!(
            !registry.forget("e", "lives", false, at(30)) && !registry.forget("e", "beats", false, at(99)),
            "heard of; gone before"
        );
        assert!(registry.forget("e", "works", false, at(30)), "it holds nothing any more");
    }

    #[test]
    fn who_polls_twice_at_once_is_several() {
        let (registry, other) = (WorkerRegistry::new(Duration::ZERO), WorkerRegistry::new(Duration::ZERO));
        let (one, first) = registry.polls_for_jobs("e", "w");
        drop(one);
        let (one, second) = registry.polls_for_jobs("e", "w");
        assert!(!first && !second, "one after the other");
        assert!(!registry.polls_for_jobs("e", "v").1 && !registry.polls_for_jobs("f", "w").1);
        assert!(registry.polls_for_jobs("e", "w").1);
        drop(one);
        assert!(!registry.polls_for_jobs("e", "w").1);
        assert!(registry.polls().is_empty());
        assert!(
            registry.mark_shared_id("e", "w", at(0)) && !registry.mark_shared_id("e", "w", at(9)),
            "that is known by then"
        );
        let shared = |endpoint| registry.shared_ids(endpoint, at(9));
        assert_eq!((shared("e"), shared("f")), (vec!["w".to_owned()], vec![]));
        registry.record("e", "w", WorkerSignal::JobPoll, at(9));
        other.merge("e", "w", &registry.export("e", "w").unwrap(), at(9));
        assert!(other.has_shared_id("e", "w", at(608)) && !other.has_shared_id("e", "w", at(609)));
        assert!(registry.forget("e", "w", false, at(39)), "and those are gone");
        assert!(!registry.has_shared_id("e", "w", at(39)));
    }

    #[test]
    fn an_id_that_only_one_worker_has_any_longer_is_trusted_again() {
        let registry = WorkerRegistry::new(Duration::ZERO);
        registry.mark_shared_id("e", "w", at(0));
        registry.mark_shared_id("e", "w", at(300));
        assert!(registry.has_shared_id("e", "w", at(899)) && registry.shared_ids("e", at(899)) == ["w"]);
        assert!(!registry.has_shared_id("e", "w", at(900)) && registry.shared_ids("e", at(900)).is_empty());
        assert!(registry.mark_shared_id("e", "w", at(900)), "which is new again");
    }

    #[test]
    fn what_gateways_of_other_versions_say_of_a_worker_is_understood() {
        let registry = WorkerRegistry::new(Duration::ZERO);
        let before = r#"{"worker":{"seen":1000000,"asked":true,"beats":true,"version":"1.12.0","several":true,"unfit":null,"banned":null},
            "losses":{"dates":[],"brought":null}}"#;
        assert!(registry.merge("e", "w", before, at(0)));
        assert!(registry.sends_heartbeats("e", "w") && !registry.has_shared_id("e", "w", at(0)));
    }

    #[test]
    fn who_is_to_be_restarted_gets_nothing() {
        let registry = WorkerRegistry::new(Duration::ZERO);
        assert!(registry.may_take_jobs("e", "w", at(0)));
        registry.ban("e", "w", at(0));
        assert!(
            !registry.may_take_jobs("e", "w", at(599))
                && registry.may_take_jobs("e", "w", at(600))
                && registry.may_take_jobs("f", "w", at(1))
        );
        registry.record("e", "v", WorkerSignal::Unfit("no memory"), at(0));
        assert!(!registry.may_take_jobs("e", "v", at(9999)));
    }

    #[test]
    fn only_newer_sdks_count_rightly() {
        let registry = WorkerRegistry::new(Duration::ZERO);
        for (version, counts) in [
            ("1.12.0", true),
            ("1.10.1", true),
            ("1.10.0", false),
            ("2.0", true),
            ("latentd/0.1.0", false),
            ("", false),
        ] {
            registry.record("e", "w", WorkerSignal::Heartbeat(version), at(0));
            assert_eq!(registry.reports_job_count("e", "w"), counts, "{version}");
        }
        assert!(!registry.reports_job_count("e", "unknown"));
    }

    #[test]
    fn health_tells_them_apart() {
        let registry = WorkerRegistry::new(Duration::ZERO);
        registry.record("e", "new", WorkerSignal::Heartbeat("1.12.0"), at(0));
        registry.record("e", "idle", WorkerSignal::JobPoll, at(0));
        registry.record("e", "busy", WorkerSignal::JobPoll, at(0));
        registry.record("e", "ill", WorkerSignal::Unfit("x"), at(0));
        registry.record("f", "other", WorkerSignal::JobPoll, at(0));
        let classes = registry.counts("e", |worker| worker == "busy", at(0));
        assert_eq!(classes, WorkerCounts { initializing: 1, idle: 1, running: 1, unhealthy: 1 });
    }

    #[test]
    fn who_crashes_with_every_job_gets_no_more_for_a_while() {
        let registry = WorkerRegistry::new(Duration::ZERO);
        registry.record("e", "w", WorkerSignal::JobPoll, at(0));
        for second in [0, 100] {
            registry.job_lost("e", "w", at(second));
        }
        assert!(registry.may_take_jobs("e", "w", at(100)));
        registry.job_lost("e", "w", at(200));
        assert!(!registry.may_take_jobs("e", "w", at(200)) && registry.may_take_jobs("f", "w", at(200)));
        assert_eq!(registry.counts("e", |_| false, at(200)).unhealthy, 1);
        assert!(registry.may_take_jobs("e", "w", at(600)), "the first is long ago");
        registry.job_lost("e", "w", at(610));
        assert!(!registry.may_take_jobs("e", "w", at(610)));
        assert!(registry.job_done("e", "w", at(610)) && !registry.job_done("e", "w", at(610)));
        assert!(registry.may_take_jobs("e", "w", at(610)));
    }

    #[test]
    fn what_gateways_see_of_a_worker_adds_up() {
        let (one, other) = (WorkerRegistry::new(Duration::ZERO), WorkerRegistry::new(Duration::ZERO));
        let hears = |from: &WorkerRegistry, to: &WorkerRegistry, seconds| {
            to.merge("e", "w", &from.export("e", "w").unwrap(), at(seconds))
        };
        assert!(one.export("e", "w").is_none());
        assert!(
            one.record("e", "w", WorkerSignal::Heartbeat("1.12.0"), at(0))
                && !one.record("e", "w", WorkerSignal::StopPoll, at(8))
        );
        assert!(one.record("e", "w", WorkerSignal::JobPoll, at(8)), "it is news");
        assert!(hears(&one, &other, 8));
        assert_eq!(other.counts("e", |_| false, at(8)).idle, 1);
        assert!(other.reports_job_count("e", "w"));
        one.ban("e", "w", at(9));
        assert!(hears(&one, &other, 9) && !other.may_take_jobs("e", "w", at(9)));
        one.ban("e", "other", at(9));
        assert!(
            other.merge("e", "other", &one.export("e", "other").unwrap(), at(9))
                && !other.may_take_jobs("e", "other", at(9))
        );
        // It is heard of there, so it is not gone here; and a silent one is gone everywhere, its ban with it.
        other.record("e", "w", WorkerSignal::StopPoll, at(30));
        assert!(hears(&other, &one, 30) && one.silent(at(59)) == [("e".to_owned(), "other".to_owned())]);
        assert!(one.forget("e", "w", false, at(60)) && !hears(&other, &one, 60) && one.may_take_jobs("e", "w", at(60)));
    }

    #[test]
    fn losses_at_several_gateways_add_up_until_one_is_brought_anywhere() {
        let (one, other) = (WorkerRegistry::new(Duration::ZERO), WorkerRegistry::new(Duration::ZERO));
        one.job_lost("e", "w", at(0));
        other.job_lost("e", "w", at(1));
        other.job_lost("e", "w", at(2));
        for _ in 0..2 {
            assert!(one.merge("e", "w", &other.export("e", "w").unwrap(), at(3)));
        }
        assert!(!one.may_take_jobs("e", "w", at(3)) && other.may_take_jobs("e", "w", at(3)));
        assert!(other.job_done("e", "w", at(4)));
        let stale = one.export("e", "w").unwrap();
        assert!(one.merge("e", "w", &other.export("e", "w").unwrap(), at(5)) && one.may_take_jobs("e", "w", at(5)));
        other.merge("e", "w", &stale, at(5));
        assert!(!other.job_done("e", "w", at(5)), "what is over stays over");
        assert!(!one.merge("e", "w", &stale, at(602)), "long ago");
    }
}
