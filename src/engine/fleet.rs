//! Several models, on several devices: engines are started when a job first asks for them, and end when others need their room.
//!
//! A model has one engine a device, and a job goes to the engine with the fewest jobs in hand. What the models in memory need together
//! stays within a budget: who has not been asked for the longest goes first, when its jobs are done; its new ones wait for their turn.

use std::borrow::Borrow;
use std::fmt::{self, Debug, Formatter};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex as Cell, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio::time::Instant;
use tracing::info;

use super::host::{Host, HostError};

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

/// Engines, by model.
pub struct Fleet {
    start: Box<Start>,
    /// Bytes on each device for all models together; `None` is no limit.
    budget: Option<u64>,
    berths: Vec<Berth>,
    /// Held by who makes room and loads: two at once would count on the same room.
    loading: Mutex<()>,
    /// Told whenever a job lets go of its engine.
    freed: Arc<Notify>,
}

/// Where a model's engines are, if it has any now.
struct Berth {
    member: Member,
    /// Jobs wait here while the model loads, or while it ends.
    engines: Mutex<Vec<Arc<Host>>>,
    /// When it was last asked for; `None` while it has no engines.
    used: Cell<Option<Instant>>,
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
        let berth = |member| Berth { member, engines: Mutex::default(), used: Cell::default() };
        let berths = members.into_iter().map(berth).collect();
        Self { start, budget, berths, loading: Mutex::default(), freed: Arc::default() }
    }

    /// An engine of the model `name`, the one with the fewest jobs in hand; waits until it is loaded.
    ///
    /// # Errors
    /// [`HostError::Build`] if there is no such model or it cannot be loaded; the next who asks tries again.
    pub async fn engine(&self, name: &str) -> Result<Lease, HostError> {
        let asked = Instant::now();
        let engines = self.aboard(name).await?;
        let host = engines.iter().min_by_key(|host| Arc::strong_count(host)).ok_or(HostError::Stopped)?;
        Ok(self.lease(host, asked))
    }

    /// Every engine of the model `name`, one a device; waits until they are loaded.
    ///
    /// # Errors
    /// As for [`Fleet::engine`].
    pub async fn engines(&self, name: &str) -> Result<Vec<Lease>, HostError> {
        let asked = Instant::now();
        let engines = self.aboard(name).await?;
        Ok(engines.iter().map(|host| self.lease(host, asked)).collect())
    }

    fn lease(&self, host: &Arc<Host>, asked: Instant) -> Lease {
        Lease { host: Arc::clone(host), _freed: Bell(Arc::clone(&self.freed)), waited: asked.elapsed() }
    }

    /// The engines of the model `name`, loaded.
    async fn aboard(&self, name: &str) -> Result<MutexGuard<'_, Vec<Arc<Host>>>, HostError> {
        let berth = self.berths.iter().find(|berth| berth.member.name == name);
        let berth = berth.ok_or_else(|| HostError::Build(format!("there is no model {name:?}")))?;
        let mut engines = berth.engines.lock().await;
        if engines.is_empty() {
            let _loading = self.loading.lock().await;
            self.make_room(&berth.member).await;
            let hosts = (self.start)(name.to_owned()).await?;
            engines.extend(hosts.into_iter().map(Arc::new));
        }
        berth.touch(Some(Instant::now()));
        Ok(engines)
    }

    /// Ends models until `member` fits into the budget; one that never fits is alone then.
    async fn make_room(&self, member: &Member) {
        let Some(budget) = self.budget else { return };
        loop {
            let loaded: Vec<(Instant, &Berth)> =
                self.berths.iter().filter_map(|berth| Some((berth.used()?, berth))).collect();
            let taken: u64 = loaded.iter().map(|(_, berth)| berth.member.bytes).sum();
            let oldest = loaded.into_iter().min_by_key(|(used, _)| *used);
            match oldest {
                Some((_, berth)) if taken + member.bytes > budget => self.end(berth, member).await,
                _ => return,
            }
        }
    }

    /// Ends the engines of a model when its jobs are done, and waits until their memory is free.
    async fn end(&self, berth: &Berth, successor: &Member) {
        let mut engines = berth.engines.lock().await;
        while engines.iter().any(|host| Arc::strong_count(host) > 1) {
            // A bell that rang between the look and the wait is still heard.
            self.freed.notified().await;
        }
        info!(model = berth.member.name, successor = successor.name, "the model makes room");
        berth.touch(None);
        for host in engines.drain(..).filter_map(Arc::into_inner) {
            host.end().await;
        }
    }
}

