//! Levels of a run of DPM-Solver and its kin: x keeps its variance, timesteps are whole, and the lowest is not visited.

use super::{
    level::Level,
    linear::LinearCombination,
    sampler_schedule::{Options, SamplerSchedule, Spacing},
    sigma_spacing::SigmaCurve,
    table::{DraftRow, Update},
};

/// The levels of a run of n steps.
pub(super) struct SolverLevels {
    /// n timesteps, falling.
    timesteps: Vec<f64>,
    /// n + 1 levels; the last, where no evaluation is made, is clean, or that of timestep 0.
    levels: Vec<Level>,
}

impl SolverLevels {
    /// The levels of a run of `steps` steps, whose timesteps lie as `spacing` says unless a curve of σ tells them.
    pub(super) fn new(schedule: &SamplerSchedule, steps: usize, spacing: Spacing) -> Self {
        let (timesteps, mut levels): (Vec<f64>, Vec<Level>) =
            match schedule.options.curve.sigmas(schedule.sigma_range(), steps) {
                None => {
                    let timesteps = schedule.upper_timesteps(steps, spacing).into_iter();
                    timesteps.map(|timestep| (timestep as f64, schedule.level(timestep, true))).unzip()
                }
                Some(sigmas) => {
                    let level = |sigma: f64| Level::of_sigma(f64::from(sigma as f32)).unit();
                    let timestep = |sigma: f64| whole(schedule.options.curve, schedule.curve_timestep(sigma));
                    sigmas.into_iter().map(|sigma| (timestep(sigma), level(sigma))).unzip()
                }
            };
        levels.push(match schedule.options {
            Options { ends_at_lowest: false, .. } => Level::CLEAN,
            Options { curve: SigmaCurve::Trained, .. } => schedule.level(0, true),
            _ => Level::of_sigma(schedule.sigma_range().0).unit(),
        });
        Self { timesteps, levels }
    }

    /// The same with its end at another level.
    pub(super) fn ending_at(mut self, end: Level) -> Self {
        self.levels.pop();
        self.levels.push(end);
        self
    }

    /// Level `i`, from 0 to the number of steps.
    pub(super) fn at(&self, i: usize) -> Level {
        self.levels[i]
    }

    /// The same with a last step that leads nowhere.
    pub(super) fn ending_where_it_is(self) -> Self {
        let end = self.at(self.timesteps.len() - 1);
        self.ending_at(end)
    }

    /// Length of the step from level `i` to `i + 1` in λ = -ln σ.
    pub(super) fn length(&self, i: usize) -> f64 {
        (self.at(i).sigma() / self.at(i + 1).sigma()).ln()
    }

    /// A row that evaluates the model at level `i`.
    pub(super) fn row(&self, i: usize, update: &Update) -> DraftRow {
        DraftRow { timestep: self.timesteps[i], level: self.at(i), input_scale: 1.0, update: *update }
    }
}

/// The reference rounds the timesteps of Karras' curve, and cuts those of the others.
fn whole(curve: SigmaCurve, timestep: f64) -> f64 {
    if curve == SigmaCurve::Karras { timestep.round_ties_even() } else { timestep.trunc() }
}

/// The exact solution from `from` to `to` for a prediction of the clean latents that stays what it is: x is `start` at
/// `from`, and `clean` the prediction. σ/α falls by the factor exp(-h) on the way.
pub(super) fn solve(from: Level, to: Level, start: LinearCombination, clean: LinearCombination) -> LinearCombination {
    start * (to.noise / from.noise) + clean * (to.signal * (1.0 - to.sigma() / from.sigma()))
}
