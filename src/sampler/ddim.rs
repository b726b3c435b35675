//! DDIM without noise: denoising diffusion implicit models, η = 0 (Song et al., arXiv 2010.02502).

use super::{
    sampler_schedule::SamplerSchedule,
    table::{DraftRow, Plan, Update},
};

/// One row a step. The level after a step is a whole stride below, even where the next timestep is not.
pub(super) fn plan(schedule: &SamplerSchedule, steps: usize, begin: usize) -> Plan {
    let stride = (schedule.train_steps() / steps) as i64;
    let clean_below = schedule.options.set_alpha_to_one.unwrap_or(true);
    let row = |timestep: &i64| {
        let level = schedule.level(*timestep, clean_below);
        let next = schedule.level(timestep - stride, clean_below);
        let update = Update::x(schedule.transfer(level, next));
        DraftRow { timestep: *timestep as f64, level, input_scale: 1.0, update }
    };
    let rows: Vec<DraftRow> = schedule.whole_timesteps(steps)[begin..].iter().map(row).collect();
    Plan::of(1.0, &rows)
}
