//! A part of a model in diffusers layout: a folder with weights and their configuration.

use std::path::{Path, PathBuf};

use tch::Kind;

use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::weights::config::ConfigFile;
use crate::engine::torch::weights::files::Weights;

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

    /// The file of its weights in the folder `model`. Half-precision files are read where half precision is wanted, or where nothing else is.
    ///
    /// # Errors
    /// There is none, or only a pickle.
    pub(in crate::engine::torch) fn file(&self, model: &Path) -> Result<PathBuf, LoadError> {
        let (folder, stem) = (model.join(self.folder), self.stem);
        let [full, fp16] = ["", ".fp16"].map(|kind| folder.join(format!("{stem}{kind}.safetensors")));
        let wanted = if self.kind == Kind::Half { [fp16, full] } else { [full, fp16] };
        if let Some(found) = wanted.iter().find(|path| path.is_file()) {
            return Ok(found.clone());
        }
        let pickles = ["bin", "fp16.bin", "ckpt", "pt"].map(|ending| folder.join(format!("{stem}.{ending}")));
        if let Some(pickle) = pickles.into_iter().chain([folder.join("pytorch_model.bin")]).find(|path| path.is_file())
        {
            return Err(LoadError::Pickle(pickle));
        }
        let reason = format!("there is neither {stem}.safetensors nor {stem}.fp16.safetensors");
        Err(LoadError::Path { path: folder, reason })
    }

    /// Its weights, for [`Self::kind`].
    ///
    /// # Errors
    /// As [`Self::file`], or the file is not intact.
    pub(in crate::engine::torch) fn weights(
        &self,
        model: &Path,
        context: &DeviceContext,
    ) -> Result<Weights, LoadError> {
        Weights::open(&[self.file(model)?], context)
    }

    /// Its `config.json`.
    ///
    /// # Errors
    /// It is missing or broken.
    pub(in crate::engine::torch) fn config(&self, model: &Path) -> Result<ConfigFile, LoadError> {
        ConfigFile::read(&model.join(self.folder).join("config.json"))
    }
}
