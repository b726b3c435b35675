//! `latentd worker`: wires queue, engine and delivery together.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::select;
use tracing::{error, info, warn};

use super::fitness::{self, Machine, Unfit};
use super::run::intake;
use super::running::{running, until_stopped, watched};
use super::{Exit, complain, engine, hashing, office};
use crate::config::{Config, ConfigError, Queue, Secret, Served};
use crate::deliver::runpod::JobDone;
use crate::engine::fleet::Fleet;
use crate::net::{NoUrl, Trusted};
use crate::source::runpod::{RunPod, Urls};
use crate::stop::Stop;
use crate::telemetry::Watch;
use crate::telemetry::health::Phase;
use crate::worker::{End, Manners, Means, Room, slots, work};

/// Jobs in hand at most, whatever is asked for: each holds its images in memory.
const MOST_SLOTS: usize = 1024;

/// Works until it is told to stop.
pub(super) fn execute(config: &Config) -> Exit {
    let (queue, models, loras) = (config.queue(), config.models(), config.loras());
    let faults = [queue.as_ref().err(), models.as_ref().err(), loras.as_ref().err()];
    faults.into_iter().flatten().for_each(complain);
    let Ok(queue) = queue else { return Exit::Usage };
    let models = models.and_then(|models| loras.map(|_| models));
    running(until_stopped(async |stop| {
        watched(config, async |watch| start(config, queue, models, watch, stop).await).await
    }))
}

/// Works on a queue until it is told to stop, or cannot go on.
pub(super) async fn start(
    config: &Config,
    queue: Queue,
    models: Result<Vec<Served>, ConfigError>,
    watch: Watch,
    stop: Stop,
) -> Exit {
    let id = name(&queue);
    let (source, sink) = match ends(config, &queue, &id, &watch) {
        Ok(ends) => ends,
        Err(why) => {
            error!("the queue can never work: {why}");
            return Exit::Unavailable;
        }
    };
    let opened = select! {
        opened = office::open(config, &queue, &id, sink, &watch.metrics) => opened,
        () = stop.draining.cancelled() => return Exit::Done,
    };
    let (intake, office) = match (intake(config), opened) {
        (Ok(intake), Ok(office)) => (intake, office),
        (Err(cause), _) | (_, Err(cause)) => {
            error!("{cause}");
            return Exit::Failed;
        }
    };
    let mut hashes = None;
    let ready = async {
        match prepare(config, models, &watch).await {
            Ok(Prepared { fleet, models, rooms, files }) => {
                let manners = manners(config, &rooms);
                info!(worker = id, models = models.join(", "), slots = manners.at_once(), "taking jobs");
                hashes = Some(hashing::begin(files, watch.metrics.clone()));
                let (loras, log_prompts) = (loras(config.clone()), config.log.prompts);
                Ok((Means { fleet, intake, models, loras, log_prompts }, manners))
            }
            Err(NotReady(unfit, exit)) => {
                error!(check = unfit.check, "the worker is not fit: {}", unfit.why);
                watch.health.enter(Phase::Unfit);
                Err(NotReady(unfit, exit))
            }
        }
    };
    let ended = work(&source, office, watch.clone(), ready, stop).await;
    // Engines are not waited for: the process ends by `_exit`, under which they cannot trip, and the driver frees what they hold.
    drop(hashes);
    match ended {
        Ok(End::Drained) => Exit::Done,
        Ok(End::NoQueue(why)) => {
            error!("the queue can never work: {why}");
            Exit::Unavailable
        }
        Ok(End::EngineLost) => Exit::Restart,
        Err(NotReady(unfit, exit)) => {
            source.unhealthy(unfit.check, &unfit.why).await;
            exit
        }
    }
}

/// What a worker can begin with.
struct Prepared {
    fleet: Arc<Fleet>,
    models: Vec<String>,
    rooms: Vec<Room>,
    /// Where the models are that were loaded.
    files: BTreeSet<PathBuf>,
}

/// A worker that does not get as far as its first job, and what the process ends with.
struct NotReady(Unfit, Exit);

impl From<Unfit> for NotReady {
    fn from(unfit: Unfit) -> Self {
        Self(unfit, Exit::Failed)
    }
}

impl From<ConfigError> for NotReady {
    fn from(fault: ConfigError) -> Self {
        Self(Unfit { check: "configuration", why: fault.to_string() }, Exit::Usage)
    }
}

/// Looks at the machine, loads the engines, and sees that they draw.
async fn prepare(
    config: &Config,
    models: Result<Vec<Served>, ConfigError>,
    watch: &Watch,
) -> Result<Prepared, NotReady> {
    let models = models?;
    let first = || models.iter().filter(|served| served.at_start).map(|served| &served.model);
    let names: Vec<String> = first().map(|model| model.name.clone()).collect();
    let all = models.iter().map(|served| served.model.name.clone()).collect();
    let settings = config.clone();
    let machine = Machine {
        limits: config.fitness,
        devices: Box::new(move |weights| engine::devices(&settings, weights)),
        spool: fitness::spool(config),
        models: first().map(|model| model.path.clone()).collect(),
    };
    let files = machine.models.iter().cloned().collect();
    // The disk is at work while devices are looked at, which begins with loading all of CUDA.
    let ahead = first().next().map(|model| engine::ahead(config, model));
    machine.examine().await?;
    drop(ahead);
    let fleet = engine::fleet(config, models, watch.metrics.clone()).await.map_err(|failure| {
        let exit = if failure.error.code == engine::NOT_BUILT { Exit::Usage } else { Exit::Failed };
        NotReady(Unfit { check: "engine", why: failure.error.message }, exit)
    })?;
    watch.health.enter(Phase::Examining);
    let rooms = fitness::pictures(&fleet, &names).await?;
    Ok(Prepared { fleet: Arc::new(fleet), models: all, rooms, files })
}

/// What the queue knows the worker by.
fn name(queue: &Queue) -> String {
    queue.worker.clone().unwrap_or_else(|| format!("latentd-{:016x}", RandomState::new().hash_one(0)))
}

fn ends(config: &Config, queue: &Queue, id: &str, watch: &Watch) -> Result<(RunPod, JobDone), String> {
    let key = queue.key.as_ref().map(Secret::reveal);
    let http = Trusted::through(key, &config.net.proxies).map_err(|cause| cause.to_string())?;
    let named = |(setting, cause): (&str, NoUrl)| format!("{setting}: {cause}");
    let urls = Urls::new(&queue.take, queue.ping.as_deref(), id).map_err(named)?;
    let sink = JobDone::new(http.clone(), &queue.done, queue.stream.as_deref(), id).map_err(named)?;
    let source = RunPod::new(http, urls, queue.interval);
    Ok((source.watched(watch.metrics.clone()), sink.watched(watch.metrics.clone())))
}

fn manners(config: &Config, rooms: &[Room]) -> Manners {
    let worker = &config.worker;
    let asked = worker.concurrency.map(|asked| usize::try_from(asked).unwrap_or(usize::MAX));
    let slots = asked.unwrap_or_else(|| slots(rooms)).min(MOST_SLOTS);
    if asked > Some(slots) {
        warn!("worker.concurrency is more than {MOST_SLOTS}, which is the most");
    }
    if asked > Some(1) && worker.refresh {
        warn!(
            "worker.refresh is set, so that worker.concurrency is 1: the queue may end the worker with its first result"
        );
    }
    Manners {
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
