//! SD v1 from a diffusers folder or a checkpoint.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use memmap2::Mmap;
use tch::Kind;

use super::single_file::{self, Layout};
use crate::disk::whole;
use crate::engine::tokenizer::Tokenizer;
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::device::target::Target;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::families::model::{LoadedAutoencoder, Model, ModelFamily};
use crate::engine::torch::families::names;
use crate::engine::torch::families::part::Part;
use crate::engine::torch::families::source::ModelSource;
use crate::engine::torch::networks::clip_text::{ClipTextConfig, ClipTextModel};
use crate::engine::torch::networks::unet::{Unet, UnetConfig};
use crate::engine::torch::networks::vae::Autoencoder;
use crate::engine::torch::weights::config;
use crate::engine::torch::weights::files::Weights;
use crate::sampler::NoiseSchedule;

pub(super) const fn text_encoder(kind: Kind) -> Part {
    Part::of_transformers("text_encoder", kind)
}

pub(super) const fn unet(kind: Kind) -> Part {
    Part::of_diffusers("unet", kind)
}

pub(super) const fn autoencoder(kind: Kind) -> Part {
    Part::of_diffusers("vae", kind)
}

/// What a model is made of.
struct ModelParts {
    tokenizer: Tokenizer,
    text_encoder: ClipTextModel,
    unet: Unet,
    vae: Autoencoder,
    schedule: NoiseSchedule,
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
        ModelSource::Folder { path, .. } => (folder(&path, target.kind, context)?, path),
        ModelSource::File { path, weights } => (file(&path, weights, clip_tokenizer, target.kind)?, path),
    };
    let model = Model {
        family,
        tokenizers: vec![parts.tokenizer],
        text_encoders: vec![parts.text_encoder],
        unet: parts.unet,
        vae: parts.vae,
        schedule: Rc::new(parts.schedule),
        target,
        path,
        maps: parts.maps,
    };
    check_parts_fit(&model)?;
    Ok(model)
}

/// Those of a folder in diffusers layout.
fn folder(folder: &Path, kind: Kind, context: &DeviceContext) -> Result<ModelParts, LoadError> {
    let part = text_encoder(kind);
    let text_weights = part.weights(folder, context)?.renamed(Box::new(names::text_encoder));
    let text_config = ClipTextConfig::read(&part.config(folder)?)?;
    let text_encoder = ClipTextModel::load(&text_weights.root(part.kind), &text_config)?;

    let part = unet(kind);
    let unet_weights = part.weights(folder, context)?;
    let unet_config = part.config(folder)?;
    unet_config.word("_class_name", &["UNet2DConditionModel"])?;
    let unet = Unet::load(&unet_weights.root(part.kind), &UnetConfig::read(&unet_config)?)?;

    let (vae_weights, vae) = read_autoencoder(folder, kind, context)?;

    let mut maps = Vec::new();
    for part in [text_weights, unet_weights, vae_weights] {
        maps.extend(part.finish(|name| name.ends_with(".position_ids"))?);
    }
    let scheduler = folder.join("scheduler").join("scheduler_config.json");
    let tokenizer = Tokenizer::from_folder(&folder.join("tokenizer"))?;
    Ok(ModelParts { tokenizer, text_encoder, unet, vae, schedule: read_schedule(&scheduler)?, maps })
}

/// The autoencoder of a folder, and its weights, which may hold more than was asked for.
fn read_autoencoder(folder: &Path, kind: Kind, context: &DeviceContext) -> Result<(Weights, Autoencoder), LoadError> {
    let part = autoencoder(kind);
    let weights = part.weights(folder, context)?.renamed(Box::new(names::autoencoder));
    let vae = Autoencoder::load(&weights.root(part.kind), &part.config(folder)?)?;
    Ok((weights, vae))
}

/// The autoencoder of a folder alone.
pub(super) fn folder_autoencoder(
    folder: &Path,
    kind: Kind,
    context: &DeviceContext,
) -> Result<LoadedAutoencoder, LoadError> {
    let (weights, vae) = read_autoencoder(folder, kind, context)?;
    Ok((vae, weights.finish(|_| true)?))
}

