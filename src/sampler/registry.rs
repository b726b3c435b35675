//! The list of samplers: a name, a file, a line here.

use super::sigma_spacing::SigmaSpacing;
use super::steps::{DISTILLED_STEPS, MAX_STEPS};
use super::{
    ddim, ddpm, deis, dpm_m, dpm_s, dpm_sde, euler_a, euler_d, heun, ipndm, kdpm2, lcm, lms, pndm, python_json,
    sampler_schedule::SamplerSchedule, table::Plan, tcd, unipc,
};

/// A sampler's file as a function; steps are 1 to [`Sampler::max_steps`] and begin is below them.
type Planner = fn(schedule: &SamplerSchedule, steps: usize, begin: usize) -> Plan;

/// Of samplers whose σ may be anything.
const CURVED: &[SigmaSpacing] = SigmaSpacing::ALL;

/// Of one whose σ may be anything, and whose timesteps have one place.
const UNSPACED: &[SigmaSpacing] =
    &[SigmaSpacing::Default, SigmaSpacing::Karras, SigmaSpacing::Exponential, SigmaSpacing::Beta];

/// Of samplers that step from trained timestep to trained timestep, wherever they are asked to.
const SPACED: &[SigmaSpacing] = &[SigmaSpacing::Default, SigmaSpacing::SgmUniform];

/// Of samplers that know one place for their steps.
const FIXED: &[SigmaSpacing] = &[SigmaSpacing::Default];

