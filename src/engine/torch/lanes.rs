//! All lanes of an engine: admission, the shared evaluation, retirement.

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use tch::{Kind, TchError, Tensor};
use tracing::warn;

use super::canvas::Canvas;
use super::error::{is_device_lost, is_out_of_memory};
use super::lane::{Course, Lane, Wish};
use super::lora::{Adapters, Networks};
use super::model::Model;
use super::nn::Forward;
use super::picture;
use super::prompts::Prompts;
use crate::batch::{self, Key, Waiting};
use crate::engine::tokenizer::Encoded;
use crate::engine::{Engine, EngineTimings, Event, Load, Memory, Poisoned, Progress, Ticket};
use crate::job::{JobError, Spec};
use crate::sampler;

/// Rows of one evaluation at 64×64 latents (512×512 pixels of SD 1.5); more rows of smaller latents, fewer of larger.
/// Beyond it a GPU gains little and memory grows.
const MOST_ROWS: usize = 16;
/// Characters of a prompt that a warning quotes.
const MOST_QUOTED: usize = 200;
/// Latent pixels that [`MOST_ROWS`] is meant for.
const USUAL_AREA: usize = 64 * 64;

/// The torch engine: a model and the images it works on.
#[derive(Debug)]
pub struct Lanes {
    model: Model,
    adapters: Adapters,
    prompts: Prompts,
    /// In order of admission.
    active: Vec<Lane>,
    jobs: HashMap<Ticket, Job>,
    evaluations: u64,
    /// Rows of the last evaluation.
    rows: usize,
    /// [`MOST_ROWS`] until memory ran out.
    most_rows: usize,
}

/// What is known of a job besides its lanes.
#[derive(Debug)]
struct Job {
    images_left: u32,
    progress: Progress,
    timings: EngineTimings,
    first_evaluation: Option<Instant>,
}

type Events = Vec<(Ticket, Event)>;

impl Lanes {
    /// An engine on `model` with nothing to do.
    pub fn new(model: Model) -> Self {
        let (active, jobs) = (Vec::new(), HashMap::new());
        let adapters = Adapters::new(&model);
        let prompts = Prompts::default();
        Self { model, adapters, prompts, active, jobs, evaluations: 0, rows: 0, most_rows: MOST_ROWS }
    }

    /// The same with LoRA files from `folder`.
    #[must_use]
    pub fn with_loras(self, folder: Option<PathBuf>) -> Self {
        Self { adapters: self.adapters.with_folder(folder), ..self }
    }

    /// The model it draws with.
    pub fn model(&self) -> &Model {
        &self.model
    }

    fn latent_size(&self, spec: &Spec) -> Result<Key, JobError> {
        let factor = self.model.vae.factor();
        for (field, side) in [("width", spec.size.width), ("height", spec.size.height)] {
            if side % factor != 0 {
                return Err(invalid(field, format!("{field} = {side}: this model draws multiples of {factor} only")));
            }
        }
        Ok(Key { height: spec.size.height / factor, width: spec.size.width / factor, networks: 0 })
    }

    fn tokenize(&self, field: &str, text: &str, warnings: &mut Vec<String>) -> Result<Encoded, JobError> {
        let encoded = self.model.tokenizer.encode(text).map_err(|cause| invalid(field, format!("{field}: {cause}")))?;
        if let Some(cut) = encoded.cut {
            let (total, kept) = (encoded.total, encoded.ids.len());
            let left_out: String = text[cut..].chars().take(MOST_QUOTED).collect();
            warnings.push(format!("{field} has {total} tokens and was cut at {kept}; left out: {left_out:?}"));
        }
        Ok(encoded)
    }

    fn course(&self, networks: &Networks, spec: &Spec, warnings: &mut Vec<String>) -> Result<Course, JobError> {
        let plan = sampler::plan(spec.sampler, &self.model.schedule, spec.steps as usize, spec.first_step() as usize)
            .map_err(|cause| invalid("num_inference_steps", cause.to_string()))?;
        let (name, steps) = (spec.sampler.name(), spec.steps);
        if plan.rows.is_empty() {
            warnings.push(format!(
                "prompt_strength leaves none of num_inference_steps = {steps}, so the picture is init_image, through the \
                 autoencoder and back"
            ));
        } else if spec.start.is_none() && plan.begins_clean() {
            warnings.push(format!(
                "scheduler {name} with num_inference_steps = {steps} begins at a timestep without noise, so the picture \
                 is noise; take more steps"
            ));
        }
        let timesteps: Vec<f64> = plan.rows.iter().map(|row| row.timestep).collect();
        let times = networks.unet.embed_times(&timesteps).map_err(|cause| failed(&cause))?;
        Ok(Course { plan, times })
    }

