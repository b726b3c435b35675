//! SD v1 from a diffusers folder or a checkpoint.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use memmap2::Mmap;
use serde_json::json;
use tch::Kind;

use super::single_file;
use crate::engine::tokenizer::Tokenizer;
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::device::target::Target;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::families::checkpoint::{self, Layout};
use crate::engine::torch::families::model::{LoadedAutoencoder, Model, ModelFamily};
use crate::engine::torch::families::part::Part;
use crate::engine::torch::families::source::ModelSource;
use crate::engine::torch::families::{folder, parts_fit};
use crate::engine::torch::networks::clip_text::{ClipTextConfig, ClipTextModel};
use crate::engine::torch::networks::unet::{Unet, UnetConfig};
use crate::engine::torch::networks::vae::Autoencoder;
use crate::engine::torch::weights::files::Weights;
use crate::sampler::{NoiseSchedule, Sampler};

/// The parts with weights, in the order in which they are read.
pub(super) const fn parts(kind: Kind) -> [Part; 3] {
    [Part::of_transformers("text_encoder", kind), Part::of_diffusers("unet", kind), Part::of_diffusers("vae", kind)]
}

/// What a model is made of.
struct ModelParts {
    tokenizer: Tokenizer,
    text_encoder: ClipTextModel,
    unet: Unet,
    vae: Autoencoder,
    schedule: NoiseSchedule,
    sampler: Option<Sampler>,
    maps: Vec<Arc<Mmap>>,
}

/// A model of `family` from `source`; `clip_tokenizer` is that of a checkpoint which has none beside it.
pub(super) fn model(
    family: &'static dyn ModelFamily,
    source: ModelSource,
    clip_tokenizer: &Path,
    target: Target,
    context: &DeviceContext,
) -> Result<Model, LoadError> {
    let (parts, path) = match source {
        ModelSource::Folder { path, .. } => (of_folder(&path, target.kind, context)?, path),
        ModelSource::File { path, weights } => (file(&path, weights, clip_tokenizer, target.kind)?, path),
    };
    let model = Model {
        family,
        tokenizers: vec![parts.tokenizer],
        text_encoders: vec![parts.text_encoder],
        unet: parts.unet,
        vae: Rc::new(parts.vae),
        schedule: Rc::new(parts.schedule.for_stable_diffusion()),
        sampler: parts.sampler,
        zeros_for_no_negative: false,
        target,
        path,
        maps: parts.maps,
    };
    parts_fit::check(&model)?;
    Ok(model)
}

/// Those of a folder in diffusers layout.
fn of_folder(path: &Path, kind: Kind, context: &DeviceContext) -> Result<ModelParts, LoadError> {
    let [text_encoder, unet, autoencoder] = parts(kind);
    let (text_encoder, mut maps) = folder::text_encoder(path, text_encoder, context, ClipTextModel::load)?;
    let (unet, unet_maps) = folder::unet(path, unet, context)?;
    let (vae, vae_maps) = folder::autoencoder(path, autoencoder, context)?;
    maps.extend(unet_maps.into_iter().chain(vae_maps));
    let tokenizer = Tokenizer::from_folder(&path.join("tokenizer"))?;
    let (schedule, sampler) = folder::schedule(path)?;
    Ok(ModelParts { tokenizer, text_encoder, unet, vae, schedule, sampler, maps })
}

/// Those of a checkpoint; its tokenizer is one beside it (`tokenizer/`), else `clip_tokenizer`.
fn file(path: &Path, weights: Weights, clip_tokenizer: &Path, kind: Kind) -> Result<ModelParts, LoadError> {
    let layout = Layout::of(&weights);
    let prefix = layout.text_prefix(single_file::CLIP_PREFIX);
    let text_config = ClipTextConfig::read(&layout.text_encoder(&prefix, json!({})))?;
    let unet_config = UnetConfig::read(&single_file::unet(&layout))?;
    let autoencoder_config = single_file::autoencoder(&layout);
    let text = move |name: &str| Some(format!("{prefix}{}", name.strip_prefix("text/")?).into());
    let weights = checkpoint::renamed(weights, &unet_config, &autoencoder_config, text)?;
    let text_encoder = ClipTextModel::load(&weights.part("text/", kind), &text_config)?;
    let unet = Unet::load(&weights.part("unet/", kind), &unet_config)?;
    let vae = Autoencoder::load(&weights.part("vae/", kind), &autoencoder_config)?;
    let beside = path.with_file_name("tokenizer");
    let tokenizer = Tokenizer::from_folder(if beside.is_dir() { &beside } else { clip_tokenizer })?;
    let schedule = NoiseSchedule::from_json(single_file::SD15_SCHEDULER)
        .map_err(|cause| LoadError::Schedule { file: path.to_owned(), cause })?;
    let maps = weights.finish(single_file::harmless)?;
    let sampler = Sampler::of_config(single_file::SD15_SCHEDULER);
    Ok(ModelParts { tokenizer, text_encoder, unet, vae, schedule, sampler, maps })
}

/// The autoencoder of a checkpoint alone.
pub(super) fn file_autoencoder(weights: Weights, kind: Kind) -> Result<LoadedAutoencoder, LoadError> {
    let config = single_file::autoencoder(&Layout::of(&weights));
    checkpoint::autoencoder_alone(weights, &config, kind)
}