macro_rules! samplers {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $class:literal, $planner:path, $most:expr, $spacings:expr;)*) => {
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

            /// diffusers' scheduler of this kind, as a `scheduler_config.json` names its class.
            pub const fn class(self) -> &'static str {
                match self {
                    $(Self::$variant => $class,)*
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
    Ddim = "DDIM", "DDIMScheduler", ddim::plan, MAX_STEPS, SPACED;
    /// Ancestral sampling with the smaller fixed variance.
    Ddpm = "DDPM", "DDPMScheduler", ddpm::plan, MAX_STEPS, SPACED;
    /// DPM-Solver++, second order, multistep.
    DpmM = "DPM-M", "DPMSolverMultistepScheduler", dpm_m::plan, MAX_STEPS, CURVED;
    /// DPM-Solver++, second order, singlestep.
    DpmS = "DPM-S", "DPMSolverSinglestepScheduler", dpm_s::plan, MAX_STEPS, UNSPACED;
    /// Euler with ancestral noise.
    EulerA = "EULER-A", "EulerAncestralDiscreteScheduler", euler_a::plan, MAX_STEPS, SPACED;
    /// Euler.
    EulerD = "EULER-D", "EulerDiscreteScheduler", euler_d::plan, MAX_STEPS, CURVED;
    /// Heun.
    Heun = "HEUN", "HeunDiscreteScheduler", heun::plan, MAX_STEPS, CURVED;
    /// Adams-Bashforth of order 4 in σ.
    Ipndm = "IPNDM", "IPNDMScheduler", ipndm::plan, MAX_STEPS, CURVED;
    /// DPM-Solver-2 with ancestral noise.
    Kdpm2A = "KDPM2-A", "KDPM2AncestralDiscreteScheduler", kdpm2::plan_ancestral, MAX_STEPS, CURVED;
    /// DPM-Solver-2.
    Kdpm2D = "KDPM2-D", "KDPM2DiscreteScheduler", kdpm2::plan, MAX_STEPS, CURVED;
    /// Pseudo linear multistep.
    Pndm = "PNDM", "PNDMScheduler", pndm::plan, MAX_STEPS, SPACED;
    /// Linear multistep of order 4 in σ.
    KLms = "K-LMS", "LMSDiscreteScheduler", lms::plan, MAX_STEPS, CURVED;
    /// Of latent consistency models.
    Lcm = "LCM", "LCMScheduler", lcm::plan, DISTILLED_STEPS, FIXED;
    /// Trajectory consistency distillation, γ = 0.
    Tcd = "TCD", "TCDScheduler", tcd::plan, DISTILLED_STEPS, FIXED;
    /// DPM-Solver++ as an SDE, second order, multistep.
    DpmMSde = "DPM-M-SDE", "DPMSolverMultistepScheduler", dpm_m::plan_sde, MAX_STEPS, CURVED;
    /// DPM-Solver++ as an SDE, third order, multistep.
    Dpm3MSde = "DPM-3M-SDE", "DPMSolverMultistepScheduler", dpm_m::plan_sde, MAX_STEPS, CURVED;
    /// DPM-Solver++ as an SDE, second order, singlestep.
    DpmSde = "DPM-SDE", "DPMSolverSDEScheduler", dpm_sde::plan, MAX_STEPS, CURVED;
    /// `UniPC`, second order.
    UniPc = "UNIPC", "UniPCMultistepScheduler", unipc::plan, MAX_STEPS, CURVED;
    /// DEIS, second order.
    Deis = "DEIS", "DEISMultistepScheduler", deis::plan, MAX_STEPS, CURVED;
}

impl Sampler {
    /// The sampler that a `scheduler_config.json` names by its class; `None` if that is none of ours, or the text cannot be read.
    pub fn of_config(text: &str) -> Option<Self> {
        let config = python_json::parse(text).ok()?;
        let class = config["_class_name"].as_str()?;
        // Files of JAX models are the same but for this.
        let class = class.strip_prefix("Flax").unwrap_or(class);
        let sampler = Self::ALL.iter().copied().find(|sampler| sampler.class() == class)?;
        let is_sde = config["algorithm_type"] == "sde-dpmsolver++";
        Some(match sampler {
            Self::DpmM if is_sde && config["solver_order"] == 3 => Self::Dpm3MSde,
            Self::DpmM if is_sde => Self::DpmMSde,
            sampler => sampler,
        })
    }

    /// Whether it can add noise at each step, as a job asks.
    pub const fn has_eta(self) -> bool {
        matches!(self, Self::Ddim)
    }

    /// Whether its level at the last trained timestep is kept off having no signal at all.
    pub(super) const fn needs_signal(self) -> bool {
        !matches!(self, Self::Ddim | Self::Ddpm | Self::Lcm | Self::Tcd)
    }

    /// Whether a step takes two evaluations, all but the last (order 2 in diffusers' terms).
    pub(super) const fn evaluates_twice(self) -> bool {
        matches!(self, Self::Heun | Self::Kdpm2A | Self::Kdpm2D | Self::DpmSde)
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
    fn every_sampler_has_a_name_of_its_own() {
        let names: HashSet<&str> = Sampler::ALL.iter().map(|sampler| sampler.name()).collect();
        assert_eq!((Sampler::ALL.len(), names.len()), (19, 19));
    }

    #[test]
    fn a_scheduler_file_names_its_sampler_by_class_and_kind() {
        for (config, sampler) in [
            (r#"{"_class_name": "PNDMScheduler"}"#, Some(Sampler::Pndm)),
            (r#"{"_class_name": "FlaxDDIMScheduler"}"#, Some(Sampler::Ddim)),
            (r#"{"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3}"#, Some(Sampler::DpmM)),
            (
                r#"{"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"}"#,
                Some(Sampler::DpmMSde),
            ),
            (
                r#"{"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++", "solver_order": 3}"#,
                Some(Sampler::Dpm3MSde),
            ),
            (r#"{"_class_name": "DPMSolverSDEScheduler"}"#, Some(Sampler::DpmSde)),
            (r#"{"_class_name": "VQDiffusionScheduler"}"#, None),
            (r#"{"_class_name": 1}"#, None),
        ] {
            assert_eq!(Sampler::of_config(config), sampler, "{config}");
        }
    }
}
