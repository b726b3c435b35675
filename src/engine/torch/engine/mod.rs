//! All lanes of an engine: admission, the shared evaluation, retirement.

mod admission;
mod equipment;
mod offload;
mod retirement;
mod warm_up;
mod warm_up_plan;

use std::collections::HashMap;
use std::time::Instant;

use tch::{Kind, Tensor};
use tracing::warn;

use self::warm_up_plan::WarmUp;
use crate::batch::{self, Key, Waiting};
use crate::engine::torch::decode::preview::{PreviewPace, PreviewTimer};
use crate::engine::torch::decode::queue::DecodeQueue;
use crate::engine::torch::denoise::conditioning_cache::ConditioningCache;
use crate::engine::torch::denoise::graphs::Graphs;
use crate::engine::torch::denoise::lane::Lane;
use crate::engine::torch::denoise::stage::Stage;
use crate::engine::torch::denoise::unet_batch::UnetBatch;
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::device::threads::Threads;
use crate::engine::torch::embeddings::EmbeddingLibrary;
use crate::engine::torch::error::TorchError;
use crate::engine::torch::families::{Model, Refiner};
use crate::engine::torch::lora::LoraCache;
use crate::engine::torch::networks::offload::{MovablePart, Offload, OffloadPlan};
use crate::engine::{Engine, EngineLoad, EngineTimings, Event, Memory, Poisoned, Progress, Ticket};
use crate::job::{Code, JobError, Spec};

/// Rows of one evaluation at 64×64 latents (512×512 pixels of SD 1.5), more of smaller latents, fewer of larger, where neither the settings
/// nor the warm-up say more.
const MOST_ROWS: usize = 16;
/// The torch engine: a model and the images it works on.
#[derive(Debug)]
pub struct TorchEngine {
    /// Lanes that have no row left. First: what is under way reads the weights.
    decodes: DecodeQueue,
    model: Model,
    /// What goes on after it.
    refiner: Option<Refiner>,
    loras: LoraCache,
    /// Which parts of both are where.
    offload: Offload,
    embeddings: EmbeddingLibrary,
    prompts: ConditioningCache,
    /// In order of admission.
    active: Vec<Lane>,
    jobs: HashMap<Ticket, Job>,
    evaluations: u64,
    /// Rows of the last evaluation.
    rows: usize,
    /// Latent pixels of one evaluation, over all of its rows: those of [`MOST_ROWS`] until memory ran out, or more or fewer were said to pay.
    most_pixels: usize,
    /// Latent pixels of a picture of the family's usual size.
    usual_area: usize,
    previews: PreviewPace,
    threads: Option<Threads>,
    graphs: Option<Graphs>,
    warm_up: WarmUp,
    // Last: a GPU's memory is given back when all of its tensors are gone.
    context: DeviceContext,
}

/// What is known of a job besides its lanes.
#[derive(Debug)]
struct Job {
    images_left: u32,
    progress: Progress,
    timings: EngineTimings,
    first_evaluation: Option<Instant>,
    /// Where its client wants to look on.
    previews: Option<PreviewTimer>,
}

type Events = Vec<(Ticket, Event)>;

impl TorchEngine {
    /// An engine on `model` with nothing to do.
    pub fn new(model: Model) -> Self {
        let (active, jobs) = (Vec::new(), HashMap::new());
        let usual_area = model.family.usual_latents().iter().product();
        let loras = LoraCache::new(&model);
        let (decodes, context) = (DecodeQueue::plain(model.target), DeviceContext::plain(model.target.device));
        let (embeddings, prompts) = (EmbeddingLibrary::new(None, context.clone()), ConditioningCache::default());
        let offload = Offload::new(OffloadPlan::Never, context.clone());
        Self {
            decodes,
            model,
            refiner: None,
            loras,
            offload,
            embeddings,
            prompts,
            active,
            jobs,
            evaluations: 0,
            rows: 0,
            most_pixels: MOST_ROWS * usual_area,
            usual_area,
            previews: PreviewPace::DEFAULT,
            threads: None,
            graphs: None,
            warm_up: WarmUp::default(),
            context,
        }
    }

    /// The model it draws with.
    pub fn model(&self) -> &Model {
        &self.model
    }

    fn choose(&self) -> Vec<usize> {
        let waiting = |lane: &Lane| Waiting { key: lane.stage().key, rows: lane.rows(), served: lane.served };
        let waiting: Vec<Waiting> = self.active.iter().map(waiting).collect();
        let most = self.warm_up.rows();
        batch::choose(&waiting, |key| most.unwrap_or(self.most_pixels / area(key)))
    }

