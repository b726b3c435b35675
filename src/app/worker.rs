//! `latentd worker`: wires queue, engine and delivery together.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::select;
use tracing::{error, info, warn};

use super::fitness::{self, MachineChecks, UnfitWorker};
use super::offer::OfferError;
use super::run::intake;
use super::running::{running, until_stopped, watched};
use super::{Exit, complain, delivery, engine, hashing, offer};
use crate::config::{Config, ConfigError, QueueConfig, Secret, ServedModel};
use crate::deliver::runpod::RunPodSink;
use crate::engine::pool::EnginePool;
use crate::job::{Code, OfferedModel};
use crate::net::{InvalidUrl, TrustedClient};
use crate::source::runpod::{RunPodSource, Urls};
use crate::stop::Stop;
use crate::telemetry::Telemetry;
use crate::telemetry::health::Phase;
use crate::worker::{EngineCapacity, Resources, WorkerEnd, WorkerOptions, slots, work};

/// Jobs in hand at most, whatever is asked for: each holds its images in memory.
const MAX_WORKER_SLOTS: usize = 1024;

/// Works until it is told to stop.
pub(super) fn execute(config: &Config) -> Exit {
    let (queue, models, loras) = (config.queue(), config.models(), config.loras());
    let faults = [queue.as_ref().err(), models.as_ref().err(), loras.as_ref().err()];
    faults.into_iter().flatten().for_each(complain);
    let Ok(queue) = queue else { return Exit::Usage };
    let models = models.and_then(|models| loras.map(|_| models));
    running(until_stopped(async |stop| {
        watched(config, async |telemetry| start(config, queue, models, telemetry, stop).await).await
    }))
}

/// Works on a queue until it is told to stop, or cannot go on.
pub(super) async fn start(
    config: &Config,
    queue: QueueConfig,
    models: Result<Vec<ServedModel>, ConfigError>,
    telemetry: Telemetry,
    stop: Stop,
) -> Exit {
    let id = name(&queue);
    let (source, sink) = match ends(config, &queue, &id, &telemetry) {
        Ok(ends) => ends,
        Err(why) => {
            error!("the queue can never work: {why}");
            return Exit::Unavailable;
        }
    };
    let opened = select! {
        opened = delivery::open(config, &queue, &id, sink, &telemetry.metrics) => opened,
        () = stop.draining.cancelled() => return Exit::Done,
    };
    let (intake, delivery) = match (intake(config), opened) {
        (Ok(intake), Ok(delivery)) => (intake, delivery),
        (Err(cause), _) | (_, Err(cause)) => {
            error!("{cause}");
            return Exit::Failed;
        }
    };
    let mut hashes = None;
    let ready = async {
        match prepare(config, models, &telemetry).await {
            Ok(Prepared { pool, models, rooms, files }) => {
                let options = options(config, &rooms);
                info!(worker = id, models = names(&models).join(", "), slots = options.at_once(), "taking jobs");
                hashes = Some(hashing::begin(files, telemetry.metrics.clone()));
                let (loras, log_prompts) = (loras(config.clone()), config.log.prompts);
                Ok((Resources { pool, intake, models, loras, log_prompts }, options))
            }
            Err(NotReady(unfit, exit)) => {
                error!(check = unfit.check, "the worker is not fit: {}", unfit.why);
                telemetry.health.enter(Phase::Unfit);
                Err(NotReady(unfit, exit))
            }
        }
    };
    let ended = work(&source, delivery, telemetry.clone(), ready, stop).await;
    // Engines are not waited for: the process ends by `_exit`, under which they cannot trip, and the driver frees what they hold.
    drop(hashes);
    match ended {
        Ok(WorkerEnd::Drained) => Exit::Done,
        Ok(WorkerEnd::NoQueue(why)) => {
            error!("the queue can never work: {why}");
            Exit::Unavailable
        }
        Ok(WorkerEnd::EngineLost) => Exit::Restart,
        Err(NotReady(unfit, exit)) => {
            source.unhealthy(unfit.check, &unfit.why).await;
            exit
        }
    }
}

/// What a worker can begin with.
struct Prepared {
    pool: Arc<EnginePool>,
    models: Vec<OfferedModel>,
    rooms: Vec<EngineCapacity>,
    /// Where the models are that were loaded.
    files: BTreeSet<PathBuf>,
}

/// A worker that does not get as far as its first job, and what the process ends with.
struct NotReady(UnfitWorker, Exit);

