//! Several models, on several devices: engines are started when a job first asks for them, and end when others need their room.
//!
//! A model has one engine a device, and a job goes to the engine with the fewest jobs in hand. What the models in memory need together
//! stays within a budget: who has not been asked for the longest goes first, when its jobs are done; its new ones wait for their turn.
//!
//! A load belongs to the pool and not to the job that asked for it: it goes on when that job is stopped, and who asks next finds its engines.
//! One that failed is not tried again for a while, so that others do not make room for it again and again.

use std::borrow::Borrow;
use std::fmt::{self, Debug, Formatter};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, OwnedMutexGuard, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{error, info};

use super::host::{Host, HostError};
use crate::blocking::caught;

/// After a load that failed, before the next; twice as long after each that fails again, up to [`LONGEST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_mins(1);
const LONGEST_RETRY: Duration = Duration::from_hours(1);

/// A model that can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSpec {
    /// What jobs call it.
    pub name: String,
    /// Bytes that its engine takes on each device.
    pub bytes: u64,
}

/// Starts the engines of the model of this name, one a device.
pub type StartEngines =
    dyn Fn(String) -> Pin<Box<dyn Future<Output = Result<Vec<Host>, HostError>> + Send>> + Send + Sync;

/// Says why the model of this name cannot be loaded, as far as a look at its files tells. Blocks.
pub type Inspect = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// Engines, by model.
pub struct EnginePool {
    inner: Arc<Inner>,
    /// Loads, whether somebody waits for them or not. They end with the pool.
    loads: StdMutex<JoinSet<()>>,
}

/// What loads share.
struct Inner {
    start: Box<StartEngines>,
    inspect: Option<Arc<Inspect>>,
    /// Bytes on each device for all models together; `None` is no limit.
    budget: Option<u64>,
    slots: Vec<Arc<ModelSlot>>,
    /// Held by who makes room and loads: two at once would count on the same room.
    loading: Mutex<()>,
    /// Told whenever a job lets go of its engine.
    freed: Arc<Notify>,
}

/// Where a model's engines are, if it has any now.
struct ModelSlot {
    spec: ModelSpec,
    /// Jobs wait here while the model loads, or while it ends.
    engines: Arc<Mutex<Vec<Arc<Host>>>>,
    history: StdMutex<History>,
}

/// A model's engines, which no other task takes or ends meanwhile.
type EnginesGuard = OwnedMutexGuard<Vec<Arc<Host>>>;

/// What became of a model so far.
#[derive(Default)]
struct History {
    /// When it was last asked for; `None` while it has no engines.
    used: Option<Instant>,
    /// How often it was loaded.
    loads: u64,
    /// Why its last load failed, if it did.
    failed: Option<FailedLoad>,
}

struct FailedLoad {
    why: String,
    at: Instant,
    /// Until it is tried again.
    pause: Duration,
}

/// An engine for one job, which does not end before this is dropped.
pub struct Lease {
    // Dropped before the notice: who is notified finds the engine free.
    host: Arc<Host>,
    _freed: NotifyOnDrop,
    waited: Duration,
}

/// Notifies one waiter when it is dropped.
struct NotifyOnDrop(Arc<Notify>);

impl EnginePool {
    /// A pool of the models `specs`, none of them loaded.
    pub fn new(specs: Vec<ModelSpec>, budget: Option<u64>, start: Box<StartEngines>) -> Self {
        let slot = |spec| Arc::new(ModelSlot { spec, engines: Arc::default(), history: StdMutex::default() });
        let slots = specs.into_iter().map(slot).collect();
        let inner = Inner { start, inspect: None, budget, slots, loading: Mutex::default(), freed: Arc::default() };
        Self { inner: Arc::new(inner), loads: StdMutex::default() }
    }