    /// The UNet's output for `chosen` lanes, `[rows, latent, height, width]` in f32.
    fn predict(&mut self, chosen: &[usize]) -> Result<Tensor, TorchError> {
        let Self { active, graphs, threads, offload, .. } = self;
        let networks = &active[chosen[0]].stage().networks;
        offload.require(MovablePart::Unet(networks.number))?;
        if let Some(graphs) = graphs.as_mut().filter(|_| offload.take_unets_moved()) {
            graphs.clear();
        }
        let began = Instant::now();
        let batch = UnetBatch::of(chosen.iter().map(|&i| &active[i]))?;
        // They share a key, and so size and networks.
        let Stage { key, networks, guidance, .. } = active[chosen[0]].stage();
        let output = match graphs {
            Some(graphs) => graphs.evaluate(*key, networks, &batch),
            None => batch.evaluate(&networks.unet),
        }?;
        if let Some(threads) = threads {
            let (height, width) = (u64::from(key.height), u64::from(key.width));
            let each = networks.unet.multiplications(height, width, guidance.positive.tokens());
            threads.evaluated(began, each as f64 * batch.count() as f64);
        }
        // A copy in any case: a graph writes its next result to the same place.
        Ok(output.f_to_dtype(Kind::Float, false, true)?)
    }

    /// Moves `chosen` lanes on by the UNet's `output`, a row of it for each of their texts.
    fn step(&mut self, chosen: &[usize], output: &Tensor) -> Result<Events, TorchError> {
        let mut row = 0;
        let mut events = Events::new();
        for &i in chosen {
            let lane = &mut self.active[i];
            let rows = lane.rows() as i64;
            let output = lane.stage().guidance.apply(&output.f_narrow(0, row, rows)?)?;
            if let Some(job) = self.jobs.get_mut(&lane.id.ticket) {
                let previews = job.previews.as_mut().filter(|previews| previews.is_due());
                // A look is not worth a part of the model that has to leave.
                let previews = previews.filter(|_| self.offload.bring_if_room(MovablePart::Autoencoder));
                let look = previews.and_then(|previews| previews.take(&self.model, lane, &output));
                events.extend(look.map(|picture| (lane.id.ticket, Event::Preview(picture))));
                job.progress.done += 1;
                events.push((lane.id.ticket, Event::Progress(job.progress)));
            }
            lane.step(output, &self.context)?;
            lane.served = self.evaluations;
            row += rows;
        }
        Ok(events)
    }

    /// Memory ran out for `chosen`: what no lane draws with goes first, then there are fewer rows from now on. If there was but one lane,
    /// parts of the model begin to move, and if they do, its job fails with what libtorch said.
    fn make_room(&mut self, chosen: &[usize], cause: TorchError) -> Events {
        if self.warm_up.rows().is_some() {
            return vec![(warm_up_plan::TICKET, Event::Failed(cause.into()))];
        }
        let unet = MovablePart::Unet(self.active[chosen[0]].stage().networks.number);
        if self.offload.make_room(Some(unet)) || self.release() {
            return Events::new();
        }
        let lanes = chosen.iter().map(|&i| &self.active[i]);
        let rows: usize = lanes.clone().map(Lane::rows).sum();
        if let [only] = chosen {
            let lane = &self.active[*only];
            if self.offload.activate() {
                return Events::new();
            }
            let (ticket, Key { height, width, .. }) = (lane.id.ticket, lane.stage().key);
            let factor = self.model.vae.factor();
            let (width, height, cause) = (width * factor, height * factor, cause.first_line());
            let message = format!("out of memory: one image of {width}×{height} does not fit: {cause}");
            self.forget(ticket);
            return vec![(ticket, Event::Failed(JobError { code: Code::OutOfMemory, message, field: None }))];
        }
        self.most_pixels = rows / 2 * lanes.map(|lane| area(lane.stage().key)).max().unwrap_or(1);
        let cause = cause.first_line();
        warn!(rows, most_rows = rows / 2, cause, "out of memory; going on with fewer rows an evaluation");
        Events::new()
    }

    fn is_at_work(&self) -> bool {
        !self.active.is_empty() || !self.decodes.is_empty()
    }

