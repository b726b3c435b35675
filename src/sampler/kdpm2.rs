//! DPM-Solver-2 after k-diffusion (`sample_dpm_2`, `sample_dpm_2_ancestral`): the midpoint method in log σ
//! (Lu et al., arXiv 2206.00927; Karras et al., arXiv 2206.00364).

use super::{
    euler_a::down_and_up,
    level::Level,
    linear::LinearCombination,
    sampler_schedule::SamplerSchedule,
    sigma_spacing::SigmaCurve,
    sigmas::{SigmaSchedule, input_scale},
    table::{DraftRow, Plan, Update},
};

/// KDPM2-D: no noise.
pub(super) fn plan(schedule: &SamplerSchedule, steps: usize, begin: usize) -> Plan {
    midpoint(schedule, steps, begin, |_, next| (next, 0.0))
}

/// KDPM2-A: ancestral noise at the second row of each step. The middle of σ and where the solver goes is then the next
/// σ itself, which the reference finds to within its f32 rounding (0.3 % in the steep first step of two).
pub(super) fn plan_ancestral(schedule: &SamplerSchedule, steps: usize, begin: usize) -> Plan {
    midpoint(schedule, steps, begin, down_and_up)
}

/// Two rows a step, to the geometric mean of σ and back over the whole step, but one for the last, which goes straight
/// to 0. Slot 1 holds the x that the step began with.
///
/// `split` divides a step between two σ into where the solver goes and how much noise follows.
fn midpoint(schedule: &SamplerSchedule, steps: usize, begin: usize, split: impl Fn(f64, f64) -> (f64, f64)) -> Plan {
    let mut levels = SigmaSchedule::new(schedule, steps);
    if schedule.options.curve == SigmaCurve::Karras {
        // The reference rounds those, and not those of other curves.
        levels.timesteps.iter_mut().for_each(|timestep| *timestep = timestep.round_ties_even());
    }
    let mut rows = Vec::with_capacity(2 * steps);
    for i in begin..steps {
        let (sigma, next) = (levels.sigmas[i], levels.sigmas[i + 1]);
        let (down, up) = split(sigma, next);
        let middle = (sigma * down).sqrt();
        let half = LinearCombination::X + levels.noise(schedule, i) * (middle - sigma);
        rows.push(levels.row(i, &Update::x_and(half, [LinearCombination::X])));
        if i + 1 < steps {
            let noise = schedule.noise(Level::of_sigma(middle));
            let whole = LinearCombination::slot(1) + noise * (down - sigma) + LinearCombination::NOISE * up;
            rows.push(DraftRow {
                timestep: schedule.timestep_of(middle),
                level: Level::of_sigma(next), // what the reference's index points at, not σ of the middle
                input_scale: input_scale(middle),
                update: Update::x(whole),
            });
        }
    }
    Plan::of(levels.initial_scale, &rows)
}
