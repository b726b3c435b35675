//! Single-file checkpoints of SDXL, as far as they differ from those of other families: attention heads of one width, a text encoder in
//! transformers' names and one in OpenCLIP's. The base model and Turbo have the same tensors; what Turbo's scheduler file says, no checkpoint does.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde_json::{Value, json};
use tch::Kind;

use super::load::autoencoder_kind;
use crate::engine::tokenizer::Tokenizer;
use crate::engine::torch::device::target::Target;
use crate::engine::torch::error::LoadError;
use crate::engine::torch::families::checkpoint::{self, HEAD, Layout};
use crate::engine::torch::families::model::{LoadedAutoencoder, Model, ModelFamily};
use crate::engine::torch::families::open_clip;
use crate::engine::torch::networks::clip_text::{ClipTextConfig, ClipTextModel};
use crate::engine::torch::networks::unet::{Unet, UnetConfig};
use crate::engine::torch::networks::vae::Autoencoder;
use crate::engine::torch::weights::config::ConfigFile;
use crate::engine::torch::weights::files::Weights;
use crate::job::Family;
use crate::job::checkpoint::{SDXL_TEXT_ENCODER_PREFIXES, UNET_PREFIX, is_whole as has_parts, parts};
use crate::sampler::NoiseSchedule;

/// The base model's `scheduler/scheduler_config.json`.
const SDXL_SCHEDULER: &str = r#"{
    "_class_name": "EulerDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "prediction_type": "epsilon", "timestep_spacing": "leading", "steps_offset": 1,
    "interpolation_type": "linear", "set_alpha_to_one": false, "skip_prk_steps": true, "clip_sample": false
}"#;

/// Numbers that the UNet is told beside the pooled text.
const NUMBERS: usize = 6;

/// What the second tokenizer of every published SDXL folder pads with.
const PAD: &str = "!";

/// Tensors that some checkpoints have to say that they mean something else, and what.
const MARKS: [(&str, &str); 3] = [
    ("v_pred", "its UNet predicts velocities"),
    ("ztsnr", "its noise schedule ends without any signal"),
    ("edm_mean", "its latents and noise are scaled otherwise"),
];

/// Whether a checkpoint has all parts of an SDXL model, and none that only other families have.
pub(super) fn is_whole(weights: &Weights) -> bool {
    has_parts(Family::Sdxl, |prefix| weights.shapes().any(|(name, _)| name.starts_with(prefix)))
}

/// A model of `family`; without tokenizers beside it those of `clip_tokenizer`.
pub(super) fn model(
    family: &'static dyn ModelFamily,
    path: PathBuf,
    weights: Weights,
    clip_tokenizer: &Path,
    target: Target,
) -> Result<Model, LoadError> {
    let layout = Layout::of(&weights);
    if let Some((mark, meaning)) = MARKS.iter().find(|(mark, _)| layout.has(mark)) {
        let reason = format!("it has a tensor {mark}, so {meaning}; that is not supported");
        return Err(LoadError::Path { path, reason });
    }
    let [first_prefix, second_prefix] = SDXL_TEXT_ENCODER_PREFIXES;
    let first_prefix = layout.text_prefix(first_prefix);
    let first_config = ClipTextConfig::read(&layout.text_encoder(&first_prefix, end_of_text()))?;
    let second_config = ClipTextConfig::read(&open_clip::config(&layout, second_prefix, end_of_text()))?;
    let unet_config = UnetConfig::read(&unet(&layout, second_prefix))?;
    let autoencoder_config = autoencoder(&layout);
    let text = move |name: &str| match name.split_once('/')? {
        ("text_encoder", name) => Some(format!("{first_prefix}{name}").into()),
        (_, name) => open_clip::source(second_prefix, name),
    };
    let weights = checkpoint::renamed(weights, &unet_config, &autoencoder_config, text)?;
    let part = |name: &str| weights.part(name, target.kind);
    let schedule = NoiseSchedule::from_json(SDXL_SCHEDULER);
    let [first_tokenizer, second_tokenizer] = tokenizers(&path, clip_tokenizer)?;
    Ok(Model {
        family,
        tokenizers: vec![first_tokenizer, second_tokenizer],
        text_encoders: vec![
            ClipTextModel::load(&part("text_encoder/"), &first_config)?,
            ClipTextModel::load_with_projection(&part("text_encoder_2/"), &second_config)?,
        ],
        unet: Unet::load(&part("unet/"), &unet_config)?,
        vae: Autoencoder::load(&weights.part("vae/", autoencoder_kind(target.kind, true)), &autoencoder_config)?,
        schedule: Rc::new(schedule.map_err(|cause| LoadError::Schedule { file: path.clone(), cause })?),
        zeros_for_no_negative: true,
        target,
        path,
        maps: weights.finish(harmless)?,
    })
}

/// The autoencoder alone, to compute in `kind`.
pub(super) fn autoencoder_alone(weights: Weights, kind: Kind) -> Result<LoadedAutoencoder, LoadError> {
    let config = autoencoder(&Layout::of(&weights));
    checkpoint::autoencoder_alone(weights, &config, kind)
}

fn unet(layout: &Layout, second_prefix: &str) -> ConfigFile {
    let inputs = layout.size(&format!("{UNET_PREFIX}label_emb.0.0.weight"), 1);
    let pooled = layout.size(&open_clip::projection(second_prefix), 1);
    let added = json!({
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": inputs.saturating_sub(pooled) / NUMBERS,
        "projection_class_embeddings_input_dim": inputs,
    });
    layout.unet(|channels| (channels / HEAD).max(1), added)
}

fn autoencoder(layout: &Layout) -> ConfigFile {
    layout.autoencoder(json!({"scaling_factor": 0.13025}))
}

/// Where the pooled text is taken from: the published configurations say so that it is the highest id.
fn end_of_text() -> Value {
    json!({"eos_token_id": 2})
}

/// Those beside the file, `tokenizer/` and `tokenizer_2/`. The second has the same vocabulary as the first, and another token to pad with.
fn tokenizers(path: &Path, clip_tokenizer: &Path) -> Result<[Tokenizer; 2], LoadError> {
    let [first, second] = ["tokenizer", "tokenizer_2"].map(|name| path.with_file_name(name));
    let first = if first.is_dir() { first.as_path() } else { clip_tokenizer };
    let second = if second.is_dir() { Tokenizer::from_folder(&second) } else { Tokenizer::with_pad_token(first, PAD) };
    Ok([Tokenizer::from_folder(first)?, second?])
}

/// Tensors that inference has no use for.
fn harmless(name: &str) -> bool {
    checkpoint::harmless(name, parts(Family::Sdxl)) || name.ends_with(".logit_scale")
}