    fn wish(&mut self, networks: Rc<Networks>, spec: &Spec, warnings: &mut Vec<String>) -> Result<Wish, JobError> {
        let prompt = self.tokenize("prompt", &spec.prompt, warnings)?;
        let prompt = self.prompts.encode(&networks, &prompt).map_err(|cause| failed(&cause))?;
        // Guidance of 1 is the prompt's own prediction, and of less the reference takes it for 1.
        if spec.guidance_scale <= 1.0 {
            return Ok(Wish { networks, prompt, away: None });
        }
        let away = self.tokenize("negative_prompt", spec.negative_prompt.as_deref().unwrap_or_default(), warnings)?;
        let away = self.prompts.encode(&networks, &away).map_err(|cause| failed(&cause))?;
        Ok(Wish { networks, prompt, away: Some((away, spec.guidance_scale)) })
    }

    fn canvas(&self, spec: &Spec) -> Result<Option<Rc<Canvas>>, JobError> {
        let canvas = |start| Canvas::of(start, &self.model.vae, self.model.target).map(Rc::new);
        spec.start.as_ref().map(canvas).transpose().map_err(|cause| failed(&cause))
    }

    fn choose(&self) -> Vec<usize> {
        let waiting = |lane: &Lane| Waiting { key: lane.key, rows: lane.rows(), served: lane.served };
        let waiting: Vec<Waiting> = self.active.iter().map(waiting).collect();
        batch::choose(&waiting, |key| self.most_rows * USUAL_AREA / area(key))
    }

    /// The UNet's output for `chosen` lanes, `[rows, latent, height, width]` in f32.
    fn predict(&self, chosen: &[usize]) -> Forward {
        let (mut inputs, mut times, mut texts) = (Vec::new(), Vec::new(), Vec::new());
        for lane in chosen.iter().map(|&i| &self.active[i]) {
            let (input, time) = (lane.input()?, lane.time()?);
            for text in lane.texts() {
                inputs.push(input.shallow_clone());
                times.push(time.shallow_clone());
                texts.push(text);
            }
        }
        let layer = |i: usize| Tensor::f_cat(&texts.iter().map(|text| &text[i]).collect::<Vec<_>>(), 0);
        let text = (0..texts[0].len()).map(layer).collect::<Forward<Vec<_>>>()?;
        let input = Tensor::f_cat(&inputs, 0)?.f_to_kind(self.model.target.kind)?;
        let networks = &self.active[chosen[0]].wish.networks;
        networks.unet.forward(&input, &Tensor::f_cat(&times, 0)?, &text)?.f_to_kind(Kind::Float)
    }

    fn step(&mut self, chosen: &[usize], output: &Tensor) -> Forward<Events> {
        let mut row = 0;
        let mut events = Events::new();
        for &i in chosen {
            let lane = &mut self.active[i];
            let rows = lane.rows() as i64;
            lane.step(&output.f_narrow(0, row, rows)?)?;
            lane.served = self.evaluations;
            row += rows;
            if let Some(job) = self.jobs.get_mut(&lane.ticket) {
                job.progress.done += 1;
                events.push((lane.ticket, Event::Progress(job.progress)));
            }
        }
        Ok(events)
    }

    /// Memory ran out for `chosen`: what no lane draws with goes first, then there are fewer rows from now on, and if there
    /// was but one lane, its job fails.
    fn make_room(&mut self, chosen: &[usize]) -> Events {
        if self.adapters.release() {
            return Events::new();
        }
        let lanes = chosen.iter().map(|&i| &self.active[i]);
        let rows: usize = lanes.clone().map(Lane::rows).sum();
        if let [only] = chosen {
            let lane = &self.active[*only];
            let (ticket, Key { height, width, .. }) = (lane.ticket, lane.key);
            let factor = self.model.vae.factor();
            let message = format!("out of memory: one image of {}×{} does not fit", width * factor, height * factor);
            self.cancel(ticket);
            return vec![(ticket, Event::Failed(JobError { code: "out_of_memory", message, field: None }))];
        }
        self.most_rows = (rows / 2 * lanes.map(|lane| area(lane.key)).max().unwrap_or(1) / USUAL_AREA).max(1);
        warn!(rows, most_rows = self.most_rows, "out of memory; going on with fewer rows an evaluation");
        Events::new()
    }

    /// Decodes and lets go the lanes that have no row left.
    fn retire(&mut self) -> Result<Events, TchError> {
        let mut events = Events::new();
        while let Some(at) = self.active.iter().position(Lane::is_finished) {
            let lane = self.active.remove(at);
            let began = Instant::now();
            let drawn = picture::decode(&self.model, &lane);
            let Some(job) = self.jobs.get_mut(&lane.ticket) else { continue };
            job.timings.decode += began.elapsed();
            job.images_left -= 1;
            match drawn {
                Ok(picture) => {
                    events.push((lane.ticket, Event::Image { index: lane.index, seed: lane.seed, picture }));
                    if job.images_left == 0 {
                        let mut timings = job.timings;
                        let evaluating = job.first_evaluation.map(|first| first.elapsed()).unwrap_or_default();
                        timings.denoise = evaluating.saturating_sub(timings.decode);
                        self.jobs.remove(&lane.ticket);
                        events.push((lane.ticket, Event::Finished(timings)));
                    }
                }
                Err(picture::Fault::Torch(cause)) if !is_out_of_memory(&cause) => return Err(cause),
                Err(fault) => {
                    self.cancel(lane.ticket);
                    events.push((lane.ticket, Event::Failed(fault.into())));
                }
            }
        }
        Ok(events)
    }
}

