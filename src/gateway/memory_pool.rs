//! Memory that clients share, and who waits for some: the rules of [`super::memory_budget`].

use std::collections::{HashMap, HashSet};
use std::mem::take;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::peer::ClientId;

/// What part of the memory is left free by steps, and may be lacked by the bodies of one client at once.
const COMPLETION_PART: usize = 4;

/// Bytes that clients share.
#[derive(Debug, Clone)]
pub(super) struct SharedPool(Arc<PoolState>);

#[derive(Debug)]
struct PoolState {
    bytes: usize,
    shares: Mutex<Shares>,
}

#[derive(Debug)]
struct Shares {
    free: usize,
    /// Of those who hold any.
    held: HashMap<ClientId, Share>,
    /// Who came first is first.
    waiting: Vec<Waiting>,
}

/// What a client holds.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    bytes: usize,
    /// Of them, what was given to end bodies that held a part.
    completing: usize,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
enum Demand {
    /// All at once, by who holds nothing for it.
    Whole(usize),
    /// What a body lacks that has a part of its memory.
    Rest(usize),
}

#[derive(Debug)]
struct Waiting {
    client: ClientId,
    demand: Demand,
    granted: oneshot::Sender<Reservation>,
}

impl SharedPool {
    pub(super) fn new(bytes: usize) -> Self {
        let shares = Shares { free: bytes, held: HashMap::new(), waiting: Vec::new() };
        Self(Arc::new(PoolState { bytes, shares: Mutex::new(shares) }))
    }

    /// How much there is.
    pub(super) fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// The largest body that may grow by steps.
    pub(super) fn largest_by_steps(&self) -> usize {
        self.0.bytes / COMPLETION_PART
    }

    /// A step for a body, if there is one now.
    pub(super) fn step(&self, client: ClientId, bytes: usize) -> Option<Reservation> {
        let mut shares = self.shares();
        let open = shares.free.saturating_sub(self.largest_by_steps());
        if shares.of(client).bytes + 2 * bytes > open {
            return None;
        }
        Some(self.give(&mut shares, client, bytes, 0))
    }

    /// Stands in line for so many bytes, for something whole.
    pub(super) fn ask_whole(&self, client: ClientId, bytes: usize) -> Grant {
        self.ask(client, Demand::Whole(bytes))
    }

    /// Stands in line for so many bytes, which a body lacks.
    pub(super) fn ask_rest(&self, client: ClientId, bytes: usize) -> Grant {
        self.ask(client, Demand::Rest(bytes))
    }

    fn ask(&self, client: ClientId, demand: Demand) -> Grant {
        let (granted, grant) = oneshot::channel();
        let mut shares = self.shares();
        shares.waiting.push(Waiting { client, demand, granted });
        self.serve(shares);
        Grant { given: grant, pool: self.clone() }
    }

    /// Whether somebody waits because of what this client holds.
    pub(super) fn is_pressed(&self, client: ClientId) -> bool {
        let mut shares = self.shares();
        shares.waiting.retain(|waiting| !waiting.granted.is_closed());
        let large = shares.of(client).bytes > shares.free;
        shares.waiting.iter().any(|waiting| large || waiting.client == client)
    }

    fn shares(&self) -> MutexGuard<'_, Shares> {
        self.0.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives to those in line what they may have now.
    fn serve(&self, mut shares: MutexGuard<'_, Shares>) {
        let (mut behind, mut gone) = (HashSet::new(), Vec::new());
        let mut waiting = take(&mut shares.waiting);
        // A body that lacks little ends soon, and does not wait for those that lack much and may stall. The others keep their order.
        waiting.sort_by_key(|waiting| match waiting.demand {
            Demand::Rest(bytes) => bytes,
            Demand::Whole(_) => usize::MAX,
        });
        for Waiting { client, demand, granted } in waiting {
            if granted.is_closed() {
                continue;
            }
            let given = match demand {
                // Of one client, who came first is first.
                Demand::Whole(bytes) if !behind.contains(&client) && shares.allow_whole(client, bytes) => (bytes, 0),
                Demand::Rest(bytes) if shares.allow_rest(client, bytes, self.largest_by_steps()) => (bytes, bytes),
                Demand::Whole(_) | Demand::Rest(_) => {
                    if matches!(demand, Demand::Whole(_)) {
                        behind.insert(client);
                    }
                    shares.waiting.push(Waiting { client, demand, granted });
                    continue;
                }
            };
            // Who is gone gives it back, once nobody else is in here.
            gone.extend(granted.send(self.give(&mut shares, client, given.0, given.1)).err());
        }
        drop(shares);
    }

