//! Memory for what is under way: bodies that have not come whole, jobs and results that are not yet kept, answers that were not read yet. Each kind
//! has so much of it over all who ask, and who finds none waits a while.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::blocking::blocking;

use super::reply::ApiError;

/// Bytes that take no room: most bodies and answers have fewer, and go their way whatever becomes of large ones. How many of them there may be,
/// is bounded by how many connections.
pub(super) const UNCOUNTED_BYTES: usize = 16 << 10;

/// Bytes that are read or written at once, where that is asked for; more hold up others.
const INLINE_BYTES: usize = 64 << 10;

/// How long clients wait for room. Longer than one that does not move keeps its own, and shorter than the minute of proxies.
const CLIENT_WAIT: Duration = Duration::from_secs(45);

/// How long workers do, with results that cost a GPU's time.
const WORKER_WAIT: Duration = Duration::from_mins(5);

/// The room of a gateway. No kind can take that of another: whoever sends much keeps no client from reading, and no worker from bringing a result.
#[derive(Debug)]
pub(super) struct MemoryBudgets {
    /// For what clients send.
    pub(super) jobs: MemoryBudget,
    /// For what they are to read.
    pub(super) answers: MemoryBudget,
    /// For what workers bring.
    pub(super) results: MemoryBudget,
    /// For what webhooks are told.
    pub(super) messages: MemoryBudget,
    /// What goes on though no request waits for it.
    tasks: TaskTracker,
}

impl MemoryBudgets {
    /// Budgets of so many bytes each.
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            jobs: MemoryBudget::new(bytes, CLIENT_WAIT),
            answers: MemoryBudget::new(bytes, CLIENT_WAIT),
            results: MemoryBudget::new(bytes, WORKER_WAIT),
            messages: MemoryBudget::new(bytes, CLIENT_WAIT),
            tasks: TaskTracker::new(),
        }
    }

    /// What `work` comes to, which has that room until it ends; even if no request waits for it, because a store goes on with what it was
    /// asked for.
    pub(super) async fn keep<T: Send + 'static>(
        &self,
        held: Reservation,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        if held.0.is_none() {
            return work.await;
        }
        let task = self.tasks.spawn(async move {
            let done = work.await;
            drop(held);
            done
        });
        match task.await {
            Ok(done) => done,
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            // The runtime ends, and this task with it.
            Err(_) => std::future::pending().await,
        }
    }
}

/// The budget of one kind.
#[derive(Debug)]
pub(super) struct MemoryBudget {
    free: Arc<Semaphore>,
    bytes: usize,
    wait: Duration,
    heavy: Arc<Semaphore>,
}

impl MemoryBudget {
    fn new(bytes: usize, wait: Duration) -> Self {
        // One processor of two is left to what is small.
        let heavy = available_parallelism().map_or(1, NonZero::get).div_ceil(2);
        let bytes = bytes.min(u32::MAX as usize);
        Self { free: Arc::new(Semaphore::new(bytes)), bytes, wait, heavy: Arc::new(Semaphore::new(heavy)) }
    }

    /// Reserves so many bytes, as soon as there are; of more than there ever is, all. Who came first has it first.
    pub(super) async fn reserve(&self, bytes: usize) -> Result<Reservation, ApiError> {
        if bytes <= UNCOUNTED_BYTES {
            return Ok(Reservation::default());
        }
        // No larger than the room, which fits.
        let bytes = bytes.min(self.bytes) as u32;
        match timeout(self.wait, self.free.clone().acquire_many_owned(bytes)).await {
            Ok(Ok(permit)) => Ok(Reservation(Some(permit))),
            _ => Err(ApiError::Busy),
        }
    }

    /// What `work` on so many bytes comes to: of many, where it holds up no other request, and only some at the same time.
    pub(super) async fn work<T: Send + 'static>(&self, bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
        if bytes <= INLINE_BYTES {
            return work();
        }
        // It is never closed.
        let heavy = self.heavy.clone().acquire_owned().await.ok();
        blocking(move || {
            let done = work();
            drop(heavy);
            done
        })
        .await
    }

    /// Bytes that are free.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.free.available_permits()
    }
}

/// Bytes that somebody has reserved. Dropping it gives it back.
#[derive(Debug, Default)]
pub(super) struct Reservation(Option<OwnedSemaphorePermit>);

impl Reservation {
    /// A text that has the room for as long as anybody has the text.
    pub(super) fn by(self, text: String) -> Bytes {
        match self.0 {
            Some(_) => Bytes::from_owner(ReservedText { text, _held: self }),
            None => text.into(),
        }
    }

    /// Gives back what is more than so many bytes need.
    pub(super) fn shrink(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.0 {
            drop(permit.split(permit.num_permits().saturating_sub(bytes)));
        }
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
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_room_waits_in_line_and_not_for_ever() {
        let room = MemoryBudget::new(100_000, Duration::from_secs(9));
        let first = room.reserve(80_000).await.unwrap();
        assert!(room.reserve(UNCOUNTED_BYTES).now_or_never().is_some(), "what is small needs none");
        let began = Instant::now();
        let (large, small, ()) = tokio::join!(room.reserve(1 << 30), room.reserve(20_000), async {
            sleep(Duration::from_secs(5)).await;
            drop(first);
        });
        assert_eq!(large.unwrap().0.unwrap().num_permits(), 100_000, "all that there is");
        assert!(matches!(small, Err(ApiError::Busy)), "though it would have fitted: it came later");
        assert_eq!((began.elapsed().as_secs(), room.free()), (9, 100_000));
    }

    #[tokio::test]
    async fn a_text_has_its_room_as_long_as_anybody_has_it() {
        let room = MemoryBudget::new(100_000, Duration::from_secs(9));
        let mut held = room.reserve(60_000).await.unwrap();
        held.shrink(50_000);
        held.shrink(50_001);
        assert_eq!(room.free(), 50_000);
        let text = held.by("text".into());
        let part = text.slice(1..2);
        drop(text);
        assert_eq!((room.free(), &part[..]), (50_000, &b"e"[..]));
        drop(part);
        assert_eq!(room.free(), 100_000);
    }

    #[tokio::test]
    async fn what_a_store_goes_on_with_keeps_its_room_though_nobody_waits() {
        let rooms = MemoryBudgets::new(100_000);
        let held = rooms.jobs.reserve(60_000).await.unwrap();
        let (go, goes) = tokio::sync::oneshot::channel::<()>();
        let (done, ends) = tokio::sync::oneshot::channel::<()>();
        let work = async move {
            let _ = goes.await;
            let _ = done.send(());
        };
        assert!(rooms.keep(held, work).now_or_never().is_none());
        assert_eq!(rooms.jobs.free(), 40_000);
        go.send(()).unwrap();
        ends.await.unwrap();
        while rooms.jobs.free() < 100_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(rooms.keep(Reservation::default(), async { 3 }).await, 3);
    }

    #[tokio::test]
    async fn long_work_is_done_elsewhere_and_only_some_of_it_at_once() {
        let room = MemoryBudget::new(1 << 20, Duration::from_secs(9));
        let here = std::thread::current().id();
        let thread = || std::thread::current().id();
        assert_eq!(room.work(INLINE_BYTES, thread).await, here);
        assert_ne!(room.work(INLINE_BYTES + 1, thread).await, here);
        let heavy = room.heavy.clone().acquire_many_owned(room.heavy.available_permits() as u32).await.unwrap();
        assert!(room.work(INLINE_BYTES + 1, thread).now_or_never().is_none());
        drop(heavy);
        room.work(INLINE_BYTES + 1, thread).await;
    }
}
