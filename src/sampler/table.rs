//! The table a sampler is: one row an evaluation of the model.

use super::{
    level::Level,
    linear::{LinearCombination, STATE_SLOTS},
    prediction::Prediction,
    sampler_schedule::SamplerSchedule,
};

/// All the arithmetic of one sampling run but the model itself.
///
/// State is [`Plan::slots`] tensors of the latents' shape; slot 0 is the sample x, the others hold what the sampler
/// remembers and are unset at first (no row reads a slot before one has written it). The run starts from
/// `initial_scale · noise`, or for img2img from `begin.signal · init + begin.noise · noise`. Every row feeds
/// `input_scale · x` at `timestep` to the model and replaces the state by its [`Update`]. After the last row, x is the
/// picture's latents.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Standard deviation of the x that txt2img starts from.
    pub initial_scale: f64,
    /// Level of noise that img2img brings its init image to.
    pub begin: Level,
    /// Slots of state in use, x included: 1 to [`STATE_SLOTS`].
    pub slots: usize,
    /// What the model's output is.
    pub prediction: Prediction,
    /// Evaluations in order; none for a run that is entered at its end.
    pub rows: Vec<Row>,
    /// Whether the reference draws noise at the last row, too, though nothing comes of it. What draws after this run finds the random stream
    /// one draw further on.
    pub unused_draw: bool,
}

/// One evaluation of the model and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// What the model is told; fractional for some samplers, always exact as an f32.
    pub timestep: f64,
    /// The model sees `input_scale · x`.
    pub input_scale: f64,
    /// The level that the model takes what it sees for; its squares sum to 1.
    pub told: Level,
    /// The state after this row.
    pub update: Update,
    /// Level at which inpainting puts back the kept area after this row; clean after the last.
    pub keep: Level,
}

/// New state from old: `next[i]` is the new value of slot `i`, in terms of the old values of all slots.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// One combination a slot; [`LinearCombination::ZERO`] where no later row reads the slot.
    pub next: [LinearCombination; STATE_SLOTS],
}

impl Plan {
    /// Whether the run begins at a level of next to no noise. A model that is shown pure noise there takes it for a
    /// picture, so txt2img gives noise: the reference does so for the σ samplers at one step, which begin at timestep 0.
    pub fn begins_clean(&self) -> bool {
        self.begin.sigma() < 0.1
    }

    /// The level of noise that is left after the last row.
    pub fn end(&self) -> Level {
        self.rows.last().map_or(self.begin, |row| row.keep)
    }

    /// A plan of rows in order. What a sampler remembers beyond its last use is cut away, so that state is never
    /// larger than it must be.
    pub(super) fn of(initial_scale: f64, drafts: &[DraftRow]) -> Self {
        let mut read: [bool; STATE_SLOTS] = std::array::from_fn(|slot| slot == 0);
        let mut slots = 1;
        let mut keep = Level::CLEAN;
        let mut rows: Vec<Row> = Vec::with_capacity(drafts.len());
        for draft in drafts.iter().rev() {
            let update = draft.update.only(read);
            read = update.reads();
            slots = slots.max(1 + read.iter().rposition(|&slot| slot).unwrap_or(0));
            let &DraftRow { timestep, input_scale, .. } = draft;
            rows.push(Row { timestep, input_scale, told: Level::CLEAN, update, keep });
            keep = draft.level;
        }
        rows.reverse();
        let prediction = Prediction::Epsilon;
        Self { initial_scale, begin: keep, slots, prediction, rows, unused_draw: false }
    }

    /// The same with what a model of `schedule` makes of each row.
    pub(super) fn with_model(mut self, schedule: &SamplerSchedule) -> Self {
        self.prediction = schedule.options.prediction;
        for row in &mut self.rows {
            row.told = schedule.level_at(row.timestep);
        }
        self
    }

    /// Whether all of it can be computed with.
    pub(super) fn is_finite(&self) -> bool {
        let factors = self.rows.iter().flat_map(|row| row.update.next.iter().flat_map(LinearCombination::terms));
        self.initial_scale.is_finite() && { factors }.all(|(_, factor)| factor.is_finite())
    }
}

impl Update {
    /// The update that makes `next` of the sample and remembers nothing.
    pub(super) fn x(next: LinearCombination) -> Self {
        Self::x_and(next, [])
    }

    /// The update that makes `next` of the sample and remembers values in the slots from 1 on.
    pub(super) fn x_and<const N: usize>(next: LinearCombination, remembered: [LinearCombination; N]) -> Self {
        let mut values = std::iter::once(next).chain(remembered);
        Self { next: std::array::from_fn(|_| values.next().unwrap_or(LinearCombination::ZERO)) }
    }

    /// Whether the row draws noise: one standard normal a latent, used for all slots.
    pub fn draws_noise(&self) -> bool {
        self.next.iter().any(|slot| slot.noise != 0.0)
    }

    /// This update without the slots that are not wanted.
    fn only(self, wanted: [bool; STATE_SLOTS]) -> Self {
        Self { next: std::array::from_fn(|slot| if wanted[slot] { self.next[slot] } else { LinearCombination::ZERO }) }
    }

    /// Slots whose old values a row with this update needs; x always, for the model.
    fn reads(&self) -> [bool; STATE_SLOTS] {
        std::array::from_fn(|slot| slot == 0 || self.next.iter().any(|next| next.slots[slot] != 0.0))
    }
}

/// A row before it knows its neighbours: what a sampler's file produces.
#[derive(Debug, Clone, Copy)]
pub(super) struct DraftRow {
    /// What the model is told.
    pub(super) timestep: f64,
    /// The level that the reference adds noise to at this row, for img2img and inpainting.
    pub(super) level: Level,
    /// The model sees `input_scale · x`.
    pub(super) input_scale: f64,
    /// The state after this row.
    pub(super) update: Update,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(noise: f64, update: &Update) -> DraftRow {
        DraftRow { timestep: 0.0, level: Level::of_sigma(noise), input_scale: 1.0, update: *update }
    }

    #[test]
    fn keep_is_the_level_of_the_next_stage_and_clean_at_the_end() {
        let x = Update::x(LinearCombination::X);
        let plan = Plan::of(1.0, &[draft(3.0, &x), draft(2.0, &x)]);
        assert_eq!(plan.begin, Level::of_sigma(3.0));
        assert_eq!(plan.rows[0].keep, Level::of_sigma(2.0));
        assert_eq!(plan.rows[1].keep, Level::CLEAN);
    }

    #[test]
    fn what_no_later_row_reads_is_not_kept() {
        let remember = Update::x_and(
            LinearCombination::X + LinearCombination::OUTPUT,
            [LinearCombination::OUTPUT, LinearCombination::slot(1)],
        );
        let recall = Update::x_and(
            LinearCombination::X + LinearCombination::slot(1),
            [LinearCombination::OUTPUT, LinearCombination::slot(1)],
        );
        let plan = Plan::of(1.0, &[draft(2.0, &remember), draft(1.0, &recall)]);
        assert_eq!(plan.slots, 2);
        assert_eq!(
            plan.rows[0].update,
            Update::x_and(LinearCombination::X + LinearCombination::OUTPUT, [LinearCombination::OUTPUT])
        );
        assert_eq!(plan.rows[1].update, Update::x(LinearCombination::X + LinearCombination::slot(1)));
    }
}
