//! What SDXL's text encoders make of a prompt.

use std::rc::Rc;

use tch::Tensor;

use crate::engine::prompt::Chunk;
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::embeddings::{Embedding, text_input};
use crate::engine::torch::error::Forward;
use crate::engine::torch::networks::Networks;
use crate::engine::torch::networks::encoded_text::{EncodedText, emphasize};

/// Of each text encoder the state before its last `unused` layers, side by side, and the pooled text of the one that has a projection, which no
/// weight and no layer left out changes. The chunk is there for each encoder.
pub(super) fn encode(
    networks: &Networks,
    (chunk, embeddings): (&[Chunk], &[Rc<Embedding>]),
    unused: u32,
    context: &DeviceContext,
) -> Forward<EncodedText> {
    let (mut states, mut pooled) = (Vec::new(), None);
    for (number, (encoder, chunk)) in networks.text_encoders.iter().zip(chunk).enumerate() {
        let input = text_input(chunk, number, embeddings, context)?;
        let (state, of_text) = encoder.forward_within(&input, unused, encoder.end_of(&chunk.ids))?;
        states.push(emphasize(state, &chunk.weights, context)?);
        pooled = pooled.or(of_text);
    }
    Ok(EncodedText { states: Tensor::f_cat(&states, 2)?, pooled })
}
