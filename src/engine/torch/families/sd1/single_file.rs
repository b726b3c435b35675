//! Single-file checkpoints of SD v1, as far as they differ from those of other families: 8 attention heads on every level of the UNet, and one text
//! encoder in transformers' names.

use serde_json::json;

use crate::engine::torch::families::checkpoint::{self, Layout};
use crate::engine::torch::weights::config::ConfigFile;
use crate::engine::torch::weights::files::Weights;
use crate::job::Family;
use crate::job::checkpoint::{AUTOENCODER_PREFIX, UNET_PREFIX, is_whole as has_parts};

/// SD 1.5's `scheduler/scheduler_config.json`, which every descendant inherits.
pub(super) const SD15_SCHEDULER: &str = r#"{
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
    "steps_offset": 1, "set_alpha_to_one": false, "skip_prk_steps": true, "clip_sample": false
}"#;

/// Attention heads of the UNet.
const HEADS: usize = 8;

/// What the names of the text encoder's tensors begin with.
pub(super) const CLIP_PREFIX: &str = "cond_stage_model.transformer.";

/// Whether a checkpoint has all parts of an SD v1 model, and none that only other families have.
pub(super) fn is_whole(weights: &Weights) -> bool {
    has_parts(Family::Sd1, |prefix| weights.shapes().any(|(name, _)| name.starts_with(prefix)))
}

/// The UNet's configuration.
pub(super) fn unet(layout: &Layout) -> ConfigFile {
    layout.unet(|_| HEADS, json!({}))
}

/// The autoencoder's configuration.
pub(super) fn autoencoder(layout: &Layout) -> ConfigFile {
    layout.autoencoder(json!({}))
}

/// Tensors of single-file checkpoints that inference has no use for.
pub(super) fn harmless(name: &str) -> bool {
    checkpoint::harmless(name, &[UNET_PREFIX, AUTOENCODER_PREFIX, CLIP_PREFIX])
}
