//! The residual block of the UNet and of the KL autoencoder.

use std::ops::Range;

use tch::Tensor;

use super::{Conv2d, ConvParams, Forward, GroupNorm, Weight};
use crate::engine::torch::error::LoadError;
use crate::engine::torch::weights::files::Scope;

/// Norm, `SiLU`, convolution, twice, around a shortcut (diffusers' `ResnetBlock2D`).
#[derive(Debug, Clone)]
pub(in crate::engine::torch) struct Resnet {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
    /// Which columns of the UNet's time projections belong to this block; none in an autoencoder.
    time: Option<Range<i64>>,
}

impl Resnet {
    pub(in crate::engine::torch) fn load(
        at: &Scope,
        inputs: i64,
        outputs: i64,
        (groups, epsilon): (i64, f64),
        time: Option<Range<i64>>,
    ) -> Result<Self, LoadError> {
        let shortcut = || Conv2d::load(&at.at("conv_shortcut"), inputs, outputs, ConvParams::POINT);
        Ok(Self {
            norm1: GroupNorm::load(&at.at("norm1"), inputs, groups, epsilon)?,
            conv1: Conv2d::load(&at.at("conv1"), inputs, outputs, ConvParams::SAME)?,
            norm2: GroupNorm::load(&at.at("norm2"), outputs, groups, epsilon)?,
            conv2: Conv2d::load(&at.at("conv2"), outputs, outputs, ConvParams::SAME)?,
            shortcut: (inputs != outputs).then(shortcut).transpose()?,
            time,
        })
    }

    /// `times` holds the time projections of all blocks, `[batch, columns]`.
    pub(in crate::engine::torch) fn forward(&self, x: &Tensor, times: Option<&Tensor>) -> Forward {
        let shift = match (&self.time, times) {
            (Some(columns), Some(times)) => Some(times.f_narrow(1, columns.start, columns.end - columns.start)?),
            _ => None,
        };
        // What is no longer needed goes before the next is made: in the autoencoder each of these is the largest tensor there is.
        let mut hidden = self.norm1.activate(x)?;
        hidden = self.norm2.activate_shifted(self.conv1.convolve(&hidden)?, shift.as_ref())?;
        let sum = self.conv2.convolve(&hidden)?;
        drop(hidden);
        match &self.shortcut {
            Some(shortcut) => sum.plus(&shortcut.convolve(x)?),
            None => sum.plus(&x.into()),
        }
    }

    /// What a LoRA may change; the time projection is the UNet's.
    pub(in crate::engine::torch) fn weights(&mut self) -> impl Iterator<Item = &mut Weight> {
        [&mut self.conv1, &mut self.conv2].into_iter().chain(&mut self.shortcut).map(Conv2d::weight)
    }
}
