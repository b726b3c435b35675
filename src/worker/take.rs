//! The loop that takes jobs.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::job::{self, TakenJob};
use super::state::WorkerState;
use crate::deliver::Sink;
use crate::job::{Delivered, NotAJob};
use crate::net::{Backoff, jitter};
use crate::source::{JobSource, NextPoll, QueueInfo, TakeError, Taken};

/// After errors.
const TAKE_RETRY: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(15) };

/// An answer that began no job and came sooner than this was no long poll.
const LONG_POLL: Duration = Duration::from_secs(1);

/// Between polls of a queue that does not hold them, for each that began no job, up to [`LONG_POLL`].
const IDLE_STEP: Duration = Duration::from_millis(100);

/// Takes jobs until the worker stops taking; each becomes a task of `jobs`.
///
/// # Errors
/// Why the queue can never work.
pub(super) async fn until_stopped<S: JobSource, K: Sink>(
    source: &S,
    worker: &Arc<WorkerState<K>>,
    jobs: &TaskTracker,
) -> Result<(), String> {
    let mut start = None;
    let (mut failures, mut quick) = (0, 0);
    while let Some(mut slots) = free(worker).await {
        let asked = Instant::now();
        // A spool without room is no fault of the queue's: its time begins with the first poll.
        let start = start.get_or_insert_with(|| StartDeadline::new(worker.options.start_deadline));
        let taken = select! {
            // What is here already counts.
            biased;
            taken = source.take(slots.len(), !worker.delivery.in_flight.none(), &worker.stop_taking) => taken,
            why = start.over() => return Err(why),
        };
        let pause = match taken {
            Ok(Taken { jobs: taken, queue }) => {
                *start = StartDeadline::Answered;
                failures = 0;
                let mut begun = false;
                for job in taken {
                    begun |= accept(worker, jobs, job, slots.pop(), queue);
                }
                idle(&mut quick, begun || asked.elapsed() >= LONG_POLL)
            }
            Err(TakeError { why, next: NextPoll::Nothing }) => {
                start.failed(why);
                failures = 0;
                idle(&mut quick, asked.elapsed() >= LONG_POLL)
            }
            Err(TakeError { why, next: NextPoll::Stop }) => return Err(why),
            Err(TakeError { next: NextPoll::Again, .. }) => Duration::ZERO,
            Err(TakeError { why, next: NextPoll::Retry(told) }) => {
                failures += 1;
                let pause = TAKE_RETRY.after(failures, told, jitter()).max(TAKE_RETRY.first);
                warn!(failures, "no jobs, asking again in {} ms: {why}", pause.as_millis());
                start.failed(why);
                pause
            }
        };
        drop(slots);
        select! {
            biased;
            () = worker.stop_taking.cancelled() => break,
            () = sleep(pause) => {}
            why = start.over() => return Err(why),
        }
    }
    Ok(())
}

/// The pause after an answer, of which `quick` in a row were neither held nor began a job.
fn idle(quick: &mut u32, well: bool) -> Duration {
    *quick = if well { 0 } else { quick.saturating_add(1) };
    // The first is polled again at once, as in the SDK.
    LONG_POLL.min(IDLE_STEP.saturating_mul(quick.saturating_sub(1)))
}

/// Whether the queue has shown yet that it knows us.
enum StartDeadline {
    /// It has, or has for ever.
    Answered,
    /// It has until then, which is `most` after the first poll began; `why` is what was wrong last.
    Waiting { most: Duration, until: Instant, why: String },
}

impl StartDeadline {
    fn new(most: Option<Duration>) -> Self {
        let until = most.and_then(|most| Some((most, Instant::now().checked_add(most)?)));
        let why = "the queue gave no answer".to_owned();
        until.map_or(Self::Answered, |(most, until)| Self::Waiting { most, until, why })
    }

    fn failed(&mut self, fault: String) {
        if let Self::Waiting { why, .. } = self {
            *why = fault;
        }
    }

    /// Ends with the time, and tells what was wrong.
    async fn over(&self) -> String {
        let Self::Waiting { most, until, why } = self else { return pending().await };
        sleep_until(*until).await;
        format!("{why}, for the {} s of worker.start_deadline", most.as_secs_f64())
    }
}

/// Every slot that is free, at least one, when there is room for what would come of it; `None` when no more jobs are taken.
async fn free<K: Sink>(worker: &WorkerState<K>) -> Option<Vec<OwnedSemaphorePermit>> {
    let room = async {
        if !worker.delivery.spool.has_room() {
            warn!("spool.max_bytes is reached: no jobs are taken until results or webhooks have arrived");
            worker.delivery.spool.room().await;
            info!("the spool has room again");
        }
        Arc::clone(&worker.slots).acquire_owned().await
    };
    let first = select! {
        biased;
        () = worker.stop_taking.cancelled() => return None,
        slot = room => slot.ok()?,
    };
    let others = std::iter::from_fn(|| Arc::clone(&worker.slots).try_acquire_owned().ok());
    Some([first].into_iter().chain(others).collect())
}

/// Begins to work on a job, and tells whether it did. One more than was asked for waits for a slot of its own.
fn accept<K: Sink>(
    worker: &Arc<WorkerState<K>>,
    jobs: &TaskTracker,
    job: Result<Delivered, NotAJob>,
    slot: Option<OwnedSemaphorePermit>,
    queue: QueueInfo,
) -> bool {
    let (id, batch) = match &job {
        Ok(job) => (&job.id, job.batch_id.as_deref()),
        Err(NotAJob { id: Some(id), .. }) => (id, None),
        Err(fault) => {
            warn!("what the queue handed out is no job, and has no id to answer to: {fault}");
            return false;
        }
    };
    if worker.stop_taking.is_cancelled() {
        info!(id, batch, "the job came while draining, and is given back");
        return false;
    }
    let Some(guard) = worker.delivery.in_flight.guard(id) else {
        warn!(id, batch, "the job is in hand already, and is not begun again");
        return false;
    };
    jobs.spawn(job::work(Arc::clone(worker), job, TakenJob { guard, slot, queue }));
    true
}
