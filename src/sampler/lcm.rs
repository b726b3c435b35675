//! LCM: multistep sampling of a latent consistency model (Luo et al., arXiv 2310.04378, algorithm 1 of its multistep form).

use super::{
    level::Level,
    linear::LinearCombination,
    sampler_schedule::SamplerSchedule,
    table::{DraftRow, Plan, Update},
};

/// Standard deviation of the clean latents, as the boundary conditions take it (σ of the data in arXiv 2303.01469, appendix C).
const DATA: f64 = 0.5;

/// What timesteps are multiplied by before (the reference's `timestep_scaling`).
const SCALING: f64 = 10.0;

/// One row a step: to the clean latents, and with fresh noise to the next level; after the last no noise is drawn.
pub(super) fn plan(schedule: &SamplerSchedule, steps: usize, begin: usize) -> Plan {
    let timesteps = &schedule.distilled_timesteps(steps)[begin..];
    let level = |timestep: &i64| Level::of_alpha(schedule.alpha(*timestep).into());
    let below = timesteps.iter().skip(1).map(level).chain([Level::CLEAN]);
    let row = |(timestep, next): (&i64, Level)| {
        let clean = consistent(schedule, *timestep as f64, level(timestep));
        let update = Update::x(clean * next.signal + LinearCombination::NOISE * next.noise);
        DraftRow { timestep: *timestep as f64, level: level(timestep), input_scale: 1.0, update }
    };
    Plan::of(1.0, &timesteps.iter().zip(below).map(row).collect::<Vec<_>>())
}

/// The prediction of the clean latents, with so much of x that it is x itself at timestep 0.
fn consistent(schedule: &SamplerSchedule, timestep: f64, level: Level) -> LinearCombination {
    let scaled = timestep * SCALING;
    let spread = scaled.hypot(DATA);
    let (skip, out) = ((DATA / spread).powi(2), scaled / spread);
    schedule.clean(level) * out + LinearCombination::X * skip
}
