//! Numbers for tests. libtorch has one generator for a process, from which tests that run side by side draw each other's.

use tch::{Kind, Tensor};

use crate::noise::TorchRng;

/// Standard normals, the same of the same seed.
pub(in crate::engine::torch) fn normal(seed: u64, shape: &[i64], kind: Kind) -> Tensor {
    let numbers = TorchRng::new(seed).randn(shape.iter().product::<i64>() as usize);
    Tensor::from_slice(&numbers).reshape(shape).to_kind(kind)
}
