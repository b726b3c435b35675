//! LoRA (Hu et al. 2021): low-rank changes of a model, merged into copies of the weights that they touch.

mod adapters;
mod apply;
mod file;
mod names;
mod notes;

pub(in crate::engine::torch) use adapters::Adapters;
