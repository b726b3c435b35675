//! The networks that a lane draws with.

use super::text::TextEncoder;
use super::unet::Unet;

/// The parts of a model that a LoRA changes, as the model has them or changed.
#[derive(Debug)]
pub(super) struct Networks {
    /// Theirs alone for as long as the engine lives.
    pub(super) number: u64,
    pub(super) text: TextEncoder,
    pub(super) unet: Unet,
}
