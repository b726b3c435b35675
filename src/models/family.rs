//! Which architecture a model has, as far as its configuration or the names of its tensors tell. Whether it loads, the engine says.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use serde_json::{Map, Value};

use crate::disk::whole;
use crate::job::Family;
use crate::job::checkpoint::{self, AUTOENCODER_PREFIX, OtherCheckpoint, UNET_PREFIX};

/// Bytes of a configuration.
pub(super) const CONFIG_BYTES: u64 = 1 << 20;

/// Bytes of a safetensors header: what the format allows.
const SAFETENSORS_HEADER_BYTES: u64 = 100 << 20;

/// diffusers' pipelines of a base model of SDXL, and of its refiner.
const SDXL_PIPELINES: [&str; 3] =
    ["StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"];

/// The width of the text that the refiner's UNet takes, which CLIP ViT-bigG alone gives; a base model's is 2048, of both encoders.
const REFINER_TEXT_WIDTH: u64 = 1280;

/// What a model turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recognised {
    /// It is of a family that loads.
    Loads(Family),
    /// The same, and its UNet takes a mask and a masked image beside the latents: it repaints parts of images, and draws nothing else.
    Inpaints(Family),
    /// It is something else, of this name; `other` if it has none here.
    Other(&'static str),
}

/// The name of what it is.
impl fmt::Display for Recognised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loads(family) => f.pad(family.name()),
            Self::Inpaints(family) => f.pad(&format!("{}-inpainting", family.name())),
            Self::Other(name) => f.pad(name),
        }
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
    Ok(match (class, unet["cross_attention_dim"].as_u64()) {
        (class, _) if SDXL_PIPELINES.contains(&class) => of_sdxl_folder(&index, &unet),
        (class, _) if class.starts_with("StableDiffusionXL") => Recognised::Other("other"),
        (class, _) if class.starts_with("StableDiffusion3") => Recognised::Other("sd3"),
        (class, _) if class.starts_with("Flux") => Recognised::Other("flux"),
        (class, _) if !class.starts_with("StableDiffusion") => Recognised::Other("other"),
        (_, Some(1024)) => Recognised::Other("sd2"),
        _ => by_channels(Family::Sd1, unet["in_channels"].as_u64()),
    })
}

/// Of a folder of one of [`SDXL_PIPELINES`]. Turbo is a base model by all of this.
fn of_sdxl_folder(index: &Value, unet: &Value) -> Recognised {
    // The published refiner has all three; a miniature of one has other widths, and not everybody keeps the flag.
    let without_clip = index.get("text_encoder").is_some_and(|part| part[0].is_null());
    let aesthetic = index["requires_aesthetics_score"].as_bool() == Some(true);
    if without_clip || aesthetic || unet["cross_attention_dim"].as_u64() == Some(REFINER_TEXT_WIDTH) {
        return Recognised::Loads(Family::SdxlRefiner);
    }
    match unet["addition_embed_type"].as_str() {
        Some("text_time") => by_channels(Family::Sdxl, unet["in_channels"].as_u64()),
        _ => Recognised::Other("other"),
    }
}

