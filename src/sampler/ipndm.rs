//! IPNDM: fourth-order Adams-Bashforth in σ (after the iPNDM of Zhang and Chen, arXiv 2204.13902).
//!
//! Ours, not the reference's: diffusers' class of that name was made for a model that is told timesteps between 1 and 0
//! and knows other betas, and gives garbage with Stable Diffusion.

use super::{
    adams::{extrapolate, remember},
    linear::LinearCombination,
    sampler_schedule::SamplerSchedule,
    sigmas::SigmaSchedule,
    table::{Plan, Update},
};

/// One row a step; slots 1 to 3 hold earlier outputs.
pub(super) fn plan(schedule: &SamplerSchedule, steps: usize, begin: usize) -> Plan {
    let levels = SigmaSchedule::new(schedule, steps);
    let row = |i: usize| {
        let noise = levels.noise(schedule, i);
        let x = LinearCombination::X + extrapolate(noise, i - begin + 1) * levels.delta(i);
        levels.row(i, &Update::x_and(x, remember(noise)))
    };
    Plan::of(levels.initial_scale, &(begin..steps).map(row).collect::<Vec<_>>())
}
