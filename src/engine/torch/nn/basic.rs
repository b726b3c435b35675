//! Linear maps, convolutions and norms. Clones share their tensors.

use std::rc::Rc;

use tch::Tensor;

use super::{ConvParams, Forward, PendingBias, Residual, Weight};
use crate::engine::torch::device::cuda::kernels::{self, Norm};
use crate::engine::torch::device::layout::channels_last;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::weights::files::Scope;

/// `y = x Wᵀ + b` over the last dimension.
#[derive(Debug, Clone)]
pub(in crate::engine::torch) struct Linear {
    weight: Weight,
    bias: Option<Rc<Tensor>>,
}

impl Linear {
    /// `weight` is `[outputs, inputs]`.
    pub(in crate::engine::torch) fn load(at: &Scope, inputs: i64, outputs: i64, bias: bool) -> Result<Self, LoadError> {
        let weight = Weight::load(at, &[outputs, inputs])?;
        let bias = bias.then(|| at.tensor("bias", &[outputs])).transpose()?;
        Ok(Self { weight, bias: bias.map(Rc::new) })
    }

    /// One map that computes what `parts` compute, outputs side by side: one large product instead of several small.
    pub(in crate::engine::torch) fn stacked(parts: &[Self]) -> Result<Self, LoadError> {
        let weights: Vec<&Weight> = parts.iter().map(|part| &part.weight).collect();
        let biases: Vec<&Tensor> = parts.iter().filter_map(|part| part.bias.as_deref()).collect();
        let bias = (!biases.is_empty()).then(|| Tensor::f_cat(&biases, 0)).transpose()?;
        Ok(Self { weight: Weight::stacked(&weights)?, bias: bias.map(Rc::new) })
    }

    /// How wide `y` is.
    pub(in crate::engine::torch) fn outputs(&self) -> i64 {
        self.weight.outputs()
    }

    pub(in crate::engine::torch) fn forward(&self, x: &Tensor) -> Forward {
        self.weight.multiply(x, self.bias.as_deref(), None)
    }

    /// [`Self::forward`], to be added to `more`.
    pub(super) fn forward_add(&self, x: &Tensor, more: &Tensor) -> Forward<Residual> {
        if kernels::suiting(x).is_some() {
            return Ok(Residual { x: more.shallow_clone(), change: Some(self.forward(x)?) });
        }
        Ok(self.weight.multiply(x, self.bias.as_deref(), Some(more))?.into())
    }

    /// What a LoRA may change.
    pub(in crate::engine::torch) fn weight(&mut self) -> &mut Weight {
        &mut self.weight
    }
}

/// A two-dimensional convolution.
#[derive(Debug, Clone)]
pub(in crate::engine::torch) struct Conv2d {
    weight: Weight,
    bias: Option<Rc<Tensor>>,
    params: ConvParams,
}

impl Conv2d {
    /// `weight` is `[outputs, inputs, kernel, kernel]`, with a bias.
    pub(in crate::engine::torch) fn load(
        at: &Scope,
        inputs: i64,
        outputs: i64,
        params: ConvParams,
    ) -> Result<Self, LoadError> {
        let bias = at.tensor("bias", &[outputs])?;
        Ok(Self { bias: Some(Rc::new(bias)), ..Self::load_without_bias(at, inputs, outputs, params)? })
    }

    /// The same without a bias.
    pub(in crate::engine::torch) fn load_without_bias(
        at: &Scope,
        inputs: i64,
        outputs: i64,
        params: ConvParams,
    ) -> Result<Self, LoadError> {
        let weight = Weight::load(at, &[outputs, inputs, params.kernel, params.kernel])?;
        Ok(Self { weight: weight.laid_out(channels_last)?, bias: None, params })
    }

    pub(in crate::engine::torch) fn forward(&self, x: &Tensor) -> Forward {
        self.convolve(x)?.whole()
    }

    /// The same for who can add the bias on the way.
    pub(in crate::engine::torch) fn convolve(&self, x: &Tensor) -> Forward<PendingBias<'_>> {
        let apart = kernels::suiting(x).is_some();
        let (now, later) = if apart { (None, self.bias.as_deref()) } else { (self.bias.as_deref(), None) };
        Ok(PendingBias { image: self.weight.convolve(x, now, self.params)?, bias: later })
    }

    /// A 1×1 convolution of pixels in a row, `[batch, pixels, channels]`.
    pub(super) fn map(&self, pixels: &Tensor) -> Forward {
        self.weight.multiply_pixels(pixels, self.bias.as_deref())
    }

    /// The same for who can add the bias on the way.
    pub(super) fn map_apart(&self, pixels: &Tensor) -> Forward<(Tensor, Option<&Tensor>)> {
        Ok((self.weight.multiply_pixels(pixels, None)?, self.bias.as_deref()))
    }

    /// What a LoRA may change.
    pub(in crate::engine::torch) fn weight(&mut self) -> &mut Weight {
        &mut self.weight
    }
}

