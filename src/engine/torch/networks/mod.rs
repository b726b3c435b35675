//! Networks that any family may use.

pub(in crate::engine::torch) mod clip_text;
pub(in crate::engine::torch) mod conditioning;
pub(in crate::engine::torch) mod encoded_text;
pub(in crate::engine::torch) mod unet;
pub(in crate::engine::torch) mod vae;

use std::rc::Rc;

use self::clip_text::ClipTextModel;
use self::unet::Unet;
use crate::engine::torch::embeddings::Embedding;
use crate::engine::torch::error::Forward;

/// The parts of a model that a LoRA changes, as the model has them or changed.
#[derive(Debug)]
pub(in crate::engine::torch) struct Networks {
    /// Theirs alone for as long as the engine lives.
    pub(in crate::engine::torch) number: u64,
    /// In the order of the family.
    pub(in crate::engine::torch) text_encoders: Vec<ClipTextModel>,
    pub(in crate::engine::torch) unet: Unet,
    /// Textual inversions that came with a LoRA.
    pub(in crate::engine::torch) embeddings: Vec<Rc<Embedding>>,
}

impl Networks {
    /// Width of the states of each text encoder.
    pub(in crate::engine::torch) fn text_widths(&self) -> Forward<Vec<i64>> {
        self.text_encoders.iter().map(|encoder| Ok(encoder.shape()?[1])).collect()
    }
}
