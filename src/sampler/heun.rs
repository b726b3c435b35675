//! Heun's method in σ (Karras et al., arXiv 2206.00364, algorithm 1 without churn).

use super::{
    ladder::Ladder,
    linear::LinearCombination,
    schedule::NoiseSchedule,
    table::{Plan, Update},
};

/// Two rows a step, an Euler step and its correction, but one for the last. Slots 1 and 2 hold the x and the output
/// that the step began with.
pub(super) fn plan(schedule: &NoiseSchedule, steps: usize, begin: usize) -> Plan {
    let ladder = Ladder::new(schedule, steps);
    let mut stages = Vec::with_capacity(2 * steps);
    for i in begin..steps {
        let fall = ladder.fall(i);
        let predict = LinearCombination::X + LinearCombination::OUTPUT * fall;
        stages.push(ladder.stage(i, Update::x_and(predict, [LinearCombination::X, LinearCombination::OUTPUT])));
        if i + 1 < steps {
            let correct =
                LinearCombination::slot(1) + (LinearCombination::slot(2) + LinearCombination::OUTPUT) * (fall / 2.0);
            stages.push(ladder.stage(i + 1, Update::x(correct)));
        }
    }
    Plan::of(ladder.initial_scale, &stages)
}
