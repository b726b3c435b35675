//! Networks that any family may use.

pub(in crate::engine::torch) mod clip_text;
pub(in crate::engine::torch) mod conditioning;
pub(in crate::engine::torch) mod encoded_text;
pub(in crate::engine::torch) mod offload;
pub(in crate::engine::torch) mod unet;
pub(in crate::engine::torch) mod vae;

use self::clip_text::ClipTextModel;
use self::unet::Unet;

/// The parts of a model that a LoRA changes, as the model has them or changed.
#[derive(Debug)]
pub(in crate::engine::torch) struct Networks {
    /// Theirs alone for as long as the engine lives.
    pub(in crate::engine::torch) number: u64,
    /// In the order of the family.
    pub(in crate::engine::torch) text_encoders: Vec<ClipTextModel>,
    pub(in crate::engine::torch) unet: Unet,
}
