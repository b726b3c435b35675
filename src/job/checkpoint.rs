//! Single-file checkpoints in the layout of the original Stable Diffusion code: what the names of their tensors begin with, part by part.

/// The UNet.
pub const UNET_PREFIX: &str = "model.diffusion_model.";

/// The autoencoder.
pub const AUTOENCODER_PREFIX: &str = "first_stage_model.";

/// The text encoder.
pub const TEXT_ENCODER_PREFIX: &str = "cond_stage_model.";

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
static OTHER_CHECKPOINTS: [OtherCheckpoint; 2] = [
    OtherCheckpoint { prefix: "conditioner.embedders.", family: "sdxl", title: "an SDXL checkpoint" },
    OtherCheckpoint {
        prefix: "cond_stage_model.model.",
        family: "sd2",
        title: "an SD 2 checkpoint (OpenCLIP text encoder)",
    },
];

impl OtherCheckpoint {
    /// The kind of a checkpoint of which `holds` says whether any of its tensors' names begins with a prefix.
    pub fn of(holds: impl Fn(&str) -> bool) -> Option<&'static Self> {
        OTHER_CHECKPOINTS.iter().find(|other| holds(other.prefix))
    }
}
