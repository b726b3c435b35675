//! Memory for what is under way: bodies that have not come whole, jobs and results that are not yet kept, answers that nobody has taken. Each kind
//! has so much of it over all who ask. Who finds none waits a while, and not on once the gateway closes.
//!
//! Shares. A client may hold as much as it leaves free (a dynamic threshold, after Choudhury and Hahne, "Dynamic queue length thresholds for
//! shared-memory packet switches", 1998): one alone half of the memory, two a third each. So there is always some for whoever comes next, and
//! none has to be set apart for those who are not there. A client that holds nothing may have more than that, or an answer larger than half
//! of the memory would never be read.
//!
//! Bodies. They hold what has come of them, in steps, and not what they say that they will be: who sends the head of a large body and stops there
//! holds nothing. A body that holds a part and waits for more could wait for one that does the same. It cannot for ever:
//! * Steps leave a quarter of the memory free, and only bodies whose whole length fits into that quarter get any. Larger ones, of which there
//!   are some only where little memory is set, wait for all of it while they hold nothing.
//! * A body that gets no further step waits for all that it lacks, which is less than a quarter, and waits no second time.
//! * So whoever waits lacks only what those hold who lack nothing. These end: their senders have to move, and are cut off if they stall while
//!   somebody waits because of them ([`MemoryBudget::is_pressed`]).
//!
//! What a client's bodies lack may go beyond its share, up to a quarter of the memory at once: otherwise many bodies of one client would keep
//! each other from ending.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use futures_util::future::{BoxFuture, Either, ready};
use tokio::select;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::blocking::blocking;

pub(super) use super::memory_pool::Reservation;

use super::memory_pool::{Grant, SharedPool};
use super::peer;
use super::reply::ApiError;

/// Bytes that need no reservation: most bodies and answers have fewer, and go their way whatever becomes of large ones. How many of them there may be,
/// is bounded by how many connections.
pub(super) const UNCOUNTED_BYTES: usize = 16 << 10;

/// Bytes that are read or written at once, where that is asked for; more hold up others.
const INLINE_BYTES: usize = 64 << 10;

/// By how much a body grows, of which more may come: half of what has come, within these bounds.
const STEP_RANGE: (usize, usize) = (64 << 10, 4 << 20);

/// How long clients wait for memory. Longer than one that does not move keeps its own, and shorter than the minute of proxies.
const CLIENT_WAIT: Duration = Duration::from_secs(45);

/// How long workers do, with results that cost a GPU's time.
const WORKER_WAIT: Duration = Duration::from_mins(5);

/// The budgets of a gateway. No kind can take the memory of another: whoever sends much keeps no client from reading, and no worker from bringing a result.
#[derive(Debug)]
pub(super) struct MemoryBudgets {
    /// For what clients send.
    pub(super) jobs: MemoryBudget,
    /// For what they are to read.
    pub(super) answers: MemoryBudget,
    /// For what workers take.
    pub(super) takes: MemoryBudget,
    /// For what workers bring.
    pub(super) results: MemoryBudget,
    /// For what webhooks are told.
    pub(super) messages: MemoryBudget,
    /// What goes on though no request waits for it.
    tasks: TaskTracker,
}

impl MemoryBudgets {
    /// Budgets of so many bytes each, for which nobody waits on once the gateway is `closing`.
    pub(super) fn new(bytes: usize, closing: &CancellationToken) -> Self {
        let budget = |longest_wait| MemoryBudget::new(bytes, longest_wait, closing.clone());
        Self {
            jobs: budget(CLIENT_WAIT),
            answers: budget(CLIENT_WAIT),
            takes: budget(WORKER_WAIT),
            results: budget(WORKER_WAIT),
            messages: budget(CLIENT_WAIT),
            tasks: TaskTracker::new(),
        }
    }

    /// What `work` comes to, which holds that memory until it ends; even if no request waits for it, because a store goes on with what it was
    /// asked for.
    pub(super) async fn keep<T: Send + 'static>(&self, held: Reservation, work: BoxFuture<'static, T>) -> T {
        if held.bytes() == 0 {
            return work.await;
        }
        let held_on = async move {
            let done = work.await;
            drop(held);
            done
        };
        self.finish(held_on).await
    }

    /// What `work` comes to, which goes on to its end even if it is no longer waited for.
    pub(super) async fn finish<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        match self.tasks.spawn(work).await {
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
    pool: SharedPool,
    longest_wait: Duration,
    closing: CancellationToken,
    cpu_slots: Arc<Semaphore>,
}

impl MemoryBudget {
    fn new(bytes: usize, longest_wait: Duration, closing: CancellationToken) -> Self {
        // One processor of two is left to what is small.
        let cpu_slots = available_parallelism().map_or(1, NonZero::get).div_ceil(2);
        Self { pool: SharedPool::new(bytes), longest_wait, closing, cpu_slots: Arc::new(Semaphore::new(cpu_slots)) }
    }

    /// Reserves so many bytes for the current client, as soon as there are; of more than there ever is, all.
    pub(super) async fn reserve(&self, bytes: usize) -> Result<Reservation, ApiError> {
        if bytes <= UNCOUNTED_BYTES {
            return Ok(Reservation::default());
        }
        Box::pin(self.granted(self.pool.ask_whole(peer::client(), bytes.min(self.pool.bytes())))).await
    }

