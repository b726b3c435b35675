//! The worker: takes jobs from a queue as it has slots for them, has them drawn side by side, and delivers what came of them.
//!
//! A slot is held before the queue is asked, and until the job's end is delivered; what came of it is on disk before it is first sent,
//! and what a process left there the next sends before it has an engine. A job that we abort without a word, because
//! it came while draining, the engine was lost or time ran out, is one that no heartbeat lists any more: the queue gives it to
//! somebody else. That is all the giving back that the RunPod protocol has, and more than a failure, which a client would see.

mod background;
mod draw;
mod finish;
mod in_flight;
mod job;
mod job_metrics;
mod render;
mod report;
mod slots;
mod take;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::deliver::results::Results;
use crate::deliver::spool::Spool;
use crate::deliver::upload::Uploads;
use crate::deliver::{DeliveryParts, Sink, WorkerWebhooks};
use crate::engine::pool::EnginePool;
use crate::intake::Intake;
use crate::source::JobSource;
use crate::stop::Stop;
use crate::telemetry::Telemetry;
use crate::telemetry::health::Phase;
use background::BackgroundTasks;
pub use draw::{Drawn, Png};
use in_flight::InFlight;
pub use render::{Failure, RenderContext, RenderEvent, RenderOutcome, render};
pub use slots::{EngineCapacity, slots};

/// For what an earlier process left, where this one cannot work.
const FLUSH_TIME: Duration = Duration::from_secs(10);

/// What a worker draws with.
pub struct Resources {
    /// The engines.
    pub pool: Arc<EnginePool>,
    /// What brings in images.
    pub intake: Intake,
    /// Names of the models that jobs may ask for; the first is that of jobs which name none.
    pub models: Vec<String>,
    /// Names of the LoRA files that there are now. Blocks; asked for each job that names one.
    pub loras: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Whether prompts may be logged.
    pub log_prompts: bool,
}

/// How a worker behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerOptions {
    /// Jobs in hand at the same time, at least one.
    pub slots: usize,
    /// For jobs in hand when it is told to stop.
    pub drain: Duration,
    /// For the queue to answer anything but errors, from the first poll, which it may hold for as long; `None` is for ever.
    pub start_deadline: Option<Duration>,
    /// Whether it asks to be replaced after one job, and ends; then it has one job in hand.
    pub refresh: bool,
    /// Whether results have timings and warnings.
    pub send_timings: bool,
    /// Bytes that a result may have; `None` is what the hosted platform takes.
    pub max_bytes: Option<u64>,
}

impl WorkerOptions {
    /// Jobs in hand at the same time: the queue may end a worker that asks to be replaced, and with it whatever else it has.
    pub fn at_once(&self) -> usize {
        if self.refresh { 1 } else { self.slots }
    }
}

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

/// What the ends of jobs go through, whether there is an engine or not.
struct Delivery<K> {
    results: Results<K>,
    spool: Spool,
    webhooks: Option<WorkerWebhooks>,
    in_flight: InFlight,
    telemetry: Telemetry,
    /// Jobs in hand are aborted.
    abort: CancellationToken,
}

/// What the jobs of a worker share.
struct WorkerState<K> {
    delivery: Arc<Delivery<K>>,
    uploads: Uploads,
    resources: Resources,
    options: WorkerOptions,
    slots: Arc<Semaphore>,
    /// No more jobs are taken.
    stop_taking: CancellationToken,
    /// The engine is gone.
    engine_lost: CancellationToken,
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

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resources").field("pool", &self.pool).field("intake", &self.intake).finish_non_exhaustive()
    }
}
