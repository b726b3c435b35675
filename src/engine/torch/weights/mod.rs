//! What a model is on disk: tensors in safetensors files, and the configuration beside them.

pub(in crate::engine::torch) mod config;
pub(in crate::engine::torch) mod files;
mod source;
pub(in crate::engine::torch) mod state;
