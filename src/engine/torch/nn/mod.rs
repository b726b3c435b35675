//! The layers that SD v1 and SDXL are made of, for inference only. Images are `[batch, channels, height, width]` with channels
//! last in memory, sequences `[batch, length, channels]`.

mod attention;
mod basic;
mod conv_params;
#[cfg(target_arch = "x86_64")]
mod flash;
mod onednn;
mod pending_bias;
mod residual;
mod resnet;
mod transformer;
mod weight;
mod weight_memory;

pub(in crate::engine::torch) use crate::engine::torch::error::Forward;
pub(in crate::engine::torch) use attention::{CrossAttention, SelfAttention, attend};
pub(in crate::engine::torch) use basic::{Conv2d, GroupNorm, LayerNorm, Linear};
pub(in crate::engine::torch) use conv_params::ConvParams;
pub(in crate::engine::torch) use pending_bias::PendingBias;
pub(in crate::engine::torch) use residual::Residual;
pub(in crate::engine::torch) use resnet::Resnet;
pub(in crate::engine::torch) use transformer::{Transformer, TransformerShape};
pub(in crate::engine::torch) use weight::{LowRank, Weight};
pub(in crate::engine::torch) use weight_memory::WeightMemory;
