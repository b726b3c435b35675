//! DPM-Solver++ (2S): second order, singlestep, midpoint (Lu et al., arXiv 2211.01095).

use super::{
    dpm_m::{levels, solve},
    level::Level,
    linear::LinearCombination,
    schedule::{NoiseSchedule, Spacing},
    table::{DraftRow, Plan, Update},
};

/// One row a step, in pairs: a step of order 1, then one of order 2 that starts again where the pair began, from the x
/// and the clean prediction in slots 1 and 2. First and last step are of order 1. The class has no choice of spacing.
pub(super) fn plan(schedule: &NoiseSchedule, steps: usize, begin: usize) -> Plan {
    let levels = levels(schedule, steps, Spacing::Linspace);
    let row = |i: usize| {
        let (timestep, level) = levels[i];
        let next = levels.get(i + 1).map_or(Level::CLEAN, |&(_, level)| level);
        let clean = level.denoise(LinearCombination::X, LinearCombination::OUTPUT);
        let second_order = i % 2 == 1 && i != begin && i + 1 != steps;
        let x = if second_order {
            let (start, first) = (levels[i - 1].1, LinearCombination::slot(2));
            // h₀/h: how far into the pair this evaluation lies, in λ = -ln σ
            let ratio = (start.sigma() / level.sigma()).ln() / (start.sigma() / next.sigma()).ln();
            solve(start, next, LinearCombination::slot(1), first + (clean - first) * (0.5 / ratio))
        } else {
            solve(level, next, LinearCombination::X, clean)
        };
        let update = Update::x_and(x, [LinearCombination::X, clean]);
        DraftRow { timestep: timestep as f64, level, input_scale: 1.0, update }
    };
    Plan::of(1.0, &(begin..steps).map(row).collect::<Vec<_>>())
}
