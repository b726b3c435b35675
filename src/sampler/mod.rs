//! Samplers as tables: a pure function from noise schedule and step count to the arithmetic of every step.
//!
//! Each of these schedulers is linear in its sample, the model's output, fresh noise and what it remembers of
//! earlier steps. So [`plan`] works out all coefficients beforehand, in f64, and whoever draws only multiplies and
//! adds: jobs with different samplers and step counts can share one evaluation of the model. The reference is
//! diffusers 0.42.1; where a sampler does something its paper does not, it is because the reference does.

mod adams;
mod beta_distribution;
mod betas;
mod config;
mod ddim;
mod ddpm;
mod deis;
mod dpm_m;
mod dpm_s;
mod dpm_sde;
mod euler_a;
mod euler_d;
mod file_value;
mod heun;
mod ipndm;
mod kdpm2;
mod keys;
mod lcm;
mod level;
mod linear;
mod linspace;
mod lms;
mod pndm;
mod prediction;
mod python_json;
mod registry;
mod sampler_schedule;
mod schedule;
mod sigma_spacing;
mod sigmas;
mod solver_levels;
mod steps;
mod table;
mod tcd;
mod timesteps;
mod unipc;

pub use config::ScheduleError;
use file_value::UnsupportedKey;
pub use level::Level;
pub use linear::{LinearCombination, STATE_SLOTS, Source};
pub use prediction::Prediction;
pub use registry::Sampler;
pub use schedule::NoiseSchedule;
pub use sigma_spacing::SigmaSpacing;
pub use steps::{DISTILLED_STEPS, MAX_STEPS};
pub use table::{Plan, Row, Update};

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Too few or too many steps.
    #[error("steps = {steps}: must be 1 to {most}")]
    Steps {
        /// Those that were asked for.
        steps: usize,
        /// The most that the sampler makes.
        most: usize,
    },
    /// Too few for a Runge-Kutta start.
    #[error("steps = {steps}: must be {least} or more, since the model's scheduler file has skip_prk_steps = false")]
    Start {
        /// Those that were asked for.
        steps: usize,
        /// The fewest that have one.
        least: usize,
    },
    /// The model's scheduler file says something that the sampler cannot follow.
    #[error("{sampler} cannot draw with this model, whose scheduler file says {key} = {value}")]
    Unsupported {
        /// Which sampler.
        sampler: Sampler,
        /// What it says.
        key: String,
        /// Its value as JSON, cut if it is long.
        value: String,
    },
    /// Some numbers of the table are infinite, as the reference's are there.
    #[error("{sampler} finds no numbers for the first or the last of {steps} steps with this model's scheduler file")]
    Infinite {
        /// Which sampler.
        sampler: Sampler,
        /// Steps in all.
        steps: usize,
    },
    /// There is no such step to begin at.
    #[error("begin = {begin}: must be at most steps = {steps}")]
    Begin {
        /// The step that was asked for.
        begin: usize,
        /// Steps in all.
        steps: usize,
    },
}

/// The table of a whole sampling run: `steps` steps (1 to [`Sampler::max_steps`]) over `schedule`, entered at step `begin`.
///
/// `begin` counts steps as the user does, from 0, whatever a step costs: txt2img begins at 0, img2img later, as the
/// reference's `get_timesteps` has it. What a sampler remembers is empty there. At the very end there is no row.
///
/// # Errors
/// [`PlanError`] for a number of steps or a beginning out of range, and for a scheduler file that the sampler cannot follow.
pub fn plan(sampler: Sampler, schedule: &NoiseSchedule, steps: usize, begin: usize) -> Result<Plan, PlanError> {
    let most = sampler.max_steps();
    if !(1..=most).contains(&steps) {
        return Err(PlanError::Steps { steps, most });
    }
    if begin > steps {
        return Err(PlanError::Begin { begin, steps });
    }
    let schedule =
        schedule.of(sampler).map_err(|UnsupportedKey { key, value }| PlanError::Unsupported { sampler, key, value })?;
    if sampler == Sampler::Pndm && !schedule.options.skip_prk_steps && steps < pndm::LEAST_STEPS {
        return Err(PlanError::Start { steps, least: pndm::LEAST_STEPS });
    }
    // PNDM would make its one row more, as the reference does when it is asked for none.
    if begin == steps {
        return Ok(Plan::of(1.0, &[]));
    }
    let plan = sampler.planner()(&schedule, steps, begin).with_model(&schedule);
    if plan.is_finite() { Ok(plan) } else { Err(PlanError::Infinite { sampler, steps }) }
}

impl Plan {
    /// The plan up to where the share `end` of the trained timesteps has been gone through, from the noisiest down (diffusers'
    /// `denoising_end`): rows at a timestep below that are left out.
    #[must_use]
    pub fn until(mut self, end: f64, schedule: &NoiseSchedule) -> Self {
        let last = schedule.timestep_at(end);
        let kept = self.rows.iter().filter(|row| row.timestep >= last).count();
        self.unused_draw &= kept == self.rows.len();
        self.rows.truncate(kept);
        self
    }
}

/// The part of a whole run of `steps` steps that is left where the share `begin` of the trained timesteps has been gone through, from the
/// noisiest down (diffusers' `denoising_start`): the rows at timesteps below that. What [`Plan::until`] leaves out, but that a step of two
/// evaluations is made as a whole.
///
/// # Errors
/// [`PlanError`] for a number of steps out of range.
pub fn plan_from(sampler: Sampler, schedule: &NoiseSchedule, steps: usize, begin: f64) -> Result<Plan, PlanError> {
    let whole = plan(sampler, schedule, steps, 0)?;
    let first = schedule.timestep_at(begin);
    let below = whole.rows.iter().filter(|row| row.timestep < first).count();
    // The last step has one evaluation, so whole steps are an odd number of them.
    let left = if sampler.evaluates_twice() { below | 1 } else { below };
    let mut plans = (0..=steps).map(|step| plan(sampler, schedule, steps, step));
    plans.find(|plan| plan.as_ref().map_or(true, |plan| plan.rows.len() <= left)).unwrap_or(Ok(whole))
}
