//! The worker: takes jobs from a queue as it has slots for them, has them drawn side by side, and delivers what came of them.
//!
//! A slot is held before the queue is asked, and until the job's end is delivered; what came of it is on disk before it is first sent,
//! and what a process left there the next sends before it has an engine. A job that we abort without a word, because
//! it came while draining, the engine was lost or time ran out, is one that heartbeats no longer list: the queue gives it to
//! somebody else. That is all the giving back that the RunPod protocol has, and more than a failure, which a client would see.

mod background;
mod failure;
mod finish;
mod in_flight;
mod job;
mod job_metrics;
mod render;
mod rendering;
mod report;
mod slots;
mod state;
mod take;

use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::deliver::{DeliveryParts, Sink};
use crate::source::JobSource;
use crate::stop::Stop;
use crate::telemetry::Telemetry;
use crate::telemetry::health::Phase;
use background::BackgroundTasks;
pub use failure::Failure;
use in_flight::InFlight;
pub use render::{RenderContext, RenderOutcome, render};
pub use rendering::{Drawn, Png, RenderEvent, Rendering, files};
pub use slots::{EngineCapacity, slots};
use state::{Delivery, WorkerState};
pub use state::{Resources, WorkerOptions};

/// For what an earlier process left, where this one cannot work.
const FLUSH_TIME: Duration = Duration::from_secs(10);

/// Why a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerEnd {
    /// It was told to, and has nothing in hand.
    Drained,
    /// The queue can never work, and why.
    NoQueue(String),
    /// The engine is gone; another process can go on.
    EngineLost,
}

/// Works until it is told to stop, or cannot go on. From the beginning the queue hears that we live, and is sent what an earlier
/// process left; jobs are taken from when `ready` says with what. What is not delivered in the end lies in the spool of `parts`.
///
/// # Errors
/// Those of `ready`. What an earlier process left has ten seconds to be sent before that.
pub async fn work<S: JobSource, K: Sink, U>(
    source: &S,
    parts: DeliveryParts<K>,
    telemetry: Telemetry,
    ready: impl Future<Output = Result<(Resources, WorkerOptions), U>>,
    stop: Stop,
) -> Result<WorkerEnd, U> {
    let DeliveryParts { spool, results, left, uploads, webhooks, deliveries } = parts;
    let (in_flight, abort) = (InFlight::default(), CancellationToken::new());
    let delivery = Arc::new(Delivery { results, spool, webhooks, in_flight, telemetry, abort });
    let mut tasks = BackgroundTasks::begin(&delivery, left, deliveries);
    let worked = async {
        let (resources, options) = select! {
            biased;
            () = stop.draining.cancelled() => {
                info!("stopped before it was ready");
                delivery.telemetry.health.enter(Phase::Draining);
                tasks.abort(&delivery).await;
                return Ok(WorkerEnd::Drained);
            }
            ready = ready => match ready {
                Ok(ready) => ready,
                Err(unfit) => {
                    flush(&delivery, &mut tasks, &stop).await;
                    return Err(unfit);
                }
            },
        };
        let slots = Arc::new(Semaphore::new(options.at_once()));
        let (stop_taking, engine_lost) = (stop.draining.child_token(), CancellationToken::new());
        let delivery = Arc::clone(&delivery);
        let worker = Arc::new(WorkerState { delivery, uploads, resources, options, slots, stop_taking, engine_lost });
        Ok(serve(source, &worker, &mut tasks, &stop).await)
    };
    // The heartbeat is last to end: until then the queue must know that we live.
    select! {
        end = worked => end,
        never = source.heartbeat(|| delivery.in_flight.ids()) => match never {},
        never = source.watch_stops(|id| stop_job(&delivery.in_flight, id)) => match never {},
        never = delivery.spool.tend(delivery.results.clock()) => match never {},
    }
}

fn stop_job(in_flight: &InFlight, id: &str) {
    if in_flight.stop(id) {
        info!(id, "the job is no longer wanted");
    }
}

/// Sends what an earlier process left, and does not wait for it for long.
async fn flush<K: Sink>(delivery: &Delivery<K>, tasks: &mut BackgroundTasks, stop: &Stop) {
    select! {
        biased;
        () = tasks.done() => {}
        () = stop.draining.cancelled() => {}
        () = sleep(FLUSH_TIME) => warn!("what an earlier process left waits for the next start"),
    }
    tasks.abort(delivery).await;
}

async fn serve<S: JobSource, K: Sink>(
    source: &S,
    worker: &Arc<WorkerState<K>>,
    tasks: &mut BackgroundTasks,
    stop: &Stop,
) -> WorkerEnd {
    let Telemetry { metrics, health } = &worker.delivery.telemetry;
    metrics.slots(worker.options.at_once());
    health.enter(Phase::Ready);
    let taken = take::until_stopped(source, worker, &tasks.jobs).await;
    health.enter(Phase::Draining);
    info!(jobs = tasks.jobs.len(), "no more jobs are taken");
    let drained = async {
        tasks.jobs_done().await;
        // Without an engine somebody waits for our successor, who finds them on disk.
        if !worker.engine_lost.is_cancelled() {
            tasks.done().await;
        }
    };
    let why = select! {
        biased;
        () = drained => None,
        () = stop.now.cancelled() => Some("jobs in hand are aborted"),
        () = sleep(worker.options.drain) => Some("worker.drain is over: jobs in hand are aborted"),
    };
    if let Some(why) = why {
        warn!(jobs = tasks.jobs.len(), "{why}");
    }
    tasks.abort(&worker.delivery).await;
    match taken {
        _ if worker.engine_lost.is_cancelled() => WorkerEnd::EngineLost,
        Ok(()) => WorkerEnd::Drained,
        Err(why) => WorkerEnd::NoQueue(why),
    }
}
