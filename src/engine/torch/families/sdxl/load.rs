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
use crate::job::ModelRole;

/// The parts with weights, in the order in which they are read.
#[derive(Debug)]
pub(super) struct Parts {
    text_encoder: Option<Part>,
    text_encoder_2: Part,
    unet: Part,
    autoencoder: Part,
}

impl Parts {
    /// Those of a model in `folder`.
    ///
    /// # Errors
    /// The autoencoder's configuration cannot be read.
    pub(super) fn of(folder: &Path, stage: ModelRole, kind: Kind) -> Result<Self, LoadError> {
        let autoencoder = Part::of_diffusers("vae", kind);
        let overflows = kind == Kind::Half && overflows(&autoencoder.config(folder)?)?;
        Ok(Self {
            text_encoder: (stage == ModelRole::Base).then(|| Part::of_transformers("text_encoder", kind)),
            text_encoder_2: Part::of_transformers("text_encoder_2", kind),
            unet: Part::of_diffusers("unet", kind),
            autoencoder: Part::of_diffusers("vae", autoencoder_kind(kind, overflows)),
        })
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Part> {
        self.text_encoder.into_iter().chain([self.text_encoder_2, self.unet, self.autoencoder]).collect()
    }
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
    (family, stage): (&'static dyn ModelFamily, ModelRole),
    path: PathBuf,
    index: &ConfigFile,
    target: Target,
    context: &DeviceContext,
) -> Result<Model, LoadError> {
    // A refiner is told a score in place of the size that is wanted.
    index.only("requires_aesthetics_score", &json!(stage == ModelRole::Refiner))?;
    let parts = Parts::of(&path, stage, target.kind)?;
    let (mut text_encoders, mut tokenizers, mut maps) = (Vec::new(), Vec::new(), Vec::new());
    if let Some(part) = parts.text_encoder {
        let (encoder, its_maps) = folder::text_encoder(&path, part, context, ClipTextModel::load)?;
        text_encoders.push(encoder);
        tokenizers.push(Tokenizer::from_folder(&path.join("tokenizer"))?);
        maps.extend(its_maps);
    }
    let (encoder, its_maps) =
        folder::text_encoder(&path, parts.text_encoder_2, context, ClipTextModel::load_with_projection)?;
    text_encoders.push(encoder);
    tokenizers.push(Tokenizer::from_folder(&path.join("tokenizer_2"))?);
    let (unet, unet_maps) = folder::unet(&path, parts.unet, context)?;
    let (vae, vae_maps) = folder::autoencoder(&path, parts.autoencoder, context)?;
    maps.extend(its_maps.into_iter().chain(unet_maps).chain(vae_maps));
    let (schedule, sampler) = folder::schedule(&path)?;
    Ok(Model {
        family,
        tokenizers,
        text_encoders,
        unet,
        vae: Rc::new(vae),
        schedule: Rc::new(schedule),
        sampler,
        zeros_for_no_negative: index.flag("force_zeros_for_empty_prompt", true)?,
        target,
        path,
        maps,
    })
}
