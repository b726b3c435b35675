//! Levels of noise.

use super::linear::LinearCombination;

/// A noise level: the noisy sample is `signal · image + noise · standard noise`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// Factor of the clean latents.
    pub signal: f64,
    /// Factor of standard noise.
    pub noise: f64,
}

impl Level {
    /// No noise: the end of every run.
    pub const CLEAN: Self = Self { signal: 1.0, noise: 0.0 };

    /// The level whose squares sum to 1, from the share of signal in the variance (ᾱ of DDPM).
    pub(super) fn of_alpha(alpha: f64) -> Self {
        Self { signal: alpha.sqrt(), noise: (1.0 - alpha).sqrt() }
    }

    /// The level that adds noise σ to the whole signal.
    pub(super) fn of_sigma(sigma: f64) -> Self {
        Self { signal: 1.0, noise: sigma }
    }

    /// What latents at this level are multiplied by to be as a run has them that is at `other`: some samplers keep the whole signal and add
    /// σ of noise, others keep the variance. Between two of one kind nothing changes.
    pub fn rescaled(self, other: Self) -> f64 {
        let keeps_signal = |level: Self| (level.signal - 1.0).abs() < f64::EPSILON;
        match (keeps_signal(self), keeps_signal(other)) {
            (false, true) => 1.0 / self.signal,
            (true, false) => other.signal,
            _ => 1.0,
        }
    }

    /// Noise relative to signal, σ of Karras et al. (arXiv 2206.00364).
    pub(super) fn sigma(self) -> f64 {
        self.noise / self.signal
    }

    /// The clean latents, if `x` is at this level and its noise is `epsilon`.
    pub(super) fn denoise(self, x: LinearCombination, epsilon: LinearCombination) -> LinearCombination {
        (x - epsilon * self.noise) / self.signal
    }

    /// The level whose squares sum to 1 at the same ratio of noise to signal.
    pub(super) fn unit(self) -> Self {
        let length = self.length();
        Self { signal: self.signal / length, noise: self.noise / length }
    }

    /// Root of the sum of squares: the standard deviation of a sample at this level, if that of the clean latents is 1.
    pub(super) fn length(self) -> f64 {
        self.signal.hypot(self.noise)
    }
}
