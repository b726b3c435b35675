//! The parts of a folder in diffusers layout, as all families have them.

use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use tch::Kind;
use tracing::warn;

use super::model::LoadedAutoencoder;
use super::names;
use super::part::Part;
use crate::disk::whole;
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::networks::clip_text::{ClipTextConfig, ClipTextModel};
use crate::engine::torch::networks::unet::{Unet, UnetConfig};
use crate::engine::torch::networks::vae::Autoencoder;
use crate::engine::torch::weights::config;
use crate::engine::torch::weights::files::{Scope, Weights};
use crate::sampler::{NoiseSchedule, Sampler};

/// A network and the mappings that its tensors look into.
type Loaded<T> = Result<(T, Vec<Arc<Mmap>>), LoadError>;

/// A text encoder, loaded by `load`.
pub(super) fn text_encoder(
    folder: &Path,
    part: Part,
    context: &DeviceContext,
    load: impl Fn(&Scope, &ClipTextConfig) -> Result<ClipTextModel, LoadError>,
) -> Loaded<ClipTextModel> {
    let weights = part.weights(folder, context)?.renamed(Box::new(names::text_encoder));
    let config = ClipTextConfig::read(&part.config(folder)?)?;
    let model = load(&weights.root(part.kind), &config)?;
    Ok((model, weights.finish(|name| name.ends_with(".position_ids"))?))
}

/// The UNet.
pub(super) fn unet(folder: &Path, part: Part, context: &DeviceContext) -> Loaded<Unet> {
    let weights = part.weights(folder, context)?;
    let config = part.config(folder)?;
    config.word("_class_name", &["UNet2DConditionModel"])?;
    let unet = Unet::load(&weights.root(part.kind), &UnetConfig::read(&config)?)?;
    Ok((unet, weights.finish(|_| false)?))
}

/// The autoencoder, and its weights, which may hold more than was asked for.
fn read_autoencoder(folder: &Path, part: Part, context: &DeviceContext) -> Result<(Weights, Autoencoder), LoadError> {
    let weights = part.weights(folder, context)?.renamed(Box::new(names::autoencoder));
    let vae = Autoencoder::load(&weights.root(part.kind), &part.config(folder)?)?;
    Ok((weights, vae))
}

/// The autoencoder.
pub(super) fn autoencoder(folder: &Path, part: Part, context: &DeviceContext) -> Loaded<Autoencoder> {
    let (weights, vae) = read_autoencoder(folder, part, context)?;
    Ok((vae, weights.finish(|_| false)?))
}

/// The autoencoder alone, in `kind`.
pub(super) fn autoencoder_alone(
    folder: &Path,
    kind: Kind,
    context: &DeviceContext,
) -> Result<LoadedAutoencoder, LoadError> {
    let (weights, vae) = read_autoencoder(folder, Part::of_diffusers("vae", kind), context)?;
    Ok((vae, weights.finish(|_| true)?))
}

/// The noise schedule, as `scheduler_config.json` says it, and the sampler of its class, if that is one of ours.
pub(super) fn schedule(folder: &Path) -> Result<(NoiseSchedule, Option<Sampler>), LoadError> {
    let file = folder.join("scheduler").join("scheduler_config.json");
    let text = whole::read_text(&file, config::MAX_CONFIG_BYTES)
        .map_err(|cause| LoadError::Config { file: file.clone(), reason: format!("cannot be read: {cause}") })?;
    let schedule =
        NoiseSchedule::from_json(&text).map_err(|cause| LoadError::Schedule { file: file.clone(), cause })?;
    let unknown: Vec<&str> = schedule.unknown_keys().collect();
    if !unknown.is_empty() {
        warn!("{}: no sampler knows {}, which changes nothing", file.display(), unknown.join(", "));
    }
    Ok((schedule, Sampler::of_config(&text)))
}
