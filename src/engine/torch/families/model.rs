//! A whole model, and what an engine asks of its family.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use memmap2::Mmap;
use tch::{Kind, Tensor};

use super::source::ModelSource;
use crate::engine::prompt::Chunk;
use crate::engine::tokenizer::Tokenizer;
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::device::target::Target;
use crate::engine::torch::embeddings::{Embedding, EncoderKeys};
use crate::engine::torch::error::LoadError;
use crate::engine::torch::networks::Networks;
use crate::engine::torch::networks::clip_text::{ClipTextModel, TextInput};
use crate::engine::torch::networks::encoded_text::EncodedText;
use crate::engine::torch::networks::unet::Unet;
use crate::engine::torch::networks::vae::Autoencoder;
use crate::engine::torch::nn::Forward;
use crate::job::{Family, Size};
use crate::sampler::{NoiseSchedule, Sampler};

/// An autoencoder, and the mappings that its tensors look into.
pub(in crate::engine::torch) type LoadedAutoencoder = (Autoencoder, Vec<Arc<Mmap>>);

/// A kind of model: how it is recognised, loaded and told what to draw. The list of them is [`super::FAMILIES`].
pub(in crate::engine::torch) trait ModelFamily: Debug + Sync {
    /// Its name.
    fn family(&self) -> Family;

    /// diffusers' names of its pipelines, as `model_index.json` has them.
    fn pipelines(&self) -> &'static [&'static str];

    /// Whether the model is of this family.
    fn recognise(&self, source: &ModelSource) -> bool;

    /// The weight files of a model folder of this family in the order in which they are read; `half` where it will be in half precision.
    ///
    /// # Errors
    /// One is missing.
    fn weight_files(&self, folder: &Path, half: bool) -> Result<Vec<PathBuf>, LoadError>;

    /// Loads a model that it recognised. `clip_tokenizer` is for checkpoints, which bring none.
    ///
    /// # Errors
    /// [`LoadError`] names the file and the tensor or key that is at fault.
    fn load(
        &'static self,
        source: ModelSource,
        clip_tokenizer: &Path,
        target: Target,
        context: &DeviceContext,
    ) -> Result<Model, LoadError>;

    /// Loads the autoencoder of such a model alone, to compute in `kind`.
    ///
    /// # Errors
    /// As for [`Self::load`].
    fn load_autoencoder(
        &self,
        source: ModelSource,
        kind: Kind,
        context: &DeviceContext,
    ) -> Result<LoadedAutoencoder, LoadError>;

    /// What the text encoders of `networks` make of a chunk of a prompt, which is there for each of them and has vectors of `embeddings`;
    /// `clip_skip` of their layers are left out at the end, beyond [`Self::unused_layers`].
    ///
    /// # Errors
    /// libtorch's.
    fn encode(
        &self,
        networks: &Networks,
        chunk: &[Chunk],
        embeddings: &[Rc<Embedding>],
        clip_skip: u32,
        context: &DeviceContext,
    ) -> Forward<EncodedText>;

    /// Layers at the end of its text encoders whose states no UNet is told.
    fn unused_layers(&self) -> u32;

    /// What the UNet is told beside the pooled text of `prompt`, for a picture of this size; none where it is told nothing.
    fn numbers(&self, size: Size, prompt: PromptKind) -> Vec<f32>;

    /// What files of textual inversions call the vectors for each of its text encoders.
    fn embedding_keys(&self) -> EncoderKeys;

    /// What LoRA files begin the names of its modules with.
    fn lora_prefixes(&self) -> LoraPrefixes;

    /// Height and width of the latents of a picture of the size that its models are made for.
    fn usual_latents(&self) -> [usize; 2];
}

/// A text of classifier-free guidance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine::torch) enum PromptKind {
    /// What to draw.
    Positive,
    /// What to keep away from.
    Negative,
}

/// Prefixes of all parts that a LoRA may change.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine::torch) struct LoraPrefixes {
    pub(in crate::engine::torch) unet: PartPrefixes,
    /// In the order of the text encoders.
    pub(in crate::engine::torch) text_encoders: &'static [PartPrefixes],
}

/// Prefixes of one part.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine::torch) struct PartPrefixes {
    /// diffusers' name of the part, under which PEFT keeps its settings.
    pub(in crate::engine::torch) part: &'static str,
    /// kohya's, whose names have `_` instead of dots, the likeliest first.
    pub(in crate::engine::torch) flat: &'static [&'static str],
    /// diffusers' and PEFT's, the likeliest first.
    pub(in crate::engine::torch) dotted: &'static [&'static str],
}

impl PartPrefixes {
    /// Whether one of them begins with `mark`.
    pub(in crate::engine::torch) fn has(&self, mark: &str) -> bool {
        self.flat.iter().chain(self.dotted).any(|prefix| prefix.starts_with(mark))
    }
}

