//! Families: how a kind of model is recognised, loaded and fed. The one list of them.

pub(in crate::engine::torch) mod sd1;

pub use sd1::model::Model;
