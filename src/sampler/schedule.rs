//! A model's noise schedule, as its scheduler file says it.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    betas,
    file_value::UnsupportedKey,
    keys,
    registry::Sampler,
    sampler_schedule::{Options, SamplerSchedule, TrainedLevels},
    sigma_spacing::SigmaSpacing,
};

/// How a model was trained to see noise, and what each sampler is told beside that: read from its `scheduler_config.json` by
/// [`NoiseSchedule::from_config`].
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseSchedule {
    /// One a training timestep.
    betas: Arc<[f32]>,
    levels: Arc<TrainedLevels>,
    /// What is not about betas; each sampler reads its own keys of it.
    keys: Arc<Map<String, Value>>,
    /// Whether some keys are corrected as the reference's pipeline of Stable Diffusion does.
    corrected: bool,
    /// Whether a part of an image is kept.
    inpaints: bool,
    spacing: SigmaSpacing,
    eta: f64,
}

impl NoiseSchedule {
    /// A schedule of betas, one a training timestep; none if they do not add noise at every one of at least two
    /// timesteps, or leave no signal that an f32 can hold.
    pub(super) fn new(betas: &[f32], keys: Map<String, Value>) -> Option<Self> {
        let levels = TrainedLevels::new(betas::alphas_cumprod(betas));
        levels.hold_noise_and_signal().then(|| Self {
            betas: betas.into(),
            levels: Arc::new(levels),
            keys: Arc::new(keys),
            corrected: false,
            inpaints: false,
            spacing: SigmaSpacing::Default,
            eta: 0.0,
        })
    }

    /// The same as the reference's `StableDiffusionPipeline` takes it: some published configurations leave `steps_offset`
    /// at 0, which that pipeline corrects to 1 before any sampler is made from them.
    #[must_use]
    pub fn for_stable_diffusion(self) -> Self {
        Self { corrected: true, ..self }
    }

    /// The same with steps spread as a job asks.
    #[must_use]
    pub fn spaced(&self, spacing: SigmaSpacing) -> Self {
        Self { spacing, ..self.clone() }
    }

    /// The same with so much noise (0 to 1) at each step of a sampler that has the choice ([`Sampler::has_eta`]).
    #[must_use]
    pub fn with_eta(&self, eta: f64) -> Self {
        Self { eta, ..self.clone() }
    }

    /// The same for a job that keeps a part of an image: the reference's pipeline of Stable Diffusion for that has no Runge-Kutta start.
    #[must_use]
    pub fn for_inpainting(&self) -> Self {
        Self { inpaints: true, ..self.clone() }
    }

    /// Share of signal in the variance at each training timestep, ᾱ of DDPM: the reference's own f32 values.
    pub fn alphas_cumprod(&self) -> &[f32] {
        &self.levels.alphas_cumprod
    }

    /// Keys of the scheduler file that no sampler knows, none of which changes anything.
    pub fn unknown_keys(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str).filter(|key| !keys::is_known(key))
    }

    /// The timestep where the share `end` of the trained ones has been gone through, from the noisiest down.
    pub(super) fn timestep_at(&self, end: f64) -> f64 {
        let trained = self.levels.alphas_cumprod.len() as f64;
        // Halves to even, as Python rounds.
        (trained - end * trained).round_ties_even()
    }

    /// What `sampler` makes of the scheduler file.
    ///
    /// # Errors
    /// [`UnsupportedKey`] of a key of its own that it cannot follow.
    pub(super) fn of(&self, sampler: Sampler) -> Result<SamplerSchedule, UnsupportedKey> {
        let mut options = keys::read(sampler, &self.keys, self.spacing)?;
        options.eta = self.eta;
        if self.corrected {
            options.steps_offset = 1;
            options.skip_prk_steps |= self.inpaints;
        }
        Ok(SamplerSchedule { levels: self.levels_of(options, sampler), options })
    }

    fn levels_of(&self, options: Options, sampler: Sampler) -> Arc<TrainedLevels> {
        if !options.rescale_betas_zero_snr {
            return Arc::clone(&self.levels);
        }
        let mut alphas = betas::alphas_cumprod(&betas::with_zero_terminal_snr(&self.betas));
        if let Some(last) = alphas.last_mut().filter(|_| sampler.needs_signal()) {
            *last = LEAST_SIGNAL;
        }
        Arc::new(TrainedLevels::new(alphas))
    }
}

/// ᾱ of the last timestep in place of 0, for samplers that divide by it: the reference's choice, σ of 4096.
const LEAST_SIGNAL: f32 = 5.960_464_5e-8;
