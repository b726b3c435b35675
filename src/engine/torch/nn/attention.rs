//! Attention (Vaswani et al. 2017) in the two forms of the UNet's transformer blocks.

use tch::Tensor;

#[cfg(target_arch = "x86_64")]
use super::flash::Flash;
use super::{Forward, Linear, Residual, Weight};
use crate::engine::torch::device::cuda::attention;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::weights::files::Scope;

/// `softmax(q kᵀ / √d) v` for `heads` heads; `q` is `[batch, length, channels]`, `k` and `v` have a length of their own.
pub(in crate::engine::torch) fn attend(q: &Tensor, k: &Tensor, v: &Tensor, heads: i64, causal: bool) -> Forward {
    #[cfg(target_arch = "x86_64")]
    if let Some(flash) = Flash::of(q).filter(|_| !causal) {
        return flash.attend(q, k, v, heads);
    }
    let split = |x: &Tensor| {
        let (batch, length, channels) = x.size3()?;
        x.f_reshape([batch, length, heads, channels / heads])?.f_transpose(1, 2)
    };
    let (batch, length, channels) = q.size3()?;
    let (q, k, v) = (split(q)?, split(k)?, split(v)?);
    let by_cudnn = attention::of_this_thread().map_or(Ok(None), |attention| attention.attend(&q, &k, &v, causal))?;
    let attended = match by_cudnn {
        Some(attended) => attended,
        None => Tensor::f_scaled_dot_product_attention(&q, &k, &v, None::<Tensor>, 0.0, causal, None, false)?,
    };
    attended.f_transpose(1, 2)?.f_reshape([batch, length, channels])
}

/// Attention of a sequence to itself.
#[derive(Debug, Clone)]
pub(in crate::engine::torch) struct SelfAttention {
    /// Query, key and value in one product.
    qkv: Linear,
    out: Linear,
    heads: i64,
}

impl SelfAttention {
    /// `to_q`, `to_k`, `to_v` and `to_out.0` as diffusers names them; `biased` says whether the first three have biases.
    pub(in crate::engine::torch) fn load(
        at: &Scope,
        channels: i64,
        heads: i64,
        biased: bool,
    ) -> Result<Self, LoadError> {
        let part = |name| Linear::load(&at.at(name), channels, channels, biased);
        let qkv = Linear::stacked(&[part("to_q")?, part("to_k")?, part("to_v")?])?;
        Ok(Self { qkv, out: Linear::load(&at.at("to_out.0"), channels, channels, true)?, heads })
    }

    /// What `x` attends to, to be added to `more`.
    pub(in crate::engine::torch) fn forward(&self, x: &Tensor, more: &Tensor) -> Forward<Residual> {
        let qkv = self.qkv.forward(x)?.f_chunk(3, 2)?;
        self.out.forward_add(&attend(&qkv[0], &qkv[1], &qkv[2], self.heads, false)?, more)
    }

    /// What it is made of, but for biases.
    pub(in crate::engine::torch) fn weights(&mut self) -> [&mut Weight; 2] {
        [self.qkv.weight(), self.out.weight()]
    }
}

/// Attention of a sequence to the text. What it needs of the text does not change from step to step: [`Self::project`]
/// is called once a prompt, [`Self::forward`] at every evaluation.
#[derive(Debug, Clone)]
pub(in crate::engine::torch) struct CrossAttention {
    query: Linear,
    /// Key and value in one product.
    kv: Linear,
    out: Linear,
    heads: i64,
}

impl CrossAttention {
    /// `text` is the width of the text's states.
    pub(in crate::engine::torch) fn load(at: &Scope, channels: i64, text: i64, heads: i64) -> Result<Self, LoadError> {
        let part = |name| Linear::load(&at.at(name), text, channels, false);
        Ok(Self {
            query: Linear::load(&at.at("to_q"), channels, channels, false)?,
            kv: Linear::stacked(&[part("to_k")?, part("to_v")?])?,
            out: Linear::load(&at.at("to_out.0"), channels, channels, true)?,
            heads,
        })
    }

    /// Keys and values of a text, `[batch, tokens, 2 · channels]`.
    pub(in crate::engine::torch) fn project(&self, text: &Tensor) -> Forward {
        self.kv.forward(text)
    }

    /// What `x` attends to of `text`, which is what [`Self::project`] gave, to be added to `more`.
    pub(in crate::engine::torch) fn forward(&self, x: &Tensor, text: &Tensor, more: &Tensor) -> Forward<Residual> {
        let kv = text.f_chunk(2, 2)?;
        self.out.forward_add(&attend(&self.query.forward(x)?, &kv[0], &kv[1], self.heads, false)?, more)
    }

    pub(super) fn weights(&mut self) -> [&mut Weight; 3] {
        [self.query.weight(), self.kv.weight(), self.out.weight()]
    }
}