    /// Reserves more for a body of which `length` bytes are there and that has `most` at the end. Returns how many bytes the body may have now.
    pub(super) async fn grow(&self, held: &mut Reservation, length: usize, most: usize) -> Result<usize, ApiError> {
        let (client, before) = (peer::client(), held.bytes());
        if before == 0 && most > self.pool.largest_by_steps() {
            *held = self.reserve(most).await?;
            return Ok(most);
        }
        let step = (length + (length / 2).clamp(STEP_RANGE.0, STEP_RANGE.1)).min(most);
        if let Some(more) = self.pool.step(client, step.saturating_sub(before)) {
            held.add(more);
            return Ok(step);
        }
        held.add(Box::pin(self.granted(self.pool.ask_rest(client, most.saturating_sub(before)))).await?);
        Ok(most)
    }

    async fn granted(&self, grant: Grant) -> Result<Reservation, ApiError> {
        let _waits = peer::waits_for_memory();
        select! {
            biased;
            held = grant => Ok(held),
            () = sleep(self.longest_wait) => Err(ApiError::Busy),
            () = self.closing.cancelled() => Err(ApiError::Busy),
        }
    }

    /// Whether somebody waits because of what the current client holds.
    pub(super) fn is_pressed(&self) -> bool {
        self.pool.is_pressed(peer::client())
    }

    /// What `work` on so many bytes comes to: of many, where it holds up no other request, and only some at the same time.
    pub(super) fn work<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + Send {
        if bytes <= INLINE_BYTES {
            Either::Left(ready(work()))
        } else {
            Either::Right(Box::pin(self.work_off_thread(work)))
        }
    }

    async fn work_off_thread<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        // It is never closed.
        let cpu_slot = self.cpu_slots.clone().acquire_owned().await.ok();
        blocking(move || {
            let done = work();
            drop(cpu_slot);
            done
        })
        .await
    }

    /// Bytes that are free.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.pool.free()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::{Instant, sleep};

    use super::*;

    fn budget(bytes: usize) -> MemoryBudget {
        MemoryBudget::new(bytes, Duration::from_secs(9), CancellationToken::new())
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_room_waits_in_line_and_not_for_ever() {
        let budget = budget(100_000);
        let first = budget.reserve(80_000).await.unwrap();
        assert!(budget.reserve(UNCOUNTED_BYTES).now_or_never().is_some(), "what is small needs none");
        let began = Instant::now();
        let (large, small, ()) = tokio::join!(budget.reserve(1 << 30), budget.reserve(20_000), async {
            sleep(Duration::from_secs(5)).await;
            drop(first);
        });
        assert_eq!(large.unwrap().bytes(), 100_000, "all that there is");
        assert!(matches!(small, Err(ApiError::Busy)), "though it would have fitted: it came later");
        assert_eq!((began.elapsed().as_secs(), budget.free()), (9, 100_000));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_on_when_the_gateway_closes() {
        let closing = CancellationToken::new();
        let budgets = MemoryBudgets::new(100_000, &closing);
        let _all = budgets.results.reserve(100_000).await.unwrap();
        let began = Instant::now();
        let (waited, ()) = tokio::join!(budgets.results.reserve(100_000), async {
            sleep(Duration::from_secs(2)).await;
            closing.cancel();
        });
        assert!(matches!(waited, Err(ApiError::Busy)) && began.elapsed().as_secs() == 2);
    }

    #[tokio::test]
    async fn a_text_has_its_room_as_long_as_anybody_has_it() {
        let budget = budget(100_000);
        let mut held = budget.reserve(60_000).await.unwrap();
        held.shrink(50_000);
        held.shrink(50_001);
        assert_eq!(budget.free(), 50_000);
        let text = held.attach_to("text".into());
        let part = text.slice(1..2);
        drop(text);
        assert_eq!((budget.free(), &part[..]), (50_000, &b"e"[..]));
        drop(part);
        assert_eq!(budget.free(), 100_000);
    }

    #[tokio::test]
    async fn what_a_store_goes_on_with_keeps_its_room_though_nobody_waits() {
        let budgets = MemoryBudgets::new(100_000, &CancellationToken::new());
        let held = budgets.jobs.reserve(60_000).await.unwrap();
        let (go, goes) = tokio::sync::oneshot::channel::<()>();
        let (done, ends) = tokio::sync::oneshot::channel::<()>();
        let work = async move {
            let _ = goes.await;
            let _ = done.send(());
        };
        assert!(budgets.keep(held, Box::pin(work)).now_or_never().is_none());
        assert_eq!(budgets.jobs.free(), 40_000);
        go.send(()).unwrap();
        ends.await.unwrap();
        while budgets.jobs.free() < 100_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(budgets.keep(Reservation::default(), Box::pin(async { 3 })).await, 3);
    }

    #[tokio::test]
    async fn long_work_is_done_elsewhere_and_only_some_of_it_at_once() {
        let budget = budget(1 << 20);
        let here = std::thread::current().id();
        let thread = || std::thread::current().id();
        assert_eq!(budget.work(INLINE_BYTES, thread).await, here);
        assert_ne!(budget.work(INLINE_BYTES + 1, thread).await, here);
        let slots = budget.cpu_slots.available_permits() as u32;
        let taken = budget.cpu_slots.clone().acquire_many_owned(slots).await.unwrap();
        assert!(budget.work(INLINE_BYTES + 1, thread).now_or_never().is_none());
        drop(taken);
        budget.work(INLINE_BYTES + 1, thread).await;
    }
}