    fn give(&self, shares: &mut Shares, client: ClientId, bytes: usize, completing: usize) -> Reservation {
        shares.free = shares.free.saturating_sub(bytes);
        let share = shares.held.entry(client).or_default();
        share.bytes += bytes;
        share.completing += completing;
        Reservation(Some(Held { pool: self.clone(), client, share: Share { bytes, completing } }))
    }

    /// Takes back what a client does not need any longer.
    fn take_back(&self, client: ClientId, part: Share) {
        if part.bytes == 0 {
            return;
        }
        let mut shares = self.shares();
        shares.free += part.bytes;
        if let Some(share) = shares.held.get_mut(&client) {
            share.bytes = share.bytes.saturating_sub(part.bytes);
            share.completing = share.completing.saturating_sub(part.completing);
            if share.bytes == 0 {
                shares.held.remove(&client);
            }
        }
        self.serve(shares);
    }

    /// Bytes that nobody holds.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.shares().free
    }
}

impl Shares {
    fn of(&self, client: ClientId) -> Share {
        self.held.get(&client).copied().unwrap_or_default()
    }

    fn allow_whole(&self, client: ClientId, bytes: usize) -> bool {
        let held = self.of(client).bytes;
        bytes <= self.free && (held == 0 || held + 2 * bytes <= self.free)
    }

    fn allow_rest(&self, client: ClientId, bytes: usize, most: usize) -> bool {
        bytes <= self.free && self.of(client).completing + bytes <= most
    }
}

/// A place in line. It ends with what was asked for; who drops it before leaves the line, and whoever is behind moves up.
#[derive(Debug)]
pub(super) struct Grant {
    given: oneshot::Receiver<Reservation>,
    pool: SharedPool,
}

impl Future for Grant {
    type Output = Reservation;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reservation> {
        match Pin::new(&mut self.given).poll(context) {
            Poll::Ready(Ok(given)) => Poll::Ready(given),
            // The other end is in the line, which is dropped with the pool, and that not before this.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        // What was given and not received is given back by being dropped.
        if !self.given.is_terminated() {
            self.given.close();
            self.pool.serve(self.pool.shares());
        }
    }
}

/// Bytes that somebody has reserved. Dropping it gives it back.
#[derive(Debug, Default)]
pub(super) struct Reservation(Option<Held>);

#[derive(Debug)]
struct Held {
    pool: SharedPool,
    client: ClientId,
    share: Share,
}

impl Reservation {
    /// How much it is.
    pub(super) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |held| held.share.bytes)
    }

    /// Makes another's bytes, of the same client, part of this one.
    pub(super) fn add(&mut self, mut other: Self) {
        match (&mut self.0, other.0.take()) {
            (Some(held), Some(mut more)) => {
                held.share.bytes += take(&mut more.share.bytes);
                held.share.completing += take(&mut more.share.completing);
            }
            (none @ None, more) => *none = more,
            (Some(_), None) => {}
        }
    }

    /// The text, which holds the memory for as long as it or a part of it is there.
    pub(super) fn attach_to(self, text: String) -> Bytes {
        match self.0 {
            Some(_) => Bytes::from_owner(ReservedText { text, _held: self }),
            None => text.into(),
        }
    }

    /// Gives back what is more than so many bytes need.
    pub(super) fn shrink(&mut self, bytes: usize) {
        if let Some(held) = &mut self.0 {
            let over = held.share.bytes.saturating_sub(bytes);
            let completing = held.share.completing.min(over);
            held.share.bytes -= over;
            held.share.completing -= completing;
            held.pool.take_back(held.client, Share { bytes: over, completing });
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.pool.take_back(self.client, self.share);
    }
}

struct ReservedText {
    text: String,
    _held: Reservation,
}

impl AsRef<[u8]> for ReservedText {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const MIB: usize = 1 << 20;

    fn granted(grant: Grant) -> Option<Reservation> {
        grant.now_or_never()
    }

