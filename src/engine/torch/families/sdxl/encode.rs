//! What SDXL's text encoders make of a prompt.

use tch::Tensor;

use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::error::Forward;
use crate::engine::torch::networks::Networks;
use crate::engine::torch::networks::encoded_text::EncodedText;

/// Of each text encoder the state before its last layer, side by side, and the pooled text of the one that has a projection. `tokens` are ids
/// for each encoder.
pub(super) fn encode(networks: &Networks, tokens: &[Vec<i64>], context: &DeviceContext) -> Forward<EncodedText> {
    let (mut states, mut pooled) = (Vec::new(), None);
    for (encoder, tokens) in networks.text_encoders.iter().zip(tokens) {
        let ids = context.upload(tokens, &[1, tokens.len() as i64])?;
        let (state, of_text) = encoder.forward_penultimate(&ids, encoder.end_of(tokens))?;
        states.push(state);
        pooled = pooled.or(of_text);
    }
    Ok(EncodedText { states: Tensor::f_cat(&states, 2)?, pooled })
}
