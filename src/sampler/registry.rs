//! The list of samplers: a name, a file, a line here.

use super::{
    config::read, ddim, ddpm, dpm_m, dpm_s, euler_a, euler_d, heun, ipndm, kdpm2, lms, pndm, schedule::NoiseSchedule,
    table::Plan,
};

/// A sampler's file as a function; steps are 1 to [`super::MAX_STEPS`] and begin is below them.
type Planner = fn(schedule: &NoiseSchedule, steps: usize, begin: usize) -> Plan;

macro_rules! samplers {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $class:literal, $planner:path;)*) => {
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

            /// diffusers' scheduler of this kind, as a `scheduler_config.json` names its class.
            pub const fn class(self) -> &'static str {
                match self {
                    $(Self::$variant => $class,)*
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
    Ddim = "DDIM", "DDIMScheduler", ddim::plan;
    /// Ancestral sampling with the smaller fixed variance.
    Ddpm = "DDPM", "DDPMScheduler", ddpm::plan;
    /// DPM-Solver++, second order, multistep.
    DpmM = "DPM-M", "DPMSolverMultistepScheduler", dpm_m::plan;
    /// DPM-Solver++, second order, singlestep.
    DpmS = "DPM-S", "DPMSolverSinglestepScheduler", dpm_s::plan;
    /// Euler with ancestral noise.
    EulerA = "EULER-A", "EulerAncestralDiscreteScheduler", euler_a::plan;
    /// Euler.
    EulerD = "EULER-D", "EulerDiscreteScheduler", euler_d::plan;
    /// Heun.
    Heun = "HEUN", "HeunDiscreteScheduler", heun::plan;
    /// Adams-Bashforth of order 4 in σ.
    Ipndm = "IPNDM", "IPNDMScheduler", ipndm::plan;
    /// DPM-Solver-2 with ancestral noise.
    Kdpm2A = "KDPM2-A", "KDPM2AncestralDiscreteScheduler", kdpm2::plan_ancestral;
    /// DPM-Solver-2.
    Kdpm2D = "KDPM2-D", "KDPM2DiscreteScheduler", kdpm2::plan;
    /// Pseudo linear multistep.
    Pndm = "PNDM", "PNDMScheduler", pndm::plan;
    /// Linear multistep of order 4 in σ.
    KLms = "K-LMS", "LMSDiscreteScheduler", lms::plan;
}

impl Sampler {
    /// The sampler that a `scheduler_config.json` names by its class; `None` if that is none of ours, or the text cannot be read.
    pub fn of_config(text: &str) -> Option<Self> {
        let config = read(text).ok()?;
        let class = config["_class_name"].as_str()?;
        Self::ALL.iter().copied().find(|sampler| sampler.class() == class)
    }

    /// Whether a step takes two evaluations, all but the last (order 2 in diffusers' terms).
    pub(super) const fn evaluates_twice(self) -> bool {
        matches!(self, Self::Heun | Self::Kdpm2A | Self::Kdpm2D)
    }
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
