//! The worker: takes jobs from a queue as it has slots for them, has them drawn side by side, and delivers what came of them.
//!
//! A slot is held before the queue is asked, and until the job's end is delivered; what came of it is on disk before it is first sent,
//! and what a process left there the next sends before it has an engine. A job that we let go of without a word, because
//! it came while draining, the engine was lost or time ran out, is one that no heartbeat lists any more: the queue gives it to
//! somebody else. That is all the giving back that the RunPod protocol has, and more than a failure, which a client would see.

mod draw;
mod errands;
mod finish;
mod held;
mod job;
mod render;
mod report;
mod slots;
mod take;
mod tally;

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
use crate::deliver::{Office, Sink, Webhooks};
use crate::engine::fleet::Fleet;
use crate::intake::Intake;
use crate::source::JobSource;
use crate::stop::Stop;
use crate::telemetry::Watch;
use crate::telemetry::health::Phase;
pub use draw::{Drawn, Png};
use errands::Errands;
use held::Held;
pub use render::{Failure, Outcome, Seen, Terms, render};
pub use slots::{Room, slots};

/// For what an earlier process left, where this one cannot work.
const FLUSH: Duration = Duration::from_secs(10);

/// What a worker draws with.
pub struct Means {
    /// The engines.
    pub fleet: Arc<Fleet>,
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
pub struct Manners {
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

impl Manners {
    /// Jobs in hand at the same time: the queue may end a worker that asks to be replaced, and with it whatever else it has.
    pub fn at_once(&self) -> usize {
        if self.refresh { 1 } else { self.slots }
    }
}

/// Why a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It was told to, and has nothing in hand.
    Drained,
    /// The queue can never work, and why.
    NoQueue(String),
    /// The engine is gone; another process can go on.
    EngineLost,
}

/// What the ends of jobs go through, whether there is an engine or not.
struct Desk<K> {
    results: Results<K>,
    spool: Spool,
    webhooks: Option<Webhooks>,
    held: Held,
    watch: Watch,
    /// Jobs in hand are let go of.
    let_go: CancellationToken,
}

/// What the jobs of a worker share.
struct Shop<K> {
    desk: Arc<Desk<K>>,
    uploads: Uploads,
    means: Means,
    manners: Manners,
    slots: Arc<Semaphore>,
    /// No more jobs are taken.
    enough: CancellationToken,
    /// The engine is gone.
    lost: CancellationToken,
}

/// Works until it is told to stop, or cannot go on. From the beginning the queue hears that we live, and is sent what an earlier
/// process left; jobs are taken from when `ready` says with what. What is not delivered in the end lies in the office's spool.
///
/// # Errors
/// Those of `ready`. What an earlier process left has ten seconds to be sent before that.
pub async fn work<S: JobSource, K: Sink, U>(
    source: &S,
    office: Office<K>,
    watch: Watch,
    ready: impl Future<Output = Result<(Means, Manners), U>>,
    stop: Stop,
) -> Result<End, U> {
    let Office { spool, results, left, uploads, webhooks, deliveries } = office;
    let (held, let_go) = (Held::default(), CancellationToken::new());
    let desk = Arc::new(Desk { results, spool, webhooks, held, watch, let_go });
    let mut errands = Errands::begin(&desk, left, deliveries);
    let worked = async {
        let (means, manners) = select! {
            biased;
            () = stop.draining.cancelled() => {
                info!("stopped before it was ready");
                desk.watch.health.enter(Phase::Draining);
                errands.let_go(&desk).await;
                return Ok(End::Drained);
            }
            ready = ready => match ready {
                Ok(ready) => ready,
                Err(unfit) => {
                    flush(&desk, &mut errands, &stop).await;
                    return Err(unfit);
                }
            },
        };
        let slots = Arc::new(Semaphore::new(manners.at_once()));
        let (enough, lost) = (stop.draining.child_token(), CancellationToken::new());
        let desk = Arc::clone(&desk);
        let shop = Arc::new(Shop { desk, uploads, means, manners, slots, enough, lost });
        Ok(serve(source, &shop, &mut errands, &stop).await)
    };
    // The heartbeat is last to end: until then the queue must know that we live.
    select! {
        end = worked => end,
        never = source.beat(|| desk.held.ids()) => match never {},
        never = source.hear_stops(|id| heed(&desk.held, id)) => match never {},
        never = desk.spool.tend(desk.results.clock()) => match never {},
    }
}

fn heed(held: &Held, id: &str) {
    if held.stop(id) {
        info!(id, "the job is no longer wanted");
    }
}

/// Sends what an earlier process left, and does not wait for it for long.
async fn flush<K: Sink>(desk: &Desk<K>, errands: &mut Errands, stop: &Stop) {
    select! {
        biased;
        () = errands.done() => {}
        () = stop.draining.cancelled() => {}
        () = sleep(FLUSH) => warn!("what an earlier process left waits for the next start"),
    }
    errands.let_go(desk).await;
}

async fn serve<S: JobSource, K: Sink>(source: &S, shop: &Arc<Shop<K>>, errands: &mut Errands, stop: &Stop) -> End {
    let Watch { metrics, health } = &shop.desk.watch;
    metrics.slots(shop.manners.at_once());
    health.enter(Phase::Ready);
    let taken = take::until_enough(source, shop, &errands.jobs).await;
    health.enter(Phase::Draining);
    info!(jobs = errands.jobs.len(), "no more jobs are taken");
    let drained = async {
        errands.jobs_done().await;
        // Without an engine somebody waits for our successor, who finds them on disk.
        if !shop.lost.is_cancelled() {
            errands.done().await;
        }
    };
    let why = select! {
        biased;
        () = drained => None,
        () = stop.now.cancelled() => Some("jobs in hand are let go of"),
        () = sleep(shop.manners.drain) => Some("worker.drain is over: jobs in hand are let go of"),
    };
    if let Some(why) = why {
        warn!(jobs = errands.jobs.len(), "{why}");
    }
    errands.let_go(&shop.desk).await;
    match taken {
        _ if shop.lost.is_cancelled() => End::EngineLost,
        Ok(()) => End::Drained,
        Err(why) => End::NoQueue(why),
    }
}

impl fmt::Debug for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Means").field("fleet", &self.fleet).field("intake", &self.intake).finish_non_exhaustive()
    }
}
