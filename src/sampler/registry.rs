//! The list of samplers: a name, a file, a line here.

use super::sigma_spacing::SigmaSpacing;
use super::steps::{DISTILLED_STEPS, MAX_STEPS};
use super::{
    ddim, ddpm, dpm_m, dpm_s, euler_a, euler_d, heun, ipndm, kdpm2, lcm, lms, pndm, schedule::NoiseSchedule,
    table::Plan, tcd,
};

/// A sampler's file as a function; steps are 1 to [`Sampler::max_steps`] and begin is below them.
type Planner = fn(schedule: &NoiseSchedule, steps: usize, begin: usize) -> Plan;

/// Of samplers whose steps lie wherever they are asked to.
const SPACED: &[SigmaSpacing] = SigmaSpacing::ALL;

/// Of samplers that know one place for their steps.
const FIXED: &[SigmaSpacing] = &[SigmaSpacing::Default];

macro_rules! samplers {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $planner:path, $most:expr, $spacings:expr;)*) => {
        /// A sampler: those of the SD v1 endpoint, and what we offer beside them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Sampler {
            $($(#[$doc])* $variant,)*
        }

        impl Sampler {
            /// Every sampler, in the endpoint's order; then ours.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// What jobs call it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The most steps of a run.
            pub const fn max_steps(self) -> usize {
                match self {
                    $(Self::$variant => $most,)*
                }
            }

            /// How its steps may be spread.
            pub const fn spacings(self) -> &'static [SigmaSpacing] {
                match self {
                    $(Self::$variant => $spacings,)*
                }
            }

            pub(super) const fn planner(self) -> Planner {
                match self {
                    $(Self::$variant => $planner,)*
                }
            }
        }
    };
}

samplers! {
    /// Denoising diffusion implicit models, η = 0.
    Ddim = "DDIM", ddim::plan, MAX_STEPS, SPACED;
    /// Ancestral sampling with the smaller fixed variance.
    Ddpm = "DDPM", ddpm::plan, MAX_STEPS, SPACED;
    /// DPM-Solver++, second order, multistep.
    DpmM = "DPM-M", dpm_m::plan, MAX_STEPS, SPACED;
    /// DPM-Solver++, second order, singlestep.
    DpmS = "DPM-S", dpm_s::plan, MAX_STEPS, FIXED;
    /// Euler with ancestral noise.
    EulerA = "EULER-A", euler_a::plan, MAX_STEPS, SPACED;
    /// Euler.
    EulerD = "EULER-D", euler_d::plan, MAX_STEPS, SPACED;
    /// Heun.
    Heun = "HEUN", heun::plan, MAX_STEPS, SPACED;
    /// Adams-Bashforth of order 4 in σ.
    Ipndm = "IPNDM", ipndm::plan, MAX_STEPS, SPACED;
    /// DPM-Solver-2 with ancestral noise.
    Kdpm2A = "KDPM2-A", kdpm2::plan_ancestral, MAX_STEPS, SPACED;
    /// DPM-Solver-2.
    Kdpm2D = "KDPM2-D", kdpm2::plan, MAX_STEPS, SPACED;
    /// Pseudo linear multistep.
    Pndm = "PNDM", pndm::plan, MAX_STEPS, SPACED;
    /// Linear multistep of order 4 in σ.
    KLms = "K-LMS", lms::plan, MAX_STEPS, SPACED;
    /// Of latent consistency models.
    Lcm = "LCM", lcm::plan, DISTILLED_STEPS, FIXED;
    /// Trajectory consistency distillation, γ = 0.
    Tcd = "TCD", tcd::plan, DISTILLED_STEPS, FIXED;
}

impl std::fmt::Display for Sampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_sampler_has_a_name_of_its_own() {
        let names: HashSet<&str> = Sampler::ALL.iter().map(|sampler| sampler.name()).collect();
        assert_eq!((Sampler::ALL.len(), names.len()), (14, 14));
    }
}
