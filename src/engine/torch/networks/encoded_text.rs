//! What text encoders make of a prompt, and what that is to a UNet.

use tch::{Device, Kind, TchError, Tensor};

use super::conditioning::Conditioning;
use super::unet::Unet;
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::error::Forward;

/// What text encoders make of a prompt.
#[derive(Debug)]
pub struct EncodedText {
    /// `[1, tokens, width]`; of several encoders side by side.
    pub states: Tensor,
    /// `[1, width]`, of families whose UNet is told it.
    pub pooled: Option<Tensor>,
}

impl EncodedText {
    /// All zeros, of so many tokens and the widths that `unet` takes beside so many `numbers`.
    pub(in crate::engine::torch) fn zeros(unet: &Unet, tokens: i64, numbers: usize, device: Device) -> Forward<Self> {
        let zeros = |shape: &[i64]| Tensor::f_zeros(shape, (unet.kind(), device));
        Ok(Self {
            states: zeros(&[1, tokens, unet.text_width()])?,
            pooled: unet.pooled_width(numbers).map(|width| zeros(&[1, width])).transpose()?,
        })
    }

    /// Chunks of one prompt one after the other; the pooled text is that of the first.
    pub(in crate::engine::torch) fn joined(chunks: Vec<Self>) -> Forward<Self> {
        let mut chunks = chunks.into_iter();
        let Some(first) = chunks.next() else { return Err(TchError::Shape("a prompt without a chunk".into())) };
        let states: Vec<Tensor> = chunks.map(|chunk| chunk.states).collect();
        if states.is_empty() {
            return Ok(first);
        }
        let all: Vec<&Tensor> = [&first.states].into_iter().chain(&states).collect();
        Ok(Self { states: Tensor::f_cat(&all, 1)?, ..first })
    }

    /// What it is to `unet`, which is told `numbers` beside the pooled text.
    ///
    /// # Errors
    /// libtorch's, or it is of another family than the UNet.
    pub(in crate::engine::torch) fn condition(
        &self,
        unet: &Unet,
        numbers: &[f32],
        context: &DeviceContext,
    ) -> Forward<Conditioning> {
        let vector = self.pooled.as_ref().map(|pooled| unet.embed_added(pooled, numbers, context)).transpose()?;
        Ok(Conditioning { vector, ..Conditioning::of_text(unet.project_text(&self.states)?) })
    }
}

/// `states`, `[1, tokens, width]`, each times its weight, and all times what brings their mean back, as AUTOMATIC1111's WebUI has it. Without
/// `weights` they stay as they are.
pub(in crate::engine::torch) fn emphasize(states: Tensor, weights: &[f32], context: &DeviceContext) -> Forward {
    if weights.is_empty() {
        return Ok(states);
    }
    let weights = context.upload(weights, &[1, weights.len() as i64, 1])?;
    let wide = states.f_to_kind(Kind::Float)?;
    let weighted = wide.f_mul(&weights)?;
    let scale = wide.f_mean(Kind::Float)?.f_div(&weighted.f_mean(Kind::Float)?)?;
    weighted.f_mul(&scale)?.f_to_kind(states.kind())
}
