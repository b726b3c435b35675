//! The worker: takes jobs from a queue as it has slots for them, has them drawn side by side, and delivers what came of them.
//!
//! A slot is held before the queue is asked, and until the job's end is delivered; what came of it is on disk before it is first sent. A job that we let go of without a word, because
//! it came while draining, the engine was lost or time ran out, is one that no heartbeat lists any more: the queue gives it to
//! somebody else. That is all the giving back that the RunPod protocol has, and more than a failure, which a client would see.

mod draw;
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
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::deliver::outbox::Deliveries;
use crate::deliver::results::Results;
use crate::deliver::spool::Spool;
use crate::deliver::upload::Uploads;
use crate::deliver::{Office, Sink, Webhooks};
use crate::engine::fleet::Fleet;
use crate::intake::Intake;
use crate::job::Offer;
use crate::source::JobSource;
use crate::stop::Stop;
use crate::telemetry::Watch;
use crate::telemetry::health::Phase;
pub use draw::{Drawn, Png};
use held::Held;
pub use render::{Failure, Outcome, Seen, Terms, render};
pub use slots::{Room, slots};

/// For jobs to notice that they are let go of.
const LET_GO: Duration = Duration::from_secs(2);

/// What a worker draws with.
pub struct Means {
    /// The engines.
    pub fleet: Arc<Fleet>,
    /// What brings in images.
    pub intake: Intake,
    /// What can be drawn with, asked for each job.
    pub offer: Box<dyn Fn() -> Offer + Send + Sync>,
    /// Whether prompts may be logged.
    pub log_prompts: bool,
    /// Where it tells its operator how it is and what it does.
    pub watch: Watch,
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
    /// Whether it asks to be replaced after one job, and ends.
    pub refresh: bool,
    /// Whether results have timings and warnings.
    pub send_timings: bool,
    /// Bytes that a result may have; `None` is what the hosted platform takes.
    pub max_bytes: Option<u64>,
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

/// What the jobs of a worker share.
struct Shop<K> {
    results: Results<K>,
    spool: Spool,
    uploads: Uploads,
    webhooks: Option<Webhooks>,
    means: Means,
    manners: Manners,
    held: Held,
    slots: Arc<Semaphore>,
    /// No more jobs are taken.
    enough: CancellationToken,
    /// Jobs in hand are let go of.
    let_go: CancellationToken,
    /// The engine is gone.
    lost: CancellationToken,
}

/// Works until it is told to stop, or cannot go on. What is not delivered by then lies in the office's spool.
pub async fn work<S: JobSource, K: Sink>(
    source: S,
    office: Office<K>,
    means: Means,
    manners: Manners,
    stop: Stop,
) -> End {
    let Office { spool, results, left, uploads, webhooks, mut deliveries } = office;
    let shop = Arc::new(Shop {
        results,
        spool,
        uploads,
        webhooks,
        means,
        manners,
        held: Held::default(),
        slots: Arc::new(Semaphore::new(manners.slots)),
        enough: stop.draining.child_token(),
        let_go: CancellationToken::new(),
        lost: CancellationToken::new(),
    });
    let jobs = TaskTracker::new();
    finish::resend(&shop, left, deliveries.as_mut(), &jobs);
    shop.means.watch.metrics.slots(manners.slots);
    shop.means.watch.health.enter(Phase::Ready);
    // The heartbeat is last to end: until then the queue must know that we live.
    select! {
        end = serve(&source, &shop, &jobs, deliveries, &stop) => end,
        never = source.beat(|| shop.held.ids()) => match never {},
        never = source.hear_stops(|id| heed(&shop.held, id)) => match never {},
        never = shop.spool.tend(shop.results.clock()) => match never {},
    }
}

fn heed(held: &Held, id: &str) {
    if held.stop(id) {
        info!(id, "the job is no longer wanted");
    }
}

async fn serve<S: JobSource, K: Sink>(
    source: &S,
    shop: &Arc<Shop<K>>,
    jobs: &TaskTracker,
    deliveries: Option<Deliveries>,
    stop: &Stop,
) -> End {
    let (mut webhooks, all_handed_over) = (JoinSet::new(), CancellationToken::new());
    if let Some(deliveries) = deliveries {
        webhooks.spawn(deliveries.run(all_handed_over.clone()));
    }
    let taken = take::until_enough(source, shop, jobs).await;
    jobs.close();
    shop.means.watch.health.enter(Phase::Draining);
    info!(jobs = jobs.len(), "no more jobs are taken");
    let drained = async {
        jobs.wait().await;
        all_handed_over.cancel();
        // Without an engine somebody waits for our successor, who finds them on disk.
        if !shop.lost.is_cancelled() {
            while webhooks.join_next().await.is_some() {}
        }
    };
    select! {
        biased;
        () = drained => {}
        () = stop.now.cancelled() => warn!(jobs = jobs.len(), "jobs in hand are let go of"),
        () = sleep(shop.manners.drain) => {
            warn!(jobs = jobs.len(), "worker.drain is over: jobs in hand are let go of");
        }
    }
    shop.let_go.cancel();
    if timeout(LET_GO, jobs.wait()).await.is_err() {
        warn!(jobs = jobs.len(), "jobs do not end");
    }
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
