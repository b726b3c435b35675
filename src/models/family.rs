//! Which architecture a model has, as far as its configuration or the names of its tensors tell. Whether it loads, the engine says.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use serde_json::{Map, Value};

use crate::disk::whole;
use crate::job::Family;
use crate::job::checkpoint::{OtherCheckpoint, TEXT_ENCODER_PREFIX, UNET_PREFIX};

/// Bytes of a configuration.
pub(super) const CONFIG_BYTES: u64 = 1 << 20;

/// Bytes of a safetensors header: what the format allows.
const SAFETENSORS_HEADER_BYTES: u64 = 100 << 20;

/// What a model turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recognised {
    /// It is of a family that loads.
    Loads(Family),
    /// It is something else, of this name; `other` if it has none here.
    Other(&'static str),
}

/// The name of what it is.
impl fmt::Display for Recognised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Loads(family) => family.name(),
            Self::Other(name) => name,
        })
    }
}

/// Of the model at `path`, a folder in diffusers layout or a `.safetensors` file.
///
/// # Errors
/// A configuration or header that tells cannot be read.
pub fn recognise(path: &Path) -> io::Result<Recognised> {
    if path.is_dir() { of_folder(&|place| whole::read(&path.join(place), CONFIG_BYTES)) } else { of_file(path) }
}

/// Of a folder whose files `read` gives.
pub(super) fn of_folder(read: &dyn Fn(&str) -> io::Result<Vec<u8>>) -> io::Result<Recognised> {
    let json = |place: &str| -> io::Result<Value> {
        let fault = |cause: io::Error| io::Error::new(cause.kind(), format!("{place}: {cause}"));
        read(place).and_then(|text| Ok(serde_json::from_slice(&text)?)).map_err(fault)
    };
    let (index, unet) = (json("model_index.json")?, json("unet/config.json")?);
    let class = index["_class_name"].as_str().unwrap_or_default();
    Ok(match (class, unet["in_channels"].as_u64(), unet["cross_attention_dim"].as_u64()) {
        (class, ..) if class.starts_with("StableDiffusionXL") => Recognised::Other("sdxl"),
        (class, ..) if !class.starts_with("StableDiffusion") || class.starts_with("StableDiffusion3") => {
            Recognised::Other("other")
        }
        (_, _, Some(1024)) => Recognised::Other("sd2"),
        (_, Some(9), _) => Recognised::Other("sd1-inpainting"),
        _ => Recognised::Loads(Family::Sd1),
    })
}

/// Of a `.safetensors` file, of whatever name.
pub(super) fn of_file(path: &Path) -> io::Result<Recognised> {
    let mut file = whole::open(path)?;
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > SAFETENSORS_HEADER_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no safetensors file"));
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header)?;
    let tensors: Map<String, Value> = serde_json::from_slice(&header)?;
    let holds = |prefix: &str| tensors.keys().any(|name| name.starts_with(prefix));
    Ok(match OtherCheckpoint::of(holds) {
        Some(other) => Recognised::Other(other.family),
        None if holds(UNET_PREFIX) && holds(TEXT_ENCODER_PREFIX) => Recognised::Loads(Family::Sd1),
        None => Recognised::Other("other"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;
    use std::fs;

    use serde_json::json;

    use super::*;

    fn folder(class: &str, unet: &Value) -> String {
        let index = json!({"_class_name": class}).to_string();
        let read = |place: &str| Ok(if place == "model_index.json" { index.clone() } else { unet.to_string() }.into());
        of_folder(&read).unwrap().to_string()
    }

    #[test]
    fn a_folder_is_told_by_its_configuration() {
        let usual = json!({"in_channels": 4, "cross_attention_dim": 768});
        assert_eq!(folder("StableDiffusionPipeline", &usual), "sd1");
        assert_eq!(folder("StableDiffusionPipeline", &json!({"in_channels": 4, "cross_attention_dim": 64})), "sd1");
        assert_eq!(folder("StableDiffusionPipeline", &json!({"in_channels": 4, "cross_attention_dim": 1024})), "sd2");
        assert_eq!(
            folder("StableDiffusionInpaintPipeline", &json!({"in_channels": 9, "cross_attention_dim": 768})),
            "sd1-inpainting"
        );
        assert_eq!(folder("StableDiffusionXLPipeline", &usual), "sdxl");
        assert_eq!(folder("StableDiffusion3Pipeline", &usual), "other");
        assert_eq!(folder("FluxPipeline", &usual), "other");
        let gone = |_: &str| Err(io::ErrorKind::NotFound.into());
        assert!(of_folder(&gone).unwrap_err().to_string().starts_with("model_index.json: "));
    }

    #[test]
    fn a_file_is_told_by_its_tensors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let of = |names: &[&str]| {
            let header: BTreeMap<_, _> = names.iter().map(|name| (name, json!({}))).collect();
            let header = json!(header).to_string();
            fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()).unwrap();
            recognise(&path).unwrap().to_string()
        };
        assert_eq!(of(&["model.diffusion_model.a", "cond_stage_model.transformer.b"]), "sd1");
        assert_eq!(of(&["model.diffusion_model.a", "cond_stage_model.model.b"]), "sd2");
        assert_eq!(of(&["model.diffusion_model.a", "conditioner.embedders.0.b"]), "sdxl");
        assert_eq!(of(&["lora_unet_a"]), "other");
        for bytes in [&b""[..], b"<html><body>", &[1, 0, 0, 0, 0, 0, 0, 0, b'x']] {
            fs::write(&path, bytes).unwrap();
            assert!(recognise(&path).is_err());
        }
    }
}
