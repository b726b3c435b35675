//! How the UNet is told the time, and some are told more: sinusoids, a small network, and one projection a residual block.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::config::{AddedEmbeddingConfig, UnetConfig};
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::nn::{Forward, Linear, Weight};
use crate::engine::torch::weights::files::Scope;

/// The slowest sinusoid's period over 2π, in timesteps (Vaswani et al. 2017).
const LONGEST_PERIOD: f64 = 10_000.0;

/// Numbers to sinusoids.
#[derive(Debug, Clone)]
struct Sinusoids {
    half: i64,
    cosine_first: bool,
    frequency_shift: f64,
    kind: Kind,
}

impl Sinusoids {
    fn new(channels: i64, config: &UnetConfig, kind: Kind) -> Self {
        let UnetConfig { cosine_first, frequency_shift, .. } = *config;
        Self { half: channels / 2, cosine_first, frequency_shift, kind }
    }

    /// Those of a guidance scale, which are the same in every UNet that is told one.
    fn of_guidance(channels: i64, kind: Kind) -> Self {
        Self { half: channels / 2, cosine_first: false, frequency_shift: 1.0, kind }
    }

    /// `[numbers, channels]` at `context`.
    fn of(&self, numbers: &Tensor, context: &DeviceContext) -> Forward {
        let exponents = Tensor::f_arange(self.half, (Kind::Float, Device::Cpu))?
            .f_mul_scalar(-LONGEST_PERIOD.ln())?
            .f_div_scalar(self.half as f64 - self.frequency_shift)?;
        let angles = numbers.f_unsqueeze(1)?.f_mul(&exponents.f_exp()?)?;
        let (first, second) =
            if self.cosine_first { (angles.f_cos()?, angles.f_sin()?) } else { (angles.f_sin()?, angles.f_cos()?) };
        let waves = Vec::<f32>::try_from(Tensor::f_cat(&[first, second], 1)?.f_flatten(0, 1)?)?;
        context.upload(&waves, &[-1, 2 * self.half])?.f_to_kind(self.kind)
    }
}

/// A guidance scale to what is added to the sinusoids of the time (diffusers' `get_guidance_scale_embedding` and `cond_proj`).
#[derive(Debug, Clone)]
struct GuidanceEmbedding {
    sinusoids: Sinusoids,
    projection: Linear,
}

impl GuidanceEmbedding {
    /// What a guidance scale is multiplied by, for sinusoids that tell timesteps up to 1000 apart.
    const SCALING: f32 = 1000.0;

    fn load(at: &Scope, channels: i64, config: &UnetConfig) -> Result<Self, LoadError> {
        let projection = Linear::load(at, channels, config.levels[0].channels, false)?;
        Ok(Self { sinusoids: Sinusoids::of_guidance(channels, at.kind()), projection })
    }

    /// `[1, channels of the time's sinusoids]` at `context`. A scale of 1 is no guidance, and the network was told what is beyond.
    fn forward(&self, scale: f64, context: &DeviceContext) -> Forward {
        let beyond = (scale - 1.0) as f32 * Self::SCALING;
        self.projection.forward(&self.sinusoids.of(&Tensor::f_from_slice(&[beyond])?, context)?)
    }
}

/// Timesteps to embeddings.
#[derive(Debug, Clone)]
pub(super) struct TimeEmbedding {
    sinusoids: Sinusoids,
    guidance: Option<GuidanceEmbedding>,
    linear_1: Linear,
    linear_2: Linear,
    /// Whether something is added before the activation.
    is_sum: bool,
}

impl TimeEmbedding {
    pub(super) fn load(at: &Scope, config: &UnetConfig) -> Result<Self, LoadError> {
        let (inputs, outputs) = (config.levels[0].channels, config.time());
        Ok(Self {
            linear_1: Linear::load(&at.at("linear_1"), inputs, outputs, true)?,
            linear_2: Linear::load(&at.at("linear_2"), outputs, outputs, true)?,
            sinusoids: Sinusoids::new(inputs, config, at.kind()),
            guidance: config
                .guidance
                .map(|channels| GuidanceEmbedding::load(&at.at("cond_proj"), channels, config))
                .transpose()?,
            is_sum: config.added.is_some(),
        })
    }

