//! Prompts: text to what the UNet needs of it, remembered for the next job with the same words.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::error::Forward;
use crate::engine::torch::families::ModelFamily;
use crate::engine::torch::networks::Networks;
use crate::engine::torch::networks::conditioning::Conditioning;

/// Prompts that are remembered. Of SD 1.5 in f16 one takes 4 MB; the empty negative prompt nearly always hits.
const MAX_PROMPTS: usize = 16;

/// Which networks read it, its tokens for each text encoder, and what came of it.
type Known = (u64, Vec<Vec<i64>>, Rc<Conditioning>);

/// A least-recently-used store of encoded prompts.
#[derive(Debug, Default)]
pub(in crate::engine::torch) struct ConditioningCache {
    known: VecDeque<Known>,
}

impl ConditioningCache {
    /// What a prompt of these `tokens`, one list a text encoder, is to `networks`, which are of `family`.
    pub(in crate::engine::torch) fn encode(
        &mut self,
        family: &dyn ModelFamily,
        networks: &Networks,
        tokens: Vec<Vec<i64>>,
        context: &DeviceContext,
    ) -> Forward<Rc<Conditioning>> {
        let found = self.known.iter().position(|(number, ids, _)| *number == networks.number && *ids == tokens);
        let entry = if let Some(entry) = found.and_then(|at| self.known.remove(at)) {
            entry
        } else {
            let conditioning = Rc::new(family.condition(networks, &tokens, context)?);
            (networks.number, tokens, conditioning)
        };
        self.known.truncate(MAX_PROMPTS - 1);
        let conditioning = Rc::clone(&entry.2);
        self.known.push_front(entry);
        Ok(conditioning)
    }
}
