//! As many connections as may be: when no more fit in, those make room whose peers keep the gateway waiting. A thousand half requests lock no one
//! out.
//!
//! Some places are for guests, who come when all others are taken: each is heard once. A probe is answered at once, whatever the others do; any
//! other request waits a while for a place that becomes free. When all guests' places are taken, too, the one that came first gives way to the
//! next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::select;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::activity::{ConnectionActivity, MIN_PROGRESS};

/// Between checks while the limit is reached.
const MOVE_CHECK_INTERVAL: Duration = MIN_PROGRESS.1;

/// Places for guests, of so many places at most, and at most.
const GUEST_PART: (usize, usize) = (4, 32);

/// How long a guest's request waits for a place. Long enough for two checks.
const GUEST_WAIT: Duration = Duration::from_secs(3 * MOVE_CHECK_INTERVAL.as_secs());

/// Between looks for a place that has become free.
const FREE_INTERVAL: Duration = Duration::from_millis(50);

/// The connections that are there.
#[derive(Debug, Clone)]
pub(super) struct ConnectionLimit {
    most: usize,
    guests: usize,
    open: Arc<Mutex<OpenConnections>>,
    left: Arc<Notify>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    next: u64,
    /// When it was looked at the last time.
    looked: Option<Instant>,
    /// How many of them are guests.
    guests: usize,
    all: HashMap<u64, OpenConnection>,
}

#[derive(Debug)]
struct OpenConnection {
    activity: ConnectionActivity,
    /// What had moved at the last look, if there was one.
    moved: Option<u64>,
    cut: CancellationToken,
    /// What ends its wait for a place, for as long as it is a guest.
    guest: Option<CancellationToken>,
}

/// A connection's place. It is free when this is dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    limit: ConnectionLimit,
    number: u64,
    /// Whose turn it is on the connection.
    pub(super) activity: ConnectionActivity,
    /// Cancelled when the connection is to end: at once, unless the gateway closes. One token for both, as each wake of a connection asks it.
    pub(super) cut: CancellationToken,
    /// Whether it is a guest's, and what tells it to give way.
    pub(super) guest: Option<CancellationToken>,
}

impl ConnectionLimit {
    pub(super) fn new(most: usize) -> Self {
        Self { most, guests: (most / GUEST_PART.0).min(GUEST_PART.1), open: Arc::default(), left: Arc::default() }
    }

