//! DDPM: ancestral sampling with the smaller fixed variance (Ho et al., arXiv 2006.11239).

use super::{
    level::Level,
    linear::LinearCombination,
    sampler_schedule::SamplerSchedule,
    table::{DraftRow, Plan, Update},
};

/// One row a step, each but the last with noise.
pub(super) fn plan(schedule: &SamplerSchedule, steps: usize, begin: usize) -> Plan {
    let timesteps = &schedule.whole_timesteps(steps)[begin..];
    let below = timesteps.iter().skip(1).map(|&timestep| schedule.alpha(timestep)).chain([1.0]);
    let row = |(&timestep, next): (&i64, f32)| {
        let alpha = schedule.alpha(timestep);
        let update = Update::x(posterior(schedule, alpha, next));
        DraftRow { timestep: timestep as f64, level: Level::of_alpha(alpha.into()), input_scale: 1.0, update }
    };
    let drafts: Vec<DraftRow> = timesteps.iter().zip(below).map(row).collect();
    // Above timestep 0 the reference draws for the last, too, and scales it by 1e-10.
    let unused_draw = timesteps.last().is_some_and(|&timestep| timestep > 0);
    Plan { unused_draw, ..Plan::of(1.0, &drafts) }
}

/// A draw of x at ᾱ = `next` given x at ᾱ = `alpha` (eq. 6 and 7). The step's own α and β are taken in f32, as in the
/// reference: over hundreds of steps β is so small that its rounding shows.
fn posterior(schedule: &SamplerSchedule, alpha: f32, next: f32) -> LinearCombination {
    let step_alpha = alpha / next;
    let (step_alpha, step_beta) = (f64::from(step_alpha), f64::from(1.0 - step_alpha));
    let (alpha, next) = (f64::from(alpha), f64::from(next));
    let clean = schedule.clean(Level::of_alpha(alpha));
    clean * (next.sqrt() * step_beta / (1.0 - alpha))
        + LinearCombination::X * (step_alpha.sqrt() * (1.0 - next) / (1.0 - alpha))
        + LinearCombination::NOISE * (step_beta * (1.0 - next) / (1.0 - alpha)).sqrt()
}
