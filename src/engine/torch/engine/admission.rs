//! What a job's lanes begin with: its text, its sampler's run, its initial image, and what it must be warned of.

mod text;

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Job, TorchEngine, failed};
use crate::batch::Key;
use crate::engine::torch::decode::preview::PreviewTimer;
use crate::engine::torch::denoise::conditioning_cache::ConditioningCache;
use crate::engine::torch::denoise::init_image::InitImage;
use crate::engine::torch::denoise::lane::{Lane, LaneId};
use crate::engine::torch::denoise::stage::{Guidance, SamplerRun, Stage, StageEntry};
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::embeddings::EmbeddingLibrary;
use crate::engine::torch::families::{Model, REFINER_GUIDANCE, Refiner};
use crate::engine::torch::networks::Networks;
use crate::engine::torch::networks::offload::{MovablePart, Offload};
use crate::engine::{EngineTimings, Progress, Ticket};
use crate::job::{Code, JobError, RefineMode, Size, Spec};
use crate::sampler::{self, Plan, PlanError};

/// Fields that say how many steps there are, of the model and of a refiner after it.
const MODEL_STEPS: &str = "num_inference_steps";
const REFINER_STEPS: &str = "refiner_inference_steps";

impl TorchEngine {
    /// Takes a job in, or leaves everything as it was; warnings for its result.
    pub(super) fn take_in(&mut self, ticket: Ticket, spec: &Spec) -> Result<Vec<String>, JobError> {
        self.inpaints_alone(spec)?;
        let mut warnings = Vec::new();
        let size = self.latent_size(spec.size)?;
        let mut timings = EngineTimings::default();
        let stages = self.stages(size, spec, &mut timings, &mut warnings)?;
        let began = Instant::now();
        let init_image = self.init_image(spec)?;
        timings.encode = began.elapsed();
        let rows: usize = stages.iter().map(|stage| stage.run.plan.rows.len()).sum();
        let total = rows as u32 * spec.num_outputs;
        timings.evaluations = total;

        let channels = self.model.unet.latent_channels();
        let lane = |index| {
            let id = LaneId { ticket, index, seed: spec.seed_of(index) };
            Lane::new(id, Rc::clone(&stages), channels, init_image.clone(), &self.context).map_err(failed)
        };
        let lanes: Vec<Lane> = (0..spec.num_outputs).map(lane).collect::<Result<_, _>>()?;
        self.active.extend(lanes);
        let job = Job {
            images_left: spec.num_outputs,
            progress: Progress { done: 0, total },
            timings,
            first_evaluation: None,
            previews: spec.preview.then(|| PreviewTimer::at(self.previews)),
        };
        self.jobs.insert(ticket, job);
        Ok(warnings)
    }

    pub(super) fn latent_size(&self, size: Size) -> Result<Key, JobError> {
        let factor = self.model.vae.factor();
        for (field, side) in [("width", size.width), ("height", size.height)] {
            if side % factor != 0 {
                return Err(invalid(field, format!("{field} = {side}: this model draws multiples of {factor} only")));
            }
        }
        Ok(Key {
            height: size.height / factor,
            width: size.width / factor,
            tokens: self.model.tokens() as u32,
            networks: 0,
        })
    }

    /// What draws the job, one after the other: the base model, and the refiner if there is one. From an image without a mask the refiner
    /// draws alone.
    fn stages(
        &mut self,
        size: Key,
        spec: &Spec,
        timings: &mut EngineTimings,
        warnings: &mut Vec<String>,
    ) -> Result<Rc<[Stage]>, JobError> {
        let Self { model, loras, embeddings, prompts, refiner, context, offload, .. } = self;
        let mut admission = Admission { spec, embeddings, prompts, context, offload, text: Duration::ZERO, warnings };
        let refiner = refiner.as_ref();
        let refines = refiner.filter(|_| spec.start.as_ref().is_some_and(|start| start.mask.is_none()));
        let mut stages = Vec::new();
        if let Some(refiner) = refines {
            stages.push(admission.refine_image(refiner, size)?);
        } else {
            let networks = loras.choose(spec.lora.as_ref(), (admission.context, admission.offload))?;
            stages.push(admission.base(model, networks, size)?);
            stages.extend(admission.refine(refiner, size)?);
        }
        timings.text = admission.text;
        Ok(stages.into())
    }

