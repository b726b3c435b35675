//! Euler's method with ancestral noise (k-diffusion's `sample_euler_ancestral`).

use super::{
    ladder::Ladder,
    linear::LinearCombination,
    schedule::NoiseSchedule,
    table::{Plan, Update},
};

/// A step from σ to `next` taken in two: down to the first value, then back up by noise of the second, so that both
/// variances sum to that of `next`.
pub(super) fn down_and_up(sigma: f64, next: f64) -> (f64, f64) {
    let down = next * next / sigma;
    (down, (next * next - down * down).sqrt())
}

/// One row a step, each but the last with noise.
pub(super) fn plan(schedule: &NoiseSchedule, steps: usize, begin: usize) -> Plan {
    let ladder = Ladder::new(schedule, steps);
    let stage = |i| {
        let sigma = ladder.sigmas[i];
        let (down, up) = down_and_up(sigma, ladder.sigmas[i + 1]);
        ladder.stage(
            i,
            Update::x(
                LinearCombination::X + LinearCombination::OUTPUT * (down - sigma) + LinearCombination::NOISE * up,
            ),
        )
    };
    Plan::of(ladder.initial_scale, &(begin..steps).map(stage).collect::<Vec<_>>())
}
