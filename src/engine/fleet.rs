//! Several models, on several devices: engines are started when a job first asks for them, and end when others need their room.
//!
//! A model has one engine a device, and a job goes to the engine with the fewest jobs in hand. What the models in memory need together
//! stays within a budget: who has not been asked for the longest goes first, when its jobs are done; its new ones wait for their turn.
//!
//! A load is the fleet's and not the job's that asked for it: it goes on when that job is stopped, and who asks next finds its engines.
//! One that failed is not tried again for a while, so that others do not make room for it again and again.

use std::borrow::Borrow;
use std::fmt::{self, Debug, Formatter};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex as Cell, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, OwnedMutexGuard, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{error, info};

use super::host::{Host, HostError};
use crate::blocking::caught;

/// After a load that failed, before the next; twice as long after each that fails again, up to [`MOST`].
const PAUSE: Duration = Duration::from_mins(1);
const MOST: Duration = Duration::from_hours(1);

/// A model that can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What jobs call it.
    pub name: String,
    /// Bytes that its engine takes on each device.
    pub bytes: u64,
}

/// Starts the engines of the model of this name, one a device.
pub type Start = dyn Fn(String) -> Pin<Box<dyn Future<Output = Result<Vec<Host>, HostError>> + Send>> + Send + Sync;

/// Says why the model of this name cannot be loaded, as far as a look at its files tells. Blocks.
pub type Look = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// Engines, by model.
pub struct Fleet {
    harbour: Arc<Harbour>,
    /// Loads, whether somebody waits for them or not. They end with the fleet.
    loads: Cell<JoinSet<()>>,
}

/// What loads share.
struct Harbour {
    start: Box<Start>,
    look: Option<Arc<Look>>,
    /// Bytes on each device for all models together; `None` is no limit.
    budget: Option<u64>,
    berths: Vec<Arc<Berth>>,
    /// Held by who makes room and loads: two at once would count on the same room.
    loading: Mutex<()>,
    /// Told whenever a job lets go of its engine.
    freed: Arc<Notify>,
}

/// Where a model's engines are, if it has any now.
struct Berth {
    member: Member,
    /// Jobs wait here while the model loads, or while it ends.
    engines: Arc<Mutex<Vec<Arc<Host>>>>,
    log: Cell<Log>,
}

/// A model's engines, which nobody else takes or ends meanwhile.
type Engines = OwnedMutexGuard<Vec<Arc<Host>>>;

/// What became of a model so far.
#[derive(Default)]
struct Log {
    /// When it was last asked for; `None` while it has no engines.
    used: Option<Instant>,
    /// How often it was loaded.
    loads: u64,
    /// Why its last load failed, if it did.
    failed: Option<Failed>,
}

struct Failed {
    why: String,
    at: Instant,
    /// Until it is tried again.
    pause: Duration,
}

/// An engine for one job, which does not end before this is dropped.
pub struct Lease {
    // Before the bell: who hears that finds the engine free.
    host: Arc<Host>,
    _freed: Bell,
    waited: Duration,
}

/// Rings when it is dropped.
struct Bell(Arc<Notify>);

impl Fleet {
    /// A fleet of `members`, none of them loaded.
    pub fn new(members: Vec<Member>, budget: Option<u64>, start: Box<Start>) -> Self {
        let berth = |member| Arc::new(Berth { member, engines: Arc::default(), log: Cell::default() });
        let berths = members.into_iter().map(berth).collect();
        let harbour = Harbour { start, look: None, budget, berths, loading: Mutex::default(), freed: Arc::default() };
        Self { harbour: Arc::new(harbour), loads: Cell::default() }
    }

    /// The same, and `look`s at a model before others make room for it.
    #[must_use]
    pub fn looking(mut self, look: Arc<Look>) -> Self {
        if let Some(harbour) = Arc::get_mut(&mut self.harbour) {
            harbour.look = Some(look);
        }
        self
    }

