//! LoRA (Hu et al. 2021): low-rank changes of a model, merged into copies of the weights that they touch.

mod apply;
mod cache;
mod file;
mod names;
mod peft;

pub(in crate::engine::torch) use cache::LoraCache;
