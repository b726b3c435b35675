//! A stage: what draws a lane for a part of its way, such as a base model or the refiner after it.

use std::rc::Rc;

use tch::Tensor;

use crate::batch::Key;
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::error::Forward;
use crate::engine::torch::networks::Networks;
use crate::engine::torch::networks::conditioning::Conditioning;
use crate::sampler::Plan;

/// Networks, what they are told, and the rows that they do; shared by the lanes of a job.
#[derive(Debug)]
pub(in crate::engine::torch) struct Stage {
    /// What lanes must have in common to share an evaluation.
    pub(in crate::engine::torch) key: Key,
    /// What draws.
    pub(in crate::engine::torch) networks: Rc<Networks>,
    /// What to draw.
    pub(in crate::engine::torch) guidance: Guidance,
    /// By which steps.
    pub(in crate::engine::torch) run: SamplerRun,
    /// What it makes of the latents that another stage ended with.
    pub(in crate::engine::torch) entry: StageEntry,
}

/// How a stage goes on with the latents of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine::torch) enum StageEntry {
    /// As they are, noise and all.
    Continue,
    /// With noise, as its first row has it, on top.
    AddNoise,
}

/// Classifier-free guidance (Ho and Salimans 2022).
#[derive(Debug)]
pub(in crate::engine::torch) struct Guidance {
    /// What to draw.
    pub(in crate::engine::torch) positive: Rc<Conditioning>,
    /// What to keep away from, and the guidance scale; none where guidance is off, which saves half of the work.
    pub(in crate::engine::torch) negative: Option<(Rc<Conditioning>, f64)>,
}

impl Guidance {
    /// The same with `concat`, `[1, channels, height, width]` in the UNet's kind, beside the latents of each row.
    pub(in crate::engine::torch) fn with_concat(&self, concat: &Tensor) -> Self {
        let with =
            |told: &Rc<Conditioning>| Rc::new(Conditioning { concat: Some(concat.shallow_clone()), ..told.view() });
        let negative = self.negative.as_ref().map(|(negative, scale)| (with(negative), *scale));
        Self { positive: with(&self.positive), negative }
    }

    /// A row of the UNet's batch each: the negative one first.
    pub(in crate::engine::torch) fn conditionings(&self) -> impl Iterator<Item = &Rc<Conditioning>> {
        self.negative.iter().map(|(negative, _)| negative).chain([&self.positive])
    }

    /// How many rows these are.
    pub(in crate::engine::torch) fn rows(&self) -> usize {
        if self.negative.is_some() { 2 } else { 1 }
    }

    /// What the UNet's `output`, `[rows, latent, height, width]` in f32 in the order of [`Self::conditionings`], comes to:
    /// `[1, latent, height, width]`.
    pub(in crate::engine::torch) fn apply(&self, output: &Tensor) -> Forward {
        let Some((_, scale)) = self.negative else { return Ok(output.shallow_clone()) };
        let (negative, positive) = (output.f_narrow(0, 0, 1)?, output.f_narrow(0, 1, 1)?);
        positive.f_sub(&negative)?.f_mul_scalar_(scale)?.f_add_(&negative)
    }
}

/// A sampler's plan with what the UNet is told at each of its rows.
#[derive(Debug)]
pub(in crate::engine::torch) struct SamplerRun {
    /// The arithmetic.
    pub(in crate::engine::torch) plan: Plan,
    /// `[rows, time]`.
    times: Tensor,
    /// What a row makes of a lane's slots, the UNet's output and noise, `[rows, slots, slots + 2]` in f32.
    factors: Tensor,
}

impl SamplerRun {
    /// `times` are those of the rows of `plan`.
    pub(in crate::engine::torch) fn new(plan: Plan, times: Tensor, context: &DeviceContext) -> Forward<Self> {
        let slots = plan.slots;
        let next = plan.rows.iter().flat_map(|row| &row.update.next[..slots]);
        let factors: Vec<f32> = next
            .flat_map(|next| next.slots[..slots].iter().copied().chain([next.output, next.noise]))
            .map(|factor| factor as f32)
            .collect();
        // All at once: a copy at each row would have the device wait for us, and us for it.
        let factors = context.upload(&factors, &[plan.rows.len() as i64, slots as i64, slots as i64 + 2])?;
        Ok(Self { plan, times, factors })
    }

    /// What the UNet is told of the time at `row`, `[1, time]`.
    pub(super) fn time(&self, row: usize) -> Forward {
        self.times.f_narrow(0, row as i64, 1)
    }

    /// What `row` makes of the slots, the output and, if there is some, noise: `[slots, terms]` of the first `terms` of them.
    pub(super) fn factors(&self, row: usize, terms: i64) -> Forward {
        self.factors.f_select(0, row as i64)?.f_narrow(1, 0, terms)
    }
}