    /// An engine of the model `name`, the one with the fewest jobs in hand; waits until it is loaded.
    ///
    /// # Errors
    /// [`HostError::Build`] if there is no such model, or it cannot be loaded, or could not a while ago.
    pub async fn engine(&self, name: &str) -> Result<Lease, HostError> {
        let (engines, waited) = self.aboard(name).await?;
        let host = engines.iter().min_by_key(|host| Arc::strong_count(host)).ok_or(HostError::Stopped)?;
        Ok(self.lease(host, waited))
    }

    /// Every engine of the model `name`, one a device; waits until they are loaded.
    ///
    /// # Errors
    /// As for [`Fleet::engine`].
    pub async fn engines(&self, name: &str) -> Result<Vec<Lease>, HostError> {
        let (engines, waited) = self.aboard(name).await?;
        Ok(engines.iter().map(|host| self.lease(host, waited)).collect())
    }

    fn lease(&self, host: &Arc<Host>, waited: Duration) -> Lease {
        Lease { host: Arc::clone(host), _freed: Bell(Arc::clone(&self.harbour.freed)), waited }
    }

    /// The engines of the model `name`, loaded, and how long a load was waited for.
    async fn aboard(&self, name: &str) -> Result<(Engines, Duration), HostError> {
        let asked = Instant::now();
        let berth = self.harbour.berths.iter().find(|berth| berth.member.name == name);
        let berth = berth.ok_or_else(|| HostError::Build(format!("there is no model {name:?}")))?;
        let loads = berth.log().loads;
        let mut engines = Arc::clone(&berth.engines).lock_owned().await;
        if engines.is_empty() {
            engines = self.load(berth, engines).await?;
        }
        let mut log = berth.log();
        log.used = Some(Instant::now());
        let waited = if log.loads == loads { Duration::ZERO } else { asked.elapsed() };
        Ok((engines, waited))
    }

    /// Has the model loaded by a task that goes on if this is dropped.
    async fn load(&self, berth: &Arc<Berth>, engines: Engines) -> Result<Engines, HostError> {
        if let Some(failed) = berth.log().failed.as_ref().and_then(Failed::lately) {
            return Err(failed);
        }
        let (tell, told) = oneshot::channel();
        let (harbour, berth) = (Arc::clone(&self.harbour), Arc::clone(berth));
        {
            let mut loads = self.loads();
            // Those that ended were heard, or nobody asks any more.
            while loads.try_join_next().is_some() {}
            loads.spawn(async move {
                let loaded = harbour.load(&berth, engines).await;
                // If nobody waits for it any more, who asks next finds it.
                let _ = tell.send(loaded);
            });
        }
        told.await.unwrap_or_else(|_| Err(HostError::Build("the load was broken off".into())))
    }

