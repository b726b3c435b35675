//! The layers that SD v1 is made of, for inference only. Images are `[batch, channels, height, width]` with channels
//! last in memory, sequences `[batch, length, channels]`.

mod attention;
mod basic;
mod convolved;
#[cfg(target_arch = "x86_64")]
mod flash;
mod onednn;
mod residual;
mod resnet;
mod transformer;
mod weight;

pub(super) use super::error::Forward;
pub(super) use attention::{CrossAttention, SelfAttention, attend};
pub(super) use basic::{Conv2d, GroupNorm, LayerNorm, Linear, Window, channels_last};
pub(super) use convolved::Convolved;
pub(super) use residual::Residual;
pub(super) use resnet::Resnet;
pub(super) use transformer::{Transformer, TransformerShape};
pub(super) use weight::{LowRank, Weight};
