//! From latents to pictures, beside the evaluations of other lanes where the device can; and previews.

mod blocking;
mod fake;
pub(in crate::engine::torch) mod picture;
pub(in crate::engine::torch) mod preview;
pub(in crate::engine::torch) mod queue;

pub use fake::{DecodeCounters, FakeDecoder};