    /// `[timesteps, time]` at `context`: one embedding a timestep, all under one `guidance_scale`, where the UNet is told it. Where nothing is
    /// added to it, after the `SiLU` that every residual block would apply again.
    pub(super) fn forward(&self, timesteps: &[f64], guidance_scale: f64, context: &DeviceContext) -> Forward {
        // In f32 like the reference: at timestep 999 the last bits of a frequency are seen.
        let timesteps: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
        let mut waves = self.sinusoids.of(&Tensor::f_from_slice(&timesteps)?, context)?;
        if let Some(guidance) = &self.guidance {
            waves = waves.f_add(&guidance.forward(guidance_scale, context)?)?;
        }
        let embedded = self.linear_2.forward(&self.linear_1.forward(&waves)?.f_silu_()?)?;
        if self.is_sum { Ok(embedded) } else { embedded.f_silu() }
    }

    pub(super) fn weights(&mut self) -> impl Iterator<Item = &mut Weight> {
        let guidance = self.guidance.as_mut().map(|guidance| guidance.projection.weight());
        [self.linear_1.weight(), self.linear_2.weight()].into_iter().chain(guidance)
    }
}

/// A pooled text and numbers, such as SDXL's sizes, to what is added to the embedding of the time.
#[derive(Debug, Clone)]
pub(super) struct AddedEmbedding {
    sinusoids: Sinusoids,
    linear_1: Linear,
    linear_2: Linear,
}

impl AddedEmbedding {
    pub(super) fn load(at: &Scope, config: &UnetConfig, added: AddedEmbeddingConfig) -> Result<Self, LoadError> {
        Ok(Self {
            linear_1: Linear::load(&at.at("linear_1"), added.inputs, config.time(), true)?,
            linear_2: Linear::load(&at.at("linear_2"), config.time(), config.time(), true)?,
            sinusoids: Sinusoids::new(added.number, config, at.kind()),
        })
    }

    /// `[rows, time]` at `context`, of `pooled`, `[rows, width]`, and for each row as many of `numbers`, one row after the other.
    pub(super) fn forward(&self, pooled: &Tensor, numbers: &[f32], context: &DeviceContext) -> Forward {
        let (rows, _) = pooled.size2()?;
        // In the model's kind, as in the reference: what a half cannot hold, such as a side of 2049 pixels, it is not told.
        let kind = self.sinusoids.kind;
        let numbers = Tensor::f_from_slice(numbers)?.f_to_kind(kind)?.f_to_kind(Kind::Float)?;
        let waves = self.sinusoids.of(&numbers, context)?.f_reshape([rows, -1])?;
        let inputs = Tensor::f_cat(&[&pooled.f_to_kind(kind)?, &waves], 1)?;
        self.linear_2.forward(&self.linear_1.forward(&inputs)?.f_silu_()?)
    }

    pub(super) fn weights(&mut self) -> [&mut Weight; 2] {
        [self.linear_1.weight(), self.linear_2.weight()]
    }
}

/// Collects the time projections of the residual blocks while they load, so that one product serves them all.
#[derive(Debug, Default)]
pub(super) struct TimeProjections {
    parts: Vec<Linear>,
    columns: i64,
}

impl TimeProjections {
    /// Loads the projection of the block at `at` and tells which columns will be its own.
    pub(super) fn add(&mut self, at: &Scope, time: i64, channels: i64) -> Result<Range<i64>, LoadError> {
        self.parts.push(Linear::load(&at.at("time_emb_proj"), time, channels, true)?);
        let start = self.columns;
        self.columns += channels;
        Ok(start..self.columns)
    }

    /// The product of them all.
    pub(super) fn stack(self) -> Result<Linear, LoadError> {
        Linear::stacked(&self.parts)
    }
}