/// A model of `family` whose UNet has so many channels: nine take a mask and a picture beside the latents.
fn by_channels(family: Family, channels: Option<u64>) -> Recognised {
    if channels == Some(9) { Recognised::Inpaints(family) } else { Recognised::Loads(family) }
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
    if let Some(other) = OtherCheckpoint::of(holds) {
        return Ok(Recognised::Other(other.family));
    }
    let (family, lacks) = checkpoint::nearest(holds);
    // Many are passed on without an autoencoder, and are of their family still.
    if lacks.iter().any(|part| *part != AUTOENCODER_PREFIX) {
        return Ok(Recognised::Other("other"));
    }
    let entry = tensors.get(&format!("{UNET_PREFIX}input_blocks.0.0.weight"));
    Ok(by_channels(family, entry.and_then(|tensor| tensor["shape"][1].as_u64())))
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
        let read = |place: &str| {
            let index = json!({"_class_name": "StableDiffusionPipeline"});
            Ok(if place == "model_index.json" { index } else { json!({"in_channels": 9}) }.to_string().into())
        };
        assert_eq!(of_folder(&read).unwrap(), Recognised::Inpaints(Family::Sd1));
        assert_eq!(folder("StableDiffusion3Pipeline", &usual), "sd3");
        assert_eq!(folder("FluxPipeline", &usual), "flux");
        assert_eq!(folder("KolorsPipeline", &usual), "other");
        let gone = |_: &str| Err(io::ErrorKind::NotFound.into());
        assert!(of_folder(&gone).unwrap_err().to_string().starts_with("model_index.json: "));
    }

    #[test]
    fn a_folder_of_sdxl_is_a_base_model_unless_it_says_more() {
        let unet = |channels: u64, width: u64| json!({"in_channels": channels, "cross_attention_dim": width, "addition_embed_type": "text_time"});
        let clip = json!(["transformers", "CLIPTextModel"]);
        let base = json!({"text_encoder": clip, "force_zeros_for_empty_prompt": true});
        let refiner = json!({"text_encoder": [null, null]});
        let flag = json!({"text_encoder": clip, "requires_aesthetics_score": true});
        for (class, index, unet, kind) in [
            ("StableDiffusionXLPipeline", &base, unet(4, 2048), "sdxl"),
            ("StableDiffusionXLPipeline", &json!({}), unet(4, 64), "sdxl"),
            ("StableDiffusionXLImg2ImgPipeline", &base, unet(4, 2048), "sdxl"),
            ("StableDiffusionXLInpaintPipeline", &base, unet(4, 2048), "sdxl"),
            ("StableDiffusionXLInpaintPipeline", &base, unet(9, 2048), "sdxl-inpainting"),
            ("StableDiffusionXLImg2ImgPipeline", &base, unet(4, 1280), "sdxl-refiner"),
            ("StableDiffusionXLImg2ImgPipeline", &refiner, unet(4, 32), "sdxl-refiner"),
            ("StableDiffusionXLImg2ImgPipeline", &flag, unet(4, 32), "sdxl-refiner"),
            ("StableDiffusionXLInstructPix2PixPipeline", &base, unet(8, 2048), "other"),
            ("StableDiffusionXLControlNetPipeline", &base, unet(4, 2048), "other"),
            ("StableDiffusionXLPipeline", &base, json!({"in_channels": 4, "cross_attention_dim": 2048}), "other"),
        ] {
            let mut index = index.clone();
            index["_class_name"] = class.into();
            let read = |place: &str| Ok(if place == "model_index.json" { &index } else { &unet }.to_string().into());
            assert_eq!(of_folder(&read).unwrap().to_string(), kind, "{index} {unet}");
        }
    }

    #[test]
    fn a_file_is_told_by_its_tensors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let with = |names: &[&str], channels: u64| {
            let tensor = json!({"dtype": "F16", "shape": [320, channels, 3, 3]});
            let header: BTreeMap<_, _> = names.iter().map(|name| (name, &tensor)).collect();
            let header = json!(header).to_string();
            fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()).unwrap();
            recognise(&path).unwrap().to_string()
        };
        let of = |names: &[&str]| with(names, 4);
        let unet = "model.diffusion_model.input_blocks.0.0.weight";
        let both = ["conditioner.embedders.0.transformer.b", "conditioner.embedders.1.model.c"];
        assert_eq!(of(&[unet, "cond_stage_model.transformer.b"]), "sd1");
        assert_eq!(with(&[unet, "cond_stage_model.transformer.b"], 9), "sd1-inpainting");
        assert_eq!(of(&[unet, "cond_stage_model.model.b"]), "sd2");
        assert_eq!(of(&[unet, both[0], both[1]]), "sdxl");
        assert_eq!(with(&[unet, both[0], both[1]], 9), "sdxl-inpainting");
        assert_eq!(of(&[unet, both[0]]), "other");
        assert_eq!(of(&[unet, "conditioner.embedders.0.model.b"]), "sdxl-refiner");
        assert_eq!(of(&["model.diffusion_model.joint_blocks.0.a"]), "sd3");
        assert_eq!(of(&["lora_unet_a"]), "other");
        for bytes in [&b""[..], b"<html><body>", &[1, 0, 0, 0, 0, 0, 0, 0, b'x']] {
            fs::write(&path, bytes).unwrap();
            assert!(recognise(&path).is_err());
        }
    }
}
