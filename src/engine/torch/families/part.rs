//! A part of a model in diffusers layout: a folder with weights and their configuration.

use std::path::{Path, PathBuf};

use tch::Kind;

use crate::disk::whole;
use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::weights::config::ConfigFile;
use crate::engine::torch::weights::files::Weights;
use crate::job::sharded;

/// Which folder, and what the part computes in: an autoencoder may be in f32 where the UNet is in f16.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine::torch) struct Part {
    folder: &'static str,
    /// What its weight file is called, without what tells the precision.
    stem: &'static str,
    pub(in crate::engine::torch) kind: Kind,
}

impl Part {
    /// One of transformers' models.
    pub(in crate::engine::torch) const fn of_transformers(folder: &'static str, kind: Kind) -> Self {
        Self { folder, stem: "model", kind }
    }

    /// One of diffusers' models.
    pub(in crate::engine::torch) const fn of_diffusers(folder: &'static str, kind: Kind) -> Self {
        Self { folder, stem: "diffusion_pytorch_model", kind }
    }

    /// The files of its weights in the folder `model`: one, or the shards that an index names, in ascending order. Half-precision files are
    /// read where half precision is wanted, or where nothing else is.
    ///
    /// # Errors
    /// There is none, or only a pickle; or an index cannot be read, or names what is not there.
    pub(in crate::engine::torch) fn files(&self, model: &Path) -> Result<Vec<PathBuf>, LoadError> {
        let (folder, stem) = (model.join(self.folder), self.stem);
        let variants = if self.kind == Kind::Half { [Some("fp16"), None] } else { [None, Some("fp16")] };
        let names = variants.into_iter().flat_map(|variant| sharded::weight_names(stem, variant));
        if let Some(found) = names.map(|name| folder.join(name)).find(|path| path.is_file()) {
            let is_index = found.extension().is_some_and(|ending| ending == "json");
            return if is_index { shards(&found) } else { Ok(vec![found]) };
        }
        let pickles = ["bin", "fp16.bin", "ckpt", "pt"].map(|ending| folder.join(format!("{stem}.{ending}")));
        if let Some(pickle) = pickles.into_iter().chain([folder.join("pytorch_model.bin")]).find(|path| path.is_file())
        {
            return Err(LoadError::Pickle(pickle));
        }
        let reason = format!("there is neither {stem}.safetensors nor {stem}.fp16.safetensors, and no index of either");
        Err(LoadError::Path { path: folder, reason })
    }

    /// Its weights, for [`Self::kind`].
    ///
    /// # Errors
    /// As [`Self::files`], or a file is not intact.
    pub(in crate::engine::torch) fn weights(
        &self,
        model: &Path,
        context: &DeviceContext,
    ) -> Result<Weights, LoadError> {
        Weights::open(&self.files(model)?, context)
    }

    /// Its `config.json`.
    ///
    /// # Errors
    /// It is missing or broken.
    pub(in crate::engine::torch) fn config(&self, model: &Path) -> Result<ConfigFile, LoadError> {
        ConfigFile::read(&model.join(self.folder).join("config.json"))
    }
}

/// The weight files of `parts` of the model in the folder `model`, part by part.
///
/// # Errors
/// As [`Part::files`].
pub(super) fn files(parts: &[Part], model: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let files: Vec<Vec<PathBuf>> = parts.iter().map(|part| part.files(model)).collect::<Result<_, _>>()?;
    Ok(files.concat())
}

/// The files that `index` names.
fn shards(index: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let fault = |reason: String| LoadError::Config { file: index.to_owned(), reason };
    let text = whole::read(index, sharded::INDEX_BYTES).map_err(|cause| fault(format!("cannot be read: {cause}")))?;
    let names = sharded::shards(&text).map_err(|cause| fault(cause.to_string()))?;
    let files: Vec<PathBuf> = names.into_iter().map(|name| index.with_file_name(name)).collect();
    match files.iter().find(|file| !file.is_file()) {
        Some(missing) => {
            let reason = format!("it is missing, and {} names it", index.display());
            Err(LoadError::Path { path: missing.clone(), reason })
        }
        None => Ok(files),
    }
}
