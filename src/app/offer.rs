//! What jobs may ask for: the configured models, each with its own defaults.

use crate::config::{ModelPath, ServedModel};
use crate::job::{Contract, OfferedModel};
use crate::models::{DefaultsFileError, Recognised, defaults, recognise};

/// A configured model cannot draw jobs as it is configured.
#[derive(Debug, thiserror::Error)]
pub(super) enum OfferError {
    /// The file of its defaults cannot be used.
    #[error(transparent)]
    Defaults(#[from] DefaultsFileError),
    /// It is a refiner.
    #[error("model {0} is a refiner, which draws after a base model: set that as model, and this as its refiner")]
    RefinerAlone(String),
    /// What is set as its refiner is none.
    #[error("refiner {refiner} of model {model} is of the family {family}, which is no refiner")]
    NoRefiner {
        /// The model.
        model: String,
        /// What is set as its refiner.
        refiner: String,
        /// What that is.
        family: Recognised,
    },
    /// No job of the model has a use for a refiner.
    #[error("model {0} can have no refiner: one draws after a base model of SDXL, whose jobs are of the contract sdxl")]
    UnusedRefiner(String),
}

/// Reads what holds for the jobs of each of `models`.
///
/// # Errors
/// As for [`model`].
pub(super) fn models(models: &[ServedModel]) -> Result<Vec<OfferedModel>, OfferError> {
    models.iter().map(model).collect()
}

/// The same of one model.
///
/// # Errors
/// The file of its defaults cannot be used; it is a refiner; or it has one that is none, or that no job has a use for.
pub(super) fn model(served: &ServedModel) -> Result<OfferedModel, OfferError> {
    let ServedModel { model: ModelPath { name, path }, refiner, .. } = served;
    let defaults = defaults(path)?;
    // What cannot be told apart is told when it is loaded.
    if matches!(recognise(path), Ok(Recognised::Loads(family)) if family.is_refiner()) {
        return Err(OfferError::RefinerAlone(name.clone()));
    }
    if let Some(refiner) = refiner {
        match recognise(&refiner.path) {
            Ok(Recognised::Loads(family)) if family.is_refiner() => {}
            Ok(family @ (Recognised::Loads(_) | Recognised::Inpaints(_))) => {
                return Err(OfferError::NoRefiner { model: name.clone(), refiner: refiner.name.clone(), family });
            }
            Ok(Recognised::Other(_)) | Err(_) => {}
        }
        if defaults.contract != Contract::Sdxl || defaults.inpaints {
            return Err(OfferError::UnusedRefiner(name.clone()));
        }
    }
    Ok(OfferedModel::new(name, defaults).with_refiner(refiner.is_some()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::path::Path;

    use super::*;

    /// A model in a folder of `models` by its configuration files alone.
    fn write(models: &Path, name: &str, index: &str, unet: &str) {
        let folder = models.join(name);
        fs::create_dir_all(folder.join("unet")).unwrap();
        fs::write(folder.join("model_index.json"), format!(r#"{{"_class_name": "StableDiffusion{index}}}"#)).unwrap();
        fs::write(folder.join("unet/config.json"), format!("{{{unet}}}")).unwrap();
    }

    #[test]
    fn a_refiner_is_one_and_belongs_to_a_base_model_of_sdxl() {
        let folder = tempfile::tempdir().unwrap();
        let text_time = r#", "addition_embed_type": "text_time""#;
        for (name, index, unet) in [
            ("sd", r#"Pipeline""#, r#""in_channels": 4"#.to_owned()),
            ("base", r#"XLPipeline""#, format!(r#""in_channels": 4{text_time}"#)),
            ("turbo", r#"XLPipeline""#, format!(r#""in_channels": 4{text_time}"#)),
            ("nine", r#"XLInpaintPipeline""#, format!(r#""in_channels": 9{text_time}"#)),
            (
                "refiner",
                r#"XLImg2ImgPipeline", "text_encoder": [null, null]"#,
                format!(r#""in_channels": 4{text_time}"#),
            ),
        ] {
            write(folder.path(), name, index, &unet);
        }
        fs::write(folder.path().join("turbo/latentd.json"), r#"{"contract": "sdxl_turbo"}"#).unwrap();
        let path = |name: &str| ModelPath { name: name.into(), path: folder.path().join(name) };
        let offered = |name: &str, refiner: Option<&str>| {
            let served = ServedModel { model: path(name), refiner: refiner.map(path), bytes: 0, at_start: true };
            model(&served).map(|offered| offered.refined).map_err(|fault| fault.to_string())
        };
        assert_eq!(offered("base", Some("refiner")), Ok(Some(true)));
        for name in ["sd", "base", "turbo", "nine"] {
            assert_eq!(offered(name, None), Ok(Some(false)), "{name}");
        }
        let alone =
            "model refiner is a refiner, which draws after a base model: set that as model, and this as its refiner";
        assert_eq!(offered("refiner", None), Err(alone.to_owned()));
        assert_eq!(offered("refiner", Some("refiner")), Err(alone.to_owned()));
        for (refiner, family) in [("sd", "sd1"), ("base", "sdxl"), ("nine", "sdxl-inpainting")] {
            let fault = format!("refiner {refiner} of model base is of the family {family}, which is no refiner");
            assert_eq!(offered("base", Some(refiner)), Err(fault));
        }
        for name in ["sd", "turbo", "nine"] {
            let fault = format!(
                "model {name} can have no refiner: one draws after a base model of SDXL, whose jobs are of the contract sdxl"
            );
            assert_eq!(offered(name, Some("refiner")), Err(fault));
        }
    }
}