    /// Refuses a job without a mask where the UNet has channels for one.
    fn inpaints_alone(&self, spec: &Spec) -> Result<(), JobError> {
        let masked = spec.start.as_ref().is_some_and(|start| start.mask.is_some());
        if masked || self.model.unet.concat_channels() == 0 {
            return Ok(());
        }
        Err(invalid("mask", "mask is missing: this model repaints a part of an image, and draws nothing else".into()))
    }

    fn init_image(&mut self, spec: &Spec) -> Result<Option<Rc<InitImage>>, JobError> {
        let Self { model, context, offload, .. } = self;
        let Some(start) = &spec.start else { return Ok(None) };
        let concat = model.unet.concat_channels() > 0;
        let encode = || Ok(InitImage::of(start, &model.vae, concat, context)?);
        offload.with(MovablePart::Autoencoder, encode).map(Rc::new).map(Some).map_err(failed)
    }
}

/// A job that is being taken in.
struct Admission<'a> {
    spec: &'a Spec,
    embeddings: &'a mut EmbeddingLibrary,
    prompts: &'a mut ConditioningCache,
    context: &'a DeviceContext,
    offload: &'a mut Offload,
    /// Time that the text took.
    text: Duration,
    warnings: &'a mut Vec<String>,
}

impl Admission<'_> {
    /// What the base model does.
    fn base(&mut self, model: &Model, networks: Rc<Networks>, size: Key) -> Result<Stage, JobError> {
        let spec = self.spec;
        let negative = spec.negative_prompt.as_deref().or((!model.zeros_for_no_negative).then_some(""));
        let scale = spec.guidance_scale;
        let guidance = self.guidance(model, &networks, negative, (scale, spec.clip_skip))?;
        if networks.unet.is_told_guidance()
            && spec.negative_prompt.as_ref().is_some_and(|negative| !negative.is_empty())
        {
            self.warnings.push(
                "negative_prompt has no effect: this model was distilled to follow guidance_scale without one".into(),
            );
        }
        let mut schedule = model.schedule.spaced(spec.sigmas).with_eta(spec.eta);
        if spec.start.as_ref().is_some_and(|start| start.mask.is_some()) {
            schedule = schedule.for_inpainting();
        }
        let plan = sampler::plan(spec.sampler, &schedule, spec.steps as usize, spec.first_step() as usize)
            .map_err(invalid_plan(MODEL_STEPS))?;
        let plan = match spec.denoising_end {
            Some(end) => plan.until(end, &model.schedule),
            None => plan,
        };
        self.warnings.extend(doubts(&plan, spec));
        self.stage(networks, size, (guidance, scale), plan, StageEntry::Continue)
    }

    /// What a refiner does after it.
    fn refine(&mut self, refiner: Option<&Refiner>, size: Key) -> Result<Option<Stage>, JobError> {
        let Some(refine) = self.spec.refine else { return Ok(None) };
        let Some(refiner) = refiner else {
            let message = "refine \"ensemble\" is not offered, the operator has set no refiner";
            return if refine.mode == RefineMode::Ensemble { Err(invalid("refine", message.into())) } else { Ok(None) };
        };
        let (schedule, steps) = (&refiner.model.schedule, refine.steps as usize);
        let (plan, entry) = match (refine.mode, self.spec.denoising_end) {
            (RefineMode::Strength, _) => {
                let plan = sampler::plan(refiner.sampler, schedule, steps, refine.first_step() as usize);
                (plan.map_err(invalid_plan(REFINER_STEPS))?, StageEntry::AddNoise)
            }
            (RefineMode::Ensemble, Some(begin)) => {
                let plan = sampler::plan_from(refiner.sampler, schedule, steps, begin);
                (plan.map_err(invalid_plan(MODEL_STEPS))?, StageEntry::Continue)
            }
            (RefineMode::Ensemble, None) => {
                let message = "refine \"ensemble\" was provided without high_noise_frac".to_owned();
                return Err(invalid("refine", message));
            }
        };
        if plan.rows.is_empty() {
            let of = match refine.mode {
                RefineMode::Strength => format!("the strength leaves none of {REFINER_STEPS} = {steps}"),
                RefineMode::Ensemble => format!("high_noise_frac leaves none of {MODEL_STEPS} = {steps}"),
            };
            self.warnings.push(format!("{of} to the refiner, so the picture is the base model's alone"));
            return Ok(None);
        }
        self.by_refiner(refiner, size, plan, entry).map(Some)
    }

    /// What a refiner does from an image.
    fn refine_image(&mut self, refiner: &Refiner, size: Key) -> Result<Stage, JobError> {
        let spec = self.spec;
        let (schedule, steps) = (&refiner.model.schedule, spec.steps as usize);
        let plan = sampler::plan(refiner.sampler, schedule, steps, spec.first_step() as usize)
            .map_err(invalid_plan(MODEL_STEPS))?;
        self.warnings.extend(doubts(&plan, spec));
        if spec.lora.is_some() {
            self.warnings
                .push("lora has no effect: it changes the base model, and the refiner draws from an image".into());
        }
        self.by_refiner(refiner, size, plan, StageEntry::Continue)
    }

    fn by_refiner(&mut self, refiner: &Refiner, size: Key, plan: Plan, entry: StageEntry) -> Result<Stage, JobError> {
        let (model, networks) = (&refiner.model, Rc::clone(&refiner.networks));
        let guidance = self.guidance(model, &networks, Some(""), (REFINER_GUIDANCE, 0))?;
        self.stage(networks, size, (guidance, REFINER_GUIDANCE), plan, entry)
    }

    fn stage(
        &mut self,
        networks: Rc<Networks>,
        size: Key,
        (guidance, scale): (Guidance, f64),
        plan: Plan,
        entry: StageEntry,
    ) -> Result<Stage, JobError> {
        let timesteps: Vec<f64> = plan.rows.iter().map(|row| row.timestep).collect();
        let embed = || Ok(networks.unet.embed_times(&timesteps, scale, self.context)?);
        let times = self.offload.with(MovablePart::Unet(networks.number), embed).map_err(failed)?;
        let run = SamplerRun::new(plan, times, self.context).map_err(failed)?;
        let key = Key { networks: networks.number, tokens: guidance.positive.tokens() as u32, ..size };
        Ok(Stage { key, networks, guidance, run, entry })
    }
}

