//! What a prompt is to SD v1's UNet: the last state of its one text encoder, after the final norm.

use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::error::Forward;
use crate::engine::torch::networks::Networks;
use crate::engine::torch::networks::conditioning::Conditioning;

/// `tokens` are one list of ids.
pub(super) fn condition(networks: &Networks, tokens: &[Vec<i64>], context: &DeviceContext) -> Forward<Conditioning> {
    let ids = context.upload(&tokens[0], &[1, tokens[0].len() as i64])?;
    let states = networks.text_encoders[0].forward(&ids)?;
    Ok(Conditioning::of_text(networks.unet.project_text(&states)?))
}
