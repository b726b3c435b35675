//! `latentd worker`: wires queue, engine and delivery together.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use tokio::runtime;
use tokio::select;
use tracing::{error, info, warn};

use super::fitness::{self, Machine, Unfit};
use super::run::intake;
use super::{Exit, admin, complain, engine, office};
use crate::config::{Config, ConfigError, Queue, Secret, Served};
use crate::deliver::runpod::JobDone;
use crate::engine::fleet::Fleet;
use crate::job::Offer;
use crate::net::{NoUrl, Trusted};
use crate::source::runpod::{RunPod, Urls};
use crate::stop::{Signals, Stop};
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
    match runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let exit = runtime.block_on(async {
                match (models, loras) {
                    (Ok(models), Ok(_)) => until_stopped(config, queue, models).await,
                    (Err(fault), _) | (_, Err(fault)) => misconfigured(&queue, &fault).await,
                }
            });
            // What still looks up a name is not waited for.
            runtime.shutdown_background();
            exit
        }
        Err(cause) => {
            complain(&format!("no runtime: {cause}"));
            Exit::Bug
        }
    }
}

/// Tells the queue what the log says: it sees no other sign of a worker that does not start.
async fn misconfigured(queue: &Queue, fault: &ConfigError) -> Exit {
    if let Ok((source, _)) = ends(queue, &name(queue), &Watch::default()) {
        source.unhealthy("configuration", &fault.to_string()).await;
    }
    Exit::Usage
}

async fn until_stopped(config: &Config, queue: Queue, models: Vec<Served>) -> Exit {
    let stop = Stop::default();
    // Before anything that takes time: process 1 of a container hears no signal that it does not catch.
    let signals = match Signals::catch() {
        Ok(signals) => signals,
        Err(cause) => {
            error!("signals cannot be caught: {cause}");
            return Exit::Failed;
        }
    };
    let watch = Watch::default();
    let admin = match admin::listen(config.admin).await {
        Ok(admin) => admin,
        Err(cause) => {
            error!("{cause}");
            return Exit::Failed;
        }
    };
    select! {
        exit = start(config, queue, models, watch.clone(), stop.clone()) => exit,
        never = admin::serve(admin, watch) => match never {},
        () = signals.pass_on(stop) => Exit::Done,
    }
}

async fn start(config: &Config, queue: Queue, models: Vec<Served>, watch: Watch, stop: Stop) -> Exit {
    let id = name(&queue);
    let (source, sink) = match ends(&queue, &id, &watch) {
        Ok(ends) => ends,
        Err(why) => {
            error!("the queue can never work: {why}");
            return Exit::Unavailable;
        }
    };
    let (intake, office) = match (intake(config), office::open(config, &queue, &id, sink, &watch.metrics)) {
        (Ok(intake), Ok(office)) => (intake, office),
        (Err(cause), _) | (_, Err(cause)) => {
            error!("{cause}");
            return Exit::Failed;
        }
    };
    let names: Vec<String> = models.iter().map(|served| served.model.name.clone()).collect();
    let prepared = select! {
        prepared = prepare(config, models, &watch) => prepared,
        () = stop.draining.cancelled() => return Exit::Done,
    };
    let (fleet, rooms) = match prepared {
        Ok(prepared) => prepared,
        Err(NotReady(unfit, exit)) => {
            error!(check = unfit.check, "the worker is not fit: {}", unfit.why);
            watch.health.enter(Phase::Unfit);
            source.unhealthy(unfit.check, &unfit.why).await;
            return exit;
        }
    };
    let asked = config.worker.concurrency.map(|asked| asked.try_into().unwrap_or(usize::MAX));
    let slots = asked.unwrap_or_else(|| slots(&rooms)).min(MOST_SLOTS);
    if asked > Some(slots) {
        warn!("worker.concurrency is more than {MOST_SLOTS}, which is the most");
    }
    info!(worker = id, models = names.join(", "), slots, "taking jobs");
    let offer = offer(config.clone(), names);
    let means = Means { fleet, intake, offer, log_prompts: config.log.prompts, watch };
    match work(source, office, means, manners(config, slots), stop).await {
        End::Drained => Exit::Done,
        End::NoQueue(why) => {
            error!("the queue can never work: {why}");
            Exit::Unavailable
        }
        End::EngineLost => Exit::Restart,
    }
}

/// A worker that does not get as far as its first job, and what the process ends with.
struct NotReady(Unfit, Exit);

impl From<Unfit> for NotReady {
    fn from(unfit: Unfit) -> Self {
        Self(unfit, Exit::Failed)
    }
}

/// Looks at the machine, loads the engines, and sees that they draw.
async fn prepare(config: &Config, models: Vec<Served>, watch: &Watch) -> Result<(Arc<Fleet>, Vec<Room>), NotReady> {
    let first = || models.iter().filter(|served| served.at_start).map(|served| &served.model);
    let names: Vec<String> = first().map(|model| model.name.clone()).collect();
    let settings = config.clone();
    let machine = Machine {
        limits: config.fitness,
        devices: Box::new(move |weights| engine::devices(&settings, weights)),
        spool: fitness::spool(config),
        models: first().map(|model| model.path.clone()).collect(),
    };
    machine.examine().await?;
    let fleet = engine::fleet(config, models, watch.metrics.clone()).await.map_err(|failure| {
        let exit = if failure.error.code == engine::NOT_BUILT { Exit::Usage } else { Exit::Failed };
        NotReady(Unfit { check: "engine", why: failure.error.message }, exit)
    })?;
    watch.health.enter(Phase::Examining);
    let rooms = fitness::pictures(&fleet, &names).await?;
    Ok((Arc::new(fleet), rooms))
}

/// What the queue knows the worker by.
fn name(queue: &Queue) -> String {
    queue.worker.clone().unwrap_or_else(|| format!("latentd-{:016x}", RandomState::new().hash_one(0)))
}

fn ends(queue: &Queue, id: &str, watch: &Watch) -> Result<(RunPod, JobDone), String> {
    let key = queue.key.as_ref().map(Secret::reveal);
    let http = Trusted::new(key).map_err(|cause| cause.to_string())?;
    let named = |(setting, cause): (&str, NoUrl)| format!("{setting}: {cause}");
    let urls = Urls::new(&queue.take, queue.ping.as_deref(), id).map_err(named)?;
    let sink = JobDone::new(http.clone(), &queue.done, queue.stream.as_deref(), id).map_err(named)?;
    let source = RunPod::new(http, urls, queue.interval);
    Ok((source.watched(watch.metrics.clone()), sink.watched(watch.metrics.clone())))
}

fn manners(config: &Config, slots: usize) -> Manners {
    let worker = &config.worker;
    Manners {
        slots,
        drain: worker.drain,
        start_deadline: worker.start_deadline,
        refresh: worker.refresh,
        send_timings: worker.send_timings,
        max_bytes: worker.max_bytes,
    }
}

/// What can be drawn with now: LoRA files come and go.
fn offer(config: Config, models: Vec<String>) -> Box<dyn Fn() -> Offer + Send + Sync> {
    Box::new(move || {
        let loras = config.loras().unwrap_or_else(|cause| {
            warn!("{cause}");
            Vec::new()
        });
        Offer { models: models.clone(), loras }
    })
}
