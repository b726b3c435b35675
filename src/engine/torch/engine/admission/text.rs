//! A job's prompts: tokenized, brought to one length, and encoded.

use std::rc::Rc;
use std::time::Instant;

use super::{Admission, invalid};
use crate::engine::prompt::{self, Chunk, NamedEmbedding, Plain};
use crate::engine::torch::denoise::conditioning_cache::{Prompt, PromptText};
use crate::engine::torch::denoise::stage::Guidance;
use crate::engine::torch::embeddings::Embedding;
use crate::engine::torch::engine::failed;
use crate::engine::torch::families::{Model, PromptKind};
use crate::engine::torch::networks::Networks;
use crate::engine::torch::networks::conditioning::Conditioning;
use crate::job::prompt::{Emphasized, emphasized};
use crate::job::{JobError, PromptSyntax};

/// Characters of a prompt that a warning quotes.
const MOST_QUOTED: usize = 200;

/// A text of guidance, and the field that it comes from; no text is all zeros.
type Text<'a> = (&'static str, Option<&'a str>, PromptKind);

impl Admission<'_> {
    /// What the prompts are to `networks`, which are of `model`. So many layers are left out at the end of its text encoders.
    pub(super) fn guidance(
        &mut self,
        model: &Model,
        networks: &Networks,
        negative: Option<&str>,
        (scale, clip_skip): (f64, u32),
    ) -> Result<Guidance, JobError> {
        let began = Instant::now();
        let most = model.most_skipped();
        if clip_skip > most {
            let layers = if most == 1 { "layer is" } else { "layers are" };
            let told =
                format!("clip_skip = {clip_skip}: of this model's text encoders at most {most} {layers} left out");
            return Err(invalid("clip_skip", told));
        }
        let positive = ("prompt", Some(self.spec.prompt.as_str()), PromptKind::Positive);
        let mut positive = self.prompt(model, networks, positive, clip_skip)?;
        let mut negative_prompt = None;
        if networks.unet.evaluates_negative(scale) {
            let skipped = if self.spec.prompt_syntax == PromptSyntax::Weighted { clip_skip } else { 0 };
            let text = ("negative_prompt", negative, PromptKind::Negative);
            let mut negative = self.prompt(model, networks, text, skipped)?;
            let chunks = positive.text.chunks().max(negative.text.chunks());
            let empty = || model.tokenizers.iter().map(Chunk::empty).collect();
            positive.text.extend(chunks, empty);
            negative.text.extend(chunks, empty);
            negative_prompt = Some(negative);
        }
        let positive = self.encode(model, networks, positive)?;
        let negative = match negative_prompt {
            Some(prompt) => Some((self.encode(model, networks, prompt)?, scale)),
            None => None,
        };
        self.text += began.elapsed();
        Ok(Guidance { positive, negative })
    }

    /// A text for a picture of the job's size.
    fn prompt(
        &mut self,
        model: &Model,
        networks: &Networks,
        (field, text, kind): Text,
        clip_skip: u32,
    ) -> Result<Prompt, JobError> {
        let (text, embeddings) = match text {
            None => (PromptText::Zeros(1), Vec::new()),
            Some(text) => self.tokenize((model, networks), field, text)?,
        };
        let numbers = model.family.numbers(self.spec.size, kind);
        Ok(Prompt { networks: networks.number, text, embeddings, clip_skip, numbers })
    }

    fn encode(&mut self, model: &Model, networks: &Networks, prompt: Prompt) -> Result<Rc<Conditioning>, JobError> {
        self.prompts.encode(model, networks, prompt, (self.context, self.offload)).map_err(failed)
    }

    /// The chunks of `text`, each for every text encoder, and the embeddings that it names.
    fn tokenize(
        &mut self,
        (model, networks): (&Model, &Networks),
        field: &str,
        text: &str,
    ) -> Result<(PromptText, Vec<Rc<Embedding>>), JobError> {
        let wrong = |cause: &dyn std::fmt::Display| invalid(field, format!("{field} {cause}"));
        let weighted = self.spec.prompt_syntax == PromptSyntax::Weighted;
        let parts = if weighted { emphasized(text).map_err(|cause| wrong(&cause))? } else { Vec::new() };
        let texts: Vec<&str> = if weighted { parts.iter().filter_map(Emphasized::text).collect() } else { vec![text] };
        let widths = networks.text_widths().map_err(failed)?;
        let encoders = (model.family.embedding_keys(), widths.as_slice());
        let embeddings = self.embeddings.used(&texts, &networks.embeddings, encoders)?;
        let names: Vec<NamedEmbedding> = embeddings.iter().map(|embedding| embedding.named()).collect();
        let chunks = if weighted {
            let chunks = |tokenizer| prompt::weighted(tokenizer, &parts, &names).map_err(|cause| wrong(&cause));
            aligned(model, &model.tokenizers.iter().map(chunks).collect::<Result<Vec<_>, _>>()?)
        } else {
            let wrong = |cause| invalid(field, format!("{field}: {cause}"));
            let plain = |tokenizer| prompt::plain(tokenizer, text, &names).map_err(wrong);
            let plain: Vec<Plain> = model.tokenizers.iter().map(plain).collect::<Result<_, _>>()?;
            self.warn_of_cut(field, text, &plain);
            vec![plain.into_iter().map(|plain| plain.chunk).collect()]
        };
        Ok((PromptText::Chunks(chunks), embeddings))
    }

    /// Tells what a plain text lost, once.
    fn warn_of_cut(&mut self, field: &str, text: &str, plain: &[Plain]) {
        let Some((first, cut)) = plain.iter().find_map(|plain| Some((plain, plain.cut?))) else { return };
        let (total, kept) = (first.total, first.chunk.ids.len());
        let left_out: String = text[cut..].chars().take(MOST_QUOTED).collect();
        let warning = format!("{field} has {total} tokens and was cut at {kept}; left out: {left_out:?}");
        // A refiner reads the same text.
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }
}

/// The chunks of each text encoder as chunks for all of them: two tokenizers may take a text apart in different ways.
fn aligned(model: &Model, encoders: &[Vec<Chunk>]) -> Vec<Vec<Chunk>> {
    let most = encoders.iter().map(Vec::len).max().unwrap_or(0);
    let chunk = |number: usize| {
        let encoders = encoders.iter().zip(&model.tokenizers);
        let chunk = |(chunks, tokenizer): (&Vec<Chunk>, _)| {
            chunks.get(number).cloned().unwrap_or_else(|| Chunk::empty(tokenizer))
        };
        encoders.map(chunk).collect()
    };
    (0..most).map(chunk).collect()
}
