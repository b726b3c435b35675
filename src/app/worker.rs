//! `latentd worker`: wires queue, engine and delivery together.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use tokio::runtime;
use tokio::select;
use tracing::{error, info, warn};

use super::run::intake;
use super::{Exit, complain, engine, office, usage};
use crate::config::{Config, Queue, Secret, Served};
use crate::deliver::runpod::JobDone;
use crate::job::Offer;
use crate::net::{NoUrl, Trusted};
use crate::source::runpod::{RunPod, Urls};
use crate::stop::{Signals, Stop};
use crate::worker::{End, Manners, Means, work};

/// Jobs in hand where nobody says how many: enough for the engine to share evaluations, and for one to be delivered meanwhile.
const SLOTS: u64 = 4;

/// Works until it is told to stop.
pub(super) fn execute(config: &Config) -> Exit {
    let (queue, models) = match (config.queue(), config.models(), config.loras()) {
        (Ok(queue), Ok(models), Ok(_)) => (queue, models),
        (queue, models, loras) => {
            let faults = [queue.err(), models.err(), loras.err()].into_iter().flatten();
            faults.for_each(|fault| complain(&fault));
            return Exit::Usage;
        }
    };
    match runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let exit = runtime.block_on(until_stopped(config, queue, models));
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
    select! {
        exit = start(config, queue, models, stop.clone()) => exit,
        () = signals.pass_on(stop) => Exit::Done,
    }
}

async fn start(config: &Config, queue: Queue, models: Vec<Served>, stop: Stop) -> Exit {
    let id = queue.worker.clone().unwrap_or_else(|| format!("latentd-{:016x}", RandomState::new().hash_one(0)));
    let (source, sink) = match ends(&queue, &id) {
        Ok(ends) => ends,
        Err(why) => {
            error!("the queue can never work: {why}");
            return Exit::Unavailable;
        }
    };
    let (intake, office) = match (intake(config), office::open(config, &queue, &id, sink)) {
        (Ok(intake), Ok(office)) => (intake, office),
        (Err(cause), _) | (_, Err(cause)) => {
            error!("{cause}");
            return Exit::Failed;
        }
    };
    let names: Vec<String> = models.iter().map(|served| served.model.name.clone()).collect();
    let fleet = select! {
        fleet = engine::fleet(config, models) => fleet,
        () = stop.draining.cancelled() => return Exit::Done,
    };
    let fleet = match fleet {
        Ok(fleet) => Arc::new(fleet),
        Err(failure) if failure.error.code == engine::NOT_BUILT => return usage(&failure.error),
        Err(failure) => {
            error!("the worker is not fit: {}", failure.error);
            return Exit::Failed;
        }
    };
    let slots = config.worker.concurrency.unwrap_or(SLOTS).try_into().unwrap_or(usize::MAX >> 4);
    info!(worker = id, models = names.join(", "), slots, "taking jobs");
    let means = Means { fleet, intake, offer: offer(config.clone(), names), log_prompts: config.log.prompts };
    match work(source, office, means, manners(config, slots), stop).await {
        End::Drained => Exit::Done,
        End::NoQueue(why) => {
            error!("the queue can never work: {why}");
            Exit::Unavailable
        }
        End::EngineLost => Exit::Restart,
    }
}

fn ends(queue: &Queue, id: &str) -> Result<(RunPod, JobDone), String> {
    let key = queue.key.as_ref().map(Secret::reveal);
    let http = Trusted::new(key).map_err(|cause| cause.to_string())?;
    let named = |(setting, cause): (&str, NoUrl)| format!("{setting}: {cause}");
    let urls = Urls::new(&queue.take, queue.ping.as_deref(), id).map_err(named)?;
    let sink = JobDone::new(http.clone(), &queue.done, queue.stream.as_deref(), id).map_err(named)?;
    Ok((RunPod::new(http, urls, queue.interval), sink))
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
