//! What text encoders make of a prompt, and what that is to a UNet.

use tch::{Device, Tensor};

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
