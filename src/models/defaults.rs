//! A model's own defaults, as a file beside it.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::family::{CONFIG_BYTES, Recognised, recognise};
use super::manifest::{MANIFEST, Manifest};
use crate::disk::whole;
use crate::job::{Contract, Defaults, DefaultsError, Family};

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

/// What holds for jobs of the model at `model`: what its file says, else what its contract does. Its contract is that of its file, else of its
/// manifest, else of SDXL Turbo where its scheduler tells of that, else of its family.
///
/// # Errors
/// There is such a file, and it cannot be read, or says what it may not.
pub fn defaults(model: &Path) -> Result<Defaults, DefaultsFileError> {
    let path = defaults_file(model);
    let (usual, inpaints) = (contract(model)?, inpaints(model));
    let text = match whole::read(&path, FILE_BYTES) {
        Ok(text) => text,
        Err(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return masked(Defaults::from(usual).with_inpaints(inpaints), path);
        }
        Err(cause) => return Err(DefaultsFileError::Unreadable { path, cause }),
    };
    let defaults = Defaults::from_json(&text, usual).map_err(|cause| content(path.clone(), cause))?;
    masked(defaults.with_inpaints(inpaints), path)
}

/// `defaults`, unless the model wants a mask, and its contract has none.
fn masked(defaults: Defaults, path: PathBuf) -> Result<Defaults, DefaultsFileError> {
    let contract = defaults.contract;
    if !defaults.inpaints || contract.field("mask").is_some() {
        return Ok(defaults);
    }
    let masks = Contract::ALL.iter().filter(|contract| contract.field("mask").is_some());
    let names: Vec<&str> = masks.map(|contract| contract.name()).collect();
    let allowed = format!("{}, since the model repaints what a mask says", names.join(" or "));
    Err(content(path, DefaultsError::Bounds { key: "contract".into(), value: contract.name().into(), allowed }))
}

/// The contract of the model at `model`, whatever its `latentd.json` says.
fn contract(model: &Path) -> Result<Contract, DefaultsFileError> {
    // Others call files by that name, too: one that cannot be read tells nothing.
    let manifest = Manifest::read(model).ok().flatten();
    if let Some(name) = manifest.and_then(|manifest| manifest.contract) {
        return Defaults::contract_named(&name.into()).map_err(|cause| content(model.join(MANIFEST), cause));
    }
    Ok(match recognise(model) {
        Ok(Recognised::Loads(Family::Sdxl)) if is_turbo(model) => Contract::SdxlTurbo,
        Ok(Recognised::Loads(family) | Recognised::Inpaints(family)) => family.contract(),
        // What does not load has no jobs.
        Ok(Recognised::Other(_)) | Err(_) => Contract::Sd1,
    })
}

/// Whether it repaints, and draws nothing else.
fn inpaints(model: &Path) -> bool {
    matches!(recognise(model), Ok(Recognised::Inpaints(_)))
}

fn content(path: PathBuf, cause: DefaultsError) -> DefaultsFileError {
    DefaultsFileError::Content { path, cause: Box::new(cause) }
}

/// Whether a folder of SDXL is of a Turbo model, which is a base model by its parts: its scheduler file alone tells.
fn is_turbo(folder: &Path) -> bool {
    let text = whole::read(&folder.join("scheduler/scheduler_config.json"), CONFIG_BYTES).unwrap_or_default();
    let scheduler: Value = serde_json::from_slice(&text).unwrap_or_default();
    scheduler["_class_name"] == "EulerAncestralDiscreteScheduler" && scheduler["timestep_spacing"] == "trailing"
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
    fn turbo_is_told_by_its_scheduler() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let contract = || defaults(folder.path()).map(|defaults| defaults.contract).map_err(|error| error.to_string());
        let scheduler = |class: &str, spacing: &str| {
            let text = format!(r#"{{"_class_name": "{class}DiscreteScheduler", "timestep_spacing": "{spacing}"}}"#);
            write("scheduler/scheduler_config.json", &text);
            contract()
        };
        write(
            "unet/config.json",
            r#"{"in_channels": 4, "cross_attention_dim": 2048, "addition_embed_type": "text_time"}"#,
        );
        write("model_index.json", r#"{"_class_name": "StableDiffusionXLPipeline"}"#);
        let (base, turbo) = (Ok(Contract::Sdxl), Ok(Contract::SdxlTurbo));
        assert_eq!(contract(), base, "there is no scheduler file");
        assert_eq!(scheduler("Euler", "trailing"), base, "a Lightning model may be of any number of steps");
        assert_eq!(scheduler("EulerAncestral", "leading"), base);
        assert_eq!(scheduler("EulerAncestral", "trailing"), turbo);
        assert_eq!(defaults(folder.path()).unwrap().told(), "", "the contract has them");
        write("latentd.json", r#"{"defaults": {"num_inference_steps": 4}}"#);
        assert_eq!(contract(), turbo);
        write("latentd.json", r#"{"contract": "sdxl"}"#);
        assert_eq!(contract(), base, "its own file has the last word");
        fs::remove_file(folder.path().join("latentd.json")).unwrap();
        write("model.json", r#"{"family": "sdxl", "contract": "sdxl"}"#);
        assert_eq!(contract(), base, "its manifest comes before its scheduler");
        scheduler("Euler", "leading").unwrap();
        write("model.json", r#"{"family": "sdxl", "contract": "sdxl_turbo"}"#);
        assert_eq!(contract(), turbo);
        write("model.json", r#"{"family": "sdxl", "contract": "turbo"}"#);
        let path = folder.path().join("model.json");
        let error = format!(r#"{}: contract is "turbo": use sd1, sdxl or sdxl_turbo"#, path.display());
        assert_eq!(contract(), Err(error));
        write("model.json", r#"{"contract": 1}"#);
        assert_eq!(contract(), base, "it is somebody else's");
        fs::remove_file(path).unwrap();
        scheduler("EulerAncestral", "trailing").unwrap();
        write("model_index.json", r#"{"_class_name": "StableDiffusionPipeline"}"#);
        assert_eq!(contract(), Ok(Contract::Sd1));
    }

    #[test]
    fn an_inpainting_model_is_told_by_its_channels_whatever_its_file_says() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        fs::create_dir(folder.path().join("unet")).unwrap();
        for (class, rest, contract) in [
            ("StableDiffusionInpaintPipeline", "", Contract::Sd1),
            ("StableDiffusionXLInpaintPipeline", r#", "addition_embed_type": "text_time""#, Contract::Sdxl),
        ] {
            write("model_index.json", &format!(r#"{{"_class_name": "{class}"}}"#));
            for (channels, inpaints) in [(4, false), (9, true)] {
                write("unet/config.json", &format!(r#"{{"in_channels": {channels}{rest}}}"#));
                let found = defaults(folder.path()).unwrap();
                assert_eq!((found.contract, found.inpaints), (contract, inpaints));
                write("latentd.json", r#"{"defaults": {"num_inference_steps": 20}}"#);
                let found = defaults(folder.path()).unwrap();
                assert_eq!((found.told().as_str(), found.inpaints), ("num_inference_steps 20", inpaints));
                write("latentd.json", r#"{"contract": "sdxl_turbo"}"#);
                let turbo = defaults(folder.path()).map_err(|cause| cause.to_string());
                assert_eq!(
                    turbo.is_err_and(|cause| cause.contains("use sd1 or sdxl, since the model repaints")),
                    inpaints
                );
                fs::remove_file(folder.path().join("latentd.json")).unwrap();
            }
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
