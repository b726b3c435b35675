//! What a job's lanes begin with: its text, its sampler's run, its initial image, and what it must be warned of.

use std::rc::Rc;
use std::time::Instant;

use super::{Job, TorchEngine, failed};
use crate::batch::Key;
use crate::engine::tokenizer::{Encoded, Tokenizer};
use crate::engine::torch::decode::preview::PreviewTimer;
use crate::engine::torch::denoise::conditioning_cache::Prompt;
use crate::engine::torch::denoise::init_image::InitImage;
use crate::engine::torch::denoise::lane::{Lane, LaneId};
use crate::engine::torch::denoise::stage::{Guidance, SamplerRun, Stage};
use crate::engine::torch::networks::Networks;
use crate::engine::torch::networks::conditioning::Conditioning;
use crate::engine::{EngineTimings, Progress, Ticket};
use crate::job::{Code, JobError, Size, Spec};
use crate::sampler::{self, Plan};

/// Characters of a prompt that a warning quotes.
const MOST_QUOTED: usize = 200;

impl TorchEngine {
    /// Takes a job in, or leaves everything as it was; warnings for its result.
    pub(super) fn take_in(&mut self, ticket: Ticket, spec: &Spec) -> Result<Vec<String>, JobError> {
        self.inpaints_alone(spec)?;
        let mut warnings = Vec::new();
        let size = self.latent_size(spec.size)?;
        let began = Instant::now();
        let networks = self.loras.choose(spec.lora.as_ref())?;
        let key = Key { networks: networks.number, ..size };
        let guidance = self.guidance(&networks, spec, &mut warnings)?;
        let text = began.elapsed();
        let run = self.sampler_run(&networks, spec, &mut warnings)?;
        let began = Instant::now();
        let init_image = self.init_image(spec)?;
        let encode = began.elapsed();
        let stages: Rc<[Stage]> = [Stage { key, networks, guidance, run }].into();
        let rows: usize = stages.iter().map(|stage| stage.run.plan.rows.len()).sum();
        let total = rows as u32 * spec.num_outputs;

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
            timings: EngineTimings { text, encode, evaluations: total, ..EngineTimings::default() },
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
        Ok(Key { height: size.height / factor, width: size.width / factor, networks: 0 })
    }

    /// Ids of `text` for each text encoder. A text that was cut is warned of once.
    fn tokenize(&self, field: &str, text: &str, warnings: &mut Vec<String>) -> Result<Vec<Vec<i64>>, JobError> {
        let encode =
            |tokenizer: &Tokenizer| tokenizer.encode(text).map_err(|cause| invalid(field, format!("{field}: {cause}")));
        let encoded: Vec<Encoded> = self.model.tokenizers.iter().map(encode).collect::<Result<_, _>>()?;
        if let Some((first, cut)) = encoded.iter().find_map(|encoded| Some((encoded, encoded.cut?))) {
            let (total, kept) = (first.total, first.ids.len());
            let left_out: String = text[cut..].chars().take(MOST_QUOTED).collect();
            warnings.push(format!("{field} has {total} tokens and was cut at {kept}; left out: {left_out:?}"));
        }
        Ok(encoded.into_iter().map(|encoded| encoded.ids).collect())
    }

    fn sampler_run(
        &self,
        networks: &Networks,
        spec: &Spec,
        warnings: &mut Vec<String>,
    ) -> Result<SamplerRun, JobError> {
        let schedule = &self.model.schedule;
        let plan = sampler::plan(spec.sampler, schedule, spec.steps as usize, spec.first_step() as usize)
            .map_err(|cause| invalid("num_inference_steps", cause.to_string()))?;
        let plan = match spec.denoising_end {
            Some(end) => plan.until(end, schedule),
            None => plan,
        };
        warnings.extend(doubts(&plan, spec));
        let timesteps: Vec<f64> = plan.rows.iter().map(|row| row.timestep).collect();
        let times = networks.unet.embed_times(&timesteps, &self.context).map_err(failed)?;
        SamplerRun::new(plan, Rc::clone(&self.model.schedule), times, &self.context).map_err(failed)
    }

    fn guidance(&mut self, networks: &Networks, spec: &Spec, warnings: &mut Vec<String>) -> Result<Guidance, JobError> {
        let positive = self.condition(networks, spec.size, ("prompt", Some(&spec.prompt)), warnings)?;
        // Guidance of 1 is the prompt's own prediction, and of less the reference takes it for 1.
        if spec.guidance_scale <= 1.0 {
            return Ok(Guidance { positive, negative: None });
        }
        let text = spec.negative_prompt.as_deref().or((!self.model.zeros_for_no_negative).then_some(""));
        let negative = self.condition(networks, spec.size, ("negative_prompt", text), warnings)?;
        Ok(Guidance { positive, negative: Some((negative, spec.guidance_scale)) })
    }

    /// What the text of a field is to `networks`, for a picture of this size; no text is all zeros.
    fn condition(
        &mut self,
        networks: &Networks,
        size: Size,
        (field, text): (&str, Option<&str>),
        warnings: &mut Vec<String>,
    ) -> Result<Rc<Conditioning>, JobError> {
        let tokens = text.map(|text| self.tokenize(field, text, warnings)).transpose()?;
        let prompt = Prompt { networks: networks.number, tokens, numbers: self.model.family.numbers(size) };
        self.prompts.encode(&self.model, networks, prompt, &self.context).map_err(failed)
    }

    /// Refuses a job without a mask where the UNet has channels for one.
    fn inpaints_alone(&self, spec: &Spec) -> Result<(), JobError> {
        let masked = spec.start.as_ref().is_some_and(|start| start.mask.is_some());
        if masked || self.model.unet.concat_channels() == 0 {
            return Ok(());
        }
        Err(invalid("mask", "mask is missing: this model repaints a part of an image, and draws nothing else".into()))
    }

    fn init_image(&self, spec: &Spec) -> Result<Option<Rc<InitImage>>, JobError> {
        let concat = self.model.unet.concat_channels() > 0;
        let init_image = |start| InitImage::of(start, &self.model.vae, concat, &self.context).map(Rc::new);
        spec.start.as_ref().map(init_image).transpose().map_err(failed)
    }
}

/// What a client probably did not mean by its steps.
fn doubts(plan: &Plan, spec: &Spec) -> Option<String> {
    let (name, steps) = (spec.sampler.name(), spec.steps);
    match &spec.start {
        Some(_) if plan.rows.is_empty() => Some(format!(
            "the strength leaves none of {steps} steps, so the picture is the one that it begins from, through the autoencoder and back"
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

fn invalid(field: &str, message: String) -> JobError {
    JobError { code: Code::InvalidInput, message, field: Some(field.to_owned()) }
}