    /// Lets go of what can be made again, the cheapest first; whether there was any.
    fn release(&mut self) -> bool {
        // The last evaluation may be at work with it. An error will be met again by whatever comes next.
        let _ = self.context.synchronize();
        self.graphs.as_mut().is_some_and(Graphs::release) || self.loras.release()
    }

    /// Forgets a job and all that is done for it.
    fn forget(&mut self, ticket: Ticket) {
        self.active.retain(|lane| lane.id.ticket != ticket);
        self.decodes.forget(ticket);
        self.jobs.remove(&ticket);
    }
}

impl Engine for TorchEngine {
    fn admit(&mut self, ticket: Ticket, spec: &Spec) -> Result<Vec<String>, JobError> {
        let _guard = tch::no_grad_guard();
        self.interrupt_warm_up();
        loop {
            match self.take_in(ticket, spec) {
                Err(cause) if cause.code == Code::OutOfMemory && (self.release() || self.offload.activate()) => {}
                taken => return taken,
            }
        }
    }

    fn advance(&mut self) -> Result<Events, Poisoned> {
        let _guard = tch::no_grad_guard();
        self.rows = 0;
        // Lanes that came without a row.
        let mut events = self.retire().map_err(poisoned)?;
        let chosen = self.choose();
        if chosen.is_empty() {
            return if events.is_empty() { self.wait().map_err(poisoned) } else { Ok(events) };
        }
        self.evaluations += 1;
        let began = Instant::now();
        for lane in chosen.iter().map(|&i| &self.active[i]) {
            if let Some(job) = self.jobs.get_mut(&lane.id.ticket) {
                job.first_evaluation.get_or_insert(began);
            }
        }
        let output = match self.predict(&chosen) {
            Ok(output) => output,
            Err(cause) if cause.is_out_of_memory() => {
                events.extend(self.make_room(&chosen, cause));
                return Ok(events);
            }
            Err(cause) => return Err(poisoned(cause)),
        };
        self.rows = chosen.iter().map(|&i| self.active[i].rows()).sum();
        let stepped = self.step(&chosen, &output).and_then(|told| Ok(self.context.throttle().map(|()| told)?));
        events.extend(stepped.map_err(poisoned)?);
        events.extend(self.retire().map_err(poisoned)?);
        Ok(events)
    }

    fn cancel(&mut self, ticket: Ticket) {
        self.forget(ticket);
    }

    fn busy(&self) -> bool {
        self.warm_up.rows().is_none() && self.is_at_work()
    }

    fn warm_up(&mut self) -> Result<Option<usize>, Poisoned> {
        let _guard = tch::no_grad_guard();
        self.warm()
    }

    fn most_rows(&self) -> usize {
        // A CPU is busy with one image; several of them only wait for each other.
        if self.model.target.is_cpu() { 2 } else { (self.most_pixels / self.usual_area).max(1) }
    }

    fn load(&self) -> EngineLoad {
        EngineLoad { lanes: self.active.len() + self.decodes.wanted(), rows: self.rows }
    }

    fn memory(&self) -> Option<Memory> {
        let (free, total) = self.model.target.memory().ok()?;
        Some(Memory { free: free as u64, total: total as u64 })
    }
}

fn area(key: Key) -> usize {
    (key.height * key.width) as usize
}

/// libtorch failed while a job was let in.
fn failed(cause: impl Into<TorchError>) -> JobError {
    cause.into().into()
}

fn poisoned(cause: impl Into<TorchError>) -> Poisoned {
    Poisoned { reason: cause.into().first_line().to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;
    use crate::engine::torch::Target;
    use crate::job::Size;

    #[test]
    fn a_job_that_runs_out_of_memory_hears_what_libtorch_said() {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/torch/miniatures/tiny");
        let mut engine = TorchEngine::new(Model::load(&tiny, Path::new("unused"), Target::REFERENCE).unwrap());
        let shape =
            warm_up_plan::Shape { size: Size { width: 128, height: 64 }, rows: 2, decode: false, refined: false };
        engine.admit(Ticket(1), &warm_up_plan::spec(shape, 1, false)).unwrap();
        let cause = TorchError::OutOfMemory("tried to allocate 2 GiB\nframe #0".into());
        let events = engine.make_room(&[0], cause);
        let [(Ticket(1), Event::Failed(error))] = events.as_slice() else { panic!("{events:?}") };
        let message = "out of memory: one image of 128×64 does not fit: tried to allocate 2 GiB";
        assert_eq!((error.code, error.message.as_str()), (Code::OutOfMemory, message));
    }
}