/// Those of a checkpoint; its tokenizer is one beside it (`tokenizer/`), else `clip_tokenizer`.
fn file(path: &Path, weights: Weights, clip_tokenizer: &Path, kind: Kind) -> Result<ModelParts, LoadError> {
    let layout = Layout::of(&weights);
    let prefix = layout.text_prefix();
    let text_config = ClipTextConfig::read(&layout.text_encoder())?;
    let unet_config = UnetConfig::read(&layout.unet())?;
    let autoencoder_config = layout.autoencoder();
    let levels = unet_config.layers();
    let depth = autoencoder_config.int_list("block_out_channels")?.len();

    let weights = weights.renamed(Box::new(move |name| {
        vec![match name.split_once('/') {
            Some(("text", name)) => format!("{prefix}{name}"),
            Some(("vae", name)) => names::original_autoencoder(name, depth),
            _ => names::original_unet(name.trim_start_matches("unet/"), &levels),
        }]
    }));
    let text_encoder = ClipTextModel::load(&weights.part("text/", kind), &text_config)?;
    let unet = Unet::load(&weights.part("unet/", kind), &unet_config)?;
    let vae = Autoencoder::load(&weights.part("vae/", kind), &autoencoder_config)?;
    let beside = path.with_file_name("tokenizer");
    let tokenizer = Tokenizer::from_folder(if beside.is_dir() { &beside } else { clip_tokenizer })?;
    let schedule = parse_schedule(path, single_file::SCHEDULER)?;
    let maps = weights.finish(single_file::harmless)?;
    Ok(ModelParts { tokenizer, text_encoder, unet, vae, schedule, maps })
}

/// The autoencoder of a checkpoint alone.
pub(super) fn file_autoencoder(weights: Weights, kind: Kind) -> Result<LoadedAutoencoder, LoadError> {
    let config = Layout::of(&weights).autoencoder();
    let depth = config.int_list("block_out_channels")?.len();
    let weights = weights.renamed(Box::new(move |name| vec![names::original_autoencoder(name, depth)]));
    let vae = Autoencoder::load(&weights.root(kind), &config)?;
    Ok((vae, weights.finish(|_| true)?))
}

/// Parts may be sound each by itself and not belong together.
fn check_parts_fit(model: &Model) -> Result<(), LoadError> {
    let fault = |reason: String| Err(LoadError::Path { path: model.path.clone(), reason });
    let (tokenizer, text_encoder) = (&model.tokenizers[0], &model.text_encoders[0]);
    let (latent, unet) = (model.vae.latent_channels(), model.unet.latent_channels());
    if latent != unet {
        return fault(format!("the autoencoder has {latent} latent channels and the UNet {unet}"));
    }
    let ([entries, text, length], unet) = (text_encoder.shape()?, model.unet.text_width());
    if text != unet {
        return fault(format!("the text encoder's states are {text} wide and the UNet takes {unet}"));
    }
    let (known, longest) = (tokenizer.vocab_size() as i64, tokenizer.max_length() as i64);
    if known > entries {
        return fault(format!("the tokenizer knows {known} tokens and the text encoder {entries}"));
    }
    if longest > length {
        return fault(format!("the tokenizer makes {longest} tokens and the text encoder takes {length}"));
    }
    Ok(())
}

fn read_schedule(file: &Path) -> Result<NoiseSchedule, LoadError> {
    let text = whole::read_text(file, config::MAX_CONFIG_BYTES)
        .map_err(|cause| LoadError::Config { file: file.to_owned(), reason: format!("cannot be read: {cause}") })?;
    parse_schedule(file, &text)
}

fn parse_schedule(file: &Path, text: &str) -> Result<NoiseSchedule, LoadError> {
    NoiseSchedule::from_json(text)
        .map(NoiseSchedule::for_stable_diffusion)
        .map_err(|cause| LoadError::Schedule { file: file.to_owned(), cause })
}
