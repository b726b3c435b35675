//! As many connections as may be: when no more fit in, those make room whose peers keep the gateway waiting. A thousand half requests lock nobody
//! out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::turns::{LEAST, Turns};

/// Between looks at a crowd that is full.
const LOOK: Duration = LEAST.1;

/// The connections that are there.
#[derive(Debug, Clone)]
pub(super) struct Crowd {
    most: usize,
    inside: Arc<Mutex<Inside>>,
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    /// When it was looked at the last time.
    looked: Option<Instant>,
    all: HashMap<u64, Member>,
}

#[derive(Debug)]
struct Member {
    turns: Turns,
    /// What had moved at the last look, if there was one.
    moved: Option<u64>,
    cut: CancellationToken,
}

/// A connection's place. It is free when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Crowd,
    number: u64,
    /// Whose turn it is on the connection.
    pub(super) turns: Turns,
    /// Cancelled when the connection is to end: at once, unless the gateway closes. One token for both, as each wake of a connection asks it.
    pub(super) cut: CancellationToken,
}

impl Crowd {
    pub(super) fn new(most: usize) -> Self {
        Self { most, inside: Arc::default() }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a connection, whether there is room or not, until the gateway is `closing`.
    pub(super) fn join(&self, closing: &CancellationToken) -> Place {
        let (mut inside, turns, cut) = (self.inside(), Turns::default(), closing.child_token());
        let number = inside.next;
        inside.next += 1;
        inside.all.insert(number, Member { turns: turns.clone(), moved: None, cut: cut.clone() });
        Place { crowd: self.clone(), number, turns, cut }
    }

    /// Waits until there is room for one more.
    pub(super) async fn room(&self) {
        /// Between looks for a place that has become free.
        const FREE: Duration = Duration::from_millis(50);
        while self.inside().all.len() >= self.most {
            self.look();
            let until = Instant::now() + LOOK;
            while self.inside().all.len() >= self.most && Instant::now() < until {
                sleep(FREE).await;
            }
        }
    }

    /// Cuts off those who kept the gateway waiting from the last look to this one. A look that comes too soon is none: whoever waits for room
    /// may begin again at any time.
    fn look(&self) {
        let (mut cut, mut inside, now) = (0_u32, self.inside(), Instant::now());
        if inside.looked.is_some_and(|looked| now < looked + LOOK) {
            return;
        }
        inside.looked = Some(now);
        for member in inside.all.values_mut() {
            if member.moved.is_some_and(|before| member.turns.stalled(before)) {
                member.cut.cancel();
                cut += 1;
            }
            member.moved = Some(member.turns.moved_so_far());
        }
        tracing::warn!(
            cut,
            connections = self.most,
            "as many connections as may be; those that do not move are cut off"
        );
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.inside().all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_keeps_the_gateway_waiting_makes_room_and_who_is_worked_for_stays() {
        let crowd = Crowd::new(3);
        let open = CancellationToken::new();
        let [worked, asks, waits] = [(); 3].map(|()| crowd.join(&open));
        worked.turns.ours();
        let began = Instant::now();
        let ending = async {
            // One asks and is answered all the time, one sends a byte a second.
            while !waits.cut.is_cancelled() {
                sleep(Duration::from_secs(1)).await;
                asks.turns.ours();
                asks.turns.ready();
                waits.turns.moved(1);
            }
            drop(waits);
        };
        tokio::join!(crowd.room(), ending);
        assert!(!worked.cut.is_cancelled() && !asks.cut.is_cancelled());
        assert!((3..=7).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_cut_off_while_there_is_room_nor_while_all_are_worked_for() {
        let crowd = Crowd::new(2);
        let open = CancellationToken::new();
        let idle = crowd.join(&open);
        sleep(Duration::from_mins(10)).await;
        crowd.room().await;
        drop(idle);
        let places: Vec<_> = (0..2)
            .map(|_| {
                let place = crowd.join(&open);
                place.turns.ours();
                place
            })
            .collect();
        assert!(timeout(Duration::from_mins(1), crowd.room()).await.is_err());
        assert!(places.iter().all(|place| !place.cut.is_cancelled()));
        drop(places);
        crowd.room().await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_room_again_and_again_has_nobody_cut_off_sooner() {
        let (crowd, open) = (Crowd::new(1), CancellationToken::new());
        let place = crowd.join(&open);
        let began = Instant::now();
        while !place.cut.is_cancelled() {
            let _ = timeout(Duration::from_millis(10), crowd.room()).await;
        }
        assert!(began.elapsed() >= LOOK, "{:?}", began.elapsed());
    }
}
