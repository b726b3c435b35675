//! Single-file checkpoints in the layout of the original Stable Diffusion code: what the names of their tensors begin with, part by part.

use super::family::Family;

/// The UNet.
pub const UNET_PREFIX: &str = "model.diffusion_model.";

/// The autoencoder.
pub const AUTOENCODER_PREFIX: &str = "first_stage_model.";

/// The text encoder of SD v1.
pub const TEXT_ENCODER_PREFIX: &str = "cond_stage_model.";

/// The text encoders of SDXL: CLIP ViT-L by transformers' names, then CLIP ViT-bigG by those of `open_clip`.
pub const SDXL_TEXT_ENCODER_PREFIXES: [&str; 2] =
    ["conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."];

/// The text encoder of SDXL's refiner: CLIP ViT-bigG by the names of `open_clip`.
pub const REFINER_TEXT_ENCODER_PREFIX: &str = "conditioner.embedders.0.model.";

/// What a whole checkpoint of `family` holds: its names begin with each of these.
pub const fn parts(family: Family) -> &'static [&'static str] {
    match family {
        Family::Sd1 => &[UNET_PREFIX, AUTOENCODER_PREFIX, TEXT_ENCODER_PREFIX],
        Family::Sdxl => {
            const { &[UNET_PREFIX, AUTOENCODER_PREFIX, SDXL_TEXT_ENCODER_PREFIXES[0], SDXL_TEXT_ENCODER_PREFIXES[1]] }
        }
        Family::SdxlRefiner => &[UNET_PREFIX, AUTOENCODER_PREFIX, REFINER_TEXT_ENCODER_PREFIX],
    }
}

/// The family with which a checkpoint has most parts in common, and those of the family's parts that it lacks. `holds` says whether any of
/// its tensors' names begins with a prefix.
pub fn nearest(holds: impl Fn(&str) -> bool) -> (Family, Vec<&'static str>) {
    let held = |family: &Family| parts(*family).iter().filter(|part| holds(part)).count();
    // Of several the last is taken, so the families are gone through from their end.
    let family = Family::ALL.iter().rev().copied().max_by_key(held).unwrap_or(Family::Sd1);
    (family, parts(family).iter().copied().filter(|part| !holds(part)).collect())
}

/// Whether a checkpoint has all parts of a model of `family`, and none that only others have.
pub fn is_whole(family: Family, holds: impl Fn(&str) -> bool) -> bool {
    OtherCheckpoint::of(&holds).is_none() && nearest(holds) == (family, Vec::new())
}

/// A kind of checkpoint that does not load.
#[derive(Debug, PartialEq, Eq)]
pub struct OtherCheckpoint {
    /// What its tensors' names alone begin with.
    prefix: &'static str,
    /// The name of its family in lists.
    pub family: &'static str,
    /// What it is, for people.
    pub title: &'static str,
}

/// The kinds that are known by name.
static OTHER_CHECKPOINTS: [OtherCheckpoint; 3] = [
    OtherCheckpoint {
        prefix: "cond_stage_model.model.",
        family: "sd2",
        title: "an SD 2 checkpoint (OpenCLIP text encoder)",
    },
    OtherCheckpoint {
        prefix: "model.diffusion_model.joint_blocks.",
        family: "sd3",
        title: "an SD 3 checkpoint, which has a transformer instead of a UNet",
    },
    OtherCheckpoint {
        prefix: "model.diffusion_model.double_blocks.",
        family: "flux",
        title: "a Flux checkpoint, which has a transformer instead of a UNet",
    },
];

impl OtherCheckpoint {
    /// The kind of a checkpoint of which `holds` says whether any of its tensors' names begins with a prefix.
    pub fn of(holds: impl Fn(&str) -> bool) -> Option<&'static Self> {
        OTHER_CHECKPOINTS.iter().find(|other| holds(other.prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VAE: &str = "first_stage_model.decoder.conv_in.bias";
    const UNET: &str = "model.diffusion_model.out.2.bias";
    const CLIP: &str = "cond_stage_model.transformer.text_model.final_layer_norm.bias";
    const CLIP_L: &str = "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias";
    const OPEN_CLIP: &str = "conditioner.embedders.1.model.ln_final.bias";

    /// What a checkpoint with tensors of these names is taken for.
    fn told(names: &[&str]) -> String {
        let holds = |prefix: &str| names.iter().any(|name| name.starts_with(prefix));
        if let Some(other) = OtherCheckpoint::of(holds) {
            assert!(Family::ALL.iter().all(|family| !is_whole(*family, holds)));
            return other.family.to_owned();
        }
        let (family, lacks) = nearest(holds);
        for other in Family::ALL {
            assert_eq!(is_whole(*other, holds), *other == family && lacks.is_empty(), "{other}");
        }
        format!("{} without {lacks:?}", family.name())
    }

    #[test]
    fn a_checkpoint_is_told_by_its_parts() {
        for (names, kind) in [
            (&[UNET, VAE, CLIP][..], "sd1 without []"),
            (&[UNET, VAE, CLIP_L, OPEN_CLIP], "sdxl without []"),
            (&[UNET, VAE, CLIP_L, OPEN_CLIP, CLIP], "sdxl without []"),
            (&[UNET, CLIP_L, OPEN_CLIP], "sdxl without [\"first_stage_model.\"]"),
            (&[UNET, VAE, CLIP_L], "sdxl without [\"conditioner.embedders.1.model.\"]"),
            (&[UNET, VAE], "sd1 without [\"cond_stage_model.\"]"),
            (&[UNET, VAE, "conditioner.embedders.0.model.ln_final.bias"], "sdxl-refiner without []"),
            (&[UNET, VAE, "cond_stage_model.model.ln_final.bias"], "sd2"),
            (&[VAE, "model.diffusion_model.joint_blocks.0.x_block.attn.proj.bias"], "sd3"),
            (&[VAE, "model.diffusion_model.double_blocks.0.img_attn.proj.bias"], "flux"),
        ] {
            assert_eq!(told(names), kind, "{names:?}");
        }
    }
}
