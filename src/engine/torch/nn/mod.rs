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
mod window;

pub(in crate::engine::torch) use crate::engine::torch::error::Forward;
pub(in crate::engine::torch) use attention::{CrossAttention, SelfAttention, attend};
pub(in crate::engine::torch) use basic::{Conv2d, GroupNorm, LayerNorm, Linear};
pub(in crate::engine::torch) use convolved::Convolved;
pub(in crate::engine::torch) use residual::Residual;
pub(in crate::engine::torch) use resnet::Resnet;
pub(in crate::engine::torch) use transformer::{Transformer, TransformerShape};
pub(in crate::engine::torch) use weight::{LowRank, Weight};
pub(in crate::engine::torch) use window::Window;
