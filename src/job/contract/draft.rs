//! A job while its input is read: what a contract has no field for stays as it is in a new one.

use crate::job::prompt::{PromptSyntax, WeightError, emphasized};
use crate::job::spec::{ImageSource, Img2Img, Lora, Mask, Refine, RefineMode, Shade, Size, Spec};
use crate::sampler::{Sampler, SigmaSpacing};

/// The parts of a job, whatever a contract calls them.
#[derive(Debug)]
pub struct Draft {
    pub(super) model: Option<String>,
    pub(super) prompt: String,
    pub(super) negative_prompt: Option<String>,
    pub(super) prompt_syntax: PromptSyntax,
    pub(super) clip_skip: u32,
    pub(super) size: Size,
    pub(super) init_image: Option<ImageSource>,
    pub(super) mask: Option<ImageSource>,
    pub(super) strength: f64,
    pub(super) num_outputs: u32,
    pub(super) steps: u32,
    /// Those of a job that begins from an image, and of a refiner, where a contract tells them apart.
    pub(super) image_steps: Option<u32>,
    /// How a refiner goes on, where a contract knows of one.
    pub(super) refine: Option<RefineMode>,
    pub(super) denoising_end: Option<f64>,
    pub(super) guidance_scale: f64,
    pub(super) sampler: Sampler,
    pub(super) sigmas: SigmaSpacing,
    pub(super) eta: f64,
    pub(super) seed: Option<u64>,
    pub(super) lora: Option<String>,
    pub(super) lora_scale: f64,
    pub(super) repaint: Shade,
    pub(super) paste: bool,
    pub(super) preview: bool,
}

impl Draft {
    pub(in crate::job) fn new() -> Self {
        Self {
            model: None,
            prompt: String::new(),
            negative_prompt: None,
            prompt_syntax: PromptSyntax::Plain,
            clip_skip: 0,
            size: Size { width: 0, height: 0 },
            init_image: None,
            mask: None,
            strength: 1.0,
            num_outputs: 1,
            steps: 1,
            image_steps: None,
            refine: None,
            denoising_end: None,
            guidance_scale: 1.0,
            sampler: Sampler::KLms,
            sigmas: SigmaSpacing::Default,
            eta: 0.0,
            seed: None,
            lora: None,
            lora_scale: 1.0,
            repaint: Shade::Black,
            paste: false,
            preview: false,
        }
    }

    /// Whether a base model and a refiner are to share the steps of a job that begins from noise.
    pub(in crate::job) fn is_ensemble(&self) -> bool {
        self.refine == Some(RefineMode::Ensemble) && self.init_image.is_none()
    }

    /// Whether a refiner draws the job, if its model has one: from an image, unless a mask is to be kept.
    pub(super) fn is_for_refiner(&self) -> bool {
        self.refine.is_some() && self.init_image.is_some() && self.mask.is_none()
    }

    /// What is wrong with weights in prompts, by field.
    pub(in crate::job) fn wrong_weights(&self) -> impl Iterator<Item = (&'static str, WeightError)> {
        let prompts = [("prompt", Some(&self.prompt)), ("negative_prompt", self.negative_prompt.as_ref())];
        let weighted = prompts.into_iter().filter(|_| self.prompt_syntax == PromptSyntax::Weighted);
        weighted.filter_map(|(field, prompt)| Some((field, emphasized(prompt?).err()?)))
    }

    /// Where denoising ends, or the refiner goes on.
    pub(in crate::job) fn denoising_end(&self) -> Option<f64> {
        self.denoising_end
    }

    /// The job; `model` draws it if it names none, `seed` is that of one which leaves it open.
    pub(in crate::job) fn finish(self, model: Option<&str>, seed: u64) -> Spec<ImageSource> {
        let (repaint, paste, strength, scale) = (self.repaint, self.paste, self.strength, self.lora_scale);
        let image_steps = self.image_steps.unwrap_or(self.steps);
        let steps = if self.init_image.is_some() { image_steps } else { self.steps };
        let refine = |mode| {
            let steps = if mode == RefineMode::Strength { image_steps } else { steps };
            Refine { steps, mode, strength }
        };
        let mask = self.mask.map(|image| Mask { image, repaint, paste });
        Spec {
            model: self.model.or_else(|| model.map(str::to_owned)).unwrap_or_default(),
            prompt: self.prompt,
            negative_prompt: self.negative_prompt,
            prompt_syntax: self.prompt_syntax,
            clip_skip: self.clip_skip,
            size: self.size,
            refine: self.refine.filter(|_| self.init_image.is_none()).map(refine),
            start: self.init_image.map(|image| Img2Img { image, strength, mask }),
            num_outputs: self.num_outputs,
            steps,
            denoising_end: self.denoising_end,
            guidance_scale: self.guidance_scale,
            sampler: self.sampler,
            sigmas: self.sigmas,
            eta: self.eta,
            seed: self.seed.unwrap_or(seed),
            // A scale of nothing is no change.
            lora: self.lora.filter(|_| scale > 0.0).map(|name| Lora { name, scale }),
            preview: self.preview,
        }
    }
}
