//! Euler's method in σ (Karras et al., arXiv 2206.00364, algorithm 2 without churn).

use super::{
    ladder::Ladder,
    linear::LinearCombination,
    schedule::NoiseSchedule,
    table::{Plan, Update},
};

/// One row a step.
pub(super) fn plan(schedule: &NoiseSchedule, steps: usize, begin: usize) -> Plan {
    let ladder = Ladder::new(schedule, steps);
    let stage = |i| ladder.stage(i, Update::x(LinearCombination::X + LinearCombination::OUTPUT * ladder.fall(i)));
    Plan::of(ladder.initial_scale, &(begin..steps).map(stage).collect::<Vec<_>>())
}