impl Berth {
    fn used(&self) -> Option<Instant> {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self, used: Option<Instant>) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = used;
    }
}

impl Lease {
    /// How long it took until the engine was there.
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
        let members = self.berths.iter().map(|berth| &berth.member);
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

    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;
    use crate::engine::fake::Fake;

    /// Models of 4 bytes each, `devices` engines a model, and how often one was started.
    fn fleet(names: &[&str], budget: Option<u64>, devices: usize) -> (Arc<Fleet>, Arc<AtomicUsize>) {
        let members = names.iter().map(|name| Member { name: (*name).to_owned(), bytes: 4 }).collect();
        let started = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&started);
        let start: Box<Start> = Box::new(move |name| {
            count.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                let mut hosts = Vec::new();
                for _ in 0..devices {
                    let broken = name == "broken";
                    let build = move || if broken { Err("no weights") } else { Ok(Fake::default()) };
                    hosts.push(Host::start("engine-test", build).await?);
                }
                Ok(hosts)
            })
        });
        (Arc::new(Fleet::new(members, budget, start)), started)
    }

    fn loaded(fleet: &Fleet) -> Vec<&str> {
        let loaded = fleet.berths.iter().filter(|berth| berth.used().is_some());
        loaded.map(|berth| berth.member.name.as_str()).collect()
    }

    #[tokio::test]
    async fn a_model_is_loaded_once_and_when_it_is_asked_for() {
        let (fleet, started) = fleet(&["a", "b"], None, 1);
        assert_eq!(loaded(&fleet), [""; 0]);
        let mut jobs = JoinSet::new();
        for _ in 0..8 {
            let fleet = Arc::clone(&fleet);
            jobs.spawn(async move { fleet.engine("a").await.unwrap() });
        }
        assert_eq!(jobs.join_all().await.len(), 8);
        assert_eq!((loaded(&fleet), started.load(Ordering::SeqCst)), (vec!["a"], 1));
        fleet.engine("b").await.unwrap();
        assert_eq!(loaded(&fleet), ["a", "b"]);
    }

    #[tokio::test]
    async fn jobs_spread_over_the_devices() {
        let (fleet, _) = fleet(&["a"], None, 3);
        let leases =
            [fleet.engine("a").await.unwrap(), fleet.engine("a").await.unwrap(), fleet.engine("a").await.unwrap()];
        let [first, second, third] = leases.each_ref().map(|lease| Arc::as_ptr(&lease.host));
        assert!(first != second && second != third && first != third);
        let [_, freed, _] = leases.map(Some);
        drop(freed);
        let next = fleet.engine("a").await.unwrap();
        assert!([first, second, third].contains(&Arc::as_ptr(&next.host)));
    }

    #[tokio::test]
    async fn the_one_not_asked_for_the_longest_makes_room() {
        let (fleet, started) = fleet(&["a", "b", "c"], Some(8), 1);
        for name in ["a", "b", "a", "c"] {
            fleet.engine(name).await.unwrap();
        }
        assert_eq!(loaded(&fleet), ["a", "c"]);
        fleet.engine("b").await.unwrap();
        assert_eq!((loaded(&fleet), started.load(Ordering::SeqCst)), (vec!["b", "c"], 4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_with_jobs_ends_after_them_and_its_new_jobs_wait() {
        let (fleet, started) = fleet(&["a", "b"], Some(4), 1);
        let job = fleet.engine("a").await.unwrap();
        let mut waiting = JoinSet::new();
        for name in ["b", "a"] {
            let fleet = Arc::clone(&fleet);
            waiting.spawn(async move { drop(fleet.engine(name).await.unwrap()) });
            // One comes after the other.
            tokio::task::yield_now().await;
        }
        assert!(timeout(Duration::from_mins(1), waiting.join_next()).await.is_err(), "nobody is thrown out");
        assert_eq!(loaded(&fleet), ["a"]);
        drop(job);
        waiting.join_all().await;
        assert_eq!((loaded(&fleet), started.load(Ordering::SeqCst)), (vec!["a"], 3));
    }

    #[tokio::test]
    async fn a_model_that_does_not_load_says_why_and_the_next_tries_again() {
        let (fleet, started) = fleet(&["broken"], None, 1);
        for _ in 0..2 {
            let why = fleet.engine("broken").await.unwrap_err();
            assert!(matches!(why, HostError::Build(why) if why == "no weights"));
        }
        assert_eq!(started.load(Ordering::SeqCst), 2);
        assert!(matches!(fleet.engine("none").await, Err(HostError::Build(_))));
    }
}
