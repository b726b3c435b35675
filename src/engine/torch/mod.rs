//! The engine on libtorch: models of SD v1 and SDXL of any size, evaluated for many images at once.
//!
//! Every image is a lane. An evaluation takes the lanes that [`crate::batch`] chooses, makes one call of the UNet for
//! all of them, and lets each lane apply its own row of its own sampler's table: jobs with other samplers, steps, seeds
//! and guidance share the call, and come and go between calls.
//!
//! From the bottom up, each using those before it: `error`, `device`, `weights`, `nn`, `embeddings` with `networks`, `families`, `lora`, `denoise`, `decode`,
//! `engine`.

pub mod decode;
pub mod denoise;
pub mod device;
mod embeddings;
mod engine;
mod error;
mod families;
mod lora;
mod networks;
mod nn;
mod weights;

pub use decode::preview::PreviewPace;
pub use device::Target;
pub use engine::TorchEngine;
pub use error::{DeviceError, LoadError};
pub use families::Model;
pub use networks::encoded_text::EncodedText;
