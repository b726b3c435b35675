//! Linear combinations of a sampler's state, the model's output and fresh noise: what the update of a step is made of.

use std::ops::{Add, Div, Mul, Sub};

/// Slots of state that a sampler can have: the sample, and up to five values kept from earlier rows.
pub const STATE_SLOTS: usize = 6;

/// A linear combination of the slots of state, the model's output and fresh standard noise.
///
/// It can be computed with, so that a sampler's file reads like the formulas of its paper.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LinearCombination {
    /// Factors of the slots; slot 0 is the sample x.
    pub slots: [f64; STATE_SLOTS],
    /// Factor of the model's output at this row, after guidance.
    pub output: f64,
    /// Factor of standard noise drawn for this row.
    pub noise: f64,
}

/// What a term of a [`LinearCombination`] multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A slot of state as it was before the row; slot 0 is the sample.
    Slot(usize),
    /// The model's output at this row, after guidance.
    Output,
    /// Standard noise drawn for this row.
    Noise,
}

impl LinearCombination {
    /// Nothing at all: the slot is not used after this row.
    pub const ZERO: Self = Self { slots: [0.0; STATE_SLOTS], output: 0.0, noise: 0.0 };
    /// The sample, slot 0.
    pub(super) const X: Self = Self::slot(0);
    /// The model's output.
    pub(super) const OUTPUT: Self = Self { output: 1.0, ..Self::ZERO };
    /// Fresh standard noise.
    pub(super) const NOISE: Self = Self { noise: 1.0, ..Self::ZERO };

    /// One slot of state, as it was before the row.
    pub(super) const fn slot(index: usize) -> Self {
        let mut slots = [0.0; STATE_SLOTS];
        slots[index] = 1.0;
        Self { slots, ..Self::ZERO }
    }

    /// The terms whose factor is not 0.
    pub fn terms(&self) -> impl Iterator<Item = (Source, f64)> {
        let slots = self.slots.into_iter().enumerate().map(|(slot, factor)| (Source::Slot(slot), factor));
        let inputs = [(Source::Output, self.output), (Source::Noise, self.noise)];
        slots.chain(inputs).filter(|&(_, factor)| factor != 0.0)
    }

    fn zip(self, other: Self, f: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            slots: std::array::from_fn(|slot| f(self.slots[slot], other.slots[slot])),
            output: f(self.output, other.output),
            noise: f(self.noise, other.noise),
        }
    }
}

impl Add for LinearCombination {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
}

impl Sub for LinearCombination {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
}

impl Mul<f64> for LinearCombination {
    type Output = Self;
    fn mul(self, factor: f64) -> Self {
        self.zip(Self::ZERO, |a, _| a * factor)
    }
}

impl Div<f64> for LinearCombination {
    type Output = Self;
    fn div(self, divisor: f64) -> Self {
        self.zip(Self::ZERO, |a, _| a / divisor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_acts_on_every_term() {
        let sum = (LinearCombination::X * 3.0 + LinearCombination::slot(2) - LinearCombination::OUTPUT * 4.0
            + LinearCombination::NOISE)
            / 2.0;
        assert_eq!(sum, LinearCombination { slots: [1.5, 0.0, 0.5, 0.0, 0.0, 0.0], output: -2.0, noise: 0.5 });
    }

    #[test]
    fn terms_leave_zeros_out() {
        let sum = LinearCombination::slot(3) - LinearCombination::OUTPUT;
        assert_eq!(sum.terms().collect::<Vec<_>>(), [(Source::Slot(3), 1.0), (Source::Output, -1.0)]);
        assert_eq!(LinearCombination::ZERO.terms().count(), 0);
    }
}
