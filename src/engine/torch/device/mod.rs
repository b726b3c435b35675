//! Devices: where to compute and in what numbers, and what a CPU and a GPU can do beyond that.

pub mod async_work;
pub(in crate::engine::torch) mod context;
pub mod cpu;
pub mod cuda;
pub(in crate::engine::torch) mod layout;
#[cfg(test)]
pub(in crate::engine::torch) mod random;
pub mod rates;
pub mod target;
pub(in crate::engine::torch) mod threads;

pub use target::{Target, each, expects_half, libtorch, multiplies_bf16};
