//! Prompts: text to what the UNet needs of it, remembered for the next job with the same words.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::error::TorchError;
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
    /// Ids for each text encoder; none of a prompt that is all zeros to the UNet.
    pub(in crate::engine::torch) tokens: Option<Vec<Vec<i64>>>,
    /// What the UNet is told beside its pooled state.
    pub(in crate::engine::torch) numbers: Vec<f32>,
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
            let text = if let Some(tokens) = &prompt.tokens {
                let encode = || Ok(model.family.encode(networks, tokens, context)?);
                offload.with(MovablePart::TextEncoders(networks.number), encode)?
            } else {
                let tokens = model.tokens() as i64;
                EncodedText::zeros(&networks.unet, tokens, prompt.numbers.len(), model.target.device)?
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