    /// The same, and `inspect`s at a model before others make room for it.
    #[must_use]
    pub fn with_inspection(mut self, inspect: Arc<Inspect>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.inspect = Some(inspect);
        }
        self
    }

    /// An engine of the model `name`, the one with the fewest jobs in hand; waits until it is loaded.
    ///
    /// # Errors
    /// [`HostError::Build`] if there is no such model, or it cannot be loaded, or could not a while ago.
    pub async fn engine(&self, name: &str) -> Result<Lease, HostError> {
        let (engines, waited) = self.loaded(name).await?;
        let host = engines.iter().min_by_key(|host| Arc::strong_count(host)).ok_or(HostError::Stopped)?;
        Ok(self.lease(host, waited))
    }

    /// Every engine of the model `name`, one a device; waits until they are loaded.
    ///
    /// # Errors
    /// As for [`EnginePool::engine`].
    pub async fn engines(&self, name: &str) -> Result<Vec<Lease>, HostError> {
        let (engines, waited) = self.loaded(name).await?;
        Ok(engines.iter().map(|host| self.lease(host, waited)).collect())
    }

    fn lease(&self, host: &Arc<Host>, waited: Duration) -> Lease {
        Lease { host: Arc::clone(host), _freed: NotifyOnDrop(Arc::clone(&self.inner.freed)), waited }
    }

    /// The engines of the model `name`, loaded, and how long a load was waited for.
    async fn loaded(&self, name: &str) -> Result<(EnginesGuard, Duration), HostError> {
        let asked = Instant::now();
        let slot = self.inner.slots.iter().find(|slot| slot.spec.name == name);
        let slot = slot.ok_or_else(|| HostError::Build(format!("there is no model {name:?}")))?;
        let loads = slot.history().loads;
        let mut engines = Arc::clone(&slot.engines).lock_owned().await;
        if engines.is_empty() {
            engines = self.load(slot, engines).await?;
        }
        let mut history = slot.history();
        history.used = Some(Instant::now());
        let waited = if history.loads == loads { Duration::ZERO } else { asked.elapsed() };
        Ok((engines, waited))
    }

    /// Has the model loaded by a task that goes on if this is dropped.
    async fn load(&self, slot: &Arc<ModelSlot>, engines: EnginesGuard) -> Result<EnginesGuard, HostError> {
        if let Some(failed) = slot.history().failed.as_ref().and_then(FailedLoad::refusal) {
            return Err(failed);
        }
        let (tell, told) = oneshot::channel();
        let (inner, slot) = (Arc::clone(&self.inner), Arc::clone(slot));
        {
            let mut loads = self.loads();
            // Those that ended were heard, or no one asks.
            while loads.try_join_next().is_some() {}
            loads.spawn(async move {
                let loaded = inner.load(&slot, engines).await;
                // If no job waits for it, the next that asks finds it.
                let _ = tell.send(loaded);
            });
        }
        told.await.unwrap_or_else(|_| Err(HostError::Build("the load was broken off".into())))
    }

    fn loads(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Makes room for a model and starts its engines.
    async fn load(&self, slot: &ModelSlot, mut engines: EnginesGuard) -> Result<EnginesGuard, HostError> {
        match self.hosts(&slot.spec).await {
            Ok(hosts) => {
                engines.extend(hosts.into_iter().map(Arc::new));
                let mut history = slot.history();
                *history = History { used: Some(Instant::now()), loads: history.loads + 1, failed: None };
                Ok(engines)
            }
            Err(cause) => {
                let model = &slot.spec.name;
                let failed = FailedLoad::after(slot.history().failed.as_ref(), cause.to_string());
                error!(model, "the model cannot be loaded, and is not tried again for {:?}: {cause}", failed.pause);
                slot.history().failed = Some(failed);
                Err(cause)
            }
        }
    }

    async fn hosts(&self, spec: &ModelSpec) -> Result<Vec<Host>, HostError> {
        // No model makes room for one that cannot be loaded.
        self.inspect(&spec.name).await?;
        let _loading = self.loading.lock().await;
        self.make_room(spec).await;
        (self.start)(spec.name.clone()).await
    }

    async fn inspect(&self, name: &str) -> Result<(), HostError> {
        let Some(inspect) = self.inspect.clone() else { return Ok(()) };
        let name = name.to_owned();
        let seen = caught(move || inspect(&name)).await;
        seen.unwrap_or_else(|| Err("the look at its files met a bug in itself; the log has more".into()))
            .map_err(HostError::Build)
    }

    /// Ends models until `spec` fits into the budget; one that never fits is alone then.
    async fn make_room(&self, spec: &ModelSpec) {
        let Some(budget) = self.budget else { return };
        loop {
            let loaded: Vec<(Instant, &Arc<ModelSlot>)> =
                self.slots.iter().filter_map(|slot| Some((slot.history().used?, slot))).collect();
            let taken: u64 = loaded.iter().map(|(_, slot)| slot.spec.bytes).sum();
            let oldest = loaded.into_iter().min_by_key(|(used, _)| *used);
            match oldest {
                Some((_, slot)) if taken + spec.bytes > budget => {
                    info!(model = slot.spec.name, successor = spec.name, "the model makes room");
                    self.end(slot).await;
                }
                _ => return,
            }
        }
    }

    /// Ends the engines of a model when its jobs are done, and waits until their memory is free.
    async fn end(&self, slot: &ModelSlot) {
        let mut engines = slot.engines.lock().await;
        while engines.iter().any(|host| Arc::strong_count(host) > 1) {
            // A notice between the look and the wait is kept by `Notify`.
            self.freed.notified().await;
        }
        slot.history().used = None;
        for host in engines.drain(..).filter_map(Arc::into_inner) {
            host.end().await;
        }
    }
}