    #[test]
    fn each_client_leaves_as_much_as_it_holds() {
        let pool = SharedPool::new(256 * MIB);
        let mut all = Vec::new();
        for (name, most) in [("a", 128), ("b", 64), ("c", 32)] {
            let client = ClientId::named(name);
            let mut held = 0;
            while let Some(more) = granted(pool.ask_whole(client, MIB)) {
                held += 1;
                all.push(more);
            }
            assert_eq!(held, most, "{name}");
        }
        let large = granted(pool.ask_whole(ClientId::named("d"), 20 * MIB));
        assert!(large.is_some(), "more than its share, but all that it has");
        drop((all, large));
        assert_eq!(pool.free(), 256 * MIB);
        assert!(pool.shares().held.is_empty(), "nothing is left");
    }

    #[test]
    fn who_leaves_the_line_gets_nothing_and_holds_nobody_up() {
        let pool = SharedPool::new(16 * MIB);
        let (a, b) = (ClientId::named("a"), ClientId::named("b"));
        let all = granted(pool.ask_whole(a, 16 * MIB)).unwrap();
        let (gone, mut large, mut small) =
            (pool.ask_whole(b, MIB), pool.ask_whole(b, 16 * MIB), pool.ask_whole(b, MIB));
        assert!(pool.is_pressed(a) && pool.is_pressed(b));
        drop(gone);
        drop(all);
        let large = (&mut large).now_or_never().unwrap();
        assert!((&mut small).now_or_never().is_none(), "of one client who came first is first");
        drop(large);
        assert!((&mut small).now_or_never().is_some());
        assert!(pool.free() == 16 * MIB && !pool.is_pressed(b));
    }

    #[test]
    fn who_is_behind_one_that_leaves_moves_up_though_nothing_is_given_back() {
        let pool = SharedPool::new(16 * MIB);
        let (a, b) = (ClientId::named("a"), ClientId::named("b"));
        let _held = granted(pool.ask_whole(a, 12 * MIB)).unwrap();
        let (large, mut small) = (pool.ask_whole(b, 16 * MIB), pool.ask_whole(b, 4 * MIB));
        assert!((&mut small).now_or_never().is_none());
        drop(large);
        assert!(small.now_or_never().is_some());
    }

    #[test]
    fn bodies_that_hold_a_part_can_always_end() {
        let pool = SharedPool::new(256 * MIB);
        let client = ClientId::named("a");
        // As many as may, of 64 MiB each.
        let mut bodies: Vec<Reservation> = std::iter::from_fn(|| pool.step(client, 4 * MIB)).collect();
        assert_eq!((bodies.len() * 4, pool.free() / MIB), (96, 160));
        assert!(pool.step(client, MIB).is_none());
        let mut waiting: Vec<_> = (0..bodies.len()).map(|_| pool.ask_rest(client, 60 * MIB)).collect();
        while !bodies.is_empty() {
            let at = waiting.iter_mut().position(|grant| grant.now_or_never().is_some());
            // It was given, and is dropped here as when a body has ended.
            waiting.remove(at.unwrap());
            bodies.pop();
        }
        assert_eq!(pool.free(), 256 * MIB);
    }

    #[test]
    fn a_small_rest_does_not_wait_for_a_large_one() {
        let pool = SharedPool::new(256 * MIB);
        let (one, other) = (ClientId::named("a"), ClientId::named("b"));
        let first = granted(pool.ask_rest(one, 60 * MIB)).unwrap();
        assert!(granted(pool.ask_rest(one, 60 * MIB)).is_none(), "only a quarter of the memory beyond its share");
        assert!(granted(pool.ask_rest(one, 4 * MIB)).is_some() && granted(pool.ask_rest(other, 60 * MIB)).is_some());
        let (mut second, small) = (pool.ask_rest(one, 60 * MIB), pool.ask_rest(one, 10 * MIB));
        let mut first = first;
        first.shrink(0);
        assert!((&mut second).now_or_never().is_none(), "the smaller one is first, though it came later");
        assert_eq!(small.now_or_never().unwrap().bytes(), 10 * MIB, "what was given back is no longer counted");
        assert_eq!(second.now_or_never().unwrap().bytes(), 60 * MIB);
    }
}
