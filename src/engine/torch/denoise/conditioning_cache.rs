//! Prompts: text to what the UNet needs of it, remembered for the next job with the same words.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::engine::prompt::Chunk;
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::embeddings::Embedding;
use crate::engine::torch::error::{Forward, TorchError};
use crate::engine::torch::families::Model;
use crate::engine::torch::networks::Networks;
use crate::engine::torch::networks::conditioning::Conditioning;
use crate::engine::torch::networks::encoded_text::EncodedText;
use crate::engine::torch::networks::offload::{MovablePart, Offload};

/// Prompts that are remembered; the empty negative prompt nearly always hits.
const MAX_PROMPTS: usize = 16;

/// Bytes of all of them, beyond the last. Of SD 1.5 in f16 a prompt takes 4 MB, of SDXL 26.
const MAX_BYTES: usize = 128 << 20;

/// A prompt, and whom it is for.
#[derive(Debug, PartialEq)]
pub(in crate::engine::torch) struct Prompt {
    /// Which networks read it.
    pub(in crate::engine::torch) networks: u64,
    /// What it says.
    pub(in crate::engine::torch) text: PromptText,
    /// Whose vectors it has.
    pub(in crate::engine::torch) embeddings: Vec<Rc<Embedding>>,
    /// Layers that are left out at the end of the text encoders.
    pub(in crate::engine::torch) clip_skip: u32,
    /// What the UNet is told beside its pooled state.
    pub(in crate::engine::torch) numbers: Vec<f32>,
}

/// The text of a prompt.
#[derive(Debug, PartialEq)]
pub(in crate::engine::torch) enum PromptText {
    /// None: all zeros to the UNet, as long as so many chunks.
    Zeros(usize),
    /// In order, each for every text encoder.
    Chunks(Vec<Vec<Chunk>>),
}

impl PromptText {
    /// How many chunks it has.
    pub(in crate::engine::torch) fn chunks(&self) -> usize {
        match self {
            Self::Zeros(chunks) => *chunks,
            Self::Chunks(chunks) => chunks.len(),
        }
    }

    /// Makes it so many chunks long, by those that are `empty`.
    pub(in crate::engine::torch) fn extend(&mut self, to: usize, empty: impl Fn() -> Vec<Chunk>) {
        match self {
            Self::Zeros(chunks) => *chunks = to,
            Self::Chunks(chunks) => chunks.resize_with(to, empty),
        }
    }
}

/// A least-recently-used store of encoded prompts.
#[derive(Debug, Default)]
pub(in crate::engine::torch) struct ConditioningCache {
    known: VecDeque<(Prompt, Rc<Conditioning>)>,
}

impl ConditioningCache {
    /// What `prompt` is to `networks`, which are of `model`.
    pub(in crate::engine::torch) fn encode(
        &mut self,
        model: &Model,
        networks: &Networks,
        prompt: Prompt,
        (context, offload): (&DeviceContext, &mut Offload),
    ) -> Result<Rc<Conditioning>, TorchError> {
        let found = self.known.iter().position(|(known, _)| *known == prompt);
        let entry = if let Some(entry) = found.and_then(|at| self.known.remove(at)) {
            entry
        } else {
            let text = match &prompt.text {
                PromptText::Chunks(chunks) => {
                    let encode = |chunk: &Vec<Chunk>| {
                        model.family.encode(networks, chunk, &prompt.embeddings, prompt.clip_skip, context)
                    };
                    let joined = || Ok(EncodedText::joined(chunks.iter().map(encode).collect::<Forward<_>>()?)?);
                    offload.with(MovablePart::TextEncoders(networks.number), joined)?
                }
                PromptText::Zeros(chunks) => {
                    let tokens = *chunks as i64 * model.tokens() as i64;
                    EncodedText::zeros(&networks.unet, tokens, prompt.numbers.len(), model.target.device)?
                }
            };
            let condition = || Ok(text.condition(&networks.unet, &prompt.numbers, context)?);
            let conditioning = offload.with(MovablePart::Unet(networks.number), condition)?;
            (prompt, Rc::new(conditioning))
        };
        let conditioning = Rc::clone(&entry.1);
        self.known.push_front(entry);
        self.known.truncate(MAX_PROMPTS);
        let bytes =
            |known: &VecDeque<(Prompt, Rc<Conditioning>)>| known.iter().map(|(_, one)| one.bytes()).sum::<usize>();
        while self.known.len() > 1 && bytes(&self.known) > MAX_BYTES {
            self.known.pop_back();
        }
        Ok(conditioning)
    }
}
