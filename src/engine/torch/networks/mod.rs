//! Networks that any family may use.

pub(in crate::engine::torch) mod clip_text;
pub(in crate::engine::torch) mod conditioning;
pub(in crate::engine::torch) mod encoded_text;
pub(in crate::engine::torch) mod offload;
pub(in crate::engine::torch) mod unet;
pub(in crate::engine::torch) mod vae;

use std::collections::HashSet;
use std::rc::Rc;

use self::clip_text::ClipTextModel;
use self::unet::Unet;
use crate::engine::torch::embeddings::Embedding;
use crate::engine::torch::error::Forward;
use crate::engine::torch::nn::WeightMemory;

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

    /// Where all weights lie that a LoRA may change.
    pub(in crate::engine::torch) fn memories(&self) -> Vec<Rc<WeightMemory>> {
        // Weights are reached by who may change them: clones are, and share their memory.
        let (mut text_encoders, mut unet) = (self.text_encoders.clone(), self.unet.clone());
        let weights = text_encoders.iter_mut().flat_map(ClipTextModel::weights).chain(unet.weights());
        weights.map(|weight| Rc::clone(weight.memory())).collect()
    }

    /// Bytes of the weights that `other` does not share.
    pub(in crate::engine::torch) fn bytes_beside(&self, other: &Self) -> usize {
        let shared: HashSet<_> = other.memories().iter().map(Rc::as_ptr).collect();
        let own = self.memories().into_iter().filter(|memory| !shared.contains(&Rc::as_ptr(memory)));
        own.map(|memory| memory.bytes()).sum()
    }
}
