//! TCD: trajectory consistency sampling without noise, γ = 0 (Zheng et al., arXiv 2402.19159, algorithm 4). The reference's class has a
//! default of 0.3, and its pipelines always ask for 0.

use super::{
    level::Level,
    sampler_schedule::SamplerSchedule,
    table::{DraftRow, Plan, Update},
};

/// One row a step. The last one leads to the level of timestep 0, which is not quite clean.
pub(super) fn plan(schedule: &SamplerSchedule, steps: usize, begin: usize) -> Plan {
    let timesteps = &schedule.distilled_timesteps(steps)[begin..];
    let level = |timestep: i64| Level::of_alpha(schedule.alpha(timestep).into());
    let below = timesteps.iter().skip(1).copied().chain([0]);
    let row = |(&timestep, next): (&i64, i64)| {
        let update = Update::x(schedule.transfer(level(timestep), level(next)));
        DraftRow { timestep: timestep as f64, level: level(timestep), input_scale: 1.0, update }
    };
    Plan::of(1.0, &timesteps.iter().zip(below).map(row).collect::<Vec<_>>())
}