impl Engine for Lanes {
    fn admit(&mut self, ticket: Ticket, spec: &Spec) -> Result<Vec<String>, JobError> {
        let _guard = tch::no_grad_guard();
        let mut warnings = Vec::new();
        let size = self.latent_size(spec)?;
        let began = Instant::now();
        let networks = self.adapters.choose(spec.lora.as_ref())?;
        let key = Key { networks: networks.number, ..size };
        let wish = self.wish(Rc::clone(&networks), spec, &mut warnings)?;
        let text = began.elapsed();
        let course = Rc::new(self.course(&networks, spec, &mut warnings)?);
        let began = Instant::now();
        let canvas = self.canvas(spec)?;
        let encode = began.elapsed();
        let total = course.plan.rows.len() as u32 * spec.num_outputs;

        let (channels, device) = (self.model.unet.latent_channels(), self.model.target.device);
        let lane = |index| {
            let name = (ticket, index, spec.seed_of(index));
            Lane::new(name, (key, channels), wish.clone(), Rc::clone(&course), canvas.clone(), device)
                .map_err(|cause| failed(&cause))
        };
        let lanes: Vec<Lane> = (0..spec.num_outputs).map(lane).collect::<Result<_, _>>()?;
        self.active.extend(lanes);
        let job = Job {
            images_left: spec.num_outputs,
            progress: Progress { done: 0, total },
            timings: EngineTimings { text, encode, evaluations: total, ..EngineTimings::default() },
            first_evaluation: None,
        };
        self.jobs.insert(ticket, job);
        Ok(warnings)
    }

    fn advance(&mut self) -> Result<Events, Poisoned> {
        let _guard = tch::no_grad_guard();
        self.rows = 0;
        // Lanes that came without a row.
        let mut events = self.retire().map_err(|cause| poisoned(&cause))?;
        let chosen = self.choose();
        if chosen.is_empty() {
            return Ok(events);
        }
        self.evaluations += 1;
        let began = Instant::now();
        for lane in chosen.iter().map(|&i| &self.active[i]) {
            if let Some(job) = self.jobs.get_mut(&lane.ticket) {
                job.first_evaluation.get_or_insert(began);
            }
        }
        let output = match self.predict(&chosen) {
            Ok(output) => output,
            Err(cause) if is_out_of_memory(&cause) => {
                events.extend(self.make_room(&chosen));
                return Ok(events);
            }
            Err(cause) => return Err(poisoned(&cause)),
        };
        self.rows = chosen.iter().map(|&i| self.active[i].rows()).sum();
        events.extend(self.step(&chosen, &output).map_err(|cause| poisoned(&cause))?);
        events.extend(self.retire().map_err(|cause| poisoned(&cause))?);
        Ok(events)
    }

    fn cancel(&mut self, ticket: Ticket) {
        self.active.retain(|lane| lane.ticket != ticket);
        self.jobs.remove(&ticket);
    }

    fn busy(&self) -> bool {
        !self.active.is_empty()
    }

    fn most_rows(&self) -> usize {
        // A processor is busy with one image; several of them only wait for each other.
        if self.model.target.is_cpu() { 2 } else { self.most_rows }
    }

    fn load(&self) -> Load {
        Load { lanes: self.active.len(), rows: self.rows }
    }

    fn memory(&self) -> Option<Memory> {
        let (free, total) = self.model.target.memory().ok()?;
        Some(Memory { free: free as u64, total: total as u64 })
    }
}

fn area(key: Key) -> usize {
    (key.height * key.width) as usize
}

fn invalid(field: &str, message: String) -> JobError {
    JobError { code: "invalid_input", message, field: Some(field.to_owned()) }
}

/// libtorch failed while a job was let in; the engine itself is sound, unless its device is lost.
fn failed(cause: &TchError) -> JobError {
    if !is_out_of_memory(cause) && is_device_lost(cause) {
        return JobError::engine_lost(&first_line(cause));
    }
    let code = if is_out_of_memory(cause) { "out_of_memory" } else { "engine_error" };
    JobError { code, message: first_line(cause), field: None }
}

fn poisoned(cause: &TchError) -> Poisoned {
    Poisoned { reason: first_line(cause) }
}

/// libtorch's errors end with a stack of C++ frames that nobody at an endpoint wants to read.
fn first_line(cause: &TchError) -> String {
    cause.to_string().lines().next().unwrap_or_default().to_owned()
}
