//! PNDM without its Runge-Kutta start: pseudo linear multistep (Liu et al., arXiv 2202.09778).

use super::{
    adams::{REMEMBER, extrapolate},
    linear::LinearCombination,
    schedule::NoiseSchedule,
    table::{DraftRow, Plan, Update},
};

/// One row a step, and one more (for two steps and up): the second timestep is visited twice, the first time to redo
/// the first step with the mean of both outputs. Slots 1 to 3 hold earlier outputs; until there are two, slot 2 holds
/// the x that the run began with.
///
/// The reference starts img2img inside this same list of timesteps. Begun at step 1 or later, its second row takes x
/// for one level noisier than it is, or the later ones for one level cleaner; so do these.
pub(super) fn plan(schedule: &NoiseSchedule, steps: usize, begin: usize) -> Plan {
    let stride = (schedule.train_steps() / steps) as i64;
    let clean_below = schedule.options.set_alpha_to_one.unwrap_or(false);
    let mut timesteps = schedule.whole_timesteps(steps);
    if let Some(&second) = timesteps.get(1) {
        timesteps.insert(1, second);
    }
    let row = |(evaluation, &timestep): (usize, &i64)| {
        let level = |timestep| schedule.level(timestep, clean_below);
        let (from, to) = if evaluation == 1 { (timestep + stride, timestep) } else { (timestep, timestep - stride) };
        let transfer = |x, output| level(from).transfer(level(to), x, output);
        let update = match evaluation {
            0 => Update::x_and(
                transfer(LinearCombination::X, LinearCombination::OUTPUT),
                [LinearCombination::OUTPUT, LinearCombination::X],
            ),
            1 => {
                let mean = (LinearCombination::OUTPUT + LinearCombination::slot(1)) / 2.0;
                Update::x_and(transfer(LinearCombination::slot(2), mean), [LinearCombination::slot(1)])
            }
            _ => Update::x_and(transfer(LinearCombination::X, extrapolate(evaluation)), REMEMBER),
        };
        DraftRow { timestep: timestep as f64, level: level(timestep), input_scale: 1.0, update }
    };
    Plan::of(1.0, &timesteps[begin..].iter().enumerate().map(row).collect::<Vec<_>>())
}
