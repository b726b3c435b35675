//! PNDM: pseudo numerical methods (Liu et al., arXiv 2202.09778): linear multistep, after a Runge-Kutta start if the scheduler file has one.

use super::{
    adams::{extrapolate, remember},
    level::Level,
    linear::LinearCombination,
    sampler_schedule::SamplerSchedule,
    table::{DraftRow, Plan, Update},
};

/// The fewest steps of a run with a Runge-Kutta start: it is made over four timesteps.
pub(super) const LEAST_STEPS: usize = 4;

/// Evaluations of the Runge-Kutta start: four for each of three steps.
const START_ROWS: usize = 12;

/// What all rows of a run have in common.
struct Run<'a> {
    schedule: &'a SamplerSchedule,
    stride: i64,
}

/// The reference starts img2img inside the same list of timesteps as txt2img, and counts evaluations from there.
pub(super) fn plan(schedule: &SamplerSchedule, steps: usize, begin: usize) -> Plan {
    let run = Run { schedule, stride: (schedule.train_steps() / steps) as i64 };
    let timesteps = schedule.whole_timesteps(steps);
    let rows = if schedule.options.skip_prk_steps {
        run.linear(timesteps, begin)
    } else {
        run.runge_kutta_first(&timesteps, begin)
    };
    Plan::of(1.0, &rows)
}

impl Run<'_> {
    /// One row a step, and one more (for two steps and up): the second timestep is visited twice, the first time to redo
    /// the first step with the mean of both outputs. Slots 1 to 3 hold earlier outputs; until there are two, slot 2 holds
    /// the x that the run began with.
    ///
    /// Begun at step 1 or later, its second row takes x for one level noisier than it is, or the later ones for one level cleaner; so does the
    /// reference.
    fn linear(&self, mut timesteps: Vec<i64>, begin: usize) -> Vec<DraftRow> {
        if let Some(&second) = timesteps.get(1) {
            timesteps.insert(1, second);
        }
        let row = |(evaluation, &timestep): (usize, &i64)| {
            let (from, to) =
                if evaluation == 1 { (timestep + self.stride, timestep) } else { (timestep, timestep - self.stride) };
            let transfer = |x, output| self.transfer((from, to), x, output);
            let update = match evaluation {
                0 => Update::x_and(
                    transfer(LinearCombination::X, LinearCombination::OUTPUT),
                    [LinearCombination::OUTPUT, LinearCombination::X],
                ),
                1 => {
                    let mean = (LinearCombination::OUTPUT + LinearCombination::slot(1)) / 2.0;
                    Update::x_and(transfer(LinearCombination::slot(2), mean), [LinearCombination::slot(1)])
                }
                _ => Update::x_and(
                    transfer(LinearCombination::X, extrapolate(LinearCombination::OUTPUT, evaluation)),
                    remember(LinearCombination::OUTPUT),
                ),
            };
            self.row(timestep, &update)
        };
        timesteps[begin..].iter().enumerate().map(row).collect()
    }

    /// Three steps of four rows each, at a timestep, twice in the middle of it and the next, and at the next; then one row a step from the
    /// fourth timestep on. Slots 1 to 3 hold the outputs that steps began with, and within a step slot 4 the x that it began with and slot 5 the
    /// mean of its outputs so far.
    ///
    /// Begun at step 1 or later, the reference still takes x of the start for that of the first timesteps; so do these rows.
    fn runge_kutta_first(&self, timesteps: &[i64], begin: usize) -> Vec<DraftRow> {
        let half = self.stride / 2;
        let three = timesteps.windows(2).take(LEAST_STEPS - 1);
        let start: Vec<i64> = three.flat_map(|pair| [pair[0], pair[1] + half, pair[1] + half, pair[1]]).collect();
        let all: Vec<i64> = start.iter().chain(&timesteps[LEAST_STEPS - 1..]).copied().collect();
        let row = |(evaluation, &timestep): (usize, &i64)| {
            let update = if evaluation < START_ROWS {
                self.runge_kutta(evaluation % 4, start[evaluation / 4 * 4], timestep)
            } else {
                let output = extrapolate(LinearCombination::OUTPUT, 4);
                let x = self.transfer((timestep, timestep - self.stride), LinearCombination::X, output);
                Update::x_and(x, remember(LinearCombination::OUTPUT))
            };
            self.row(timestep, &update)
        };
        all[begin..].iter().enumerate().map(row).collect()
    }

    /// Row `stage` of a Runge-Kutta step (arXiv 2202.09778, eq. 14) that began at `from`.
    fn runge_kutta(&self, stage: usize, from: i64, timestep: i64) -> Update {
        let [output, slot] = [LinearCombination::OUTPUT, LinearCombination::slot(5)];
        let [first, second, third, x] = [1, 2, 3, 4].map(LinearCombination::slot);
        let to = if stage.is_multiple_of(2) { timestep - self.stride / 2 } else { timestep };
        let transfer = |x, output| self.transfer((from, to), x, output);
        match stage {
            0 => Update::x_and(
                transfer(LinearCombination::X, output),
                [output, first, second, LinearCombination::X, output / 6.0],
            ),
            1 | 2 => Update::x_and(transfer(x, output), [first, second, third, x, slot + output / 3.0]),
            _ => Update::x_and(transfer(x, slot + output / 6.0), [first, second, third]),
        }
    }

    fn transfer(&self, (from, to): (i64, i64), x: LinearCombination, output: LinearCombination) -> LinearCombination {
        self.schedule.options.prediction.transfer((self.level(from), self.level(to)), x, output)
    }

    fn row(&self, timestep: i64, update: &Update) -> DraftRow {
        DraftRow { timestep: timestep as f64, level: self.level(timestep), input_scale: 1.0, update: *update }
    }

    fn level(&self, timestep: i64) -> Level {
        self.schedule.level(timestep, self.schedule.options.set_alpha_to_one.unwrap_or(false))
    }
}
