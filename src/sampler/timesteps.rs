//! Which timesteps a run visits: numpy's arithmetic, down to how it rounds.

use super::{
    linspace::linspace,
    sampler_schedule::{SamplerSchedule, Spacing},
    steps::DISTILLED_STEPS,
};

fn rounded(values: impl Iterator<Item = f64>) -> Vec<i64> {
    values.map(|value| value.round_ties_even() as i64).collect()
}

impl SamplerSchedule {
    /// Whole timesteps of a run of `steps` steps, falling; what DDIM, DDPM and PNDM visit.
    pub(super) fn whole_timesteps(&self, steps: usize) -> Vec<i64> {
        let last = (self.train_steps() - 1) as f64;
        match self.options.spacing.unwrap_or(Spacing::Leading) {
            Spacing::Linspace => rounded(linspace(0.0, last, steps).into_iter().rev()),
            Spacing::Leading => self.leading_timesteps(self.train_steps() / steps, 0..steps),
            Spacing::Trailing => self.trailing_timesteps(steps),
        }
    }

    /// Timesteps of a run of `steps` steps, falling, f32 where they are fractional; what the σ samplers visit.
    pub(super) fn fractional_timesteps(&self, steps: usize) -> Vec<f64> {
        match self.options.spacing.unwrap_or(Spacing::Linspace) {
            Spacing::Linspace => {
                let values = linspace(0.0, (self.train_steps() - 1) as f64, steps);
                values.into_iter().rev().map(|value| f64::from(value as f32)).collect()
            }
            _ => self.whole_timesteps(steps).into_iter().map(|timestep| timestep as f64).collect(),
        }
    }

    /// Whole timesteps of a run of `steps` steps that does not visit the lowest; what DPM-Solver visits.
    pub(super) fn upper_timesteps(&self, steps: usize, spacing: Spacing) -> Vec<i64> {
        match spacing {
            Spacing::Linspace => {
                let values = linspace(0.0, (self.train_steps() - 1) as f64, steps + 1);
                rounded(values.into_iter().skip(1).rev())
            }
            Spacing::Leading => self.leading_timesteps(self.train_steps() / (steps + 1), 1..steps + 1),
            Spacing::Trailing => self.trailing_timesteps(steps),
        }
    }

    /// Whole timesteps of a run of `steps` steps out of those of the distillation, falling; what LCM and TCD visit.
    pub(super) fn distilled_timesteps(&self, steps: usize) -> Vec<i64> {
        let stride = self.train_steps() / DISTILLED_STEPS;
        let apart = DISTILLED_STEPS as f64 / steps as f64;
        (0..steps).map(|i| ((DISTILLED_STEPS - (i as f64 * apart) as usize) * stride) as i64 - 1).collect()
    }

    fn leading_timesteps(&self, stride: usize, multiples: std::ops::Range<usize>) -> Vec<i64> {
        multiples.rev().map(|i| (i * stride + self.options.steps_offset) as i64).collect()
    }

    /// For a few counts of steps (61 is the lowest) the reference's division leaves a remainder, and it appends a
    /// timestep of -1 that no model knows. It is not appended here.
    fn trailing_timesteps(&self, steps: usize) -> Vec<i64> {
        let top = self.train_steps() as f64;
        let stride = top - (top - top / steps as f64); // numpy.arange keeps the difference of its first two values
        rounded((0..steps).map(|i| top - i as f64 * stride)).into_iter().map(|timestep| timestep - 1).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::sampler_schedule::{Options, TrainedLevels};
    use super::*;

    #[test]
    fn distilled_timesteps_are_a_part_of_fifty() {
        let levels = Arc::new(TrainedLevels::new((0..1000_u16).map(|i| 1.0 - f32::from(i) / 1000.0).collect()));
        let schedule = SamplerSchedule { levels, options: Options::default() };
        for (steps, timesteps) in [
            (1, vec![999]),
            (3, vec![999, 679, 339]),
            (4, vec![999, 759, 499, 259]),
            (6, vec![999, 839, 679, 499, 339, 179]),
            (50, (1..=50).rev().map(|i| 20 * i - 1).collect()),
        ] {
            assert_eq!(schedule.distilled_timesteps(steps), timesteps);
        }
    }
}
