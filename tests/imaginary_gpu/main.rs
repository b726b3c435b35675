//! latentd on a GPU that is not there: the real program, libtorch's real CUDA half and the real helper, on libraries that do nothing and write
//! down what they are asked for (`native/`). It proves order, choices and counts of calls, neither numbers nor speed.

#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod driver;
mod faults;
mod full_size;
mod gpu;
mod holes;
mod inputs;
mod kernels;
mod log;
mod memory;
mod offload;
mod pictures;
