//! What a worker works with: what it draws with and how it behaves, and what its jobs and their deliveries share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::in_flight::InFlight;
use crate::deliver::WorkerWebhooks;
use crate::deliver::results::Results;
use crate::deliver::spool::Spool;
use crate::deliver::upload::Uploads;
use crate::engine::pool::EnginePool;
use crate::intake::Intake;
use crate::job::OfferedModel;
use crate::telemetry::Telemetry;

/// What a worker draws with.
pub struct Resources {
    /// The engines.
    pub pool: Arc<EnginePool>,
    /// What brings in images.
    pub intake: Intake,
    /// The models that jobs may ask for; the first is that of jobs which name none.
    pub models: Vec<OfferedModel>,
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
    /// Bytes that a result may have; `None` is what the queue takes: a gateway of latentd more than the hosted platform.
    pub max_bytes: Option<u64>,
}

impl WorkerOptions {
    /// Jobs in hand at the same time: the queue may end a worker that asks to be replaced, and with it whatever else it has.
    pub fn at_once(&self) -> usize {
        if self.refresh { 1 } else { self.slots }
    }
}

/// What the ends of jobs go through, whether there is an engine or not.
pub(super) struct Delivery<K> {
    pub(super) results: Results<K>,
    pub(super) spool: Spool,
    pub(super) webhooks: Option<WorkerWebhooks>,
    pub(super) in_flight: InFlight,
    pub(super) telemetry: Telemetry,
    /// Jobs in hand are aborted.
    pub(super) abort: CancellationToken,
}

/// What the jobs of a worker share.
pub(super) struct WorkerState<K> {
    pub(super) delivery: Arc<Delivery<K>>,
    pub(super) uploads: Uploads,
    pub(super) resources: Resources,
    pub(super) options: WorkerOptions,
    pub(super) slots: Arc<Semaphore>,
    /// No more jobs are taken.
    pub(super) stop_taking: CancellationToken,
    /// The engine is gone.
    pub(super) engine_lost: CancellationToken,
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resources").field("pool", &self.pool).field("intake", &self.intake).finish_non_exhaustive()
    }
}
