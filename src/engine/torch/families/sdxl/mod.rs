//! SDXL (Podell et al. 2023): two CLIP text encoders side by side, a UNet that is also told the pooled text and sizes, and pictures of
//! 1024×1024. Its refiner, which goes on with the base model's latents, has the second text encoder alone, and is told how beautiful the
//! picture is to be.

mod encode;
mod load;
mod single_file;

use std::path::{Path, PathBuf};
use std::rc::Rc;

use tch::Kind;

use super::model::{LoadedAutoencoder, LoraPrefixes, Model, ModelFamily, PartPrefixes, PromptKind};
use super::part;
use super::source::ModelSource;
use super::{folder, parts_fit};
use crate::engine::prompt::Chunk;
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::device::target::Target;
use crate::engine::torch::embeddings::{Embedding, EncoderKeys};
use crate::engine::torch::error::{Forward, LoadError};
use crate::engine::torch::networks::Networks;
use crate::engine::torch::networks::encoded_text::EncodedText;
use crate::job::{Family, ModelRole, Size};

/// What a refiner is told of how beautiful the picture is to be, 0 to 10, with the prompt and with the negative prompt (diffusers'
/// `aesthetic_score` and `negative_aesthetic_score`).
const AESTHETIC_SCORES: [f32; 2] = [6.0, 2.5];

/// The base model of Stable Diffusion XL and what was trained from it.
pub(super) static BASE_MODEL: Sdxl = Sdxl(ModelRole::Base);

/// Its refiner.
pub(super) static REFINER_MODEL: Sdxl = Sdxl(ModelRole::Refiner);

/// Stable Diffusion XL.
#[derive(Debug)]
pub(super) struct Sdxl(ModelRole);

impl ModelFamily for Sdxl {
    fn family(&self) -> Family {
        match self.0 {
            ModelRole::Base => Family::Sdxl,
            ModelRole::Refiner => Family::SdxlRefiner,
        }
    }

    fn pipelines(&self) -> &'static [&'static str] {
        &["StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"]
    }

    fn recognise(&self, source: &ModelSource) -> bool {
        match source {
            ModelSource::Folder { index, .. } => {
                let stage = if index.is_without("text_encoder") { ModelRole::Refiner } else { ModelRole::Base };
                index.word("_class_name", self.pipelines()).is_ok() && self.0 == stage
            }
            ModelSource::File { weights, .. } => single_file::is_whole(weights, self.family()),
        }
    }

    fn weight_files(&self, folder: &Path, half: bool) -> Result<Vec<PathBuf>, LoadError> {
        let kind = if half { Kind::Half } else { Kind::Float };
        part::files(&load::Parts::of(folder, self.0, kind)?.all(), folder)
    }

    fn load(
        &'static self,
        source: ModelSource,
        clip_tokenizer: &Path,
        target: Target,
        context: &DeviceContext,
    ) -> Result<Model, LoadError> {
        let model = match source {
            ModelSource::Folder { path, index } => load::model((self, self.0), path, &index, target, context)?,
            ModelSource::File { path, weights } => {
                single_file::model((self, self.0), path, weights, clip_tokenizer, target)?
            }
        };
        parts_fit::check(&model)?;
        Ok(model)
    }

    fn load_autoencoder(
        &self,
        source: ModelSource,
        kind: Kind,
        context: &DeviceContext,
    ) -> Result<LoadedAutoencoder, LoadError> {
        match source {
            ModelSource::Folder { path, .. } => folder::autoencoder_alone(&path, kind, context),
            ModelSource::File { weights, .. } => single_file::autoencoder_alone(weights, kind),
        }
    }

    fn encode(
        &self,
        networks: &Networks,
        chunk: &[Chunk],
        embeddings: &[Rc<Embedding>],
        clip_skip: u32,
        context: &DeviceContext,
    ) -> Forward<EncodedText> {
        encode::encode(networks, (chunk, embeddings), self.unused_layers() + clip_skip, context)
    }

    fn unused_layers(&self) -> u32 {
        1
    }

    /// The size of the picture that it was trained to take this for, where its upper left corner was cut out, and the size that it is to
    /// have; each first down, then right. A refiner is told the aesthetic score in place of the last.
    fn numbers(&self, size: Size, prompt: PromptKind) -> Vec<f32> {
        let [height, width] = [size.height, size.width].map(|side| side as f32);
        let told = vec![height, width, 0.0, 0.0];
        match (self.0, prompt) {
            (ModelRole::Base, _) => [told, vec![height, width]].concat(),
            (ModelRole::Refiner, PromptKind::Positive) => [told, vec![AESTHETIC_SCORES[0]]].concat(),
            (ModelRole::Refiner, PromptKind::Negative) => [told, vec![AESTHETIC_SCORES[1]]].concat(),
        }
    }

    fn embedding_keys(&self) -> EncoderKeys {
        match self.0 {
            ModelRole::Base => &[&["clip_l"], &["clip_g"]],
            ModelRole::Refiner => &[&["clip_g"]],
        }
    }

    fn lora_prefixes(&self) -> LoraPrefixes {
        LoraPrefixes {
            unet: PartPrefixes { part: "unet", flat: &["lora_unet"], dotted: &["unet.", ""] },
            text_encoders: &[
                PartPrefixes {
                    part: "text_encoder",
                    flat: &["lora_te1_text_model"],
                    dotted: &["text_encoder.text_model.", "text_encoder."],
                },
                PartPrefixes {
                    part: "text_encoder_2",
                    // Beside `text_model` is the projection to the pooled text.
                    flat: &["lora_te2_text_model", "lora_te2"],
                    dotted: &["text_encoder_2.text_model.", "text_encoder_2."],
                },
            ],
        }
    }

    fn usual_latents(&self) -> [usize; 2] {
        [128, 128]
    }
}
