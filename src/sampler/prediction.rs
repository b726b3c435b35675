//! What a model's output is: noise, velocity or the clean latents.

use super::{level::Level, linear::LinearCombination};

/// What a model was trained to predict (`prediction_type` of a scheduler file).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Prediction {
    /// The noise in the sample, ε.
    #[default]
    Epsilon,
    /// The clean latents, x₀.
    Sample,
    /// Velocity, `signal · ε - noise · x₀` where the squares of both sum to 1 (Salimans and Ho, arXiv 2202.00512).
    Velocity,
}

impl Prediction {
    /// The clean latents, if `x` is at `level` and the model's output there is `output`.
    pub(super) fn clean(self, level: Level, x: LinearCombination, output: LinearCombination) -> LinearCombination {
        match self {
            Self::Epsilon => level.denoise(x, output),
            Self::Sample => output,
            Self::Velocity => {
                let Level { signal, noise } = level.unit();
                x * (signal / level.length()) - output * noise
            }
        }
    }

    /// The noise, if `x` is at `level` and the model's output there is `output`.
    pub(super) fn noise(self, level: Level, x: LinearCombination, output: LinearCombination) -> LinearCombination {
        match self {
            Self::Epsilon => output,
            Self::Sample => (x - output * level.signal) / level.noise,
            Self::Velocity => {
                let Level { signal, noise } = level.unit();
                x * (noise / level.length()) + output * signal
            }
        }
    }

    /// `x` taken from one level to another with its noise held: one step of DDIM (arXiv 2010.02502, eq. 12 at η = 0), which is an Euler step in
    /// σ and the first order of DPM-Solver++ too.
    pub(super) fn transfer(
        self,
        (from, to): (Level, Level),
        x: LinearCombination,
        output: LinearCombination,
    ) -> LinearCombination {
        self.clean(from, x, output) * to.signal + self.noise(from, x, output) * to.noise
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Factors of the image and of the noise in what a combination comes to.
    fn parts(combination: LinearCombination, level: Level, output: (f64, f64)) -> (f64, f64) {
        let (x, factor) = (combination.slots[0], combination.output);
        (x * level.signal + factor * output.0, x * level.noise + factor * output.1)
    }

    #[test]
    fn every_prediction_tells_the_image_from_the_noise_at_levels_of_both_kinds() {
        let (x, output) = (LinearCombination::X, LinearCombination::OUTPUT);
        for level in [Level::of_alpha(0.3), Level::of_sigma(2.5)] {
            let Level { signal, noise } = level.unit();
            for (prediction, predicted) in [
                (Prediction::Epsilon, (0.0, 1.0)),
                (Prediction::Sample, (1.0, 0.0)),
                (Prediction::Velocity, (-noise, signal)),
            ] {
                let clean = parts(prediction.clean(level, x, output), level, predicted);
                let noise = parts(prediction.noise(level, x, output), level, predicted);
                for (found, expected) in [clean.0, clean.1, noise.0, noise.1].into_iter().zip([1.0, 0.0, 0.0, 1.0]) {
                    assert!((found - expected).abs() < 1e-12, "{prediction:?} {level:?}: {clean:?} {noise:?}");
                }
            }
        }
    }

    #[test]
    fn without_any_signal_velocity_and_sample_still_tell_them_apart() {
        let level = Level::of_alpha(0.0);
        let (x, output) = (LinearCombination::X, LinearCombination::OUTPUT);
        assert_eq!(Prediction::Velocity.clean(level, x, output), x * 0.0 - output);
        assert_eq!(Prediction::Sample.clean(level, x, output), output);
    }
}
