//! A noise schedule as one sampler sees it.

use std::sync::Arc;

use super::{level::Level, linear::LinearCombination, prediction::Prediction, sigma_spacing::SigmaCurve};

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

/// What a scheduler file says to one sampler beside its betas.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the file")]
pub(super) struct Options {
    /// What the model's output is.
    pub(super) prediction: Prediction,
    /// Added to "leading" timesteps, 0 or 1.
    pub(super) steps_offset: usize,
    /// Whether the level below timestep 0 is clean, or that of timestep 0. Samplers differ in what unset means.
    pub(super) set_alpha_to_one: Option<bool>,
    /// How steps are spread. Samplers differ in what unset means.
    pub(super) spacing: Option<Spacing>,
    /// How σ falls from its highest value to its lowest.
    pub(super) curve: SigmaCurve,
    /// Whether the last training timestep has no signal.
    pub(super) rescale_betas_zero_snr: bool,
    /// Whether the last step ends at the lowest trained σ instead of 0.
    pub(super) ends_at_lowest: bool,
    /// Whether PNDM has no Runge-Kutta start.
    pub(super) skip_prk_steps: bool,
    /// Steps at most that a multistep solver looks back on, with the one that it is at.
    pub(super) solver_order: usize,
    /// Whether a run ends with lower orders, of a multistep solver if it is short. Samplers differ in what unset means.
    pub(super) lower_order_final: Option<bool>,
    /// Whether its last step is one of Euler.
    pub(super) euler_at_final: bool,
    /// Whether `UniPC`'s B(h) is h (`bh1`).
    pub(super) linear_b: bool,
    /// η of DDIM.
    pub(super) eta: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            prediction: Prediction::Epsilon,
            steps_offset: 0,
            set_alpha_to_one: None,
            spacing: None,
            curve: SigmaCurve::Trained,
            rescale_betas_zero_snr: false,
            ends_at_lowest: false,
            skip_prk_steps: false,
            solver_order: 2,
            lower_order_final: None,
            euler_at_final: false,
            linear_b: false,
            eta: 0.0,
        }
    }
}

/// The levels that a model was trained on.
#[derive(Debug, PartialEq)]
pub(super) struct TrainedLevels {
    /// ᾱ at each training timestep.
    pub(super) alphas_cumprod: Vec<f32>,
    /// σ at each training timestep, rising; the reference's own f32 values. Without any signal at the last, that is infinite.
    sigmas: Vec<f64>,
}

/// A model's noise schedule with what its scheduler file says to one sampler.
#[derive(Debug)]
pub(super) struct SamplerSchedule {
    pub(super) levels: Arc<TrainedLevels>,
    pub(super) options: Options,
}

impl TrainedLevels {
    pub(super) fn new(alphas_cumprod: Vec<f32>) -> Self {
        let sigmas = alphas_cumprod.iter().map(|alpha| ((1.0 - alpha) / alpha).sqrt().into()).collect();
        Self { alphas_cumprod, sigmas }
    }

    /// Whether there are at least two, each with more noise than the one before, and some signal at all.
    pub(super) fn hold_noise_and_signal(&self) -> bool {
        let rise = self.sigmas.is_sorted_by(|low, high| low < high);
        let bounded = |(first, last): (&f64, &f64)| *first > 0.0 && last.is_finite();
        rise && self.sigmas.len() > 1 && self.sigmas.first().zip(self.sigmas.last()).is_some_and(bounded)
    }
}

impl SamplerSchedule {
    /// Timesteps the model was trained on.
    pub(super) fn train_steps(&self) -> usize {
        self.levels.alphas_cumprod.len()
    }

    /// ᾱ at a training timestep, held to the trained ones.
    pub(super) fn alpha(&self, timestep: i64) -> f32 {
        let index = usize::try_from(timestep).unwrap_or(0).min(self.train_steps() - 1);
        self.levels.alphas_cumprod[index]
    }

    /// Level at a training timestep. Above the last it is the last's; below 0 it is clean if `clean_below` says so, and
    /// else that of timestep 0.
    pub(super) fn level(&self, timestep: i64, clean_below: bool) -> Level {
        if timestep < 0 && clean_below { Level::CLEAN } else { Level::of_alpha(self.alpha(timestep).into()) }
    }

    /// Level whose squares sum to 1 at what a model is told of the time, which some samplers choose between training timesteps.
    pub(super) fn level_at(&self, timestep: f64) -> Level {
        Level::of_alpha(1.0 / (1.0 + self.sigma(timestep).powi(2)))
    }

    /// The clean latents, if x is at `level`.
    pub(super) fn clean(&self, level: Level) -> LinearCombination {
        self.options.prediction.clean(level, LinearCombination::X, LinearCombination::OUTPUT)
    }

    /// The noise, if x is at `level`.
    pub(super) fn noise(&self, level: Level) -> LinearCombination {
        self.options.prediction.noise(level, LinearCombination::X, LinearCombination::OUTPUT)
    }

    /// x taken from one level to another with its noise held.
    pub(super) fn transfer(&self, from: Level, to: Level) -> LinearCombination {
        self.options.prediction.transfer((from, to), LinearCombination::X, LinearCombination::OUTPUT)
    }

    /// σ at a timestep, linear between training timesteps, as an f32 holds it.
    pub(super) fn sigma(&self, timestep: f64) -> f64 {
        let last = self.train_steps() - 1;
        let below = (timestep.max(0.0) as usize).min(last);
        let (low, high) = (self.levels.sigmas[below], self.levels.sigmas[(below + 1).min(last)]);
        // The last may be infinite.
        let above = if timestep.fract() > 0.0 { (high - low) * timestep.fract() } else { 0.0 };
        f64::from((low + above) as f32)
    }

    /// The lowest and the highest trained σ.
    pub(super) fn sigma_range(&self) -> (f64, f64) {
        (self.sigma(0.0), self.sigma((self.train_steps() - 1) as f64))
    }

    /// The timestep whose σ this is, linear in log σ between training timesteps, as an f32 holds it. It is 0 below the
    /// lowest σ, and the last timestep above the highest.
    pub(super) fn timestep_of(&self, sigma: f64) -> f64 {
        let at_or_below = self.levels.sigmas.partition_point(|&trained| trained <= sigma);
        let low = at_or_below.saturating_sub(1).min(self.train_steps() - 2);
        let (log_low, log_high) = (self.levels.sigmas[low].ln(), self.levels.sigmas[low + 1].ln());
        let share = ((sigma.ln() - log_low) / (log_high - log_low)).clamp(0.0, 1.0);
        f64::from((low as f64 + share) as f32)
    }

    /// The same as the reference finds it for a [`SigmaCurve`]: by logarithms that it has in f32, and not rounded itself. Where it is cut to a
    /// whole timestep, that decides.
    pub(super) fn curve_timestep(&self, sigma: f64) -> f64 {
        let log = |index: usize| self.levels.sigmas[index].ln() as f32;
        let wanted = sigma.ln();
        let at_or_below = self.levels.sigmas.partition_point(|trained| f64::from(trained.ln() as f32) <= wanted);
        let low = at_or_below.saturating_sub(1).min(self.train_steps() - 2);
        let (log_low, log_high) = (log(low), log(low + 1));
        let share = ((f64::from(log_low) - wanted) / f64::from(log_low - log_high)).clamp(0.0, 1.0);
        (1.0 - share) * low as f64 + share * (low + 1) as f64
    }
}