impl From<UnfitWorker> for NotReady {
    fn from(unfit: UnfitWorker) -> Self {
        Self(unfit, Exit::Failed)
    }
}

impl From<OfferError> for NotReady {
    fn from(fault: OfferError) -> Self {
        Self(UnfitWorker { check: "configuration", why: fault.to_string() }, Exit::Usage)
    }
}

impl From<ConfigError> for NotReady {
    fn from(fault: ConfigError) -> Self {
        Self(UnfitWorker { check: "configuration", why: fault.to_string() }, Exit::Usage)
    }
}

/// Looks at the machine, loads the engines, and sees that they draw.
async fn prepare(
    config: &Config,
    models: Result<Vec<ServedModel>, ConfigError>,
    telemetry: &Telemetry,
) -> Result<Prepared, NotReady> {
    let models = models?;
    let first = || models.iter().filter(|served| served.at_start);
    let names: Vec<String> = first().map(|served| served.model.name.clone()).collect();
    let offered = offer::models(&models)?;
    let settings = config.clone();
    let machine = MachineChecks {
        limits: config.fitness,
        devices: Box::new(move |weights| engine::devices(&settings, weights)),
        spool: fitness::spool(config),
        models: first().flat_map(ServedModel::paths).map(Path::to_owned).collect(),
    };
    let files = machine.models.iter().cloned().collect();
    // The disk is at work while devices are looked at, which begins with loading all of CUDA.
    let ahead = first().next().map(|model| engine::ahead(config, model));
    machine.examine().await?;
    drop(ahead);
    let pool = engine::pool(config, models, telemetry.metrics.clone()).await.map_err(|failure| {
        let exit = if failure.error.code == Code::NotBuilt { Exit::Usage } else { Exit::Failed };
        NotReady(UnfitWorker { check: "engine", why: failure.error.message }, exit)
    })?;
    telemetry.health.enter(Phase::Examining);
    let first: Vec<OfferedModel> = offered.iter().filter(|model| names.contains(&model.name)).cloned().collect();
    let rooms = fitness::pictures(&pool, &first).await?;
    Ok(Prepared { pool: Arc::new(pool), models: offered, rooms, files })
}

fn names(models: &[OfferedModel]) -> Vec<&str> {
    models.iter().map(|model| model.name.as_str()).collect()
}

/// What the queue knows the worker by.
fn name(queue: &QueueConfig) -> String {
    queue.worker.clone().unwrap_or_else(|| format!("latentd-{:016x}", RandomState::new().hash_one(0)))
}

fn ends(
    config: &Config,
    queue: &QueueConfig,
    id: &str,
    telemetry: &Telemetry,
) -> Result<(RunPodSource, RunPodSink), String> {
    let key = queue.key.as_ref().map(Secret::reveal);
    let http = TrustedClient::through(key, &config.net.proxies).map_err(|cause| cause.to_string())?;
    let named = |(setting, cause): (&str, InvalidUrl)| format!("{setting}: {cause}");
    let urls = Urls::new(&queue.take, queue.ping.as_deref(), id).map_err(named)?;
    let sink = RunPodSink::new(http.clone(), &queue.done, queue.stream.as_deref(), id).map_err(named)?;
    let source = RunPodSource::new(http, urls, queue.interval);
    Ok((source.with_metrics(telemetry.metrics.clone()), sink.with_metrics(telemetry.metrics.clone())))
}

fn options(config: &Config, rooms: &[EngineCapacity]) -> WorkerOptions {
    let worker = &config.worker;
    let asked = worker.concurrency.map(|asked| usize::try_from(asked).unwrap_or(usize::MAX));
    let slots = asked.unwrap_or_else(|| slots(rooms)).min(MAX_WORKER_SLOTS);
    if asked > Some(slots) {
        warn!("worker.concurrency is more than {MAX_WORKER_SLOTS}, which is the most");
    }
    if asked > Some(1) && worker.refresh {
        warn!(
            "worker.refresh is set, so that worker.concurrency is 1: the queue may end the worker with its first result"
        );
    }
    WorkerOptions {
        slots,
        drain: worker.drain,
        start_deadline: worker.start_deadline,
        refresh: worker.refresh,
        send_timings: worker.send_timings,
        max_bytes: worker.max_bytes,
    }
}

/// The LoRA files that there are: they come and go.
fn loras(config: Config) -> Arc<dyn Fn() -> Vec<String> + Send + Sync> {
    Arc::new(move || {
        config.loras().unwrap_or_else(|cause| {
            warn!("{cause}");
            Vec::new()
        })
    })
}