    fn open(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a connection, whether there is room or not, until the gateway is `closing`.
    pub(super) fn join(&self, closing: &CancellationToken) -> ConnectionPermit {
        let (mut open, activity, cut) = (self.open(), ConnectionActivity::default(), closing.child_token());
        let number = open.next;
        open.next += 1;
        let guest = (open.residents() >= self.most - self.guests).then(CancellationToken::new);
        open.guests += usize::from(guest.is_some());
        let member = OpenConnection { activity: activity.clone(), moved: None, cut: cut.clone(), guest: guest.clone() };
        open.all.insert(number, member);
        ConnectionPermit { limit: self.clone(), number, activity, cut, guest }
    }

    /// Waits until there is room for one more.
    pub(super) async fn room(&self) {
        while self.open().all.len() >= self.most {
            if !self.dismiss_guest() {
                self.look();
            }
            let _ = timeout(FREE_INTERVAL, self.left.notified()).await;
        }
    }

    /// Makes a guest one of those who stay, if there is a place and it was not told to give way: its connection ends then.
    fn settle(&self, number: u64) -> bool {
        let mut open = self.open();
        if open.residents() >= self.most - self.guests {
            return false;
        }
        let Some(member) = open.all.get_mut(&number) else { return false };
        if member.guest.as_ref().is_some_and(CancellationToken::is_cancelled) {
            return false;
        }
        let guest = member.guest.take();
        open.guests -= usize::from(guest.is_some());
        true
    }

    /// Has the guest that came first give way, if there are guests.
    fn dismiss_guest(&self) -> bool {
        let open = self.open();
        let guests = open.all.iter().filter_map(|(number, member)| Some((number, member.guest.as_ref()?)));
        guests.min_by_key(|(number, _)| **number).is_some_and(|(_, first)| {
            first.cancel();
            true
        })
    }

    /// Cuts off those who kept the gateway waiting from the last look to this one. A look that comes too soon is none: whoever waits for room
    /// may begin again at any time.
    fn look(&self) {
        let (mut cut, mut open, now) = (0_u32, self.open(), Instant::now());
        if open.looked.is_some_and(|looked| now < looked + MOVE_CHECK_INTERVAL) {
            return;
        }
        open.looked = Some(now);
        // Guests have little time as it is.
        for member in open.all.values_mut().filter(|member| member.guest.is_none()) {
            if member.moved.is_some_and(|before| member.activity.stalled(before)) {
                member.cut.cancel();
                cut += 1;
            }
            member.moved = Some(member.activity.moved_so_far());
        }
        tracing::warn!(
            cut,
            connections = self.most,
            "as many connections as may be; those that do not move are cut off"
        );
    }
}

impl OpenConnections {
    /// Those that are no guests.
    fn residents(&self) -> usize {
        self.all.len() - self.guests
    }
}

impl ConnectionPermit {
    /// Waits for a place that is no guest's. Returns whether there was one in time.
    pub(super) async fn become_resident(&self) -> bool {
        let Some(dismissed) = &self.guest else { return true };
        let limit = &self.limit;
        let freed = async {
            while !limit.settle(self.number) {
                limit.look();
                sleep(FREE_INTERVAL).await;
            }
        };
        select! {
            () = freed => true,
            () = dismissed.cancelled() => false,
            () = self.cut.cancelled() => false,
            () = sleep(GUEST_WAIT) => false,
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.limit.open();
        let guest = open.all.remove(&self.number).is_some_and(|member| member.guest.is_some());
        open.guests -= usize::from(guest);
        drop(open);
        self.limit.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_keeps_the_gateway_waiting_makes_room_and_who_is_worked_for_stays() {
        let limit = ConnectionLimit::new(3);
        let open = CancellationToken::new();
        let [worked, asks, waits] = [(); 3].map(|()| limit.join(&open));
        worked.activity.working();
        let began = Instant::now();
        let ending = async {
            // One asks and is answered all the time, one sends a byte a second.
            while !waits.cut.is_cancelled() {
                sleep(Duration::from_secs(1)).await;
                asks.activity.working();
                asks.activity.answer_ready();
                waits.activity.moved(1);
            }
            drop(waits);
        };
        tokio::join!(limit.room(), ending);
        assert!(!worked.cut.is_cancelled() && !asks.cut.is_cancelled());
        assert!((3..=7).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_cut_off_while_there_is_room_nor_while_all_are_worked_for() {
        let limit = ConnectionLimit::new(2);
        let open = CancellationToken::new();
        assert_eq!(limit.guests, 0, "of so few");
        let idle = limit.join(&open);
        sleep(Duration::from_mins(10)).await;
        limit.room().await;
        drop(idle);
        let places: Vec<_> = (0..2)
            .map(|_| {
                let place = limit.join(&open);
                place.activity.working();
                place
            })
            .collect();
        assert!(timeout(Duration::from_mins(1), limit.room()).await.is_err());
        assert!(places.iter().all(|place| !place.cut.is_cancelled()));
        drop(places);
        limit.room().await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_room_again_and_again_has_nobody_cut_off_sooner() {
        let (limit, open) = (ConnectionLimit::new(1), CancellationToken::new());
        let place = limit.join(&open);
        let began = Instant::now();
        while !place.cut.is_cancelled() {
            let _ = timeout(Duration::from_millis(10), limit.room()).await;
        }
        assert!(began.elapsed() >= MOVE_CHECK_INTERVAL, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_is_heard_while_all_are_worked_for_and_gives_way_to_the_next() {
        let (limit, open) = (ConnectionLimit::new(4), CancellationToken::new());
        let places = [(); 3].map(|()| {
            let place = limit.join(&open);
            place.activity.working();
            place
        });
        assert!(places.iter().all(|place| place.guest.is_none()));
        limit.room().await;
        let first = limit.join(&open);
        assert!(first.guest.is_some());
        let next = async {
            limit.room().await;
            limit.join(&open)
        };
        let gives_way = async {
            assert!(!first.become_resident().await, "another came");
            drop(first);
        };
        let (second, ()) = tokio::join!(next, gives_way);
        let began = Instant::now();
        assert!(!second.become_resident().await, "and none of the others ends");
        assert_eq!(began.elapsed().as_secs(), GUEST_WAIT.as_secs());
        drop(places);
        assert!(second.become_resident().await);
        assert_eq!(limit.open().residents(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_was_told_to_give_way_does_so_though_there_is_a_place_by_then() {
        let (limit, open) = (ConnectionLimit::new(4), CancellationToken::new());
        let places = [(); 3].map(|()| limit.join(&open));
        let guest = limit.join(&open);
        assert!(limit.dismiss_guest());
        drop(places);
        // Of what is ready at once, any may be looked at first.
        assert!(!limit.settle(guest.number) && !guest.become_resident().await);
        assert_eq!(limit.open().guests, 1);
        drop(guest);
        assert_eq!(limit.open().guests, 0);
    }
}
