//! The list of samplers: a name, a file, a line here.

use super::{
    ddim, ddpm, dpm_m, dpm_s, euler_a, euler_d, heun, ipndm, kdpm2, lms, pndm, schedule::NoiseSchedule, table::Plan,
};

/// A sampler's file as a function; steps are 1 to [`super::MAX_STEPS`] and begin is below them.
type Planner = fn(schedule: &NoiseSchedule, steps: usize, begin: usize) -> Plan;

macro_rules! samplers {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $planner:path;)*) => {
        /// A sampler of the SD v1 endpoint.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Sampler {
            $($(#[$doc])* $variant,)*
        }

        impl Sampler {
            /// Every sampler, in the endpoint's order.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The endpoint's name for it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
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
    Ddim = "DDIM", ddim::plan;
    /// Ancestral sampling with the smaller fixed variance.
    Ddpm = "DDPM", ddpm::plan;
    /// DPM-Solver++, second order, multistep.
    DpmM = "DPM-M", dpm_m::plan;
    /// DPM-Solver++, second order, singlestep.
    DpmS = "DPM-S", dpm_s::plan;
    /// Euler with ancestral noise.
    EulerA = "EULER-A", euler_a::plan;
    /// Euler.
    EulerD = "EULER-D", euler_d::plan;
    /// Heun.
    Heun = "HEUN", heun::plan;
    /// Adams-Bashforth of order 4 in σ.
    Ipndm = "IPNDM", ipndm::plan;
    /// DPM-Solver-2 with ancestral noise.
    Kdpm2A = "KDPM2-A", kdpm2::plan_ancestral;
    /// DPM-Solver-2.
    Kdpm2D = "KDPM2-D", kdpm2::plan;
    /// Pseudo linear multistep.
    Pndm = "PNDM", pndm::plan;
    /// Linear multistep of order 4 in σ.
    KLms = "K-LMS", lms::plan;
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
    fn twelve_samplers_have_twelve_names() {
        let names: HashSet<&str> = Sampler::ALL.iter().map(|sampler| sampler.name()).collect();
        assert_eq!((Sampler::ALL.len(), names.len()), (12, 12));
    }
}
