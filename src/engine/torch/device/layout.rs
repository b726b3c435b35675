//! The order in which tensors lie in memory.

use tch::Tensor;

use crate::engine::torch::error::Forward;

/// The same values with channels adjacent in memory, the layout that convolutions are fastest in. tch has no memory
/// formats, so the strides are made by hand.
pub(in crate::engine::torch) fn channels_last(x: &Tensor) -> Forward {
    x.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])
}