/// A model, ready to draw.
#[derive(Debug)]
pub struct Model {
    pub(in crate::engine::torch) family: &'static dyn ModelFamily,
    /// One for each text encoder.
    pub(in crate::engine::torch) tokenizers: Vec<Tokenizer>,
    pub(in crate::engine::torch) text_encoders: Vec<ClipTextModel>,
    pub(in crate::engine::torch) unet: Unet,
    pub(in crate::engine::torch) vae: Rc<Autoencoder>,
    pub(in crate::engine::torch) schedule: Rc<NoiseSchedule>,
    /// That of its scheduler file, if it is one of ours.
    pub(in crate::engine::torch) sampler: Option<Sampler>,
    /// Whether a negative prompt that is not there is all zeros to the UNet, or the empty prompt.
    pub(in crate::engine::torch) zeros_for_no_negative: bool,
    pub(in crate::engine::torch) target: Target,
    /// Folder or file.
    pub(in crate::engine::torch) path: PathBuf,
    /// Tensors look into these; they go last.
    pub(in crate::engine::torch) maps: Vec<Arc<Mmap>>,
}

impl Model {
    /// Multiplications (each with an addition) of an evaluation of the UNet with this guidance scale, on an image of `size`; norms and
    /// activations are left out.
    pub fn multiplications(&self, size: Size, guidance_scale: f64) -> u64 {
        let side = |pixels: u32| u64::from(pixels / self.vae.factor());
        let rows = if self.unet.evaluates_negative(guidance_scale) { 2 } else { 1 };
        rows * self.unet.multiplications(side(size.height), side(size.width), self.tokens())
    }

    /// First text encoder: token ids `[batch, length]` (i64) to states `[batch, length, width]`.
    ///
    /// # Errors
    /// libtorch's: shapes that do not fit, or no memory.
    pub fn encode_text(&self, ids: &Tensor) -> Forward {
        self.text_encoders[0].forward(&TextInput::of(ids), 0)
    }

    /// What all text encoders make of a prompt; `tokens` are ids for each of them.
    ///
    /// # Errors
    /// libtorch's: shapes that do not fit, or no memory.
    pub fn encode_prompt(&self, tokens: &[Vec<i64>]) -> Forward<EncodedText> {
        let chunk: Vec<Chunk> = tokens.iter().cloned().map(Chunk::plain).collect();
        self.family.encode(&self.networks(), &chunk, &[], 0, &DeviceContext::plain(self.target.device))
    }

    /// UNet: latents `[batch, channels, height, width]`, one timestep a row, what is told of the text `[batch, …]`, and, of a family
    /// whose UNet is told them, as many numbers a row, one row after the other; gives the predicted noise in the shape of the latents. A UNet that is told the guidance
    /// scale is told 1.
    ///
    /// # Errors
    /// libtorch's: shapes that do not fit, or no memory.
    pub fn predict_noise(&self, latents: &Tensor, timesteps: &[f64], text: &EncodedText, numbers: &[f32]) -> Forward {
        let context = DeviceContext::plain(self.target.device);
        let conditioning = text.condition(&self.unet, numbers, &context)?;
        self.unet.forward(latents, &self.unet.embed_times(timesteps, 1.0, &context)?, &conditioning)
    }

    /// Autoencoder, latents in its own scale to pixels around -1 to 1, not clamped.
    ///
    /// # Errors
    /// libtorch's: shapes that do not fit, or no memory.
    pub fn decode_latents(&self, latents: &Tensor) -> Forward {
        self.vae.decode_raw(latents)
    }

    /// Autoencoder, pixels to latents in its own scale; of a KL autoencoder the mean.
    ///
    /// # Errors
    /// libtorch's: shapes that do not fit, or no memory.
    pub fn encode_pixels(&self, pixels: &Tensor) -> Forward {
        self.vae.encode_raw(pixels)
    }

    /// Has the autoencoder take what has more latents a side than `side`, a multiple of 4, in tiles of it (diffusers' `enable_tiling`).
    pub fn tile_autoencoder(&self, side: i64) {
        self.vae.use_tiles(side);
    }

    /// Where it computes and in what.
    pub fn target(&self) -> Target {
        self.target
    }

    /// Tokens of a prompt, begin and end included.
    pub(in crate::engine::torch) fn tokens(&self) -> u64 {
        self.tokenizers.first().map_or(0, |tokenizer| tokenizer.max_length() as u64)
    }

    /// Layers that a job may leave out at the end of all text encoders.
    pub(in crate::engine::torch) fn most_skipped(&self) -> u32 {
        let layers = self.text_encoders.iter().map(ClipTextModel::depth).min();
        layers.unwrap_or(0).saturating_sub(self.family.unused_layers())
    }

    /// The size of a picture that models of its family are made for.
    pub(in crate::engine::torch) fn usual_size(&self) -> Size {
        let [height, width] = self.family.usual_latents().map(|side| side as u32 * self.vae.factor());
        Size { width, height }
    }

    /// What lanes draw with where no LoRA changes it.
    pub(in crate::engine::torch) fn networks(&self) -> Networks {
        Networks {
            number: 0,
            text_encoders: self.text_encoders.clone(),
            unet: self.unet.clone(),
            embeddings: Vec::new(),
        }
    }
}
