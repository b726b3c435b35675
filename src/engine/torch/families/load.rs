//! A model from its folder or file: the family that recognises it loads it.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use tch::{Device, Kind};
use tracing::warn;

use super::FAMILIES;
use super::model::{Model, ModelFamily};
use super::source::ModelSource;
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::device::cpu;
use crate::engine::torch::device::target::Target;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::weights::files::Weights;
use crate::job::Family;
use crate::job::checkpoint::{self, OtherCheckpoint};

impl Model {
    /// Loads a diffusers folder or a single-file `.safetensors` checkpoint. The latter brings no tokenizer: one beside it
    /// (`tokenizer/`), else CLIP's own in `clip_tokenizer`, is used.
    ///
    /// # Errors
    /// [`LoadError`] names the file and the tensor or key that is at fault.
    pub fn load(path: &Path, clip_tokenizer: &Path, target: Target) -> Result<Self, LoadError> {
        Self::load_to(&DeviceContext::plain(target.device), path, clip_tokenizer, target)
    }

    /// The same to `context`, which is of the device of `target`.
    pub(in crate::engine::torch) fn load_to(
        context: &DeviceContext,
        path: &Path,
        clip_tokenizer: &Path,
        target: Target,
    ) -> Result<Self, LoadError> {
        let _guard = tch::no_grad_guard();
        let source = ModelSource::open(path, context)?;
        let model = recognised(&source)?.load(source, clip_tokenizer, target, context)?;
        cpu::track(&model.maps);
        cpu::reclaim();
        Ok(model)
    }

    /// The weight files that [`Self::load`] reads of the model at `path`, in that order; `half` where it will be in half precision.
    ///
    /// # Errors
    /// One is missing, or the model is of no family that loads.
    pub fn files(path: &Path, half: bool) -> Result<Vec<PathBuf>, LoadError> {
        if !path.is_dir() {
            return Ok(vec![path.to_owned()]);
        }
        recognised(&ModelSource::folder(path)?)?.weight_files(path, half)
    }

    /// Bytes of the weights of the model at `path` in `kind`.
    ///
    /// # Errors
    /// As for [`Self::files`], or a header cannot be read.
    pub(in crate::engine::torch) fn weight_bytes(path: &Path, kind: Kind) -> Result<u64, LoadError> {
        let files = Self::files(path, kind == Kind::Half)?;
        let weights = Weights::open(&files, &DeviceContext::plain(Device::Cpu))?;
        let numbers: usize = weights.shapes().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        Ok((numbers * kind.elt_size_in_bytes()) as u64)
    }

    /// An autoencoder in f32 beside a UNet in f16 (diffusers' `upcast_vae`): some, SDXL's above all, have activations beyond 65504, where f16
    /// ends, and then every pixel is no number. diffusers draws such a picture black; here it is decoded again.
    ///
    /// Its weights are read again, to `context`, from the file of full precision if there is one. Nothing that the device was given may need
    /// the old ones.
    ///
    /// # Errors
    /// As for [`Model::load`]; the model is as it was then.
    pub(in crate::engine::torch) fn upcast_autoencoder(&mut self, context: &DeviceContext) -> Result<(), LoadError> {
        let source = ModelSource::open(&self.path, context)?;
        let (vae, maps) = self.family.load_autoencoder(source, Kind::Float, context)?;
        warn!("the autoencoder overflows in f16: it computes in f32 from now on, which takes longer");
        self.vae = Rc::new(vae);
        self.maps.extend(maps);
        Ok(())
    }
}

/// The family of a model.
///
/// # Errors
/// It is of none of ours.
fn recognised(source: &ModelSource) -> Result<&'static dyn ModelFamily, LoadError> {
    match FAMILIES.iter().find(|family| family.recognise(source)) {
        Some(family) => Ok(*family),
        None => Err(unknown(source)),
    }
}

/// Why no family recognises it, by what it has that others have.
fn unknown(source: &ModelSource) -> LoadError {
    let ours = Family::labels();
    match source {
        ModelSource::Folder { index, .. } => {
            let pipelines: Vec<&str> = FAMILIES.iter().flat_map(|family| family.pipelines()).copied().collect();
            index.refuse("_class_name", &pipelines.join(", "))
        }
        ModelSource::File { path, weights } => {
            let holds = |prefix: &str| weights.shapes().any(|(name, _)| name.starts_with(prefix));
            let reason = match (OtherCheckpoint::of(holds), checkpoint::nearest(holds)) {
                (Some(other), _) => format!("this is {}; only {ours} checkpoints are supported", other.title),
                (None, (family, lacks)) => match lacks.first() {
                    Some(part) => format!("no tensor begins with {part}, so this is no whole {family} checkpoint"),
                    None => format!("this is no {ours} checkpoint"),
                },
            };
            LoadError::Path { path: path.clone(), reason }
        }
    }
}
