//! DPM-Solver++ (2M): second order, multistep, midpoint (Lu et al., arXiv 2211.01095).

use super::{
    level::Level,
    linear::LinearCombination,
    schedule::{NoiseSchedule, Spacing},
    table::{DraftRow, Plan, Update},
};

/// Levels of a run of DPM-Solver with their timesteps; the clean end, which has none, is left out.
pub(super) fn levels(schedule: &NoiseSchedule, steps: usize, spacing: Spacing) -> Vec<(i64, Level)> {
    let timesteps = schedule.upper_timesteps(steps, spacing);
    timesteps.into_iter().map(|timestep| (timestep, schedule.level(timestep, true))).collect()
}

/// The exact solution from `from` to `to` for a prediction of the clean latents that stays what it is: x is `start` at
/// `from`, and `clean` the prediction. σ/α falls by the factor exp(-h) on the way.
pub(super) fn solve(from: Level, to: Level, start: LinearCombination, clean: LinearCombination) -> LinearCombination {
    start * (to.noise / from.noise) + clean * (to.signal * (1.0 - to.sigma() / from.sigma()))
}

/// One row a step; slot 1 holds the last prediction of the clean latents. First and last step are of order 1.
pub(super) fn plan(schedule: &NoiseSchedule, steps: usize, begin: usize) -> Plan {
    let spacing = schedule.options.spacing.unwrap_or(Spacing::Linspace);
    let levels = levels(schedule, steps, spacing);
    let row = |i: usize| {
        let (timestep, level) = levels[i];
        let next = levels.get(i + 1).map_or(Level::CLEAN, |&(_, level)| level);
        let clean = level.denoise(LinearCombination::X, LinearCombination::OUTPUT);
        let predicted = if i == begin || i + 1 == steps {
            clean
        } else {
            let before = levels[i - 1].1;
            // h₀/h: lengths of the last and the coming step in λ = -ln σ
            let ratio = (before.sigma() / level.sigma()).ln() / (level.sigma() / next.sigma()).ln();
            clean + (clean - LinearCombination::slot(1)) * (0.5 / ratio)
        };
        let update = Update::x_and(solve(level, next, LinearCombination::X, predicted), [clean]);
        DraftRow { timestep: timestep as f64, level, input_scale: 1.0, update }
    };
    Plan::of(1.0, &(begin..steps).map(row).collect::<Vec<_>>())
}
