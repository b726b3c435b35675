//! A model that goes on with the latents of another.

use std::path::Path;
use std::rc::Rc;

use super::model::Model;
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::networks::Networks;
use crate::job::Family;
use crate::sampler::Sampler;

/// Classifier-free guidance of a refiner, as diffusers' picture-to-picture pipeline of SDXL has it where none is asked for.
pub(in crate::engine::torch) const REFINER_GUIDANCE: f64 = 5.0;

/// Names a refiner's networks among those that LoRAs make of the base model, which are counted from 0.
const NUMBER: u64 = u64::MAX;

/// A refiner, with the autoencoder of the model that it goes on after.
#[derive(Debug)]
pub(in crate::engine::torch) struct Refiner {
    pub(in crate::engine::torch) model: Model,
    pub(in crate::engine::torch) networks: Rc<Networks>,
    /// That of its own scheduler file.
    pub(in crate::engine::torch) sampler: Sampler,
}

impl Refiner {
    /// Loads the refiner at `path` for `base`, to where that is.
    ///
    /// # Errors
    /// As for [`Model::load`]; or the model is no refiner, its scheduler is none of ours, or the base model is none of SDXL, or has other latents.
    pub(in crate::engine::torch) fn load_to(
        context: &DeviceContext,
        path: &Path,
        clip_tokenizer: &Path,
        base: &Model,
    ) -> Result<Self, LoadError> {
        let fault = |reason: String| LoadError::Path { path: path.to_owned(), reason };
        let before = base.family.family();
        if before != Family::Sdxl {
            return Err(fault(format!(
                "a refiner goes on after a model of the family sdxl, and not of {}",
                before.name()
            )));
        }
        let mut model = Model::load_to(context, path, clip_tokenizer, base.target())?;
        let family = model.family.family();
        if !family.is_refiner() {
            return Err(fault(format!("this model is of the family {}, which is no refiner", family.name())));
        }
        let (own, theirs) = (model.unet.latent_channels(), base.unet.latent_channels());
        if own != theirs {
            return Err(fault(format!("the refiner has {own} latent channels and the base model {theirs}")));
        }
        let sampler = model.sampler.ok_or_else(|| fault("its scheduler is of a class that is not known".to_owned()))?;
        model.vae = Rc::clone(&base.vae);
        let networks = Rc::new(Networks { number: NUMBER, ..model.networks() });
        Ok(Self { model, networks, sampler })
    }
}
