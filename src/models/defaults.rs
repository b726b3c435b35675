//! A model's own defaults, as a file beside it.

use std::io;
use std::path::{Path, PathBuf};

use super::family::{Recognised, recognise};
use crate::disk::whole;
use crate::job::{Contract, Defaults, DefaultsError};

/// The file in a model's folder.
const FILE: &str = "latentd.json";

/// Bytes of it.
const FILE_BYTES: u64 = 64 << 10;

/// A model's own defaults cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DefaultsFileError {
    /// The file is there, but cannot be read.
    #[error("{} cannot be read: {cause}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It says what it may not.
    #[error("{}: {cause}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        cause: Box<DefaultsError>,
    },
}

/// Where the model at `model` has its defaults: `latentd.json` in its folder, or `painter.latentd.json` beside `painter.safetensors`.
pub fn defaults_file(model: &Path) -> PathBuf {
    if model.is_dir() { model.join(FILE) } else { model.with_extension(FILE) }
}

/// What holds for jobs of the model at `model`; what its contract says if it has no file that says more.
///
/// # Errors
/// There is such a file, and it cannot be read, or says what it may not.
pub fn defaults(model: &Path) -> Result<Defaults, DefaultsFileError> {
    let path = defaults_file(model);
    // What does not load has no jobs.
    let usual = match recognise(model) {
        Ok(Recognised::Loads(family)) => family.contract(),
        Ok(Recognised::Other(_)) | Err(_) => Contract::Sd1,
    };
    match whole::read(&path, FILE_BYTES) {
        Ok(text) => Defaults::from_json(&text, usual).map_err(|cause| {
            let cause = Box::new(cause);
            DefaultsFileError::Content { path, cause }
        }),
        Err(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(usual.into())
        }
        Err(cause) => Err(DefaultsFileError::Unreadable { path, cause }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    #[test]
    fn a_folder_and_a_file_have_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let single = folder.path().join("v1.5.safetensors");
        fs::write(&single, "").unwrap();
        for (model, file) in [(folder.path(), "latentd.json"), (single.as_path(), "v1.5.latentd.json")] {
            assert_eq!(defaults(model).unwrap(), Contract::Sd1.into(), "there is none");
            let path = folder.path().join(file);
            assert_eq!(defaults_file(model), path);
            fs::write(&path, r#"{"defaults": {"num_inference_steps": 20}}"#).unwrap();
            assert_eq!(defaults(model).unwrap().told(), "num_inference_steps 20");
            fs::write(&path, r#"{"defaults": {"num_inference_steps": 0}}"#).unwrap();
            let error = defaults(model).unwrap_err().to_string();
            assert_eq!(error, format!("{}: defaults.num_inference_steps is 0: use 1 to 500", path.display()));
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
            let error = defaults(model).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{} cannot be read: ", path.display())), "{error}");
            fs::remove_dir(&path).unwrap();
        }
    }

    #[test]
    fn the_model_in_the_box_draws_as_it_was_trained_to() {
        let emoji = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/emoji");
        let defaults = defaults(&emoji).unwrap();
        assert_eq!(defaults.told(), "num_inference_steps 20, guidance_scale 5");
        assert!(defaults.placeholder.is_some());
    }
}