/// What a client probably did not mean by its steps.
fn doubts(plan: &Plan, spec: &Spec) -> Option<String> {
    let (name, steps) = (spec.sampler.name(), spec.steps);
    let is_ensemble = spec.refine.is_some_and(|refine| refine.mode == RefineMode::Ensemble);
    match &spec.start {
        Some(_) if plan.rows.is_empty() => Some(format!(
            "the strength leaves none of {steps} steps, so the picture is the one that it begins from, through the autoencoder and back"
        )),
        None if plan.rows.is_empty() && is_ensemble => Some(format!(
            "high_noise_frac leaves none of num_inference_steps = {steps} to the base model, so the picture is the refiner's alone"
        )),
        None if plan.rows.is_empty() => Some(format!(
            "high_noise_frac leaves none of num_inference_steps = {steps}, so the picture is noise; take more of it"
        )),
        None if plan.begins_clean() => Some(format!(
            "scheduler {name} with num_inference_steps = {steps} begins at a timestep without noise, so the picture is noise; take more \
             steps"
        )),
        _ => None,
    }
}

/// What is wrong with a plan whose steps came as the field `steps`.
fn invalid_plan(steps: &'static str) -> impl Fn(PlanError) -> JobError {
    move |cause| match &cause {
        PlanError::Unsupported { .. } | PlanError::Infinite { .. } => invalid("scheduler", cause.to_string()),
        PlanError::Steps { .. } | PlanError::Start { .. } | PlanError::Begin { .. } => {
            invalid(steps, cause.to_string())
        }
    }
}

fn invalid(field: &str, message: String) -> JobError {
    JobError { code: Code::InvalidInput, message, field: Some(field.to_owned()) }
}
