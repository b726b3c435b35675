//! What a convolution made, before its bias is added: on a GPU whoever comes next reads the image anyway and adds it for nothing.

use tch::Tensor;

use super::Forward;
use crate::engine::torch::device::cuda::kernels;

/// An image, `[batch, channels, height, width]`; not shared, if something is still to be added.
#[derive(Debug)]
pub(in crate::engine::torch) struct PendingBias<'a> {
    pub(super) image: Tensor,
    /// What is still to be added, `[channels]`.
    pub(super) bias: Option<&'a Tensor>,
}

impl PendingBias<'_> {
    /// With all that is added.
    pub(super) fn whole(self) -> Forward {
        let Self { mut image, bias } = self;
        let Some(bias) = bias else { return Ok(image) };
        if let Some(kernels) = kernels::suiting(&image)
            && let Some(sum) = kernels.add_residual(&image, None, bias, None)?
        {
            return Ok(sum);
        }
        image.f_add_(&bias.f_reshape([1, -1, 1, 1])?)
    }

    /// And `more` besides.
    pub(in crate::engine::torch) fn plus(self, more: &PendingBias) -> Forward {
        if let (Some(bias), Some(kernels)) = (self.bias, kernels::suiting(&self.image))
            && let Some(sum) = kernels.add_residual(&self.image, Some(&more.image), bias, more.bias)?
        {
            return Ok(sum);
        }
        let mut sum = self.whole()?.f_add_(&more.image)?;
        match more.bias {
            Some(bias) => sum.f_add_(&bias.f_reshape([1, -1, 1, 1])?),
            None => Ok(sum),
        }
    }
}

/// An image as it is.
impl From<&Tensor> for PendingBias<'_> {
    fn from(image: &Tensor) -> Self {
        Self { image: image.shallow_clone(), bias: None }
    }
}
