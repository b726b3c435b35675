//! Levels of noise, and the two moves that every sampler is built from.

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

    /// `x` taken from this level to another with its noise `epsilon` held: one step of DDIM (arXiv 2010.02502, eq. 12
    /// at η = 0), which is an Euler step in σ and the first order of DPM-Solver++ too.
    pub(super) fn transfer(self, to: Self, x: LinearCombination, epsilon: LinearCombination) -> LinearCombination {
        self.denoise(x, epsilon) * to.signal + epsilon * to.noise
    }
}
