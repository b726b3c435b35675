//! Euler's method with ancestral noise (k-diffusion's `sample_euler_ancestral`).

use super::{
    level::Level,
    linear::LinearCombination,
    sampler_schedule::SamplerSchedule,
    sigmas::SigmaSchedule,
    table::{DraftRow, Plan, Update},
};

/// A step from σ to `next` taken in two: down to the first value, then back up by noise of the second, so that both
/// variances sum to that of `next`.
pub(super) fn down_and_up(sigma: f64, next: f64) -> (f64, f64) {
    let down = next * next / sigma;
    (down, (next * next - down * down).sqrt())
}

/// One row a step, each but the last with noise.
pub(super) fn plan(schedule: &SamplerSchedule, steps: usize, begin: usize) -> Plan {
    let levels = SigmaSchedule::new(schedule, steps);
    let row = |i| {
        let sigma = levels.sigmas[i];
        let (down, up) = down_and_up(sigma, levels.sigmas[i + 1]);
        let noise = schedule.noise(Level::of_sigma(sigma));
        levels.row(i, &Update::x(LinearCombination::X + noise * (down - sigma) + LinearCombination::NOISE * up))
    };
    // The reference draws for the last, too, and scales it by 0.
    let drafts: Vec<DraftRow> = (begin..steps).map(row).collect();
    Plan { unused_draw: true, ..Plan::of(levels.initial_scale, &drafts) }
}
