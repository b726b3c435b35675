//! SD v1 (Rombach et al. 2022): one CLIP text encoder, a UNet that takes its last state, and pictures of 512×512.

mod load;
mod single_file;

use std::path::{Path, PathBuf};
use std::rc::Rc;

use tch::Kind;

use super::folder;
use super::model::{LoadedAutoencoder, LoraPrefixes, Model, ModelFamily, PartPrefixes, PromptKind};
use super::part;
use super::source::ModelSource;
use crate::engine::prompt::Chunk;
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::device::target::Target;
use crate::engine::torch::embeddings::{Embedding, EncoderKeys, text_input};
use crate::engine::torch::error::{Forward, LoadError};
use crate::engine::torch::networks::Networks;
use crate::engine::torch::networks::encoded_text::{EncodedText, emphasize};
use crate::job::{Family, Size};

/// Stable Diffusion 1.x and what was trained from it.
#[derive(Debug)]
pub(super) struct Sd1;

const LORA_PREFIXES: LoraPrefixes = LoraPrefixes {
    unet: PartPrefixes { part: "unet", flat: &["lora_unet"], dotted: &["unet.", ""] },
    text_encoders: &[PartPrefixes {
        part: "text_encoder",
        flat: &["lora_te_text_model"],
        dotted: &["text_encoder.text_model.", "text_encoder."],
    }],
};

impl ModelFamily for Sd1 {
    fn family(&self) -> Family {
        Family::Sd1
    }

    fn pipelines(&self) -> &'static [&'static str] {
        &["StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"]
    }

    fn recognise(&self, source: &ModelSource) -> bool {
        match source {
            ModelSource::Folder { index, .. } => index.word("_class_name", self.pipelines()).is_ok(),
            ModelSource::File { weights, .. } => single_file::is_whole(weights),
        }
    }

    fn weight_files(&self, folder: &Path, half: bool) -> Result<Vec<PathBuf>, LoadError> {
        let kind = if half { Kind::Half } else { Kind::Float };
        part::files(&load::parts(kind), folder)
    }

    fn load(
        &'static self,
        source: ModelSource,
        clip_tokenizer: &Path,
        target: Target,
        context: &DeviceContext,
    ) -> Result<Model, LoadError> {
        load::model(self, source, clip_tokenizer, target, context)
    }

    fn load_autoencoder(
        &self,
        source: ModelSource,
        kind: Kind,
        context: &DeviceContext,
    ) -> Result<LoadedAutoencoder, LoadError> {
        match source {
            ModelSource::Folder { path, .. } => folder::autoencoder_alone(&path, kind, context),
            ModelSource::File { weights, .. } => load::file_autoencoder(weights, kind),
        }
    }

    /// The last state of its one text encoder, or an earlier one, after the final norm.
    fn encode(
        &self,
        networks: &Networks,
        chunk: &[Chunk],
        embeddings: &[Rc<Embedding>],
        clip_skip: u32,
        context: &DeviceContext,
    ) -> Forward<EncodedText> {
        let input = text_input(&chunk[0], 0, embeddings, context)?;
        let states = networks.text_encoders[0].forward(&input, clip_skip)?;
        Ok(EncodedText { states: emphasize(states, &chunk[0].weights, context)?, pooled: None })
    }

    fn unused_layers(&self) -> u32 {
        0
    }

    fn numbers(&self, _: Size, _: PromptKind) -> Vec<f32> {
        Vec::new()
    }

    fn embedding_keys(&self) -> EncoderKeys {
        &[&["emb_params", "string_to_param.*", "clip_l"]]
    }

    fn lora_prefixes(&self) -> LoraPrefixes {
        LORA_PREFIXES
    }

    fn usual_latents(&self) -> [usize; 2] {
        [64, 64]
    }
}
