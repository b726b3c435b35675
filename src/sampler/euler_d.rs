//! Euler's method in σ (Karras et al., arXiv 2206.00364, algorithm 2 without churn).

use super::{
    linear::LinearCombination,
    sampler_schedule::SamplerSchedule,
    sigmas::SigmaSchedule,
    table::{Plan, Update},
};

/// One row a step.
pub(super) fn plan(schedule: &SamplerSchedule, steps: usize, begin: usize) -> Plan {
    let levels = SigmaSchedule::new(schedule, steps);
    let row = |i| levels.row(i, &Update::x(LinearCombination::X + levels.noise(schedule, i) * levels.delta(i)));
    Plan::of(levels.initial_scale, &(begin..steps).map(row).collect::<Vec<_>>())
}
