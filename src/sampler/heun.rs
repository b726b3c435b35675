//! Heun's method in σ (Karras et al., arXiv 2206.00364, algorithm 1 without churn).

use super::{
    linear::LinearCombination,
    sampler_schedule::SamplerSchedule,
    sigmas::SigmaSchedule,
    table::{Plan, Update},
};

/// Two rows a step, an Euler step and its correction, but one for the last. Slots 1 and 2 hold the x and the output
/// that the step began with.
pub(super) fn plan(schedule: &SamplerSchedule, steps: usize, begin: usize) -> Plan {
    let levels = SigmaSchedule::new(schedule, steps);
    let mut rows = Vec::with_capacity(2 * steps);
    for i in begin..steps {
        let delta = levels.delta(i);
        let noise = levels.noise(schedule, i);
        let predict = LinearCombination::X + noise * delta;
        rows.push(levels.row(i, &Update::x_and(predict, [LinearCombination::X, noise])));
        if i + 1 < steps {
            let correct = LinearCombination::slot(1)
                + (LinearCombination::slot(2) + levels.noise(schedule, i + 1)) * (delta / 2.0);
            rows.push(levels.row(i + 1, &Update::x(correct)));
        }
    }
    Plan::of(levels.initial_scale, &rows)
}
