//! SD v1: one CLIP text encoder, a UNet that takes its last state.

pub(in crate::engine::torch) mod model;
pub(in crate::engine::torch) mod names;
mod single_file;
mod upcast;
