//! How a job may have its steps spread over the noise levels, whatever the model's scheduler file says.

use super::{beta_distribution, linspace::linspace};

/// How steps are spread over the noise levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SigmaSpacing {
    /// As the model's scheduler file says, else as the sampler has it.
    #[default]
    Default,
    /// Even in σ to the power of 1/7 (Karras et al., arXiv 2206.00364, eq. 5).
    Karras,
    /// Even in log σ.
    Exponential,
    /// By the quantiles of a beta distribution, dense at both ends (Lee et al., arXiv 2407.12173).
    Beta,
    /// From the last training timestep down, in even strides (diffusers' `timestep_spacing="trailing"`): what Lightning, Hyper and Turbo were
    /// distilled for.
    SgmUniform,
}

impl SigmaSpacing {
    /// Every spacing.
    pub const ALL: &[Self] = &[Self::Default, Self::Karras, Self::Exponential, Self::Beta, Self::SgmUniform];

    /// What jobs call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Karras => "karras",
            Self::Exponential => "exponential",
            Self::Beta => "beta",
            Self::SgmUniform => "sgm_uniform",
        }
    }

    /// What people call it whose name is not the default ("Schedule type" of image parameters).
    pub const fn title(self) -> Option<&'static str> {
        match self {
            Self::Default => None,
            Self::Karras => Some("Karras"),
            Self::Exponential => Some("Exponential"),
            Self::Beta => Some("Beta"),
            Self::SgmUniform => Some("SGM Uniform"),
        }
    }

    /// The spacing of this name, letter for letter.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|spacing| spacing.name() == name)
    }
}

/// How σ falls from its highest value to its lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SigmaCurve {
    /// As it does over the timesteps of the run.
    Trained,
    /// See [`SigmaSpacing::Karras`].
    Karras,
    /// See [`SigmaSpacing::Exponential`].
    Exponential,
    /// See [`SigmaSpacing::Beta`].
    Beta,
}

/// ρ of Karras et al.
const RHO: f64 = 7.0;

impl SigmaCurve {
    /// `count` values from `highest` to `lowest`; `None` where the run's timesteps tell them.
    pub(super) fn sigmas(self, (lowest, highest): (f64, f64), count: usize) -> Option<Vec<f64>> {
        let even = |from: f64, to: f64| linspace(from, to, count).into_iter();
        Some(match self {
            Self::Trained => return None,
            Self::Karras => {
                let (start, end) = (highest.powf(1.0 / RHO), lowest.powf(1.0 / RHO));
                even(0.0, 1.0).map(|share| (start + share * (end - start)).powf(RHO)).collect()
            }
            Self::Exponential => even(highest.ln(), lowest.ln()).map(f64::exp).collect(),
            Self::Beta => even(0.0, 1.0)
                .map(|share| lowest + beta_distribution::quantile(1.0 - share) * (highest - lowest))
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_curve_falls_from_the_highest_value_to_the_lowest() {
        assert_eq!(SigmaCurve::Trained.sigmas((0.03, 14.6), 5), None);
        for curve in [SigmaCurve::Karras, SigmaCurve::Exponential, SigmaCurve::Beta] {
            let sigmas = curve.sigmas((0.03, 14.6), 9).unwrap();
            assert!((sigmas[0] - 14.6).abs() < 1e-12 && (sigmas[8] - 0.03).abs() < 1e-12, "{sigmas:?}");
            assert!(sigmas.is_sorted_by(|high, low| high > low), "{sigmas:?}");
            assert_eq!(curve.sigmas((0.03, 14.6), 1).unwrap().len(), 1);
        }
    }
}
