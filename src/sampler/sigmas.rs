//! The σ samplers' common ground: falling noise levels for x = image + σ · noise.

use super::{
    level::Level,
    linear::LinearCombination,
    sampler_schedule::{SamplerSchedule, Spacing},
    table::{DraftRow, Update},
};

/// The levels of a run of n steps.
pub(super) struct SigmaSchedule {
    /// n timesteps, falling.
    pub(super) timesteps: Vec<f64>,
    /// n + 1 values of σ, falling; the last is 0, or the lowest trained one.
    pub(super) sigmas: Vec<f64>,
    /// Standard deviation of the x that the run starts from.
    pub(super) initial_scale: f64,
}

impl SigmaSchedule {
    /// The levels of a run of `steps` steps.
    pub(super) fn new(schedule: &SamplerSchedule, steps: usize) -> Self {
        let mut timesteps = schedule.fractional_timesteps(steps);
        let mut sigmas: Vec<f64> = timesteps.iter().map(|&timestep| schedule.sigma(timestep)).collect();
        let ends = (sigmas[steps - 1], sigmas[0]);
        if let Some(curve) = schedule.options.curve.sigmas(ends, steps) {
            timesteps = curve.iter().map(|&sigma| f64::from(schedule.curve_timestep(sigma) as f32)).collect();
            sigmas = curve.into_iter().map(|sigma| f64::from(sigma as f32)).collect();
        }
        sigmas.push(if schedule.options.ends_at_lowest { schedule.sigma(0.0) } else { 0.0 });
        let initial_scale = match schedule.options.spacing {
            Some(Spacing::Leading) => sigmas[0].hypot(1.0),
            Some(Spacing::Linspace | Spacing::Trailing) | None => sigmas[0],
        };
        Self { timesteps, sigmas, initial_scale }
    }

    /// Change of σ over step `i`; below 0.
    pub(super) fn delta(&self, i: usize) -> f64 {
        self.sigmas[i + 1] - self.sigmas[i]
    }

    /// The noise that the model finds in x at level `i`.
    pub(super) fn noise(&self, schedule: &SamplerSchedule, i: usize) -> LinearCombination {
        schedule.noise(Level::of_sigma(self.sigmas[i]))
    }

    /// A row that evaluates the model at level `i`.
    pub(super) fn row(&self, i: usize, update: &Update) -> DraftRow {
        let sigma = self.sigmas[i];
        DraftRow {
            timestep: self.timesteps[i],
            level: Level::of_sigma(sigma),
            input_scale: input_scale(sigma),
            update: *update,
        }
    }
}

/// Brings x at noise σ to the variance that the model was trained on.
pub(super) fn input_scale(sigma: f64) -> f64 {
    1.0 / sigma.hypot(1.0)
}
