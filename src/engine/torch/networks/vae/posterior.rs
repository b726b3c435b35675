//! What an encoder knows of an image's latents.

use tch::Tensor;

use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::error::Forward;
use crate::noise::TorchRng;

/// A normal distribution of latents, or one point, `[1, latent, height, width]` in f32 and the UNet's scale.
#[derive(Debug)]
pub(in crate::engine::torch) struct Posterior {
    mean: Tensor,
    /// None of an autoencoder that knows one answer only.
    deviation: Option<Tensor>,
}

impl Posterior {
    /// Of a KL autoencoder's moments: means and then logarithms of variances along the channels (diffusers'
    /// `DiagonalGaussianDistribution`), times `scaling`.
    pub(super) fn normal(moments: &Tensor, scaling: f64) -> Forward<Self> {
        let halves = moments.f_chunk(2, 1)?;
        let deviation = halves[1].f_clamp(-30, 20)?.f_mul_scalar(0.5)?.f_exp()?.f_mul_scalar(scaling)?;
        Ok(Self { mean: halves[0].f_mul_scalar(scaling)?, deviation: Some(deviation) })
    }

    /// Of an autoencoder that draws nothing, times `scaling`.
    pub(super) fn point(latents: &Tensor, scaling: f64) -> Forward<Self> {
        Ok(Self { mean: latents.f_mul_scalar(scaling)?, deviation: None })
    }

    /// Latents, which are at `context`; a distribution takes one normal a value from `rng`.
    pub(in crate::engine::torch) fn sample(&self, rng: &mut TorchRng, context: &DeviceContext) -> Forward {
        let Some(deviation) = &self.deviation else { return Ok(self.mean.shallow_clone()) };
        self.mean.f_add(&deviation.f_mul(&context.draw(rng, &self.mean.size())?)?)
    }
}
