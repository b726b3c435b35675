//! As many connections as may be: when no more fit in, those make room whose peers keep the gateway waiting. A thousand half requests lock no one
//! out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::activity::{ConnectionActivity, MIN_PROGRESS};

/// Between checks while the limit is reached.
const MOVE_CHECK_INTERVAL: Duration = MIN_PROGRESS.1;

/// The connections that are there.
#[derive(Debug, Clone)]
pub(super) struct ConnectionLimit {
    most: usize,
    open: Arc<Mutex<OpenConnections>>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    next: u64,
    /// When it was looked at the last time.
    looked: Option<Instant>,
    all: HashMap<u64, OpenConnection>,
}

#[derive(Debug)]
struct OpenConnection {
    activity: ConnectionActivity,
    /// What had moved at the last look, if there was one.
    moved: Option<u64>,
    cut: CancellationToken,
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
}

impl ConnectionLimit {
    pub(super) fn new(most: usize) -> Self {
        Self { most, open: Arc::default() }
    }

    fn open(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a connection, whether there is room or not, until the gateway is `closing`.
    pub(super) fn join(&self, closing: &CancellationToken) -> ConnectionPermit {
        let (mut open, activity, cut) = (self.open(), ConnectionActivity::default(), closing.child_token());
        let number = open.next;
        open.next += 1;
        open.all.insert(number, OpenConnection { activity: activity.clone(), moved: None, cut: cut.clone() });
        ConnectionPermit { limit: self.clone(), number, activity, cut }
    }

    /// Waits until there is room for one more.
    pub(super) async fn room(&self) {
        /// Between looks for a place that has become free.
        const FREE_INTERVAL: Duration = Duration::from_millis(50);
        while self.open().all.len() >= self.most {
            self.look();
            let until = Instant::now() + MOVE_CHECK_INTERVAL;
            while self.open().all.len() >= self.most && Instant::now() < until {
                sleep(FREE_INTERVAL).await;
            }
        }
    }

    /// Cuts off those who kept the gateway waiting from the last look to this one. A look that comes too soon is none: whoever waits for room
    /// may begin again at any time.
    fn look(&self) {
        let (mut cut, mut open, now) = (0_u32, self.open(), Instant::now());
        if open.looked.is_some_and(|looked| now < looked + MOVE_CHECK_INTERVAL) {
            return;
        }
        open.looked = Some(now);
        for member in open.all.values_mut() {
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

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limit.open().all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

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
}
