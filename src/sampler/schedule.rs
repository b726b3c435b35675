//! A model's noise schedule, as the samplers see it.

use std::borrow::Cow;

use super::{betas, level::Level, sigma_spacing::SigmaSpacing};

/// How a sampler spreads its steps over the training timesteps (arXiv 2305.08891, table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spacing {
    /// Evenly, both ends included.
    Linspace,
    /// Multiples of a whole stride, from 0 up.
    Leading,
    /// Multiples of a stride, from the last training timestep down.
    Trailing,
}

/// How a model was trained to see noise: read from its `scheduler_config.json` by [`NoiseSchedule::from_config`].
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseSchedule {
    /// ᾱ at each training timestep.
    alphas_cumprod: Vec<f32>,
    /// σ at each training timestep, strictly rising, above 0 and finite; the reference's own f32 values.
    sigmas: Vec<f64>,
    /// What the configuration leaves to the samplers.
    pub(super) options: Options,
}

/// What a scheduler configuration says beside its betas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Options {
    /// Added to "leading" timesteps, 0 or 1.
    pub(super) steps_offset: usize,
    /// Whether the level below timestep 0 is clean, or that of timestep 0. Samplers differ in what unset means.
    pub(super) set_alpha_to_one: Option<bool>,
    /// How steps are spread. Samplers differ in what unset means.
    pub(super) spacing: Option<Spacing>,
}

impl NoiseSchedule {
    /// A schedule of betas, one a training timestep; none if they do not add noise at every one of at least two
    /// timesteps, or leave no signal that an f32 can hold.
    pub(super) fn new(betas: &[f32], options: Options) -> Option<Self> {
        let alphas_cumprod = betas::alphas_cumprod(betas);
        let sigmas: Vec<f64> = alphas_cumprod.iter().map(|alpha| ((1.0 - alpha) / alpha).sqrt().into()).collect();
        let rises = sigmas.is_sorted_by(|low, high| low < high);
        let bounded = *sigmas.first()? > 0.0 && sigmas.last()?.is_finite() && sigmas.len() > 1;
        (rises && bounded).then_some(Self { alphas_cumprod, sigmas, options })
    }

    /// The same as the reference's `StableDiffusionPipeline` takes it: some published configurations leave `steps_offset`
    /// at 0, which that pipeline corrects to 1 before any sampler is made from them.
    #[must_use]
    pub fn for_stable_diffusion(mut self) -> Self {
        self.options.steps_offset = 1;
        self
    }

    /// The same with steps spread as a job asks.
    #[must_use]
    pub fn spaced(&self, spacing: SigmaSpacing) -> Cow<'_, Self> {
        match spacing {
            SigmaSpacing::Default => Cow::Borrowed(self),
            SigmaSpacing::SgmUniform => {
                let options = Options { spacing: Some(Spacing::Trailing), ..self.options };
                Cow::Owned(Self { options, ..self.clone() })
            }
        }
    }

    /// Share of signal in the variance at each training timestep, ᾱ of DDPM: the reference's own f32 values.
    pub fn alphas_cumprod(&self) -> &[f32] {
        &self.alphas_cumprod
    }

    /// Timesteps the model was trained on.
    pub(super) fn train_steps(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// The timestep where the share `end` of the trained ones has been gone through, from the noisiest down.
    pub(super) fn timestep_at(&self, end: f64) -> f64 {
        let trained = self.train_steps() as f64;
        // Halves to even, as Python rounds.
        (trained - end * trained).round_ties_even()
    }

    /// ᾱ at a training timestep, held to the trained ones.
    pub(super) fn alpha(&self, timestep: i64) -> f32 {
        let index = usize::try_from(timestep).unwrap_or(0).min(self.train_steps() - 1);
        self.alphas_cumprod[index]
    }

    /// Level at a training timestep. Above the last it is the last's; below 0 it is clean if `clean_below` says so, and
    /// else that of timestep 0.
    pub(super) fn level(&self, timestep: i64, clean_below: bool) -> Level {
        if timestep < 0 && clean_below { Level::CLEAN } else { Level::of_alpha(self.alpha(timestep).into()) }
    }

    /// Level whose squares sum to 1 at what a model is told of the time, which some samplers choose between training timesteps.
    pub fn level_at(&self, timestep: f64) -> Level {
        Level::of_alpha(1.0 / (1.0 + self.sigma(timestep).powi(2)))
    }

    /// σ at a timestep, linear between training timesteps, as an f32 holds it.
    pub(super) fn sigma(&self, timestep: f64) -> f64 {
        let last = self.train_steps() - 1;
        let below = (timestep.max(0.0) as usize).min(last);
        let (low, high) = (self.sigmas[below], self.sigmas[(below + 1).min(last)]);
        f64::from((low + (high - low) * timestep.fract()) as f32)
    }

    /// The timestep whose σ this is, linear in log σ between training timesteps, as an f32 holds it. It is 0 below the
    /// lowest σ, and the last timestep above the highest.
    pub(super) fn timestep_of(&self, sigma: f64) -> f64 {
        let at_or_below = self.sigmas.partition_point(|&trained| trained <= sigma);
        let low = at_or_below.saturating_sub(1).min(self.train_steps() - 2);
        let (log_low, log_high) = (self.sigmas[low].ln(), self.sigmas[low + 1].ln());
        let share = ((sigma.ln() - log_low) / (log_high - log_low)).clamp(0.0, 1.0);
        f64::from((low as f64 + share) as f32)
    }
}
