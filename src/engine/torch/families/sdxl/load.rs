//! SDXL from a diffusers folder.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde_json::json;
use tch::Kind;

use crate::engine::tokenizer::Tokenizer;
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::device::target::Target;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::families::folder;
use crate::engine::torch::families::model::{Model, ModelFamily};
use crate::engine::torch::families::part::Part;
use crate::engine::torch::networks::clip_text::ClipTextModel;
use crate::engine::torch::weights::config::ConfigFile;

/// The parts with weights, in the order in which they are read.
///
/// # Errors
/// The autoencoder's configuration cannot be read.
pub(super) fn parts(folder: &Path, kind: Kind) -> Result<[Part; 4], LoadError> {
    let autoencoder = Part::of_diffusers("vae", kind);
    let overflows = kind == Kind::Half && overflows(&autoencoder.config(folder)?)?;
    Ok([
        Part::of_transformers("text_encoder", kind),
        Part::of_transformers("text_encoder_2", kind),
        Part::of_diffusers("unet", kind),
        Part::of_diffusers("vae", autoencoder_kind(kind, overflows)),
    ])
}

/// What an autoencoder computes in where the UNet computes in `kind`.
pub(super) fn autoencoder_kind(kind: Kind, overflows: bool) -> Kind {
    if kind == Kind::Half && overflows { Kind::Float } else { kind }
}

/// Whether an autoencoder has activations beyond 65504, where f16 ends: SDXL's own has, and is what diffusers takes one for that does not
/// say.
fn overflows(autoencoder: &ConfigFile) -> Result<bool, LoadError> {
    let is_kl = autoencoder.word("_class_name", &["AutoencoderKL", "AutoencoderTiny"])? == "AutoencoderKL";
    autoencoder.flag("force_upcast", is_kl)
}

/// A model of `family` from the folder `path`, whose `model_index.json` is `index`.
pub(super) fn model(
    family: &'static dyn ModelFamily,
    path: PathBuf,
    index: &ConfigFile,
    target: Target,
    context: &DeviceContext,
) -> Result<Model, LoadError> {
    // A refiner goes on with another model's latents, and has one text encoder.
    index.only("requires_aesthetics_score", &json!(false))?;
    let [first, second, unet, autoencoder] = parts(&path, target.kind)?;
    let (first, mut maps) = folder::text_encoder(&path, first, context, ClipTextModel::load)?;
    let (second, second_maps) = folder::text_encoder(&path, second, context, ClipTextModel::load_with_projection)?;
    let (unet, unet_maps) = folder::unet(&path, unet, context)?;
    let (vae, vae_maps) = folder::autoencoder(&path, autoencoder, context)?;
    maps.extend(second_maps.into_iter().chain(unet_maps).chain(vae_maps));
    let tokenizer = |name: &str| Tokenizer::from_folder(&path.join(name));
    Ok(Model {
        family,
        tokenizers: vec![tokenizer("tokenizer")?, tokenizer("tokenizer_2")?],
        text_encoders: vec![first, second],
        unet,
        vae,
        schedule: Rc::new(folder::schedule(&path)?),
        zeros_for_no_negative: index.flag("force_zeros_for_empty_prompt", true)?,
        target,
        path,
        maps,
    })
}
