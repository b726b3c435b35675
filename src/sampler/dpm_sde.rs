//! DPM-Solver++ (2S) as an SDE after k-diffusion (`sample_dpmpp_sde`), its Brownian noise drawn afresh for each row.

use super::{
    euler_a::down_and_up,
    level::Level,
    linear::LinearCombination,
    sampler_schedule::SamplerSchedule,
    sigmas::{SigmaSchedule, input_scale},
    table::{DraftRow, Plan, Update},
};

/// Two rows a step, to the geometric mean of σ and, from the x that is in slot 1, over the whole step, both with noise; but one for the last,
/// which goes straight to 0.
pub(super) fn plan(schedule: &SamplerSchedule, steps: usize, begin: usize) -> Plan {
    let levels = SigmaSchedule::new(schedule, steps);
    let mut rows = Vec::with_capacity(2 * steps);
    for i in begin..steps {
        let (sigma, next) = (levels.sigmas[i], levels.sigmas[i + 1]);
        if i + 1 == steps {
            rows.push(levels.row(i, &Update::x(schedule.clean(Level::of_sigma(sigma)))));
            continue;
        }
        let middle = (sigma * next).sqrt();
        let clean = schedule.clean(Level::of_sigma(sigma));
        rows.push(
            levels.row(i, &Update::x_and(noisy((sigma, middle), LinearCombination::X, clean), [LinearCombination::X])),
        );
        let clean = schedule.clean(Level::of_sigma(middle));
        rows.push(DraftRow {
            timestep: f64::from(schedule.curve_timestep(middle) as f32),
            level: Level::of_sigma(next), // what the reference's index points at, not σ of the middle
            input_scale: input_scale(middle),
            update: Update::x(noisy((sigma, next), LinearCombination::slot(1), clean)),
        });
    }
    Plan::of(levels.initial_scale, &rows)
}

/// From one σ to another with fresh noise, by a prediction of the clean latents.
fn noisy((from, to): (f64, f64), x: LinearCombination, clean: LinearCombination) -> LinearCombination {
    let (down, up) = down_and_up(from, to);
    let share = down / from;
    x * share + clean * (1.0 - share) + LinearCombination::NOISE * up
}