    fn loads(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Harbour {
    /// Makes room for a model and starts its engines.
    async fn load(&self, berth: &Berth, mut engines: Engines) -> Result<Engines, HostError> {
        match self.hosts(&berth.member).await {
            Ok(hosts) => {
                engines.extend(hosts.into_iter().map(Arc::new));
                let mut log = berth.log();
                *log = Log { used: Some(Instant::now()), loads: log.loads + 1, failed: None };
                Ok(engines)
            }
            Err(cause) => {
                let model = &berth.member.name;
                let failed = Failed::after(berth.log().failed.as_ref(), cause.to_string());
                error!(model, "the model cannot be loaded, and is not tried again for {:?}: {cause}", failed.pause);
                berth.log().failed = Some(failed);
                Err(cause)
            }
        }
    }

    async fn hosts(&self, member: &Member) -> Result<Vec<Host>, HostError> {
        // Nobody makes room for what cannot be loaded.
        self.look(&member.name).await?;
        let _loading = self.loading.lock().await;
        self.make_room(member).await;
        (self.start)(member.name.clone()).await
    }

    async fn look(&self, name: &str) -> Result<(), HostError> {
        let Some(look) = self.look.clone() else { return Ok(()) };
        let name = name.to_owned();
        let seen = caught(move || look(&name)).await;
        seen.unwrap_or_else(|| Err("the look at its files met a bug in itself; the log has more".into()))
            .map_err(HostError::Build)
    }

    /// Ends models until `member` fits into the budget; one that never fits is alone then.
    async fn make_room(&self, member: &Member) {
        let Some(budget) = self.budget else { return };
        loop {
            let loaded: Vec<(Instant, &Arc<Berth>)> =
                self.berths.iter().filter_map(|berth| Some((berth.log().used?, berth))).collect();
            let taken: u64 = loaded.iter().map(|(_, berth)| berth.member.bytes).sum();
            let oldest = loaded.into_iter().min_by_key(|(used, _)| *used);
            match oldest {
                Some((_, berth)) if taken + member.bytes > budget => {
                    info!(model = berth.member.name, successor = member.name, "the model makes room");
                    self.end(berth).await;
                }
                _ => return,
            }
        }
    }

    /// Ends the engines of a model when its jobs are done, and waits until their memory is free.
    async fn end(&self, berth: &Berth) {
        let mut engines = berth.engines.lock().await;
        while engines.iter().any(|host| Arc::strong_count(host) > 1) {
            // A bell that rang between the look and the wait is still heard.
            self.freed.notified().await;
        }
        berth.log().used = None;
        for host in engines.drain(..).filter_map(Arc::into_inner) {
            host.end().await;
        }
    }
}

impl Berth {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failed {
    fn after(last: Option<&Self>, why: String) -> Self {
        let pause = last.map_or(PAUSE, |last| (last.pause * 2).min(MOST));
        Self { why, at: Instant::now(), pause }
    }

    /// What who asks now is told; `None` if it is time to try again.
    fn lately(&self) -> Option<HostError> {
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

impl Drop for Bell {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Debug for Fleet {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let members = self.harbour.berths.iter().map(|berth| &berth.member);
        f.debug_struct("Fleet").field("members", &members.collect::<Vec<_>>()).finish_non_exhaustive()
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
    fn new(names: &[&str], budget: Option<u64>, devices: usize) -> (Fleet, Loads) {
        let members = names.iter().map(|name| Member { name: (*name).to_owned(), bytes: 4 }).collect();
        let loads = Loads { begun: Arc::default(), pace: Arc::new(Semaphore::new(0)) };
        let told = loads.clone();
        let start: Box<Start> = Box::new(move |name| {
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
        (Fleet::new(members, budget, start), loads)
    }

    fn fleet(names: &[&str], budget: Option<u64>, devices: usize) -> (Arc<Fleet>, Loads) {
        let (fleet, loads) = new(names, budget, devices);
        (Arc::new(fleet), loads)
    }

    fn loaded(fleet: &Fleet) -> Vec<&str> {
        let loaded = fleet.harbour.berths.iter().filter(|berth| berth.log().used.is_some());
        loaded.map(|berth| berth.member.name.as_str()).collect()
    }

    #[tokio::test]
    async fn a_model_is_loaded_once_and_when_it_is_asked_for() {
        let (fleet, loads) = fleet(&["a", "b"], None, 1);
        assert_eq!(loaded(&fleet), [""; 0]);
        let mut jobs = JoinSet::new();
        for _ in 0..8 {
            let fleet = Arc::clone(&fleet);
            jobs.spawn(async move { fleet.engine("a").await.unwrap() });
        }
        assert!(jobs.join_all().await.iter().all(|lease| !lease.waited().is_zero()));
        assert_eq!((loaded(&fleet), loads.begun()), (vec!["a"], 1));
        assert_eq!(fleet.engine("a").await.unwrap().waited(), Duration::ZERO, "it was there");
        assert!(!fleet.engine("b").await.unwrap().waited().is_zero());
        assert_eq!(loaded(&fleet), ["a", "b"]);
    }

    #[tokio::test]
    async fn jobs_spread_over_the_devices() {
        let (fleet, _) = fleet(&["a"], None, 3);
        let [first, second, third] =
            [fleet.engine("a").await.unwrap(), fleet.engine("a").await.unwrap(), fleet.engine("a").await.unwrap()];
        let at = |lease: &Lease| Arc::as_ptr(&lease.host);
        let freed = at(&second);
        assert!(at(&first) != freed && freed != at(&third) && at(&first) != at(&third));
        drop(second);
        assert_eq!(at(&fleet.engine("a").await.unwrap()), freed, "the others have a job");
    }

    #[tokio::test]
    async fn the_one_not_asked_for_the_longest_makes_room() {
        let (fleet, loads) = fleet(&["a", "b", "c"], Some(8), 1);
        for name in ["a", "b", "a", "c"] {
            fleet.engine(name).await.unwrap();
        }
        assert_eq!(loaded(&fleet), ["a", "c"]);
        fleet.engine("b").await.unwrap();
        assert_eq!((loaded(&fleet), loads.begun()), (vec!["b", "c"], 4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_with_jobs_ends_after_them_and_its_new_jobs_wait() {
        let (fleet, loads) = fleet(&["a", "b"], Some(4), 1);
        let job = fleet.engine("a").await.unwrap();
        let mut waiting = JoinSet::new();
        for name in ["b", "a"] {
            let there = Arc::clone(&fleet);
            waiting.spawn(async move { drop(there.engine(name).await.unwrap()) });
            // One comes after the other, and the second when the first has the model.
            while name == "b" && fleet.harbour.berths[0].engines.try_lock().is_ok() {
                tokio::task::yield_now().await;
            }
        }
        assert!(timeout(Duration::from_mins(1), waiting.join_next()).await.is_err(), "nobody is thrown out");
        assert_eq!(loaded(&fleet), ["a"]);
        drop(job);
        waiting.join_all().await;
        assert_eq!((loaded(&fleet), loads.begun()), (vec!["a"], 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_outlives_the_job_that_asked_for_it() {
        let (fleet, loads) = fleet(&["slow"], None, 1);
        for _ in 0..3 {
            assert!(timeout(Duration::from_secs(5), fleet.engine("slow")).await.is_err(), "it is not there yet");
        }
        loads.pace.add_permits(1);
        let late = fleet.engine("slow").await.unwrap();
        assert_eq!((loads.begun(), loaded(&fleet)), (1, vec!["slow"]));
        assert!(late.waited() < Duration::from_secs(1), "{:?}", late.waited());
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_ends_with_the_fleet() {
        let (fleet, loads) = fleet(&["slow"], None, 1);
        assert!(timeout(Duration::from_secs(5), fleet.engine("slow")).await.is_err());
        let harbour = Arc::downgrade(&fleet.harbour);
        drop(fleet);
        while harbour.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
        assert_eq!(loads.begun(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_that_does_not_load_says_why_and_is_tried_again_later() {
        let (fleet, loads) = fleet(&["broken", "a"], Some(4), 1);
        let why = async || match fleet.engine("broken").await {
            Err(HostError::Build(why)) => why,
            other => format!("{other:?}"),
        };
        assert_eq!(why().await, "no weights");
        fleet.engine("a").await.unwrap();
        for (minutes, begun) in [(0, 2), (1, 3), (1, 3), (1, 4), (3, 4), (1, 5)] {
            advance(Duration::from_mins(minutes)).await;
            assert!(why().await.starts_with("no weights"));
            assert_eq!(loads.begun(), begun);
        }
        assert!(why().await.ends_with("not tried again for 480 s"), "{}", why().await);
        assert!(matches!(fleet.engine("none").await, Err(HostError::Build(_))));
    }

    #[tokio::test]
    async fn nobody_makes_room_for_what_cannot_be_loaded() {
        let (fleet, loads) = new(&["a", "broken"], Some(4), 1);
        let look = |name: &str| if name == "broken" { Err("it broke off".to_owned()) } else { Ok(()) };
        let fleet = fleet.looking(Arc::new(look));
        fleet.engine("a").await.unwrap();
        let why = fleet.engine("broken").await.unwrap_err();
        assert!(matches!(why, HostError::Build(why) if why == "it broke off"));
        assert_eq!((loaded(&fleet), loads.begun()), (vec!["a"], 1));
    }
}