/// Normalisation over groups of channels (Wu & He 2018).
#[derive(Debug, Clone)]
pub(in crate::engine::torch) struct GroupNorm {
    weight: Rc<Tensor>,
    bias: Rc<Tensor>,
    groups: i64,
    epsilon: f64,
}

impl GroupNorm {
    pub(in crate::engine::torch) fn load(
        at: &Scope,
        channels: i64,
        groups: i64,
        epsilon: f64,
    ) -> Result<Self, LoadError> {
        let part = |name| at.tensor(name, &[channels]).map(Rc::new);
        Ok(Self { weight: part("weight")?, bias: part("bias")?, groups, epsilon })
    }

    pub(in crate::engine::torch) fn forward(&self, x: &Tensor) -> Forward {
        Self::in_one_pass(x, self.norm())?.map_or_else(|| self.plain(x), Ok)
    }

    /// And `SiLU` of it.
    pub(in crate::engine::torch) fn activate(&self, x: &Tensor) -> Forward {
        let norm = Norm { silu: true, ..self.norm() };
        Self::in_one_pass(x, norm)?.map_or_else(|| self.plain(x)?.f_silu_(), Ok)
    }

    /// The same of `x` with `time_shift` added, `[batch, channels]`.
    pub(super) fn activate_shifted(&self, x: PendingBias, time_shift: Option<&Tensor>) -> Forward {
        let norm = Norm { input_bias: x.bias, time_shift, silu: true, ..self.norm() };
        if let Some(y) = Self::in_one_pass(&x.image, norm)? {
            return Ok(y);
        }
        let mut x = x.whole()?;
        if let Some(time_shift) = time_shift {
            x = x.f_add_(&time_shift.f_unsqueeze(-1)?.f_unsqueeze(-1)?)?;
        }
        self.plain(&x)?.f_silu_()
    }

    fn norm(&self) -> Norm<'_> {
        let Self { weight, bias, groups, epsilon } = self;
        Norm { weight, bias, groups: *groups, epsilon: *epsilon, input_bias: None, time_shift: None, silu: false }
    }

    /// By a kernel of ours, where there is one.
    fn in_one_pass(x: &Tensor, norm: Norm) -> Forward<Option<Tensor>> {
        kernels::suiting(x).map_or(Ok(None), |kernels| kernels.group_norm(x, norm))
    }

    fn plain(&self, x: &Tensor) -> Forward {
        x.f_group_norm(self.groups, Some(&*self.weight), Some(&*self.bias), self.epsilon, true)
    }
}

/// Normalisation over the last dimension (Ba et al. 2016).
#[derive(Debug, Clone)]
pub(in crate::engine::torch) struct LayerNorm {
    weight: Rc<Tensor>,
    bias: Rc<Tensor>,
    channels: i64,
    epsilon: f64,
}

impl LayerNorm {
    pub(in crate::engine::torch) fn load(at: &Scope, channels: i64, epsilon: f64) -> Result<Self, LoadError> {
        let part = |name| at.tensor(name, &[channels]).map(Rc::new);
        Ok(Self { weight: part("weight")?, bias: part("bias")?, channels, epsilon })
    }

    pub(in crate::engine::torch) fn forward(&self, x: &Tensor) -> Forward {
        x.f_layer_norm([self.channels], Some(&*self.weight), Some(&*self.bias), self.epsilon, true)
    }

    /// The sum, and its normalisation.
    pub(super) fn forward_sum(&self, sum: Residual) -> Forward<(Tensor, Tensor)> {
        if let (Some(change), Some(kernels)) = (&sum.change, kernels::suiting(&sum.x))
            && let Some([x, y]) = kernels.add_layer_norm((&sum.x, change), (&self.weight, &self.bias), self.epsilon)?
        {
            return Ok((x, y));
        }
        let x = sum.whole()?;
        let y = self.forward(&x)?;
        Ok((x, y))
    }
}
