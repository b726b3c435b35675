//! DPM-Solver++ (2S): second order, singlestep, midpoint (Lu et al., arXiv 2211.01095).

use super::{
    linear::LinearCombination,
    sampler_schedule::{SamplerSchedule, Spacing},
    solver_levels::{SolverLevels, solve},
    table::{Plan, Update},
};

/// One row a step, in pairs: a step of order 1, then one of order 2 that starts again where the pair began, from the x
/// and the clean prediction in slots 1 and 2. The first step is of order 1, and so is the last if it leads to clean latents. The class has no
/// choice of spacing.
pub(super) fn plan(schedule: &SamplerSchedule, steps: usize, begin: usize) -> Plan {
    let levels = SolverLevels::new(schedule, steps, Spacing::Linspace);
    let ends_first_order = !schedule.options.ends_at_lowest || schedule.options.lower_order_final.unwrap_or(false);
    let row = |i: usize| {
        let (level, next) = (levels.at(i), levels.at(i + 1));
        let clean = schedule.clean(level);
        let second_order = i % 2 == 1 && i != begin && !(ends_first_order && i + 1 == steps);
        let x = if second_order {
            let (start, first) = (levels.at(i - 1), LinearCombination::slot(2));
            // h₀/h: how far into the pair this evaluation lies, in λ = -ln σ
            let ratio = (start.sigma() / level.sigma()).ln() / (start.sigma() / next.sigma()).ln();
            solve(start, next, LinearCombination::slot(1), first + (clean - first) * (0.5 / ratio))
        } else {
            solve(level, next, LinearCombination::X, clean)
        };
        levels.row(i, &Update::x_and(x, [LinearCombination::X, clean]))
    };
    Plan::of(1.0, &(begin..steps).map(row).collect::<Vec<_>>())
}
