//! From noise to latents: lanes, the rows of an evaluation, and the graphs that it is replayed from.

pub(in crate::engine::torch) mod conditioning_cache;
pub mod graphs;
pub(in crate::engine::torch) mod init_image;
pub(in crate::engine::torch) mod lane;
pub(in crate::engine::torch) mod stage;
pub(in crate::engine::torch) mod unet_batch;
