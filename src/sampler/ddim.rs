//! DDIM: denoising diffusion implicit models (Song et al., arXiv 2010.02502), without noise (η = 0) or with it.

use super::{
    level::Level,
    linear::LinearCombination,
    sampler_schedule::SamplerSchedule,
    table::{DraftRow, Plan, Update},
};

/// One row a step. The level after a step is a whole stride below, even where the next timestep is not.
pub(super) fn plan(schedule: &SamplerSchedule, steps: usize, begin: usize) -> Plan {
    let stride = (schedule.train_steps() / steps) as i64;
    let clean_below = schedule.options.set_alpha_to_one.unwrap_or(true);
    let eta = schedule.options.eta;
    let row = |timestep: &i64| {
        let level = schedule.level(*timestep, clean_below);
        let next = schedule.level(timestep - stride, clean_below);
        let x = if eta > 0.0 {
            let below = if clean_below && *timestep < stride { 1.0 } else { schedule.alpha(timestep - stride) };
            noisy(schedule, (level, next), eta * deviation(schedule.alpha(*timestep), below))
        } else {
            schedule.transfer(level, next)
        };
        DraftRow { timestep: *timestep as f64, level, input_scale: 1.0, update: Update::x(x) }
    };
    let rows: Vec<DraftRow> = schedule.whole_timesteps(steps)[begin..].iter().map(row).collect();
    // To clean latents the reference draws, too, and scales it by 0.
    let unused_draw = eta > 0.0 && rows.last().is_some_and(|row| !row.update.draws_noise());
    Plan { unused_draw, ..Plan::of(1.0, &rows) }
}

/// x taken from one level to another with so much of its noise fresh (eq. 12).
fn noisy(schedule: &SamplerSchedule, (from, to): (Level, Level), fresh: f64) -> LinearCombination {
    let kept = (to.noise * to.noise - fresh * fresh).max(0.0).sqrt();
    schedule.transfer(from, Level { noise: kept, ..to }) + LinearCombination::NOISE * fresh
}

/// Standard deviation of the noise of a step from one ᾱ to another at η = 1 (eq. 16). It is taken in f32, as in the reference: over hundreds of
/// steps its rounding shows.
fn deviation(alpha: f32, next: f32) -> f64 {
    let variance = (1.0 - next) / (1.0 - alpha) * (1.0 - alpha / next);
    f64::from(variance.max(0.0)).sqrt()
}
