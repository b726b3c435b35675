//! The loop that takes jobs.

use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::Shop;
use super::job::{self, Ticket};
use crate::deliver::Sink;
use crate::job::{Delivered, NotAJob};
use crate::net::{Pauses, jitter};
use crate::source::{JobSource, TakeError, Taken, Verdict};

/// After errors.
const PAUSES: Pauses = Pauses { first: Duration::from_secs(1), most: Duration::from_secs(15) };

/// An empty answer that came sooner than this was no long poll.
const QUICK: Duration = Duration::from_secs(1);

/// Between polls of a queue that does not hold them, for each that was empty, up to [`QUICK`].
const STEP: Duration = Duration::from_millis(100);

/// Takes jobs until it is enough; each becomes a task of `jobs`.
///
/// # Errors
/// Why the queue can never work.
pub(super) async fn until_enough<S: JobSource, K: Sink>(
    source: &S,
    shop: &Arc<Shop<K>>,
    jobs: &TaskTracker,
) -> Result<(), String> {
    let began = Instant::now();
    let (mut failures, mut quick, mut answered) = (0, 0, false);
    while let Some(mut slots) = free(shop).await {
        let asked = Instant::now();
        let taken = source.take(slots.len(), !shop.held.none(), &shop.enough).await;
        let pause = match taken {
            Ok(Taken { jobs: taken, gateway }) => {
                (failures, answered) = (0, true);
                quick = if taken.is_empty() && asked.elapsed() < QUICK { quick + 1 } else { 0 };
                for job in taken {
                    accept(shop, jobs, job, slots.pop(), gateway);
                }
                // The first is polled again at once, as in the SDK.
                QUICK.min(STEP * u32::saturating_sub(quick, 1))
            }
            Err(TakeError { why, verdict: Verdict::Stop }) => return Err(why),
            Err(TakeError { verdict: Verdict::Again, .. }) => Duration::ZERO,
            Err(TakeError { why, verdict: Verdict::Retry(told) }) => {
                if let Some(deadline) = shop.manners.start_deadline.filter(|most| !answered && began.elapsed() >= *most)
                {
                    return Err(format!("{why}, for the {} s of worker.start_deadline", deadline.as_secs_f64()));
                }
                failures += 1;
                let pause = PAUSES.after(failures, told, jitter()).max(PAUSES.first);
                warn!(failures, "no jobs, asking again in {} ms: {why}", pause.as_millis());
                pause
            }
        };
        drop(slots);
        select! {
            biased;
            () = shop.enough.cancelled() => break,
            () = sleep(pause) => {}
        }
    }
    Ok(())
}

/// Every slot that is free, at least one, when there is room for what would come of it; `None` when it is enough.
async fn free<K: Sink>(shop: &Shop<K>) -> Option<Vec<OwnedSemaphorePermit>> {
    let room = async {
        if !shop.spool.has_room() {
            warn!("spool.max_bytes is reached: no jobs are taken until results or webhooks have arrived");
            shop.spool.room().await;
            info!("the spool has room again");
        }
        Arc::clone(&shop.slots).acquire_owned().await
    };
    let first = select! {
        biased;
        () = shop.enough.cancelled() => return None,
        slot = room => slot.ok()?,
    };
    let others = std::iter::from_fn(|| Arc::clone(&shop.slots).try_acquire_owned().ok());
    Some([first].into_iter().chain(others).collect())
}

/// Begins to work on a job. One more than was asked for waits for a slot of its own.
fn accept<K: Sink>(
    shop: &Arc<Shop<K>>,
    jobs: &TaskTracker,
    job: Result<Delivered, NotAJob>,
    slot: Option<OwnedSemaphorePermit>,
    gateway: bool,
) {
    let id = match &job {
        Ok(job) => &job.id,
        Err(NotAJob { id: Some(id), .. }) => id,
        Err(fault) => return warn!("what the queue handed out is no job, and has no id to answer to: {fault}"),
    };
    if shop.enough.is_cancelled() {
        return info!(id, "the job came while draining, and is given back");
    }
    let Some(hold) = shop.held.hold(id) else {
        return warn!(id, "the job is in hand already, and is not begun again");
    };
    jobs.spawn(job::work(Arc::clone(shop), job, Ticket { hold, slot, gateway }));
}
