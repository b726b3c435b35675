//! A model on disk, opened as far as it takes to tell what it is.

use std::path::{Path, PathBuf};

use crate::engine::torch::device::context::DeviceContext;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::weights::config::ConfigFile;
use crate::engine::torch::weights::files::Weights;

/// Where a model's parts are.
pub(in crate::engine::torch) enum ModelSource {
    /// A folder in diffusers layout.
    Folder {
        path: PathBuf,
        /// `model_index.json`.
        index: ConfigFile,
    },
    /// A checkpoint that holds all parts.
    File { path: PathBuf, weights: Weights },
}

impl ModelSource {
    /// Opens what is at `path`. Tensors will be given at `context`.
    ///
    /// # Errors
    /// There is no model, or it is a pickle, or its index or header cannot be read.
    pub(in crate::engine::torch) fn open(path: &Path, context: &DeviceContext) -> Result<Self, LoadError> {
        if path.is_dir() {
            return Self::folder(path);
        }
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => {
                let weights = Weights::open(&[path.to_owned()], context)?;
                Ok(Self::File { path: path.to_owned(), weights })
            }
            Some("ckpt" | "pt" | "pth" | "bin" | "pkl") => Err(LoadError::Pickle(path.to_owned())),
            _ => {
                let reason = "a model is a folder in diffusers layout or a .safetensors file".to_owned();
                Err(LoadError::Path { path: path.to_owned(), reason })
            }
        }
    }

    /// The same of a folder.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub(in crate::engine::torch) fn folder(path: &Path) -> Result<Self, LoadError> {
        let index = path.join("model_index.json");
        if !index.is_file() {
            let reason = "there is no model_index.json, so this is no model folder in diffusers layout".to_owned();
            return Err(LoadError::Path { path: path.to_owned(), reason });
        }
        Ok(Self::Folder { path: path.to_owned(), index: ConfigFile::read(&index)? })
    }
}
