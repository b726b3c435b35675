//! The engine on libtorch: SD v1 models of any size, evaluated for many images at once.
//!
//! Every image is a lane. An evaluation takes the lanes that [`crate::batch`] chooses, makes one call of the UNet for
//! all of them, and lets each lane apply its own row of its own sampler's table: jobs with other samplers, steps, seeds
//! and guidance share the call, and come and go between calls.

pub mod async_work;
mod canvas;
mod config;
pub mod cuda;
pub mod developing;
pub mod device;
mod error;
pub mod graphs;
mod lane;
mod lanes;
mod lora;
mod model;
mod names;
mod networks;
mod nn;
mod picture;
mod place;
mod preview;
pub mod processor;
mod prompts;
#[cfg(test)]
mod random;
pub mod rates;
mod rows;
mod single_file;
mod text;
mod threads;
mod unet;
mod upcast;
mod vae;
mod weights;

pub use device::{DeviceError, Target};
pub use error::LoadError;
pub use lanes::Lanes;
pub use model::Model;
pub use preview::Pace;