impl ModelSlot {
    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FailedLoad {
    fn after(last: Option<&Self>, why: String) -> Self {
        let pause = last.map_or(FIRST_RETRY, |last| (last.pause * 2).min(LONGEST_RETRY));
        Self { why, at: Instant::now(), pause }
    }

    /// What who asks now is told; `None` if it is time to try again.
    fn refusal(&self) -> Option<HostError> {
        let left = self.pause.checked_sub(self.at.elapsed()).filter(|left| !left.is_zero())?;
        Some(HostError::Build(format!("{}; it is not tried again for {} s", self.why, left.as_secs())))
    }
}

impl Lease {
    /// How long a load of the engine was waited for; zero where it was there.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl Borrow<Host> for Lease {
    fn borrow(&self) -> &Host {
        &self.host
    }
}

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Debug for EnginePool {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let specs = self.inner.slots.iter().map(|slot| &slot.spec);
        f.debug_struct("EnginePool").field("specs", &specs.collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

impl Debug for Lease {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("host", &self.host).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;
    use tokio::time::{advance, timeout};

    use super::*;
    use crate::engine::fake::Fake;

    /// What loads do that a test sees or decides on.
    #[derive(Clone)]
    struct Loads {
        begun: Arc<AtomicUsize>,
        /// Each load of `slow` waits for one more.
        pace: Arc<Semaphore>,
    }

    impl Loads {
        fn begun(&self) -> usize {
            self.begun.load(Ordering::SeqCst)
        }
    }

    /// Models of 4 bytes each, `devices` engines a model.
    fn new(names: &[&str], budget: Option<u64>, devices: usize) -> (EnginePool, Loads) {
        let specs = names.iter().map(|name| ModelSpec { name: (*name).to_owned(), bytes: 4 }).collect();
        let loads = Loads { begun: Arc::default(), pace: Arc::new(Semaphore::new(0)) };
        let told = loads.clone();
        let start: Box<StartEngines> = Box::new(move |name| {
            let loads = told.clone();
            loads.begun.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                if name == "slow" {
                    loads.pace.acquire().await.unwrap().forget();
                }
                let mut hosts = Vec::new();
                for _ in 0..devices {
                    let broken = name == "broken";
                    let build = move || if broken { Err("no weights") } else { Ok(Fake::default()) };
                    hosts.push(Host::start("engine-test", build).await?);
                }
                Ok(hosts)
            })
        });
        (EnginePool::new(specs, budget, start), loads)
    }

    fn pool(names: &[&str], budget: Option<u64>, devices: usize) -> (Arc<EnginePool>, Loads) {
        let (pool, loads) = new(names, budget, devices);
        (Arc::new(pool), loads)
    }

    fn loaded(pool: &EnginePool) -> Vec<&str> {
        let loaded = pool.inner.slots.iter().filter(|slot| slot.history().used.is_some());
        loaded.map(|slot| slot.spec.name.as_str()).collect()
    }

    #[tokio::test]
    async fn a_model_is_loaded_once_and_when_it_is_asked_for() {
        let (pool, loads) = pool(&["a", "b"], None, 1);
        assert_eq!(loaded(&pool), [""; 0]);
        let mut jobs = JoinSet::new();
        for _ in 0..8 {
            let pool = Arc::clone(&pool);
            jobs.spawn(async move { pool.engine("a").await.unwrap() });
        }
        assert!(jobs.join_all().await.iter().all(|lease| !lease.waited().is_zero()));
        assert_eq!((loaded(&pool), loads.begun()), (vec!["a"], 1));
        assert_eq!(pool.engine("a").await.unwrap().waited(), Duration::ZERO, "it was there");
        assert!(!pool.engine("b").await.unwrap().waited().is_zero());
        assert_eq!(loaded(&pool), ["a", "b"]);
    }

    #[tokio::test]
    async fn jobs_spread_over_the_devices() {
        let (pool, _) = pool(&["a"], None, 3);
        let [first, second, third] =
            [pool.engine("a").await.unwrap(), pool.engine("a").await.unwrap(), pool.engine("a").await.unwrap()];
        let at = |lease: &Lease| Arc::as_ptr(&lease.host);
        let freed = at(&second);
        assert!(at(&first) != freed && freed != at(&third) && at(&first) != at(&third));
        drop(second);
        assert_eq!(at(&pool.engine("a").await.unwrap()), freed, "the others have a job");
    }

    #[tokio::test]
    async fn the_one_not_asked_for_the_longest_makes_room() {
        let (pool, loads) = pool(&["a", "b", "c"], Some(8), 1);
        for name in ["a", "b", "a", "c"] {
            pool.engine(name).await.unwrap();
        }
        assert_eq!(loaded(&pool), ["a", "c"]);
        pool.engine("b").await.unwrap();
        assert_eq!((loaded(&pool), loads.begun()), (vec!["b", "c"], 4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_with_jobs_ends_after_them_and_its_new_jobs_wait() {
        let (pool, loads) = pool(&["a", "b"], Some(4), 1);
        let job = pool.engine("a").await.unwrap();
        let mut waiting = JoinSet::new();
        for name in ["b", "a"] {
            let there = Arc::clone(&pool);
            waiting.spawn(async move { drop(there.engine(name).await.unwrap()) });
            // One comes after the other, and the second when the first has the model.
            while name == "b" && pool.inner.slots[0].engines.try_lock().is_ok() {
                tokio::task::yield_now().await;
            }
        }
        assert!(timeout(Duration::from_mins(1), waiting.join_next()).await.is_err(), "nobody is thrown out");
        assert_eq!(loaded(&pool), ["a"]);
        drop(job);
        waiting.join_all().await;
        assert_eq!((loaded(&pool), loads.begun()), (vec!["a"], 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_outlives_the_job_that_asked_for_it() {
        let (pool, loads) = pool(&["slow"], None, 1);
        for _ in 0..3 {
            assert!(timeout(Duration::from_secs(5), pool.engine("slow")).await.is_err(), "it is not there yet");
        }
        loads.pace.add_permits(1);
        let late = pool.engine("slow").await.unwrap();
        assert_eq!((loads.begun(), loaded(&pool)), (1, vec!["slow"]));
        assert!(late.waited() < Duration::from_secs(1), "{:?}", late.waited());
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_ends_with_the_fleet() {
        let (pool, loads) = pool(&["slow"], None, 1);
        assert!(timeout(Duration::from_secs(5), pool.engine("slow")).await.is_err());
        let inner = Arc::downgrade(&pool.inner);
        drop(pool);
        while inner.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
        assert_eq!(loads.begun(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_that_does_not_load_says_why_and_is_tried_again_later() {
        let (pool, loads) = pool(&["broken", "a"], Some(4), 1);
        let why = async || match pool.engine("broken").await {
            Err(HostError::Build(why)) => why,
            other => format!("{other:?}"),
        };
        assert_eq!(why().await, "no weights");
        pool.engine("a").await.unwrap();
        for (minutes, begun) in [(0, 2), (1, 3), (1, 3), (1, 4), (3, 4), (1, 5)] {
            advance(Duration::from_mins(minutes)).await;
            assert!(why().await.starts_with("no weights"));
            assert_eq!(loads.begun(), begun);
        }
        assert!(why().await.ends_with("not tried again for 480 s"), "{}", why().await);
        assert!(matches!(pool.engine("none").await, Err(HostError::Build(_))));
    }

    #[tokio::test]
    async fn nobody_makes_room_for_what_cannot_be_loaded() {
        let (pool, loads) = new(&["a", "broken"], Some(4), 1);
        let inspect = |name: &str| if name == "broken" { Err("it broke off".to_owned()) } else { Ok(()) };
        let pool = pool.with_inspection(Arc::new(inspect));
        pool.engine("a").await.unwrap();
        let why = pool.engine("broken").await.unwrap_err();
        assert!(matches!(why, HostError::Build(why) if why == "it broke off"));
        assert_eq!((loaded(&pool), loads.begun()), (vec!["a"], 1));
    }
}
