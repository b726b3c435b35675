//! Standard normals as tensors.

use tch::Tensor;

use super::error::Forward;
use crate::noise::TorchRng;

/// Standard normals on the processor, as the reference draws them there, in `shape`.
pub(super) fn draw(noise: &mut TorchRng, shape: &[i64]) -> Forward {
    let count: i64 = shape.iter().product();
    Tensor::f_from_slice(&noise.randn(count as usize))?.f_reshape(shape)
}
